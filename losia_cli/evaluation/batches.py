"""Requests in batches: a pure function of the requests, so that a resumed run makes the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

Request = TypeVar("Request")

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
        full = limit.requests is not None and batches and len(batches[-1]) >= limit.requests
        over = limit.requests is None and widened * heightened > limit.tokens
        if not batches or full or over:
            batches.append([])
            widened, heightened = length(request), rows(request)
        batches[-1].append(request)
        width, height = widened, heightened
    return batches
