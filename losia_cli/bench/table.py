"""A table in plain text, and what stands above it."""

from collections.abc import Sequence
from typing import Any

OPEN = "–"  # a number that is not there


def heading(result: dict[str, Any]) -> str:
    """What was measured, and where, in a line."""
    used, machine = result["settings"], result["machine"]
    return (
        f"{used['model']}, {used['dtype']}, {used['batch']} x {used['tokens']} tokens, "
        f"checkpointing {'on' if used['checkpointing'] else 'off'}, {used['repeats']} rounds, "
        f"{machine['device']}, {machine['threads']} threads"
    )


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns under their header: the first flush left, the others flush right."""
    columns = list(zip(header, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, *lines)
    )
