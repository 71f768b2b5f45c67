"""Memory and microseconds per token as bars: the paper's Figures 5, 11 and 12."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losia_cli.bench.latency import PHASES, latencies, printed
from losia_cli.bench.table import heading
from losia_cli.errors import UserError


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot of `results`, the paper's totals and memory as diamonds.

    Raises:
        UserError: matplotlib is not there, or cannot write `path`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("a plot needs a package: pip install matplotlib") from error
    rows = [(result, row) for result in results for row in latencies(result) if not row.failed]
    size = (11, 1.6 + 0.3 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    memory.barh(places, [row.memory or 0 for _, row in rows], color="C7")
    start = [0.0] * len(rows)
    for phase in PHASES[:-1]:
        parts = [row.phases[phase] for _, row in rows]
        time.barh(places, parts, left=start, label=phase)
        start = [begun + part for begun, part in zip(start, parts, strict=True)]
    theirs = [(place, printed(result, row.name)) for place, (result, row) in enumerate(rows)]
    totals = [(row.phases["total"], place) for place, row in theirs if row and not row.failed]
    peaks = [(row.memory, place) for place, row in theirs if row and row.memory is not None]
    for axes, points in ((time, totals), (memory, peaks)):
        if points:
            axes.plot(*zip(*points, strict=True), "kD", markersize=4, label="the paper")
    memory.set(xlabel="peak GB", yticks=places, yticklabels=[row.label for _, row in rows])
    memory.invert_yaxis()
    time.set(xlabel="microseconds per token")
    time.legend(fontsize="small")
    figure.suptitle(heading(results[0]).partition(", checkpointing")[0])
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
