"""Requests in batches: a pure function of the requests, so that a resumed run makes the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

Request = TypeVar("Request")

_CACHE_BYTES = 32 * 2**30  # keys and values of the largest batch on a GPU
_CACHE_TOKENS = 2**18  # likewise, however small the model is


@dataclass(frozen=True)
class Limit:
    """How much goes into one batch.

    Attributes:
        tokens: padded tokens at most, counted with what is to be generated; a single larger
            request is a batch of its own.
        to_generate: likewise where responses are generated, whose steps mostly cost the reading of
            the weights, however many rows there are.
        prompts: prompts at most, with all their choices; None for as many as the tokens allow.
    """

    tokens: int
    to_generate: int
    prompts: int | None = None

    def generating(self) -> "Limit":
        """The limit where responses are generated."""
        return replace(self, tokens=self.to_generate)

    def __str__(self) -> str:
        if self.prompts is not None:
            return str(self.prompts)
        return f"{self.tokens} tokens, {self.to_generate} to generate"


def limit_for(config: Any, dtype: torch.dtype, device: str) -> Limit:
    """What suits a model of this configuration; on a GPU, by the keys and values it remembers."""
    if device == "cpu":
        return Limit(4096, 16384)
    text = config.get_text_config()
    if getattr(text, "num_attention_heads", None) is None:  # it remembers something else
        return Limit(16384, 16384)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * heads * size * dtype.itemsize
    return Limit(16384, max(16384, min(_CACHE_TOKENS, _CACHE_BYTES // token)))


def cut(
    requests: Sequence[Request],
    rows: Callable[[Request], int],
    length: Callable[[Request], int],
    limit: Limit,
) -> list[list[Request]]:
    """Cut requests, in the given order, into batches.

    Args:
        requests: in the order of the batches.
        rows: how many rows a request takes.
        length: how many tokens the longest row of a request has.
        limit: what a batch may hold.
    """
    batches: list[list[Request]] = []
    width = height = 0
    for request in requests:
        widened, heightened = max(width, length(request)), height + rows(request)
        full = limit.prompts is not None and batches and len(batches[-1]) >= limit.prompts
        over = limit.prompts is None and widened * heightened > limit.tokens
        if not batches or full or over:
            batches.append([])
            widened, heightened = length(request), rows(request)
        batches[-1].append(request)
        width, height = widened, heightened
    return batches
