"""What a plan will take: hours and memory as published, disk by arithmetic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losia_cli import paper
from losia_cli.data.info import names_in
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError
from losia_cli.files import free_disk
from losia_cli.recipes.needs import needs_gpu
from losia_cli.reproduction import peft_suite
from losia_cli.reproduction.cell import BASE, Cell

# Parameters of the published checkpoints, in billions, by what a cell calls the model.
_BILLIONS = {"gemma-2b": 2.51, "llama2-7b": 6.74, "llama2-13b": 13.02, "llama3.2-3b": 3.21}
_BYTES = 2  # of a weight, in bfloat16
_CHECKPOINTS = 2  # `save_total_limit` of the recipes
_LITTLE = 0.03  # the part of all parameters that an adapter or LoSiA's subnets are
_GALORE = 0.2  # likewise of GaLore: moments of rank 512 of 4,096, and all of the output layer


def hours(cell: Cell) -> float | None:
    """The hours of training as published; None where none are for such a cell.

    The paper reports those of one training or of several together: others are in proportion to
    their rows. A cell that is told how many steps to train is none of the paper's.
    """
    if cell.method == BASE:
        return 0.0
    if theirs := peft_suite.reported(cell):
        return theirs["step seconds"] / 3600
    values = _published(cell)
    reported = paper.hours(values)
    names = names_in(values["dataset"])
    wanted = SETS.get(names[0]) if len(names) == 1 else None
    if reported is None or wanted is None or values.get("max_steps", -1) > 0:
        return None
    return reported * (wanted.rows or wanted.published) / paper.rows_trained(values)


def memory(cell: Cell) -> float | None:
    """The GPU memory as published, in GB; None where none is, or no GPU is asked for."""
    values = _published(cell)
    if cell.method == BASE or not needs_gpu(values):
        return None
    if theirs := peft_suite.reported(cell):
        return theirs["memory"] / 1e9
    return paper.memory(values)


def disk(cells: Sequence[Cell], keep: bool) -> float:
    """GB that are taken at the most: one cell's checkpoints, and every model that stays."""
    trained = [cell for cell in cells if cell.method != BASE]
    at_work = max((_checkpoints(c) + _model(c) + _start(c) for c in trained), default=0.0)
    kept = sum(_model(c) + (_start(c) if _adapter(c) else 0.0) for c in trained)
    return at_work + (kept if keep else 0.0)


def gpu() -> float | None:
    """GB of the first GPU's memory; None where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / 1e9


def expect_enough(cells: Sequence[Cell], root: Path, keep: bool, there: float | None) -> None:
    """Refuse a plan for which the disk or the GPU is too small.

    Args:
        cells: those that are to do.
        root: where they are kept.
        keep: whether their weights stay.
        there: `gpu()`.

    Raises:
        UserError: it says what is missing.
    """
    if there is None:
        raise UserError(
            "no GPU is to be seen, and these models need one: --miniature runs the same plan on"
            " tiny models here, and --dry-run shows what it takes"
        )
    for cell in cells:
        needed = memory(cell)
        if needed is not None and needed > there:
            raise UserError(
                f"{cell.title} took {needed:g} GB of GPU memory as published, and this GPU has"
                f" {there:.0f}: leave it out with --model or --method"
            )
    (place, free), needed = free_disk(root), disk(cells, keep)
    if free < needed:
        advice = "drop models after scoring (without --keep), or " if keep else ""
        raise UserError(
            f"{place} has {free:.0f} GB free, and the plan takes up to {needed:.0f} GB: {advice}"
            "name a folder on another disk with --output DIR"
        )


def _published(cell: Cell) -> dict[str, Any]:
    """The cell's recipe, with the model's published name wherever the model lies."""
    names = {ours: name for name, ours in paper.MODELS.items()}
    values = cell.resolved.values
    return {**values, "model_name_or_path": names.get(cell.model, values["model_name_or_path"])}


def _billions(cell: Cell) -> float:
    """Of the parameters of a model that is trained on a GPU; 0 where that is not known."""
    return _BILLIONS.get(cell.model, 0.0) if needs_gpu(cell.resolved.values) else 0.0


def _adapter(cell: Cell) -> bool:
    return cell.resolved.values["finetuning_type"] == "lora"


def _start(cell: Cell) -> float:
    """GB of what a cell of a sequence starts from: the one before, an adapter's being merged."""
    return 0.0 if cell.after is None else _billions(cell) * _BYTES


def _model(cell: Cell) -> float:
    """GB of the trained model: an adapter alone, or all weights."""
    return _billions(cell) * _BYTES * (_LITTLE if _adapter(cell) else 1.0)


def _checkpoints(cell: Cell) -> float:
    """GB of the checkpoints: the model, and of all that trains two moments and a copy of itself."""
    values = cell.resolved.values
    part = _LITTLE
    if values["finetuning_type"] == "full":
        part = _GALORE if values.get("use_galore") else 1.0
    return _CHECKPOINTS * (_model(cell) + 3 * part * _billions(cell) * _BYTES)
