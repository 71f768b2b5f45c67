"""Which neurons a LoSiA run selected, how often and for how long: the paper's Figures 3 and 7."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from losia_cli.errors import UserError
from losia_cli.run_folder import SELECTIONS

SIDES = ("rows", "columns")


@dataclass(frozen=True)
class History:
    """The subnets that one linear had, K of them, in order.

    Attributes:
        linear: its name in the model.
        steps: how many steps were done when each was chosen, 0 for the first, (K,).
        rows: whether an output neuron was selected, (K, N) bool.
        columns: whether an input neuron was, (K, M) bool.
    """

    linear: str
    steps: tuple[int, ...]
    rows: Tensor
    columns: Tensor

    @property
    def kind(self) -> str:
        """The last part of its name, which the linears of all layers share."""
        return self.linear.rpartition(".")[2]


@dataclass(frozen=True)
class Side:
    """What became of the rows, or of the columns, of a linear.

    Attributes:
        share: of the neurons that one subnet selects.
        ever: the share that was selected at least once.
        kept: the share of a subnet's neurons that the one before it had too; None for one subnet.
    """

    share: float
    ever: float
    kept: float | None


def read(run: Path) -> list[History]:
    """What the run in a folder trained, linear by linear.

    Raises:
        UserError: it has no record of it, or a damaged one.
    """
    path = run / SELECTIONS
    if not path.is_file():
        raise UserError(f"{run} holds no {SELECTIONS}: name the output_dir of a LoSiA run")
    found: dict[str, list[dict[str, object]]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            found.setdefault(entry["linear"], []).append(entry)
        return [_history(name, entries) for name, entries in found.items()]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _history(name: str, entries: Sequence[dict]) -> History:
    sizes = dict(zip(SIDES, entries[0]["shape"], strict=True))
    masks = {side: torch.zeros(len(entries), size).bool() for side, size in sizes.items()}
    for place, entry in enumerate(entries):
        for side, mask in masks.items():
            mask[place, slice(None) if entry[side] is None else entry[side]] = True
    return History(name, tuple(entry["steps"] for entry in entries), **masks)


def frequency(selected: Tensor) -> Tensor:
    """How often each neuron is in a subnet, of (K, N) bool: (N,), from 0 to 1."""
    return selected.double().mean(0)


def side(selected: Tensor) -> Side:
    """What became of the rows, or columns, that K subnets selected, (K, N) bool."""
    again = (selected[1:] & selected[:-1]).sum(1) / selected[1:].sum(1)
    return Side(
        share=selected.double().mean().item(),
        ever=selected.any(0).double().mean().item(),
        kept=again.double().mean().item() if len(again) else None,
    )


def by_chance(one: Side, subnets: int) -> Side:
    """What subnets drawn anew, uniformly, would be expected to do."""
    ever = 1 - (1 - one.share) ** subnets
    return Side(one.share, ever, one.share if subnets > 1 else None)


def likeness(ours: Sequence[History], theirs: Sequence[History], name: str) -> float | None:
    """How alike two runs are in which neurons they select often, from -1 to 1.

    The mean over linears of the correlation of their neurons' frequencies.

    Args:
        ours: of one run.
        theirs: of another.
        name: a side.

    Returns:
        None where no linear that both have is selected from.
    """
    others = {history.linear: getattr(history, name) for history in theirs}
    pairs = [
        (frequency(getattr(history, name)), frequency(others[history.linear]))
        for history in ours
        if history.linear in others
    ]
    found = [
        torch.corrcoef(torch.stack(pair))[0, 1].item()
        for pair in pairs
        if pair[0].shape == pair[1].shape and all(each.std() > 0 for each in pair)
    ]
    return fmean(found) if found else None


def kinds(histories: Sequence[History]) -> Iterator[tuple[str, list[History]]]:
    """The linears of all layers by their kind."""
    for kind in dict.fromkeys(history.kind for history in histories):
        yield kind, [history for history in histories if history.kind == kind]


def mean(found: Sequence[Side]) -> Side:
    """The mean of several linears' sides."""
    kept = [one.kept for one in found if one.kept is not None]
    return Side(
        fmean(one.share for one in found),
        fmean(one.ever for one in found),
        fmean(kept) if kept else None,
    )
