"""What comes with the project: recipes, methods and ablations, and the tables that they serve."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from losia_cli import paper
from losia_cli.errors import UserError
from losia_cli.recipes.layers import header
from losia_cli.recipes.recipe import load
from losia_cli.recipes.shipped import ablations, file, methods, overlay, shipped
from losia_cli.reproduction import tables
from losia_cli.reproduction.cell import BASE

if TYPE_CHECKING:
    from rich.table import Table


KINDS = ("recipe", "method", "ablation")


@dataclass(frozen=True)
class Entry:
    """A file that `losia train` takes by name.

    Attributes:
        name: the recipe's, or what `--method` takes.
        kind: one of `KINDS`.
        about: the first sentence of the file.
        tables: what `losia reproduce` trains with it, such as `table1`.
        model: of a recipe, as the paper calls it, else as the hub does.
        dataset: of a recipe.
        memory: GB that the paper reports for the recipe as it is; None where it reports none.
        hours: likewise; the longest of a table's trainings.
    """

    name: str
    kind: str
    about: str
    tables: tuple[str, ...]
    model: str = ""
    dataset: str = ""
    memory: float | None = None
    hours: float | None = None

    def has(self, word: str) -> bool:
        """Whether its kind or a table is called `word`, or any text holds it; case is ignored."""
        word = word.lower()
        if word in KINDS:
            return word == self.kind
        texts = (self.name, self.about, self.model, self.dataset)
        return word in self.tables or any(word in text.lower() for text in texts)


def entries(words: Sequence[str] = ()) -> list[Entry]:
    """Everything that has all of these words.

    Raises:
        UserError: nothing has.
    """
    found = [entry for entry in _all() if all(map(entry.has, words))]
    if not found:
        sought = " and ".join(words)
        raise UserError(f"no recipe, method or ablation has {sought}; `losia recipes` lists all")
    return found


def listing(found: Sequence[Entry]) -> "Iterator[Table]":
    """The entries to read: recipes, then what is laid over them."""
    made = [entry for entry in found if entry.kind == "recipe"]
    laid = [entry for entry in found if entry.kind != "recipe"]
    if made:
        listed = _table("losia train NAME", "recipe", "model", "dataset", "tables", "GB", "hours")
        listed.caption = (
            "GB and hours: the paper's, on one A800 of 80 GB; Table 1's hours are LoSiA-Pro's for"
            " the longest of three sets, Table 2's LoSiA's for all eight together"
        )
        for entry in made:
            figures = ["" if x is None else f"{x:g}" for x in (entry.memory, entry.hours)]
            listed.add_row(entry.name, entry.model, entry.dataset, _numbers(entry), *figures)
        yield listed
    if laid:
        listed = _table("losia train RECIPE --method NAME", "name", "what it is", "tables")
        for entry in laid:
            listed.add_row(entry.name, entry.about, _numbers(entry))
        yield listed


def _table(title: str, first: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(
        box=None, padding=(0, 1, 0, 0), title=title, title_justify="left", caption_justify="left"
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@cache
def _all() -> tuple[Entry, ...]:
    served = _tables()
    laid = [(name, "method") for name in methods()] + [(name, "ablation") for name in ablations()]
    overlays = [Entry(name, kind, _about(overlay(name)), served[name]) for name, kind in laid]
    return (*(_recipe(name, served[name]) for name in shipped()), *overlays)


def _recipe(name: str, served: tuple[str, ...]) -> Entry:
    values = load(name).values
    row = paper.row_of(values)
    model = row["model"] if row else values["model_name_or_path"].rpartition("/")[2]
    costs = paper.memory(values), paper.hours(values)
    return Entry(name, "recipe", _about(file(name)), served, model, values["dataset"], *costs)


def _tables() -> dict[str, tuple[str, ...]]:
    """A recipe or an overlay -> the tables whose models it trains, in the paper's order."""
    served: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for table in sorted(tables.names(), key=lambda name: (len(name), name)):
        trained = [place.cell for place in tables.places(table) if place.cell.method != BASE]
        for name in {cell.recipe for cell in trained} | {cell.method for cell in trained}:
            served[name] += (table,)
    return served


def _about(path: Path) -> str:
    first = header(path).partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.) (?=[A-Z])", first)[0]


def _numbers(entry: Entry) -> str:
    return ", ".join(table.removeprefix("table") for table in entry.tables)
