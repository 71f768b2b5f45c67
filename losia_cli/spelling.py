"""The known names nearest to one that is not known."""

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`"; did you mean a or b?"`, or nothing where no known name resembles `name`."""
    names = nearest(name, known)
    return f"; did you mean {' or '.join(names)}?" if names else ""


def nearest(name: str, known: Collection[str]) -> list[str]:
    """The known names fewest edits away from `name`, one edit in four letters at most.

    Where a slip of the keyboard explains nothing (`rank_factor` for `losia_rank_factor`), the one
    that shares most with `name`, if any comes close.
    """
    distances = {other: _edits(name, other) for other in known}
    least = min(distances.values(), default=0)
    if least <= max(1, len(name) // 4):
        return sorted(other for other, distance in distances.items() if distance == least)
    return get_close_matches(name, known, n=1)


def _edits(left: str, right: str) -> int:
    """How many letters to insert, delete or change to turn `left` into `right`."""
    above = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]
