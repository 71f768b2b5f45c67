"""A plan: the numbers of a table that are asked for, and the cells that give them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from losia_cli.errors import UserError
from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.place import Place
from losia_cli.reproduction.tables import places, published

MODEL = "model_name_or_path"
_METHODS = ("method", "setting", "experiment", "T")  # fields that say how a row was trained


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        table: the table's name.
        places: its numbers, those of every seed.
    """

    table: str
    places: tuple[Place, ...]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, with all suites that any number needs, each after its `after`."""
        return distinct(place.cell for place in self.places)

    @cached_property
    def own_keys(self) -> set[str]:
        """The keys by which its numbers are named, if they have several values."""
        trained = [cell for cell in self.cells if cell.method != BASE]
        keys = {key for cell in trained for key in cell.own_keys}
        if len({cell.dataset for cell in trained}) > 1:
            keys.add("dataset")
        if len({cell.method for cell in trained}) > 1:
            keys.add("finetuning_type")
        if len({cell.model for cell in trained}) > 1:
            keys.add(MODEL)
        return keys


def runs_code(cells: Iterable[Cell]) -> bool:
    """Whether programs that the models write are to be run."""
    return any(SUITES[suite].code for cell in cells for suite in cell.suites)


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
        UserError: a name that the table does not have, or names that exclude each other.
    """
    found = places(table)
    fields = published(table).fields
    chosen = {"model": models, "method": methods, "dataset": datasets}
    for what, names in chosen.items():
        known = {name for place in found for name in _names(place, what, fields)}
        _expect(what, names, known - {"", BASE}, table)
    kept = [place for place in found if _wanted(place, chosen, fields)]
    if all(place.cell.method == BASE for place in kept):
        asked = [f"--{what} {name}" for what, names in chosen.items() for name in names]
        raise UserError(f"{table} trains nothing that is all of {', '.join(asked)}: leave one out")
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


def _names(place: Place, what: str, fields: Sequence[str]) -> set[str]:
    """What a filter may call the place: for a method the overlay, or the table's own words."""
    own = dict(zip(fields, place.row, strict=False))  # Table 5's are Table 12's
    words = [own[field] for field in _METHODS if field in own] if what == "method" else []
    if what == "dataset":  # one that is laid over the recipe's
        pairs = (text.partition("=") for text in place.cell.overrides)
        words = [value for key, _, value in pairs if key == what]
    return {getattr(place.cell, what), *words}


def _wanted(place: Place, chosen: dict[str, Sequence[str]], fields: Sequence[str]) -> bool:
    """Whether the filters keep it; a base model is filtered by its name alone."""
    return all(
        not names or _names(place, what, fields) & set(names)
        for what, names in chosen.items()
        if what == "model" or place.cell.method != BASE
    )


def _expect(what: str, names: Sequence[str], known: set[str], table: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"--{what}: {table} has no {name}; it has {', '.join(sorted(known))}")


def _narrowed(found: Sequence[Place]) -> list[Place]:
    """Base models are scored on what the trained ones beside them are, and no more."""
    trained = [place for place in found if place.cell.method != BASE]
    asked = {place.reading.suite for place in trained}
    narrowed = []
    for place in found:
        cell = place.cell
        if cell.method == BASE:
            if place.reading.suite not in asked or not any(_beside(place, t) for t in trained):
                continue
            cell = replace(cell, suites=tuple(s for s in cell.suites if s in asked))
        narrowed.append(replace(place, cell=cell))
    return list(dict.fromkeys(narrowed))


def _beside(base: Place, trained: Place) -> bool:
    """Whether a base model's number belongs to what a trained model's row is of."""
    rows = zip(base.row, trained.row, strict=True)
    same = all(one in ("", BASE, other) for one, other in rows)
    return same and base.cell.model == trained.cell.model
