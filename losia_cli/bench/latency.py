"""Step benchmarks as the paper's Table 15: microseconds per token by phase, beside its numbers.

`other` is what is neither forward nor backward: the optimizer, LoSiA's controller, and of GaLore
the share of finding its projections that falls to one step. Recomputed activations are backward's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losia_cli import paper
from losia_cli.bench.settings import FLOOR
from losia_cli.bench.table import OPEN, heading, table
from losia_cli.errors import UserError

TABLE = 15
PAPERS_MODEL = "llama2-7b"
PHASES = ("forward", "backward", "other", "total")
# A step benchmark's row, or a size's -> the paper's. Of LoSiA the paper has one row; in training
# some group is scored at nearly every step, as the sizes are measured.
PAPERS_ROWS = {
    "lora": "lora",
    "lora r=64": "lora",
    "dora": "dora",
    "dora r=64": "dora",
    "galore": "galore",
    "losia-scored": "losia",
    "losia p=1/8 p_o=1/8": "losia",
    "losia-pro-scored": "losia-pro",
    "losia-pro p=1/8 p_o=1/8": "losia-pro",
}
PAPER = "  the paper"
ALIKE = ("model", "batch", "tokens", "dtype")


@dataclass(frozen=True)
class Latency:
    """What a step takes.

    Attributes:
        name: the row's.
        checkpointing: whether activations were recomputed.
        phases: microseconds per token by each of `PHASES`; a number that is not there is missing.
        memory: the peak in GB of 10^9 bytes; None if not known.
        failed: whether it ran out of memory.
    """

    name: str
    checkpointing: bool
    phases: Mapping[str, float]
    memory: float | None = None
    failed: bool = False

    @property
    def label(self) -> str:
        """The name, and what sets it apart from the same row of another benchmark."""
        return self.name if self.checkpointing else f"{self.name}, no checkpointing"


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The results in `files`, which `losia bench step` or `losia bench sizes` wrote.

    Raises:
        UserError: a file cannot be read, is none of them, holds no measurement, or was measured
            otherwise than the first one.
    """
    results: list[dict[str, Any]] = []
    for file in files:
        result = _read(file)
        for key, of in [*((key, "settings") for key in ALIKE), ("device", "machine")]:
            if results and result[of][key] != results[0][of][key]:
                raise UserError(
                    f"{file} has the {key} {result[of][key]}, but {files[0]} has "
                    f"{results[0][of][key]}: lay only like measurements beside each other"
                )
        results.append(result)
    return results


def latencies(result: dict[str, Any]) -> list[Latency]:
    """The methods of a step or size benchmark, without the floor."""
    used = result["settings"]
    tokens, checkpointing = used["batch"] * used["tokens"], used["checkpointing"]
    found = []
    for name, entry in result["rows"].items():
        if "out_of_memory" in entry:
            found.append(Latency(name, checkpointing, {}, failed=True))
        elif name != FLOOR and "forward" in entry.get("seconds", {}):
            peak = entry["peak_bytes"]
            phases = _microseconds(entry, tokens)
            found.append(Latency(name, checkpointing, phases, peak / 1e9 if peak else None))
    return found


def printed(result: dict[str, Any], name: str) -> Latency | None:
    """The paper's numbers for this row of `result`; None if it has none."""
    method = PAPERS_ROWS.get(name)
    if method is None or result["settings"]["model"] != PAPERS_MODEL:
        return None
    checkpointing = result["settings"]["checkpointing"]
    if (method, checkpointing) == ("lora", False):
        return Latency(PAPER, checkpointing, {}, failed=True)
    fields = {"method": method, "checkpointing": "with" if checkpointing else "without"}
    values = {phase: paper.value(TABLE, phase, **fields) for phase in PHASES}
    phases = {phase: value for phase, value in values.items() if value is not None}
    whole = {"method": method.removesuffix("-pro"), "model": PAPERS_MODEL}
    memory = paper.value(1, "Mem(GB)", **whole) if checkpointing else None
    return Latency(PAPER, checkpointing, phases, memory) if phases else None


def changes(phases: Mapping[str, float], lora: Mapping[str, float]) -> dict[str, float]:
    """Percent by which each phase but `other` takes more than LoRA's."""
    kept = [phase for phase in PHASES if phase != "other" and phase in phases and phase in lora]
    return {phase: 100 * (phases[phase] / lora[phase] - 1) for phase in kept}


def render(results: Sequence[dict[str, Any]]) -> str:
    """The results as one table: changes against LoRA with checkpointing, if that was measured."""
    rows = [(result, latency) for result in results for latency in latencies(result)]
    measured = [latency for _, latency in rows]
    against = (row for row in measured if PAPERS_ROWS.get(row.name) == "lora")
    lora = next((row.phases for row in against if row.checkpointing), {})
    theirs_lora = {
        phase: paper.value(TABLE, phase, method="lora", checkpointing="with") or 0
        for phase in PHASES
    }
    lines = []
    for result, latency in rows:
        lines.append([latency.label, *_cells(latency, lora)])
        theirs = printed(result, latency.name)
        if theirs is not None:
            lines.append([theirs.name, *_cells(theirs, theirs_lora)])
    header = ["", *PHASES, "forward %", "backward %", "total %", "peak GB"]
    legend = [
        "Microseconds per token; % against LoRA with checkpointing. other: the optimizer, and of "
        "GaLore its projections, spread over the steps they serve.",
    ]
    if any(printed(result, latency.name) for result, latency in rows):
        legend.append(
            "The paper: Table 15, and the memory of Table 1. Its LoSiA stands beside the steps in "
            "which a group is scored, as one is at nearly every step of a run."
        )
    return "\n".join([*map(heading, results), "", table(header, lines), "", *legend])


def _microseconds(entry: Mapping[str, Any], tokens: int) -> dict[str, float]:
    seconds = {phase: value["median"] for phase, value in entry["seconds"].items()}
    other, total = seconds["optimizer"], seconds["step"]
    if "projection" in entry:
        share = entry["projection"]["seconds"]["median"] / entry["projection"]["steps"]
        other, total = other + share, total + share
    by_phase = (seconds["forward"], seconds["backward"], other, total)
    return {phase: 1e6 * value / tokens for phase, value in zip(PHASES, by_phase, strict=True)}


def _read(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(result, dict) or result.get("benchmark") not in ("step", "sizes"):
        raise UserError(f"{file} is none of losia bench step's or sizes' results")
    if not latencies(result):
        raise UserError(f"{file} holds counts alone: measure on a machine with a GPU")
    return result


def _cells(latency: Latency, lora: Mapping[str, float]) -> list[str]:
    if latency.failed:
        return ["out of memory", *[""] * 7]
    change = changes(latency.phases, lora)
    moved = [f"{change[phase]:+.1f}" if phase in change else OPEN for phase in PHASES]
    return [
        *(f"{latency.phases[phase]:.1f}" for phase in PHASES),
        *(cell for cell, phase in zip(moved, PHASES, strict=True) if phase != "other"),
        OPEN if latency.memory is None else f"{latency.memory:.2f}",
    ]
