"""Requests in batches: a pure function of the requests, so that a resumed run makes the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

_GENERATING = 4  # times as many tokens: a step's cost is mostly that of the weights


@dataclass(frozen=True)
class Limit:
    """How much goes into one batch.

    Attributes:
        tokens: padded tokens at most, counted with what is to be generated; a single larger
            request is a batch of its own.
        requests: requests at most; None for as many as the tokens allow.
    """

    tokens: int
    requests: int | None = None

    def generating(self) -> "Limit":
        """The limit where responses are generated."""
        return replace(self, tokens=_GENERATING * self.tokens)

    def __str__(self) -> str:
        if self.requests is not None:
            return str(self.requests)
        return f"{self.tokens} tokens, {self.generating().tokens} to generate"


def cut(
    order: Sequence[int], rows: Callable[[int], int], length: Callable[[int], int], limit: Limit
) -> list[list[int]]:
    """Cut requests, in the given order, into batches.

    Args:
        order: the numbers of the requests.
        rows: how many rows a request takes.
        length: how many tokens the longest row of a request has.
        limit: what a batch may hold.
    """
    batches: list[list[int]] = []
    width = height = 0
    for number in order:
        widened, heightened = max(width, length(number)), height + rows(number)
        full = limit.requests is not None and batches and len(batches[-1]) >= limit.requests
        over = limit.requests is None and widened * heightened > limit.tokens
        if not batches or full or over:
            batches.append([])
            widened, heightened = length(number), rows(number)
        batches[-1].append(number)
        width, height = widened, heightened
    return batches
