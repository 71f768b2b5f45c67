"""What a model has read: rows of tokens behind a cache, read on by branching rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from losia_cli.evaluation.decoding import empty_cache, sharing_heads


@dataclass
class Past:
    """Rows of tokens that a model has read.

    Attributes:
        cache: the keys and values of all layers.
        mask: `[rows, positions]` int64, 1 where a position holds a token and 0 where it pads.
    """

    cache: DynamicCache
    mask: Tensor

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.mask.shape[0]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order; a row may be named more than once."""
        if list(rows) == list(range(self.rows)):
            return
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]


def start(model: Any, rows: int) -> Past:
    """The past of `rows` rows that have read nothing."""
    return Past(
        empty_cache(model.config), torch.zeros(rows, 0, dtype=torch.long, device=model.device)
    )


def read(model: Any, past: Past, tokens: Sequence[Sequence[int]], *, last: bool) -> Tensor:
    """Let every row of `past`, which is updated, read some more tokens.

    Args:
        model: a causal language model of transformers.
        past: what the rows have read.
        tokens: the further tokens of each row, at least one.
        last: whether the logits after each row's last token are wanted alone; else those after
            every token, rows padded on the right.

    Returns:
        `[rows, 1, vocabulary]` if `last`, else `[rows, longest, vocabulary]`, in the model's dtype.
    """
    longest = max(map(len, tokens))
    ids, real = zip(*(_padded(row, longest, left=last) for row in tokens), strict=True)
    new = torch.tensor(real, device=past.mask.device)
    mask = torch.cat([past.mask, new], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -longest:]
    with sharing_heads():
        result = model(
            input_ids=torch.tensor(ids, device=past.mask.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past.cache,
            use_cache=True,
            logits_to_keep=1 if last else 0,
        )
    past.mask = mask
    return result.logits


def _padded(tokens: Sequence[int], length: int, *, left: bool) -> tuple[list[int], list[int]]:
    """The tokens padded to a length, and a mask of what is not padding."""
    gap = [0] * (length - len(tokens))
    ones = [1] * len(tokens)
    return ([*gap, *tokens], gap + ones) if left else ([*tokens, *gap], ones + gap)
