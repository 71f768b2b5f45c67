"""What the columns of a table hold: the kinds of their values, where each kind first shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from losia_cli.data.rows import Row

TEXT = "text"
NUMBER = "a number"
BOOLEAN = "true or false"
LIST = "a list"
OBJECT = "an object"
OTHER = "no text"  # dates, bytes: what JSON has not

_KINDS = {str: TEXT, int: NUMBER, float: NUMBER, bool: BOOLEAN, list: LIST, dict: OBJECT}
ITEM = "[]"


@dataclass(slots=True)
class Field:
    """A column, or a part of one: a list's items, an object's key.

    Attributes:
        name: as the user writes it; a part's has its column's before it (`messages[].role`).
        kind: what its values are; None while all of them are null.
        row: index of the first row that holds one.
        value: the first one.
        parts: key, or `ITEM` -> the part.
    """

    name: str
    kind: str | None = None
    row: int = -1
    value: Any = None
    parts: dict[str, "Field"] = field(default_factory=dict)

    def part(self, key: str) -> "Field | None":
        """The part of that key in a list's items."""
        items = self.parts.get(ITEM)
        return items.parts.get(key) if items else None

    def holds(self) -> str:
        """Its kind and its first value, shortened."""
        shown = repr(self.value)
        return f"{self.kind} ({shown[:40]}{'...' if len(shown) > 40 else ''})"


@dataclass(frozen=True)
class Clash:
    """The first value of a field that is of another kind than the ones before."""

    field: Field
    row: int
    kind: str


def learn(rows: Iterable[Row]) -> tuple[dict[str, Field], list[Clash]]:
    """The columns by name, and the clashes in them: the loader takes one kind in each."""
    table = Field("")
    clashes: dict[str, Clash] = {}
    for index, row in enumerate(rows):
        _learn_object(table, row, index, clashes)
    return table.parts, list(clashes.values())


def _learn(known: Field, value: Any, row: int, clashes: dict[str, Clash]) -> None:
    if value is None:
        return
    kind = _KINDS.get(type(value), OTHER)
    if known.kind is None:
        known.kind, known.row, known.value = kind, row, value
    elif known.kind is not kind:
        clashes.setdefault(known.name, Clash(known, row, kind))
        return
    if kind is LIST:
        items = known.parts.get(ITEM)
        if items is None:
            items = known.parts[ITEM] = Field(known.name + ITEM)
        for item in value:
            _learn(items, item, row, clashes)
    elif kind is OBJECT:
        _learn_object(known, value, row, clashes)


def _learn_object(known: Field, value: dict[str, Any], row: int, clashes: dict[str, Clash]) -> None:
    for key, item in value.items():
        part = known.parts.get(key)
        if part is None:
            part = known.parts[key] = Field(f"{known.name}.{key}" if known.name else key)
        _learn(part, item, row, clashes)
