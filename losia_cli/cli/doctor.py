"""`losia doctor`: what this machine and environment can do."""

import typer

from losia_cli.cli.app import app

_MARKS = {True: "[green]ok[/]", None: "[yellow]--[/]", False: "[red]wrong[/]"}


@app.command()
def doctor() -> None:
    """Look at Python, packages, GPU, disk and sandbox; exit code 1 if something cannot work."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from losia_cli.doctor import findings

    found = list(findings())
    view = Table(show_header=False, box=None, pad_edge=False)
    for finding in found:
        view.add_row(_MARKS[finding.well], Text(finding.what), Text(finding.found))
    Console().print(view)
    if any(finding.well is False for finding in found):
        raise typer.Exit(1)
