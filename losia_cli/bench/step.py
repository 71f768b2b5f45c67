"""Seconds of a training step, method by method, against LoRA and against the floor.

The floor is forward and input gradients alone, with all weights frozen: no method that
back-propagates through every layer can be faster. Scored LoSiA steps need the full gradient of one
group on top: their floor has that product added.

A turn of a row: a fresh copy of the base that shares its weights, the method put in, one step to
warm up, a few measured ones, everything dropped. A round gives every row its turn, so that all
see the same machine, ratios are taken within a round, and no row's memory burdens another's.
"""

import gc
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from losia_cli.bench import galore
from losia_cli.bench.clock import Phase, spread, time_phases
from losia_cli.bench.methods import (
    STEPS_PER_TURN,
    FullGradient,
    Row,
    TrainingStep,
    rows,
    scored_group,
)
from losia_cli.bench.models import load_base, sharing_copy
from losia_cli.bench.settings import FLOOR, STEP_METHODS, StepSettings, refuse_unknown
from losia_cli.bench.table import heading, table
from losia_cli.run_folder import versions

FULL_GRADIENT = "full gradient of the scored group"
PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True)
class Turn:
    """The measured steps of one turn: the seconds of each one's phases, and the peak of memory.

    `first` are the seconds of the whole first step, which is not among `steps`.
    """

    steps: list[tuple[float, ...]]
    peak_bytes: int | None = None
    first: float = 0.0

    def seconds(self, phases: slice = slice(None)) -> float:
        """The median over the steps of the chosen phases together."""
        return statistics.median(sum(step[phases]) for step in self.steps)


Turns = Mapping[str, Sequence[Turn]]


def run_step_benchmark(
    settings: StepSettings, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure every row of `settings` in turns, and summarize.

    Args:
        settings: what to measure.
        progress: called with a line before each turn.

    Returns:
        What JSON can hold: the settings as used, the machine, the scored linears, and the rows of
        `summarize`.

    Raises:
        UserError: an unknown method, the model cannot be loaded, or GaLore's package is not there.
    """
    refuse_unknown(settings.methods, STEP_METHODS)
    if "galore" in settings.methods:
        galore.refuse_without_package()
    device = find_device()
    settings = settings.filled(on_gpu=device.type == "cuda")
    base = load_base(settings.model, getattr(torch, settings.dtype), device)
    listed = rows(settings.methods)
    prepared = prepare_training({row.name: row for row in listed}, base, settings)
    if any(row.scored for row in listed):
        targets, tokens = scored_group(base), settings.batch * settings.tokens
        prepared[FULL_GRADIENT] = lambda: FullGradient(targets, tokens).phases
    turns = take_turns(prepared, settings.repeats, device, progress)
    return {
        "benchmark": "step",
        "settings": asdict(settings),
        "machine": machine(device),
        "scored_linears": [target.name for target in scored_group(base)],
        "rows": summarize(listed, turns),
    }


def take_turns(
    prepared: Mapping[str, Callable[[], Sequence[Phase]]],
    rounds: int,
    device: torch.device,
    progress: Callable[[str], None],
) -> dict[str, list[Turn]]:
    """The turns of everything `prepared`, in rounds.

    What runs out of memory takes no further turn and loses those it had.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in prepared}
    failed: set[str] = set()
    for number in range(1, rounds + 1):
        for name, prepare in prepared.items():
            if name in failed:
                continue
            progress(f"round {number} of {rounds}: {name}")
            try:
                turns[name].append(_turn(prepare, device))
            except torch.OutOfMemoryError:
                failed.add(name)
                turns[name].clear()
            _clean_up(device)
    return turns


def summarize(listed: Sequence[Row], turns: Turns) -> dict[str, dict[str, Any]]:
    """The turns of every row in numbers; a row that ran out of memory has no turns.

    Returns:
        By the row's name: `seconds` of each phase and of the whole `step`; `of_lora`, `of_floor`
        and `passes_of_floor` (forward and backward alone), where scored rows are compared with the
        floor and the scored group's full gradient together; `optimizer_share` of the step;
        `peak_bytes` on a GPU; of GaLore, `projection`: the seconds that finding its projections
        takes, and how many steps they serve. Each is the median with the quartiles: over all steps
        for seconds and shares, over the rounds for ratios and projections.
    """
    summary: dict[str, dict[str, Any]] = {}
    for row in listed:
        mine = turns[row.name]
        if not mine:
            summary[row.name] = {"out_of_memory": True}
            continue
        floor = [turns[FLOOR], turns[FULL_GRADIENT]] if row.scored else [turns[FLOOR]]
        passes = slice(0, 2)
        steps = [step for turn in mine for step in turn.steps]
        entry: dict[str, Any] = {
            "seconds": phase_seconds(steps),
            "of_floor": _ratio(mine, floor),
            "passes_of_floor": _ratio(mine, floor, passes),
            "optimizer_share": asdict(spread(step[-1] / sum(step) for step in steps)),
            "of_lora": _ratio(mine, [turns.get("lora", [])]),
            "peak_bytes": largest_peak(mine),
        }
        if row.method == "galore":
            seconds = spread(turn.first - turn.seconds() for turn in mine)
            entry["projection"] = {"seconds": asdict(seconds), "steps": galore.PERIOD}
        summary[row.name] = entry
    if turns.get(FULL_GRADIENT):
        products = [step for turn in turns[FULL_GRADIENT] for step in turn.steps]
        summary[FULL_GRADIENT] = {"seconds": {"step": asdict(spread(map(sum, products)))}}
    return summary


def render(result: dict[str, Any]) -> str:
    """The result of `run_step_benchmark` as a table with its legend."""
    header = ["", *PHASES, "step", "of LoRA", "of floor", "its passes", "optimizer", "peak GiB"]
    lines = [[name, *_cells(entry)] for name, entry in result["rows"].items()]
    return "\n".join(
        [
            heading(result),
            "",
            table(header, lines),
            "",
            "Seconds are medians; a ratio is the median over the rounds [quartiles].",
            "of floor: whole steps; its passes: forward and backward alone. Scored rows are "
            "compared with the floor plus the scored group's full gradient.",
        ]
    )


def prepare_training(
    named: Mapping[str, Row], base: PreTrainedModel, settings: StepSettings
) -> dict[str, Callable[[], Sequence[Phase]]]:
    """For each row by its name, what prepares a turn of it."""
    ids = _batch(base, settings.batch, settings.tokens)

    def training(row: Row) -> Callable[[], Sequence[Phase]]:
        return lambda: TrainingStep(row, sharing_copy(base), ids, settings.checkpointing).phases

    return {name: training(row) for name, row in named.items()}


def _turn(prepare: Callable[[], Sequence[Phase]], device: torch.device) -> Turn:
    phases = prepare()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = sum(time_phases(phases, device))
    steps = [time_phases(phases, device) for _ in range(STEPS_PER_TURN - 1)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Turn(steps, peak, first)


def _clean_up(device: torch.device) -> None:
    """Free what the last turn left; models and optimizers' hooks are cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _batch(base: PreTrainedModel, batch: int, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = base.config.get_text_config().vocab_size
    return torch.randint(size, (batch, tokens), generator=generator).to(base.device)


def largest_peak(turns: Sequence[Turn]) -> int | None:
    """The largest peak of memory in bytes; None without a GPU."""
    return max(turn.peak_bytes or 0 for turn in turns) or None


def phase_seconds(steps: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """The spread of each phase's seconds, and of the whole `step`'s."""
    by_phase = dict(zip(PHASES, zip(*steps, strict=True), strict=True))
    seconds = {phase: asdict(spread(values)) for phase, values in by_phase.items()}
    return {**seconds, "step": asdict(spread(map(sum, steps)))}


def _ratio(
    mine: Sequence[Turn], others: Sequence[Sequence[Turn]], phases: slice = slice(None)
) -> dict[str, float] | None:
    """`mine` over the sum of `others`, round by round; None where one of them was not measured."""
    if not all(others):
        return None
    return asdict(
        spread(
            turn.seconds(phases) / sum(other.seconds(phases) for other in same_round)
            for turn, *same_round in zip(mine, *others, strict=True)
        )
    )


def find_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine(device: torch.device) -> dict[str, Any]:
    """What a result was measured on."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        **{name: versions()[name] for name in ("torch", "transformers", "peft")},
    }


def _cells(entry: dict[str, Any]) -> list[str]:
    if "out_of_memory" in entry:
        return ["out of memory", *[""] * 8]
    seconds = entry["seconds"]
    shown = [f"{seconds[name]['median']:.4f}" if name in seconds else "" for name in PHASES]
    ratios = [_shown(entry.get(name)) for name in ("of_lora", "of_floor", "passes_of_floor")]
    share, peak = entry.get("optimizer_share"), entry.get("peak_bytes")
    return [
        *shown,
        f"{seconds['step']['median']:.4f}",
        *ratios,
        f"{share['median']:.1%}" if share else "",
        f"{peak / 2**30:.2f}" if peak else "",
    ]


def _shown(ratio: dict[str, float] | None) -> str:
    return "" if ratio is None else "{median:.3f} [{low:.3f}, {high:.3f}]".format(**ratio)
