"""What a plan will take: hours and memory as the paper reports them, disk by arithmetic."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from losia_cli.errors import UserError
from losia_cli.reproduction import paper
from losia_cli.reproduction.cell import BASE, Cell

# Parameters of the published checkpoints, in billions.
_BILLIONS = {"gemma-2b": 2.51, "llama2-7b": 6.74, "llama2-13b": 13.02, "llama3.2-3b": 3.21}
_BYTES = 2  # of a weight, in bfloat16
_CHECKPOINTS = 2  # `save_total_limit` of the recipes
# Of all parameters, what trains: a weight in a checkpoint brings two moments and a copy of itself.
_TRAINS = {"full": 1.0, "full-8bit": 1.0, "galore": 0.2}
_LITTLE = 0.03


def hours(cell: Cell) -> float | None:
    """The hours of training that the paper reports for such a cell; None where it reports none.

    Table 1 gives the longest of three tasks, which is taken for each. Table 2's is taken for the
    largest set, and the others' by their rows (Table 8).
    """
    if cell.method == BASE:
        return 0.0
    pro = cell.method != "losia" and _row(cell) == "losia"
    if cell.dataset in ("metamath", "magicoder", "alpaca-gpt4"):
        column = "Time(h), Pro" if pro else "Time(h)"
        return paper.value(1, column, model=cell.model, method=_row(cell))
    whole = paper.value(2, "Time(h)", model=cell.model, method=_row(cell))
    rows = {_plain(row.fields["dataset"]): row.values["train"] for row in paper.table(8).rows}
    here, largest = rows.get(_plain(cell.dataset)), rows["hellaswag"]
    return whole * here / largest if whole and here and largest else None


def memory(cell: Cell) -> float | None:
    """The GPU memory that the paper reports, in GB; None where it reports none."""
    if cell.method == BASE:
        return None
    number = 1 if cell.dataset in ("metamath", "magicoder", "alpaca-gpt4") else 2
    return paper.value(number, "Mem(GB)", model=cell.model, method=_row(cell))


def disk(cells: Sequence[Cell], keep: bool) -> float:
    """GB that are taken at the most: one cell's checkpoints, and every model that stays."""
    trained = [cell for cell in cells if cell.method != BASE]
    at_work = max((_checkpoints(cell) + _model(cell) for cell in trained), default=0.0)
    return at_work + (sum(_model(cell) for cell in trained) if keep else 0.0)


def expect_enough(cells: Sequence[Cell], root: Path, keep: bool) -> None:
    """Refuse a plan for which the disk or the GPU is too small.

    Raises:
        UserError: it says what is missing.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "no GPU is to be seen, and these models need one: --miniature runs the same plan on"
            " tiny models here, and --dry-run shows what it takes"
        )
    there = torch.cuda.get_device_properties(0).total_memory / 1e9
    for cell in cells:
        needed = memory(cell)
        if needed is not None and needed > there:
            raise UserError(
                f"{cell.title} took {needed:g} GB of GPU memory in the paper, and this GPU has"
                f" {there:.0f}: leave it out with --model or --method"
            )
    place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(place).free / 1e9, disk(cells, keep)
    if free < needed:
        advice = "drop models after scoring (without --keep), or " if keep else ""
        raise UserError(
            f"{place} has {free:.0f} GB free, and the plan takes up to {needed:.0f} GB: {advice}"
            "name a folder on another disk with --output DIR"
        )


def _row(cell: Cell) -> str:
    """The paper's row of the cell: variants of LoSiA cost what it does."""
    ours = cell.method.startswith(("losia", "ablations/"))
    return "losia" if ours else cell.method


def _share(cell: Cell) -> float:
    return _TRAINS.get(_row(cell), _LITTLE)


def _model(cell: Cell) -> float:
    """GB of the trained model: an adapter alone, or all weights."""
    share = _LITTLE if cell.method in ("lora", "dora", "pissa") else 1.0
    return _BILLIONS.get(cell.model, 0.0) * _BYTES * share


def _checkpoints(cell: Cell) -> float:
    trains = _BILLIONS.get(cell.model, 0.0) * _BYTES * _share(cell)
    return _CHECKPOINTS * (_model(cell) + 3 * trains)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
