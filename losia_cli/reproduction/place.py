"""A number of a table: where it stands, and what it is read from."""

from dataclasses import dataclass

from losia_cli.reproduction.cell import Cell


@dataclass(frozen=True)
class Reading:
    """Which number of a scored model is meant.

    Attributes:
        suite: the suite.
        also: one of its further metrics, in place of the headline.
        domain: one of its parts, in place of the whole.
    """

    suite: str
    also: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Place:
    """A number of a table: its row, its column, and the cell it is read from.

    Several places of one row and column are that number by several seeds, or at several rates.
    """

    row: tuple[str, ...]
    column: str
    cell: Cell
    reading: Reading
