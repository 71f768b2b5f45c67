"""A plan: the numbers of a table that are asked for, and the cells that give them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from losia_cli.errors import UserError
from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.tables import Place, places


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        table: the table's name.
        places: its numbers, those of every seed.
    """

    table: str
    places: tuple[Place, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every cell once, with all suites that any number needs, each after its `after`."""
        return distinct(place.cell for place in self.places)

    @property
    def runs_code(self) -> bool:
        """Whether a model's programs are to be run."""
        return any(SUITES[suite].code for cell in self.cells for suite in cell.suites)


def make(
    table: str,
    models: Sequence[str] = (),
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    change: Callable[[Cell], Cell] = lambda cell: cell,
) -> Plan:
    """The plan of a table, or of the part of it that the filters leave.

    Args:
        table: its name.
        models: which to keep; empty for all.
        methods: likewise; the base model always stays.
        datasets: likewise.
        seeds: of training; empty for the recipes' own.
        change: what is laid over every cell.

    Raises:
        UserError: a name that the table does not have.
    """
    found = places(table)
    chosen = {"model": models, "method": methods, "dataset": datasets}
    for what, names in chosen.items():
        _expect(what, names, {_label(place, what) for place in found} - {"", BASE}, table)
    kept = [place for place in found if _wanted(place, chosen)]
    changed = [replace(place, cell=change(place.cell)) for place in kept]
    seeded = [replace(p, cell=p.cell.with_seed(seed)) for seed in seeds for p in changed]
    return Plan(table, tuple(_narrowed(seeded or changed)))


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """The cells of different identity, in an order in which each comes after its `after`."""
    found: dict[str, Cell] = {}
    for cell in cells:
        for one in _chain(cell):
            known = found.get(one.identity, one)
            suites = tuple(dict.fromkeys((*known.suites, *one.suites)))
            found[one.identity] = replace(known, suites=suites)
    return list(found.values())


def _chain(cell: Cell) -> list[Cell]:
    return [*(_chain(cell.after) if cell.after else []), cell]


def _label(place: Place, what: str) -> str:
    """What a filter calls the place: a row's own method stands for the overlay that trains it."""
    value: str = getattr(place.cell, what)
    return "losia" if what == "method" and place.row[-1] == "losia" else value


def _wanted(place: Place, chosen: dict[str, Sequence[str]]) -> bool:
    """Whether the filters keep it; a base model is filtered by its name alone."""
    return all(
        not names or getattr(place.cell, what) in names or _label(place, what) in names
        for what, names in chosen.items()
        if what == "model" or place.cell.method != BASE
    )


def _expect(what: str, names: Sequence[str], known: set[str], table: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"--{what}: {table} has no {name}; it has {', '.join(sorted(known))}")


def _narrowed(found: Sequence[Place]) -> list[Place]:
    """Base models are scored on what the trained ones beside them are, and no more."""
    asked = {place.reading.suite for place in found if place.cell.method != BASE}
    models = {place.cell.model for place in found if place.cell.method != BASE}
    narrowed = []
    for place in found:
        cell = place.cell
        if cell.method == BASE:
            if place.reading.suite not in asked or cell.model not in models:
                continue
            cell = replace(cell, suites=tuple(s for s in cell.suites if s in asked))
        narrowed.append(replace(place, cell=cell))
    return list(dict.fromkeys(narrowed))
