"""`losia analyze`: read runs, print a table, draw and write what is asked."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from losia_cli.analysis import plots
from losia_cli.analysis.selections import (
    SIDES,
    History,
    Side,
    by_chance,
    kinds,
    likeness,
    mean,
    side,
)
from losia_cli.analysis.selections import read as read_run
from losia_cli.analysis.spectrum import INTRUDER, Spectrum, Trained
from losia_cli.errors import UserError
from losia_cli.files import refuse_unwritable, write_json


def selections(
    runs: Sequence[Path],
    linear: str | None,
    plot: Path | None,
    json_file: Path | None,
    console: Console,
) -> None:
    """Show which neurons runs selected, and draw those of one linear.

    Args:
        runs: output folders of LoSiA runs.
        linear: the end of the name of the linear to draw; by default a v_proj in the middle.
        plot: the picture's file.
        json_file: where every linear's figures go.
        console: where the tables are shown.

    Raises:
        UserError: a run has no record, no linear is of that name, or a file cannot be written.
    """
    plots.expect_drawable(plot)
    refuse_unwritable(json_file)
    found = {str(run): read_run(run) for run in runs}
    first = next(iter(found.values()))
    drawn = {run: _named(histories, linear) for run, histories in found.items()} if plot else {}
    for run, histories in found.items():
        console.print(_selection_table(run, histories, first))
    write_json(json_file, {run: _sides(histories) for run, histories in found.items()})
    if plot is not None:
        plots.selections(drawn, plot)


def _named(histories: Sequence[History], linear: str | None) -> History:
    if linear is None:
        values = [one for one in histories if one.kind == "v_proj"] or list(histories)
        return values[len(values) // 2]
    found = [one for one in histories if f".{one.linear}".endswith(f".{linear}")]
    if len(found) != 1:
        some = ", ".join(one.linear for one in (found or histories)[:3])
        raise UserError(f"--linear: {len(found)} linears are called {linear}; name one, as {some}")
    return found[0]


def _selection_table(run: str, histories: Sequence[History], first: Sequence[History]) -> Table:
    alike = histories is not first
    table = Table(title=run, title_justify="left")
    table.add_column("linears")
    for name in ("subnets", *(f"{name}: {what}" for name in SIDES for what in _columns(alike))):
        table.add_column(name, justify="right")
    rows = [*kinds(histories), ("all", list(histories))]
    for kind, these in rows:
        cells = [f"{fmean(len(one.steps) for one in these):.3g}"]
        for name in SIDES:
            of_it = [side(getattr(one, name)) for one in these]
            chance = [by_chance(one, len(h.steps)) for one, h in zip(of_it, these, strict=True)]
            cells += _cells(mean(of_it), mean(chance))
            if alike:
                similar = likeness(these, first, name)
                cells.append("–" if similar is None else f"{similar:.2f}")
        table.add_row(kind, *cells, end_section=kind == rows[-2][0])
    table.caption = (
        "ever: selected at least once; kept: of a subnet's neurons, by the next one; in brackets"
        " what drawing them at random gives"
        + ("; like the first run: correlation of how often each is selected" if alike else "")
    )
    return table


def _columns(alike: bool) -> tuple[str, ...]:
    return ("ever", "kept", "like the first") if alike else ("ever", "kept")


def _cells(found: Side, chance: Side) -> list[str]:
    pairs = ((found.ever, chance.ever), (found.kept, chance.kept))
    return [
        "–" if ours is None or theirs is None else f"{100 * ours:.0f} % ({100 * theirs:.0f})"
        for ours, theirs in pairs
    ]


def _sides(histories: Sequence[History]) -> dict[str, Any]:
    return {
        one.linear: {"steps": one.steps}
        | {name: asdict(side(getattr(one, name))) for name in SIDES}
        for one in histories
    }


def spectrum(
    runs: Sequence[str],
    base: str | None,
    layers: Sequence[int] | None,
    top: int,
    plot: Path | None,
    json_file: Path | None,
    console: Console,
) -> None:
    """Show what runs did to the singular vectors of the weights they started from.

    Args:
        runs: their output folders, or models.
        base: what they started from, where they do not say.
        layers: which decoder layers; None: the one in the middle, (): all.
        top: how many singular vectors to look at.
        plot: the picture's file.
        json_file: where every weight's figures go.
        console: where the table is shown.

    Raises:
        UserError: a model cannot be had or does not fit its base, or a file cannot be written.
    """
    plots.expect_drawable(plot)
    refuse_unwritable(json_file)
    found: dict[str, list[Spectrum]] = {}
    for run in runs:
        trained = Trained(run, base)
        names = track(
            trained.linears(layers),
            run,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        found[run] = [trained.spectrum(name, top) for name in names]
    console.print(_spectrum_table(found))
    write_json(json_file, {run: [_plain(one) for one in these] for run, these in found.items()})
    if plot is not None:
        plots.spectra(found, plot)


def _spectrum_table(found: dict[str, list[Spectrum]]) -> Table:
    table = Table(title="singular vectors after training", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in ("weights", "change", "rank of the change", "similarity", "intruders"):
        table.add_column(name, justify="right")
    for run, these in found.items():
        looked_at = sum(len(one.similarities) for one in these)
        table.add_row(
            run,
            str(len(these)),
            f"{100 * fmean(one.change for one in these):.2f} %",
            f"{fmean(one.rank for one in these):.1f}",
            f"{sum(one.similarities.sum().item() for one in these) / looked_at:.4f}",
            f"{sum(one.intruders for one in these)} of {looked_at}",
        )
    table.caption = (
        "change: of a weight, by its norm; rank: effective; similarity: of each of the first"
        " singular vectors with the likest of before, as the absolute cosine; intruders: those"
        f" below {INTRUDER}"
    )
    return table


def _plain(one: Spectrum) -> dict[str, Any]:
    return {
        "linear": one.linear,
        "change": one.change,
        "rank": one.rank,
        "intruders": one.intruders,
        "similarities": [round(value, 6) for value in one.similarities.tolist()],
    }
