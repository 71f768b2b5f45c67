"""The comparison on a small model as a picture: what was learned against what was kept."""

from pathlib import Path
from statistics import fmean

from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.numbers import Number, Numbers
from losia_cli.reproduction.small_model import REMEMBERED


def draw(numbers: Numbers, path: Path) -> None:
    """Write a panel for each set that was taught, a point for each method.

    Args:
        numbers: of the plan `compare`; what is not measured has no point.
        path: of the picture, PNG.
    """
    from matplotlib.figure import Figure

    taught = list(dict.fromkeys(row[0] for row in numbers))
    figure = Figure(figsize=(6.5 * len(taught), 4.5), layout="constrained")
    panels = figure.subplots(1, len(taught), squeeze=False)
    for dataset, axes in zip(taught, panels[0], strict=True):
        rows = {row[1]: found for row, found in numbers.items() if row[0] == dataset}
        for number, (method, found) in enumerate(rows.items()):
            learned, kept = _learned(found), _kept(found)
            if learned.ours is not None and kept is not None:
                axes.errorbar(
                    *(learned.ours, kept), xerr=learned.error, fmt="o", capsize=3, label=method,
                    color=f"C{number}",
                )  # fmt: skip
        remembered = " and ".join(SUITES[suite].column for suite in REMEMBERED)
        axes.set(xlabel=f"{_learned_column(rows)} (%)", ylabel=f"mean of {remembered} (%)")
        axes.set_title(f"taught {dataset}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _learned_column(rows: dict[str, dict[str, Number]]) -> str:
    return next(iter(next(iter(rows.values()))))


def _learned(found: dict[str, Number]) -> Number:
    """What the set's own suite says, a row's first number."""
    return next(iter(found.values()))


def _kept(found: dict[str, Number]) -> float | None:
    scores = [found[SUITES[suite].column].ours for suite in REMEMBERED]
    there = [score for score in scores if score is not None]
    return fmean(there) if len(there) == len(scores) else None
