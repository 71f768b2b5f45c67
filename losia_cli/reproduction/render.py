"""A table of numbers to read: in the terminal, as Markdown, as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from losia_cli.reproduction.numbers import Number, Numbers
from losia_cli.reproduction.tables import published

_HEAD = ("column", "ours", "error", "seeds", "paper", "difference", "note")


def terminal(title: str, numbers: Numbers, fields: Sequence[str]) -> Table:
    """A table for the terminal: ours, below it the paper's and the difference."""
    columns = _columns(numbers)
    view = Table(title=Text(title), title_justify="left", show_lines=True)
    for name in fields:
        view.add_column(name, overflow="fold")
    for name in columns:
        view.add_column(name, justify="right", overflow="fold")
    for row, found in numbers.items():
        cells = [Text("\n").join(_lines(found[name])) if name in found else "" for name in columns]
        view.add_row(*row, *cells)
    return view


def markdown(title: str, numbers: Numbers, fields: Sequence[str]) -> str:
    """The same in Markdown: `ours ± error (the paper's, difference)`."""
    columns = _columns(numbers)
    lines = [f"## {title}", "", _line([*fields, *columns])]
    lines.append("|" + " --- |" * len(fields) + " ---: |" * len(columns))
    lines += [
        _line([*row, *(_inline(found[name]) if name in found else "" for name in columns)])
        for row, found in numbers.items()
    ]
    lines += ["", "Ours ± error (the paper's, ours less the paper's); – is not measured."]
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
    return list(dict.fromkeys(name for found in numbers.values() for name in found))


def _lines(one: Number) -> Iterator[Text]:
    yield Text(_ours(one), style="bold" if one.ours is not None else "dim")
    if one.paper is not None:
        yield Text(f"paper {one.paper:g}", style="dim")
    if one.difference is not None:
        yield Text(f"{one.difference:+.1f}", style="green" if one.difference >= 0 else "red")


def _ours(one: Number) -> str:
    if one.ours is None:
        return "–"
    error = f" ± {one.error:.1f}" if one.error is not None else ""
    return f"{one.ours:.1f}{error}" + ("*" if one.note else "")


def _inline(one: Number) -> str:
    printed = "" if one.paper is None else f"{one.paper:g}"
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
