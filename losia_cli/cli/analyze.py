"""`losia analyze`: what runs did, beside their scores."""

from pathlib import Path
from typing import Annotated

import typer

from losia_cli.cli.app import app
from losia_cli.errors import UserError

analyze = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(analyze, name="analyze")
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw to this file.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")]


@analyze.callback()
def _analyze() -> None:
    """Look at what runs trained, and at what that did to the weights."""


@analyze.command()
def selections(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Of LoSiA: output_dir.")],
    linear: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="To draw, as 10.mlp.up_proj; else a v_proj in the middle."
        ),
    ] = None,
    plot: Plot = None,
    json_file: Json = None,
) -> None:
    """Show which neurons LoSiA selected, how often, and how many it kept: Figures 3 and 7.

    Beside it stands what a random choice gives. Further runs are compared with the first. Examples:

        losia analyze selections runs/llama2-7b-metamath --plot selections.png

        losia analyze selections runs/p-1-8 runs/p-1-16 --linear 10.mlp.up_proj --plot both.png
    """
    from losia_cli.analysis import command
    from losia_cli.cli.console import plain

    command.selections(runs, linear, plot, json_file, plain())


@analyze.command()
def spectrum(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Of any method: output_dir, or a model.")
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What they started from, where they do not say."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="N,N|all", help="Decoder layers, from 0; else the middle one."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many singular vectors, at most.")] = 500,
    plot: Plot = None,
    json_file: Json = None,
) -> None:
    """Compare singular vectors of trained weights with those of before: Figure 8.

    Vectors like none of before are the intruders that low-rank training is said to bring. Needs
    memory for both models. Examples:

        losia analyze spectrum runs/losia runs/lora runs/full --plot spectrum.png

        losia analyze spectrum runs/losia --layers 0,15,31 --json spectrum.json
    """
    from losia_cli.analysis import command
    from losia_cli.cli.console import plain

    command.spectrum(runs, base, _numbers(layers), top, plot, json_file, plain())


def _numbers(layers: str | None) -> list[int] | None:
    if layers is None or layers == "all":
        return None if layers is None else []
    try:
        return [int(number) for number in layers.split(",")]
    except ValueError:
        raise UserError(f"--layers: {layers!r} is neither numbers with commas nor all") from None
