"""The `losia` command: each module here is one command and only parses, calls and prints."""

import sys
from typing import Annotated

import typer

from losia_cli import __version__
from losia_cli.errors import UserError

app = typer.Typer(
    name="losia",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Fine-tune a language model on one GPU with LoSiA, inside LLaMA-Factory's workflow.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"losia {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Fine-tune a language model on one GPU with LoSiA, inside LLaMA-Factory's workflow."""


def main() -> None:
    """Run the command; a `UserError` becomes one line on standard error and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.secho(f"losia: {error}", err=True, fg="red")
        sys.exit(2)
