"""Keys and values stay where they are, and heads that share them are not copied.

A step of decoding reads all keys and values once, by need. Transformers copies them as well: to
append a token, and to repeat them for each query head that shares them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from losia_cli.errors import UserError

_SDPA = "sdpa"


def empty_cache(config: Any, room: int = 0) -> DynamicCache:
    """A cache for a model of this configuration, whose layers of full attention grow in place.

    Args:
        config: the model's.
        room: how many tokens a row is going to read; further ones are appended by copying all.

    Raises:
        UserError: some of its layers hold a state that cannot be branched into rows.
    """
    cache = DynamicCache(config=config)
    if not all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        raise UserError(
            f"models of type {config.model_type} keep a state that cannot be branched, as `losia"
            " eval` does: ask it by --backend vllm or lm-evaluation-harness itself"
        )
    cache.layers = [_Growing(room) if type(one) is DynamicLayer else one for one in cache.layers]
    return cache


class _Growing(DynamicLayer):
    """`keys` and `values` `[rows, heads, tokens, size]` are the beginning of larger buffers.

    They are transformers' own where a row reads more tokens than there is room for.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if end > self._room:
            self._buffers = []
            return super().update(key_states, value_states, *args, **kwargs)
        if not begin:
            self.lazy_initialization(key_states, value_states)
            self._buffers = [_room_for(new, self._room) for new in (key_states, value_states)]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = new
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self._buffers:
            self._buffers = [buffer[indices] for buffer in self._buffers]
            self._show(self.get_seq_length())
        else:
            super().batch_select_indices(indices)

    def _show(self, tokens: int) -> None:
        self.keys, self.values = (buffer[:, :, :tokens] for buffer in self._buffers)


def _room_for(new: Tensor, room: int) -> Tensor:
    rows, heads, _, size = new.shape
    return new.new_empty(rows, heads, room, size)


@contextmanager
def sharing_heads() -> Iterator[None]:
    """Let the models that are called inside attend by `attend`, if they do by torch's kernels."""
    ALL_ATTENTION_FUNCTIONS[_SDPA] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[_SDPA]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of one further token a row; of more, it is transformers' own.

    The query heads that share keys and values are laid beside each other as if they were tokens.

    Args:
        module: the attention layer.
        query: `[rows, query heads, tokens, size]`.
        key: `[rows, heads, tokens read, size]`.
        value: likewise.
        attention_mask: what may be seen, `[rows, 1, tokens, tokens read]`; None: everything.
        dropout: none in evaluation.
        scaling: of the products; by default one over the root of the size.
        kwargs: as transformers passes them.

    Returns:
        `[rows, tokens, query heads, size]`, and None for the weights.
    """
    rows, heads, tokens, size = query.shape
    shared = key.shape[1]
    if tokens > 1 or heads == shared:
        plain = module, query, key, value, attention_mask, dropout, scaling
        return sdpa_attention_forward(*plain, **kwargs)
    together = query.reshape(rows, shared, heads // shared, size)
    found = functional.scaled_dot_product_attention(
        together, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return found.reshape(rows, 1, heads, size), None
