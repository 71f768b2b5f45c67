"""`losia recipes`: what comes with the project to train from."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from losia_cli.cli.app import app


@app.command()
def recipes(
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILTER]...",
            help="Only what has every word: a model, a data set, table1 ..., method, ablation.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the shipped recipes, and the methods and ablations that `losia train` lays over them.

    With each come the tables of the paper that it serves, with a recipe also the memory and the
    hours that the paper reports. Examples:

        losia recipes

        losia recipes llama2-7b table2

        losia recipes ablation --json
    """
    from losia_cli.cli.console import plain
    from losia_cli.reproduction import catalogue

    found = catalogue.entries(filters or [])
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in found], indent=1))
        return
    console = plain()
    for listed in catalogue.listing(found):
        console.print(listed)
        console.print()
