"""The comparison on a small model as a picture: what was learned against what was kept."""

from math import hypot
from pathlib import Path
from statistics import fmean

from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.numbers import Number, Numbers
from losia_cli.reproduction.small_model import REMEMBERED


def draw(numbers: Numbers, path: Path) -> None:
    """Write a panel for each set that was taught, a point for each method; none, and no file.

    Args:
        numbers: of the plan `compare`; what is not measured has no point.
        path: of the picture, PNG.
    """
    from matplotlib.figure import Figure

    taught = {
        dataset: _measured(numbers, dataset) for dataset in dict.fromkeys(r[0] for r in numbers)
    }
    shown = {dataset: rows for dataset, rows in taught.items() if rows}
    if not shown:
        return
    figure = Figure(figsize=(6.5 * len(shown), 4.5), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for (dataset, rows), axes in zip(shown.items(), panels, strict=True):
        for number, (method, found) in enumerate(rows.items()):
            learned, kept = _learned(found), _kept(found)
            sign = "o" if number < 10 else "s"  # colors begin again
            axes.errorbar(
                learned.ours, kept.ours, xerr=learned.error, yerr=kept.error, fmt=sign, capsize=3,
                label=method, color=f"C{number}",
            )  # fmt: skip
        remembered = " and ".join(SUITES[suite].column for suite in REMEMBERED)
        axes.set(xlabel=f"{_learned_column(rows)} (%)", ylabel=f"mean of {remembered} (%)")
        axes.set_title(f"taught {dataset}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _measured(numbers: Numbers, dataset: str) -> dict[str, dict[str, Number]]:
    """Method -> its numbers, of those that have been trained on the set and asked all suites."""
    rows = {row[1]: found for row, found in numbers.items() if row[0] == dataset}
    return {
        method: found
        for method, found in rows.items()
        if _learned(found).ours is not None and _kept(found).ours is not None
    }


def _learned_column(rows: dict[str, dict[str, Number]]) -> str:
    return next(iter(next(iter(rows.values()))))


def _learned(found: dict[str, Number]) -> Number:
    """What the set's own suite says, a row's first number."""
    return next(iter(found.values()))


def _kept(found: dict[str, Number]) -> Number:
    """The mean of what should not be forgotten; nothing where a suite is missing."""
    suites = [found[SUITES[suite].column] for suite in REMEMBERED]
    scores = [one.ours for one in suites if one.ours is not None]
    if len(scores) < len(suites):
        return Number(None)
    return Number(fmean(scores), hypot(*(one.error or 0 for one in suites)) / len(suites))
