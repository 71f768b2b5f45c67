"""The Typer application that the commands register with."""

from typing import Annotated

import typer

from losia_cli import __version__

app = typer.Typer(
    name="losia",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
