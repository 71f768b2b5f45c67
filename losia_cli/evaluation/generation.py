"""Responses token by token: rows leave the batch when they are done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from losia_cli.evaluation.reading import Past, read
from losia_cli.evaluation.sampling import Sampling, draw, greedy

_STILL_WORTH_IT = 0.75  # of a batch's rows; with fewer going on, the others' cache is dropped
_BROKEN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class NotANumber(Exception):
    """The model's logits are NaN; the argument is the row."""


@dataclass(frozen=True)
class Rules:
    """How tokens are chosen, and when a response ends.

    Attributes:
        max_tokens: tokens at most.
        stop: texts that end a response and do not belong to it.
        eos: tokens that end a response.
        sampling: how tokens are drawn; None takes the most likely one.
        settled: whether a response that begins with these tokens can be scored in one way only.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    eos: frozenset[int] = frozenset()
    sampling: Sampling | None = None
    settled: Callable[[Sequence[int]], bool] | None = None

    def ended(self, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> bool:
        """Whether the response of these tokens is over; `decode` keeps special tokens."""
        if tokens[-1] in self.eos:
            return True
        if self._may_stop(decode(tokens[-1:])):
            # A token has at least a character, but for the parts of one and for special tokens.
            tail = decode(tokens[-(max(map(len, self.stop), default=0) + 8) :])
            if any(text and text in tail for text in self.stop):
                return True
        return self.settled is not None and self.settled(tokens)

    def _may_stop(self, piece: str) -> bool:
        """Whether a stop text can end in a token, of which this is read alone."""
        lasts = {text[-1] for text in self.stop if text}
        # Alone, a token may lack the space that it begins with, or be part of a character.
        return not lasts.isdisjoint({*piece, " "}) or _BROKEN_CHARACTER in piece or not piece


def generate(
    model: Any,
    past: Past,
    logits: Tensor,
    rules: Rules,
    chances: Sequence[Sequence[float]],
    decode: Callable[[Sequence[int]], str],
) -> list[list[int]]:
    """Let every row of `past` respond.

    Args:
        model: a causal language model of transformers.
        past: what the rows have read; used up.
        logits: `[rows, 1, vocabulary]`, after each row's last token.
        rules: how tokens are chosen and when a response ends.
        chances: `max_tokens` uniform numbers for each row, if tokens are drawn.
        decode: the text of tokens, special ones included.

    Returns:
        Each row's tokens, with the one that ended it.

    Raises:
        NotANumber: logits are NaN.
    """
    responses: list[list[int]] = [[] for _ in range(past.rows)]
    done = [False] * past.rows
    places = list(range(past.rows))  # which response a row of the past belongs to
    for step in range(rules.max_tokens):
        for place, token in zip(places, _choose(logits, rules, chances, places, step), strict=True):
            if not done[place]:
                responses[place].append(token)
                done[place] = rules.ended(responses[place], decode)
        going = [row for row, place in enumerate(places) if not done[place]]
        if not going or step + 1 == rules.max_tokens:
            break
        if len(going) <= _STILL_WORTH_IT * len(places):
            past.select(going)
            places = [places[row] for row in going]
        logits = read(model, past, [responses[place][-1:] for place in places], last=True)
    return responses


def _choose(
    logits: Tensor,
    rules: Rules,
    chances: Sequence[Sequence[float]],
    places: Sequence[int],
    step: int,
) -> list[int]:
    missing = logits.isnan().any(-1)[:, -1].tolist()
    if any(missing):
        raise NotANumber(places[missing.index(True)])
    if rules.sampling is None:
        return greedy(logits[:, -1])
    return draw(logits[:, -1], [chances[place][step] for place in places], rules.sampling)
