"""Trainable parameters and memory by size: LoRA's ranks and LoSiA's factors, the paper's Table 14.

The parameters are counted in the method put into a model without memory. Memory is measured, on a
GPU alone, as the peak of training steps; LoSiA's with a group being scored, as at any time of a
real run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import torch
from transformers import PreTrainedModel

from losia_cli import paper
from losia_cli.bench.methods import Row, install
from losia_cli.bench.models import load_base, sharing_copy
from losia_cli.bench.settings import SIZE_METHODS, StepSettings, refuse_unknown
from losia_cli.bench.step import (
    find_device,
    largest_peak,
    machine,
    phase_seconds,
    prepare_training,
    take_turns,
)
from losia_cli.bench.table import OPEN, heading, table

RANKS = (16, 64, 256, 1024)
RANK_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
OUTPUT_FACTORS = (1 / 8, 1)
TABLE = 14


def run_size_benchmark(
    settings: StepSettings, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Count every size of the methods in `settings`, and measure it where there is a GPU.

    Args:
        settings: the methods, of `SIZE_METHODS`, and how to measure.
        progress: called with a line before each turn.

    Returns:
        What JSON can hold: the settings as used, the machine, and by the size's name its
        `trainable` parameters and, if measured, its `seconds` and `peak_bytes`.

    Raises:
        UserError: an unknown method, or the model cannot be loaded.
    """
    refuse_unknown(settings.methods, SIZE_METHODS)
    device = find_device()
    settings = settings.filled(on_gpu=device.type == "cuda")
    named = sizes(settings.methods)
    dtype = getattr(torch, settings.dtype)
    empty = load_base(settings.model, dtype, torch.device("meta"))
    found = {name: {"trainable": count(row, empty)} for name, row in named.items()}
    if device.type == "cuda":
        base = load_base(settings.model, dtype, device)
        for name, entry in measure(named, base, settings, progress).items():
            found[name] |= entry
    return {
        "benchmark": "sizes",
        "settings": asdict(settings),
        "machine": machine(device),
        "rows": found,
    }


def sizes(methods: Sequence[str]) -> dict[str, Row]:
    """Every size of `methods` by its name, such as `lora r=16` and `losia p=1/8 p_o=1`."""
    named = {}
    for method in methods:
        if method.startswith("losia"):
            for output in OUTPUT_FACTORS:
                for factor in RANK_FACTORS:
                    row = Row(method, scored=True, rank_factor=factor, output_factor=output)
                    named[f"{method} p={Fraction(factor)} p_o={Fraction(output)}"] = row
        else:
            named |= {f"{method} r={rank}": Row(method, rank=rank) for rank in RANKS}
    return named


def count(row: Row, base: PreTrainedModel) -> int:
    """How many parameters `row` trains in `base`, which can be on the meta device."""
    trained, _ = install(row, sharing_copy(base))
    return sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)


def measure(
    named: Mapping[str, Row],
    base: PreTrainedModel,
    settings: StepSettings,
    progress: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """The seconds and the peak of every row by its name, from training steps on `base`."""
    prepared = prepare_training(named, base, settings)
    turns = take_turns(prepared, settings.repeats, base.device, progress)
    return {
        name: {
            "seconds": phase_seconds([step for turn in mine for step in turn.steps]),
            "peak_bytes": largest_peak(mine),
        }
        if mine
        else {"out_of_memory": True}
        for name, mine in turns.items()
    }


def render(result: dict[str, Any]) -> str:
    """The result of `run_size_benchmark` as a table, LLaMA-2 7B's beside the paper's."""
    printed = result["settings"]["model"] == "llama2-7b"
    named = sizes(result["settings"]["methods"])
    header = [
        "",
        "trained (M)",
        *["paper", "difference"] * printed,
        "peak GB",
        *["paper"] * printed,
    ]
    lines = [
        [name, *_cells(entry, named[name] if printed else None)]
        for name, entry in result["rows"].items()
    ]
    legend = f"peak GB: of allocated memory, measured on a GPU alone; {OPEN} where it was not."
    return "\n".join([heading(result), "", table(header, lines), "", legend])


def _cells(entry: dict[str, Any], row: Row | None) -> list[str]:
    """The numbers of a line; of the paper as well, if `row` is given."""
    trained = entry["trainable"] / 1e6
    measured = f"{entry['peak_bytes'] / 1e9:.2f}" if entry.get("peak_bytes") else OPEN
    if "out_of_memory" in entry:
        measured = "out of memory"
    if row is None:
        return [f"{trained:.1f}", measured]
    theirs, memory = (_printed(row, column) for column in ("trainable", "Mem(GB)"))
    return [
        f"{trained:.1f}",
        OPEN if theirs is None else f"{theirs:.1f}",
        OPEN if theirs is None else f"{trained / theirs - 1:+.1%}",
        measured,
        OPEN if memory is None else f"{memory:.2f}",
    ]


def _printed(row: Row, column: str) -> float | None:
    if row.method.startswith("losia"):
        factors = {"p": str(Fraction(row.rank_factor)), "p_o": str(Fraction(row.output_factor))}
        return paper.value(TABLE, column, method="losia", **factors)
    return paper.value(TABLE, column, method=row.method, rank=str(row.rank))
