"""The comparison as files: all cells as JSON, one table, one plot."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from losia_cli.quickstart.table import percent

NAME = "quickstart-compare"


def write_report(results: Sequence[dict[str, Any]], seed: int, folder: Path) -> list[Path]:
    """Write `quickstart-compare.json`, `.md` and `.png`; the base model's result comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    table, plot, data = (folder / f"{NAME}.{suffix}" for suffix in ("md", "png", "json"))
    data.write_text(json.dumps({"seed": seed, "results": list(results)}, indent=1) + "\n")
    table.write_text(markdown(results, seed))
    draw(results, plot)
    return [table, plot, data]


def best(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method the result with the highest held-out accuracy, in the order given."""
    trained = [result for result in results if result["rate"] is not None]
    methods = groupby(trained, key=lambda result: result["method"])
    return [max(cells, key=lambda result: result["skill"]["value"]) for _, cells in methods]


def markdown(results: Sequence[dict[str, Any]], seed: int) -> str:
    """The page: what was measured, on what, the best rate of each method, and every cell."""
    base, *cells = results
    training = cells[0]["training"]
    versions = ", ".join(f"{name} {number}" for name, number in training["versions"].items())
    lines = [
        "# The quickstart by five methods",
        "",
        f"`make quickstart-compare`, seed {seed}: {training['steps']} steps on the same problems"
        f" from the same base model; {training['device']}; {versions}.",
        f"New skill: exact match on {base['skill']['count']} held-out problems. Old skill:"
        f" {base['known']['count']} everyday questions. ± is the standard error; the best rate is"
        " chosen by the very score shown, alike for every method. One seed.",
        "",
        f"![held-out accuracy against seconds of training]({NAME}.png)",
        "",
        "## At the best of its rates",
        "",
        *_rows([base, *best(results)]),
        "",
        "## All cells",
        "",
        *_rows(cells),
    ]
    return "\n".join(lines) + "\n"


def _rows(results: Sequence[dict[str, Any]]) -> list[str]:
    head = "| method | rate | trainable | seconds | peak memory | new skill | old skill |"
    return [head, "|---|---|---|---|---|---|---|", *map(_row, results)]


def _row(result: dict[str, Any]) -> str:
    scores = f"{percent(result['skill'])} | {percent(result['known'])} |"
    if result["rate"] is None:
        return f"| {result['method']} | | | | | {scores}"
    training = result["training"]
    return (
        f"| {result['method']} | {result['rate']:g} | {training['trainable_parameters']:,}"
        f" | {training['seconds']:.0f} | {training['peak_memory_bytes'] / 1e9:.2f} GB | {scores}"
    )


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over seconds: the best rate of each method with its error, the others small."""
    from matplotlib.figure import Figure

    base, *cells = results
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, top in enumerate(best(results)):
        color = f"C{number}"
        others = [c for c in cells if c["method"] == top["method"] and c is not top]
        axes.scatter(*_points(others), s=14, color=color, alpha=0.5)
        seconds, share = _points([top])
        error = 100 * top["skill"]["stderr"]
        name = f"{top['method']}, rate {top['rate']:g}"
        axes.errorbar(seconds, share, yerr=error, fmt="o", color=color, capsize=3, label=name)
    axes.axhline(100 * base["skill"]["value"], color="gray", linestyle=":", label="base model")
    axes.set(xlabel="seconds of training", ylabel="held-out problems solved (%)", ylim=(-3, 103))
    axes.set_xlim(0, 1.05 * max(_points(cells)[0]))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=150)


def _points(results: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return (
        [result["training"]["seconds"] for result in results],
        [100 * result["skill"]["value"] for result in results],
    )
