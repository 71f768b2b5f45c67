"""What a model has read: rows of tokens behind a cache, read on by branching rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from losia_cli.evaluation.decoding import empty_cache, sharing_heads

_AT_ONCE = 16384  # tokens of a forward pass, padding too: enough to keep a GPU busy
WORTH_SHARING = 32  # tokens that prompts begin with


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


def start(model: Any, rows: int, room: int = 0) -> Past:
    """The past of `rows` rows that have read nothing, with room for so many tokens in each."""
    return Past(
        empty_cache(model.config, room), torch.zeros(rows, 0, dtype=torch.long, device=model.device)
    )


def read(model: Any, past: Past, tokens: Sequence[Sequence[int]], *, last: bool) -> Tensor:
    """Let every row of `past`, which is updated, read some more tokens.

    Long prompts are read part by part, so that what a pass needs beside the cache stays bounded.

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
    ids, real = (
        torch.tensor(values, device=past.mask.device)
        for values in zip(*(_padded(row, longest, left=last) for row in tokens), strict=True)
    )
    width = max(1, _AT_ONCE // past.rows) if last else longest
    for begin in range(0, longest, width):
        part = ids[:, begin : begin + width]
        past.mask = torch.cat([past.mask, real[:, begin : begin + width]], dim=1)
        positions = (past.mask.cumsum(1) - 1).clamp(min=0)[:, -part.shape[1] :]
        with sharing_heads():
            result = model(
                input_ids=part,
                attention_mask=past.mask,
                position_ids=positions,
                past_key_values=past.cache,
                use_cache=True,
                logits_to_keep=1 if last else 0,
            )
    return result.logits


def read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], further: int, *, share: bool
) -> tuple[Past, Tensor, int]:
    """Read prompts and, if they `share`, what some of them begin with once.

    Args:
        model: a causal language model of transformers.
        prompts: tokens, at least one each.
        further: how many tokens each row is going to read after its prompt.
        share: whether beginnings may be shared, which leaves gaps of padding inside rows.

    Returns:
        What was read; the logits after each prompt, `[rows, 1, vocabulary]`; how many tokens it
        took.
    """
    heads, whose = _beginnings(prompts) if share else ([], [])
    rests = prompts
    if heads:
        rests = [prompt[len(heads[one]) :] for prompt, one in zip(prompts, whose, strict=True)]
    room = max(map(len, heads), default=0) + max(map(len, rests)) + further
    past = start(model, len(heads) or len(rests), room)
    if heads:
        read(model, past, heads, last=True)
        past.select(whose)
    return past, read(model, past, rests, last=True), sum(map(len, [*heads, *rests]))


def _beginnings(prompts: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    """What groups of prompts begin with, and each one's group; nothing if it saves too little."""
    openings = [tuple(prompt[:WORTH_SHARING]) for prompt in prompts]
    groups = list(dict.fromkeys(openings))
    whose = [groups.index(opening) for opening in openings]
    heads = [
        _beginning([prompt for prompt, one in zip(prompts, openings, strict=True) if one == group])
        for group in groups
    ]
    rest = max(len(prompt) - len(heads[one]) for prompt, one in zip(prompts, whose, strict=True))
    read_anew = len(heads) * max(map(len, heads)) + len(prompts) * rest
    saved = len(prompts) * max(map(len, prompts)) - read_anew
    worth_it = all(heads) and saved >= max(1, WORTH_SHARING * (len(prompts) - 1))
    return (heads, whose) if worth_it else ([], [])


def _beginning(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The tokens that all begin with, without the last one of the shortest."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return prompts[0][: min(sum(1 for _ in alike), min(map(len, prompts)) - 1)]


def _padded(tokens: Sequence[int], length: int, *, left: bool) -> tuple[list[int], list[int]]:
    """The tokens padded to a length, and a mask of what is not padding."""
    gap = [0] * (length - len(tokens))
    ones = [1] * len(tokens)
    return ([*gap, *tokens], gap + ones) if left else ([*tokens, *gap], ones + gap)
