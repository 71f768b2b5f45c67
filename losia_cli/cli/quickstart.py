"""`losia quickstart`: see LoSiA teach a small model, on any machine, in minutes."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from losia_cli.cli.app import app
from losia_cli.errors import UserError


@app.command()
def quickstart(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_HUB_ID", help="A chat model instead of SmolLM2-135M-Instruct."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where all goes: runs/quickstart, or runs/quickstart-compare."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems and of the training.")] = 42,
    again: Annotated[
        bool, typer.Option("--again", help="Replace an earlier result in the folder.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Five methods at up to three rates (two hours); table and plot go to"
            " docs/benchmarks. Goes on where it was stopped.",
        ),
    ] = False,
) -> None:
    """Teach a small model a new skill with LoSiA-Pro, and measure it before and after.

    Needs no GPU and nothing but the Python package index; takes minutes on two cores. Examples:

        losia quickstart

        losia quickstart --model Qwen/Qwen2.5-0.5B-Instruct --output runs/qwen
    """
    from losia_cli.cli.console import plain
    from losia_cli.quickstart.run import Paths
    from losia_cli.quickstart.run import quickstart as run
    from losia_cli.quickstart.table import show

    console = plain()
    if compare:
        if again:
            raise UserError(
                "--again: with --compare, remove the files in DIR/cells that are to be made anew"
            )
        from losia_cli.quickstart.compare import compare_all

        kept = output or Path("runs/quickstart-compare")
        compare_all(kept, model, seed, Path("docs/benchmarks"), console)
        return
    folder = output or Path("runs/quickstart")
    result = run(folder, model, seed, again, console)
    show(result, Paths(folder).trained, _how_called(), console)


def _how_called() -> str:
    """`losia` where the shell finds this very program by that name, else its path."""
    program = Path(sys.argv[0])
    found = shutil.which("losia")
    if program.name != "losia":
        return f"{Path(sys.executable).name} -m losia_cli"
    return "losia" if found and Path(found).samefile(program) else shlex.quote(str(program))
