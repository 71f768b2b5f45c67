"""A table of numbers to read: in the terminal, as Markdown, as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from losia_cli.reproduction.numbers import COSTS, Number, Numbers
from losia_cli.reproduction.tables import published

_HEADS = ("ours", "±", "paper", "diff")  # of the lines of a terminal's cell
_HEAD = ("column", "ours", "error", "seeds", "paper", "difference", "note")


def terminal(title: str, numbers: Numbers, fields: Sequence[str], note: str, width: int) -> Group:
    """A table for the terminal: in each cell ours, its error, the paper's, and the difference.

    As many columns stand side by side as `width` has room for, the others below.
    """
    views = [
        _view(numbers, fields, columns, widths)
        for columns, widths in _blocks(numbers, fields, width)
    ]
    views[0].title = Text(title)
    starred = "* not of the whole, or the best of several settings: see the .md"
    captions = [text for text in (note, starred if any(_notes(numbers)) else "") if text]
    if captions:
        views[-1].caption = Text("\n".join(captions), style="dim")
    return Group(*views)


def _view(
    numbers: Numbers, fields: Sequence[str], columns: Sequence[str], widths: Sequence[int]
) -> Table:
    view = Table(title_justify="left", show_lines=True, padding=(0, 0, 0, 1))
    view.caption_justify = "left"
    for name in fields:
        view.add_column(name, no_wrap=True)
    view.add_column("", no_wrap=True)
    for name, needed in zip(columns, widths, strict=True):
        view.add_column(name, justify="right", overflow="fold", width=needed)
    for row, found in numbers.items():
        lines = [_lines(name, found[name]) if name in found else {} for name in columns]
        heads = [head for head in _HEADS if any(head in cell for cell in lines)]
        cells = [Text("\n").join([cell.get(head, Text()) for head in heads]) for cell in lines]
        view.add_row(*row, Text("\n".join(heads), style="dim"), *cells)
    return view


def _blocks(
    numbers: Numbers, fields: Sequence[str], width: int
) -> list[tuple[list[str], list[int]]]:
    """Columns that have room beside the rows' fields, and the width that each needs."""
    beside = [max(map(len, texts)) for texts in zip(fields, *numbers, strict=True)]
    room = width - sum(each + 2 for each in (*beside, len("paper"))) - 1
    blocks: list[tuple[list[str], list[int]]] = [([], [])]
    for name in _columns(numbers):
        cells = [_lines(name, found[name]) for found in numbers.values() if name in found]
        texts = [line.plain for cell in cells for line in cell.values()]
        needed = max(map(len, (*name.split(), *texts)))
        columns, widths = blocks[-1]
        if columns and sum(each + 2 for each in (*widths, needed)) > room:
            columns, widths = [], []
            blocks.append((columns, widths))
        columns.append(name)
        widths.append(needed)
    return blocks


def markdown(title: str, numbers: Numbers, fields: Sequence[str], note: str = "") -> str:
    """The same in Markdown: `ours ± error (the paper's, difference)`."""
    columns = _columns(numbers)
    lines = [f"## {title}", "", _line([*fields, *columns])]
    lines.append("|" + " --- |" * len(fields) + " ---: |" * len(columns))
    lines += [
        _line([*row, *(_inline(found[name]) if name in found else "" for name in columns)])
        for row, found in numbers.items()
    ]
    lines += ["", "Ours ± error (the paper's, ours less the paper's); – is not measured."]
    lines += ["", note] if note else []
    notes = list(_notes(numbers))
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def comma_separated(numbers: Numbers, fields: Sequence[str]) -> str:
    """The same with one number in a line, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fields, *_HEAD])
    for row, found in numbers.items():
        for name, one in found.items():
            values = (one.ours, one.error, one.seeds, one.paper, one.difference, one.note)
            writer.writerow([*row, name, *("" if value is None else value for value in values)])
    return text.getvalue()


def title(table: str) -> str:
    """`Table 1: ...`, what it shows in our words."""
    return f"{table.replace('table', 'Table ')}: {published(table).title}"


def _columns(numbers: Numbers) -> list[str]:
    """The columns of all rows, in the order of the fullest."""
    rows = sorted(numbers.values(), key=len, reverse=True)
    return list(dict.fromkeys(name for found in rows for name in found))


def _lines(column: str, one: Number) -> dict[str, Text]:
    """What stands in a cell, by the head of its line."""
    lines = {"ours": Text(_rounded(one), style="bold" if one.ours is not None else "dim")}
    if one.error is not None:
        lines["±"] = Text(f"{one.error:.1f}", style="dim")
    if one.paper is not None:
        lines["paper"] = Text(_printed(one.paper), style="dim")
    if one.difference is not None:
        better = (one.difference >= 0) != (column in COSTS)
        lines["diff"] = Text(f"{one.difference:+.1f}", style="green" if better else "red")
    return lines


def _rounded(one: Number) -> str:
    return "–" if one.ours is None else f"{one.ours:.{one.digits}f}" + "*" * bool(one.note)


def _ours(one: Number) -> str:
    return _rounded(one) + (f" ± {one.error:.1f}" if one.error is not None else "")


def _printed(number: float) -> str:
    """As the paper has it, and other sources rounded as much."""
    return f"{number:.4g}"


def _inline(one: Number) -> str:
    printed = "" if one.paper is None else _printed(one.paper)
    change = "" if one.difference is None else f"{one.difference:+.1f}"
    beside = ", ".join(text for text in (printed, change) if text)
    return _ours(one) + (f" ({beside})" if beside else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _notes(numbers: Numbers) -> Iterator[str]:
    """What the stars mean."""
    for row, found in numbers.items():
        for name, one in found.items():
            if one.note:
                yield f"- \\* {', '.join(text for text in row if text)}, {name}: {one.note}"
