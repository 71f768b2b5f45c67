"""The public MetaMathQA comparison of PEFT methods: its settings and numbers, as published."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from losia_cli import paper
from losia_cli.reproduction.cell import BASE, Cell, untrained
from losia_cli.reproduction.place import Place, Reading


@dataclass(frozen=True)
class Experiment:
    """One published result.

    Attributes:
        name: its folder there, METHOD/VARIANT.
        source: the file it is from, REPOSITORY/PATH@COMMIT.
        values: `trainable` parameters; `accuracy` on GSM8K in percent; `memory`, the highest
            reserved, in bytes; `seconds` and `step seconds`; `forgetting` in nats per token.
        method: what `losia train --method` calls it; None where LLaMA-Factory has no such method.
        overrides: `key=value` over the recipe and the method that give its settings.
    """

    name: str
    source: str
    values: Mapping[str, float]
    method: str | None
    overrides: tuple[str, ...]


def recipe() -> str:
    """The name of the recipe that the experiments' methods and overrides are laid over."""
    return str(_file()["recipe"])


def settings() -> dict[str, Any]:
    """What the experiments share, under the names used there."""
    return dict(_file()["settings"])


def experiments() -> tuple[Experiment, ...]:
    """The published results that are transcribed, in the file's order."""
    return tuple(_experiment(row) for row in _file()["rows"])


def reported(cell: Cell) -> Mapping[str, float]:
    """What is published of the experiment that a cell is; nothing where it is none."""
    own = tuple(text for text in cell.overrides if not text.startswith("seed="))
    whole = cell.resolved.values.get("max_steps") == settings()["max_steps"]
    if cell.recipe == recipe() and whole:
        for one in experiments():
            if (one.method, one.overrides) == (cell.method, own):
                return one.values
    return {}


def places() -> Iterator[Place]:
    """The experiments that LLaMA-Factory has a method for, and ours by the recipe as it is."""
    model, scored = "llama3.2-3b", ("gsm8k-train-prompt",)
    ours = ("losia-pro", "losia-pro", ())
    theirs = [(e.name, e.method, e.overrides) for e in experiments() if e.method]
    yield Place((BASE,), "GSM8K", untrained(model, recipe(), scored), Reading(*scored))
    for name, method, overrides in (ours, *theirs):
        trained = Cell(recipe(), model, "metamath", method, overrides, scored)
        yield Place((name,), "GSM8K", trained, Reading(*scored))


def published() -> paper.Table:
    """Their numbers, in the columns that ours have."""
    rows = tuple(
        paper.Row(
            {"experiment": one.name},
            {
                "GSM8K": one.values["accuracy"],
                "Mem(GB)": one.values["memory"] / 1e9,
                "Seconds": one.values["step seconds"],
            },
        )
        for one in experiments()
    )
    title = "PEFT's comparison on MetaMathQA, Llama-3.2-3B, beside its numbers on one L40S"
    columns = ("GSM8K", "Mem(GB)", "Seconds")
    return paper.Table(title, ("experiment",), columns, rows, " ".join(_file()["note"].split()))


def _experiment(row: Mapping[str, Any]) -> Experiment:
    data, name = _file(), row["experiment"]
    path = f"{data['folder']}/{name.replace('/', '--')}.json"
    return Experiment(
        name,
        f"{data['repository']}/{path}@{data['commit']}",
        dict(zip(data["columns"], row["values"], strict=True)),
        row.get("method"),
        tuple(row.get("overrides", ())),
    )


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("peft_suite.yaml").read_text(encoding="utf-8"))
