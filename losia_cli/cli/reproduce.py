"""`losia reproduce`: a table of the paper, measured here."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from losia_cli.cli.app import app
from losia_cli.cli.eval import ALLOW_CODE, allowed
from losia_cli.errors import UserError


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4, table5, ...")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Laid over every recipe."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model (repeatable): llama2-7b ...")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method (repeatable): losia, lora ...")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this training set (repeatable): metamath ...")
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N,N,...", help="Train by each; the mean and its deviation.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where cells are kept: runs/reproduce.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Local documents to score on.")
    ] = None,
    allow_code: Annotated[
        str | None,
        typer.Option(
            ALLOW_CODE,
            metavar="",
            help="Let MBPP run what the models write, in a sandbox (=unsandboxed: without one).",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the weights after scoring, which is dear in disk.")
    ] = False,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="The same plan with tiny models; needs no GPU.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, its hours and disk; run nothing.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show what has been measured so far; run nothing.")
    ] = False,
) -> None:
    """Train and score the models of a table of the paper, and lay the numbers beside the paper's.

    What has been measured is kept; the same command goes on where it was cut off. Examples:

        losia reproduce table1 --dry-run

        losia reproduce table1 --model llama2-7b --dataset metamath --method losia --method lora

        losia reproduce table10 --seeds 42,43,44

        losia reproduce table1 --miniature --allow-code
    """
    from losia_cli.cli.console import plain
    from losia_cli.reproduction import reproduce as reproduction

    given = overrides or []
    if seeds and any(text.startswith("seed=") for text in given):
        raise UserError("--seeds and seed=... are both given: leave one out")
    request = reproduction.Request(
        table=f"table{table}" if table.isdigit() else table,
        models=model or (),
        methods=method or (),
        datasets=dataset or (),
        seeds=_seeds(seeds),
        overrides=given,
        output=output,
        data=data,
        allow_code=allowed(allow_code),
        keep=keep,
        miniature=miniature,
    )
    console = plain()
    if dry_run:
        reproduction.dry_run(request, console)
    elif show:
        reproduction.show(request, console)
    else:
        sys.exit(reproduction.reproduce(request, console))


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--seeds: {text!r} is no list of numbers; write --seeds 42,43,44")
    return [int(word) for word in words]
