"""What `losia reproduce compare` measured, cell by cell: what was fitted against what was kept.

    python scripts/compare_trade.py [--output DIR] [--report DIR] [--seed N]

Right and wrong tell few methods apart on a few hundred questions; the log-likelihood of the right
choice does. Reads the cells in DIR (runs/reproduce) and writes docs/benchmarks/compare-SET.json and
compare-SET-trade.png for each set that was taught: a line through the rates of each method. What
the file has of cells that DIR has not stays in it, so that what several machines measured adds up.
By `--seed N` it reads the cells of another seed than the recipe's (`losia reproduce compare --seeds
N`): they are in the file, and not in the plot.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from losia_cli.evaluation.comparison import right_likelihood
from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.reproduce import Request, plan_of, store_of
from losia_cli.reproduction.small_model import REMEMBERED
from losia_cli.reproduction.store import DONE, KIND, Store

ROOT = Path(__file__).resolve().parent.parent
BELOW = 3.0  # nats below the base model, from which on a cell is not drawn
_TRAINING = (
    "steps", "trainable_parameters", "peak_memory_bytes", "kept_for_backward_bytes",
    "held_out_loss",
)  # fmt: skip

Entry = dict[str, Any]


def main() -> None:
    """Write the figures and the plots of what has been measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs/reproduce")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/benchmarks")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if not (options.output / KIND).is_file():
        parser.error(f"{options.output} holds no cells of losia reproduce compare")
    kind = json.loads((options.output / KIND).read_text())
    data = kind["data"] and Path(kind["data"])
    seeds = () if options.seed is None else (options.seed,)
    request = Request(
        "compare", seeds=seeds, overrides=kind["overrides"], data=data, output=options.output
    )
    plan, store = plan_of(request), store_of(request)
    for taught in dict.fromkeys(place.row[0] for place in plan.places):
        cells = {place.cell: place.row[1] for place in plan.places if place.row[0] == taught}
        path = options.report / f"compare-{taught}.json"
        before = json.loads(path.read_text())["cells"] if path.is_file() else []
        found = [each for cell, row in cells.items() if (each := entry(cell, row, store))]
        rows = list(dict.fromkeys(cells.values()))

        def place(each: Entry, rows: list[str] = rows) -> tuple[int, float, int]:
            return rows.index(each["row"]), each["learning_rate"] or 0, each.get("seed", 0)

        known = {place(each): each for each in [*before, *found]}
        entries = [known[key] for key in sorted(known)]
        if len(entries) > 1 and entries[0]["row"] == BASE:
            header = {"taught": taught, "overrides": kind["overrides"]}
            path.write_text(json.dumps({**header, "cells": entries}, indent=1) + "\n")
            shown = [each for each in entries if "seed" not in each]
            plot(taught, shown, path.with_name(f"compare-{taught}-trade.png"))


def entry(cell: Cell, row: str, store: Store) -> Entry | None:
    """A cell's figures; None where it is not done, or not scored on all suites."""
    result = store.result(cell)
    if result is None or store.state(cell) != DONE:
        return None
    scores = {
        suite: {
            **{key: result["scores"][suite][key] for key in ("score", "stderr", "documents")},
            "right_choice_nats": likelihood(store, cell, suite),
        }
        for suite in cell.suites
    }
    run = result["training"] or {}
    kept = {key: run[key] for key in _TRAINING if run.get(key) is not None}
    found = {"row": row, "learning_rate": learning_rate(cell), "scores": scores, **kept}
    for change in cell.overrides:
        if change.startswith("seed="):
            found["seed"] = int(change.removeprefix("seed="))
    return found


def learning_rate(cell: Cell) -> float | None:
    """What it is trained at; None where it is not."""
    return None if cell.method == BASE else cell.resolved.values["learning_rate"]


def likelihood(store: Store, cell: Cell, suite: str) -> float | None:
    """The mean log-likelihood of the right choice; None where nothing was chosen among."""
    path = store.trained(cell) / f"eval/samples/{suite}.jsonl"
    found = [right_likelihood(json.loads(line)) for line in path.read_text().splitlines()]
    known = [one for one in found if one is not None]
    return fmean(known) if len(known) == len(found) else None


def plot(taught: str, entries: list[Entry], path: Path) -> None:
    """A panel for each suite that should not be forgotten, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    for suite, axes in zip(REMEMBERED, figure.subplots(1, len(REMEMBERED)), strict=True):
        base = entries[0]["scores"][suite]["right_choice_nats"]  # the plan's first cell
        axes.axhline(base, color="black", linewidth=0.8, linestyle=":", label="base model")
        trained = [each for each in entries if each["row"] != BASE]
        for number, row in enumerate(dict.fromkeys(each["row"] for each in trained)):
            of_row = [each for each in trained if each["row"] == row]
            kept = [(fitted(each), each["scores"][suite]["right_choice_nats"]) for each in of_row]
            points = [point for point in kept if point[1] > base - BELOW]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=row, color=f"C{number}")
        axes.set(xlabel=f"{taught}: {unit(entries)}", ylabel=f"{SUITES[suite].column}, nats")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.suptitle("More to the right is better fitted, higher is better kept; lines join rates")
    figure.savefig(path, dpi=120)


def fitted(each: Entry) -> float | None:
    """How well a cell has learned: nats of the right choice or, where none is, of held-out text."""
    nats = next(iter(each["scores"].values()))["right_choice_nats"]
    loss = each.get("held_out_loss")
    return nats if nats is not None else None if loss is None else -loss


def unit(entries: list[Entry]) -> str:
    """What `fitted` is of."""
    choices = next(iter(entries[0]["scores"].values()))["right_choice_nats"] is not None
    return "nats of the right choice" if choices else "held-out log-likelihood of a token"


if __name__ == "__main__":
    main()
