"""`losia data`: the paper's training sets."""

from pathlib import Path
from typing import Annotated

import typer

from losia_cli.cli.app import app
from losia_cli.errors import UserError

data = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(data, name="data")
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="The recipes' dataset_dir.")]


@data.callback()
def _data() -> None:
    """Download, draw and look at the paper's training sets."""


@data.command()
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which sets; else all.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A local copy in the original columns, in place of the hub: JSONL, JSON, Parquet"
            " or Arrow, or a folder of such files.",
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="How many to draw; by default as the paper.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which rows are drawn.")] = 42,
    output: Output = Path("data"),
    again: Annotated[bool, typer.Option("--again", help="Make it though it is there.")] = False,
) -> None:
    """Make the paper's training sets: drawn, in the authors' prompts, registered for recipes.

    What is there unchanged is left alone. Examples:

        losia data prepare metamathqa

        losia data prepare arc_c arc_e --output my-data

        losia data prepare boolq --from boolq-train.parquet
    """
    from losia_cli.cli.console import plain
    from losia_cli.data.prepare import Request
    from losia_cli.data.prepare import prepare as make
    from losia_cli.data.training_sets import SETS, find

    wanted = [find(name) for name in names or SETS]
    if source is not None and len(wanted) != 1:
        raise UserError("--from is a copy of one set: name it, losia data prepare NAME --from FILE")
    console = plain()
    for each in wanted:
        make(Request(each, source, rows, seed), output, console, again)


@data.command()
def show(
    name: Annotated[str, typer.Argument(help="A prepared set.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_HUB_ID", help="Whose tokenizer to use; else that of the set's recipe."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many to print.")] = 2,
    output: Output = Path("data"),
) -> None:
    """Print rows as the model will see them, and how long all of them are.

    The supervised part stands in ⟦ ⟧. Example:

        losia data show metamathqa --model my-models/llama-2-7b
    """
    from losia_cli.cli.console import plain
    from losia_cli.data.show import show as print_set
    from losia_cli.data.training_sets import find

    print_set(find(name), output, model, rows, plain())


@data.command("list")
def list_sets(output: Output = Path("data")) -> None:
    """List the sets, where they come from, and which are prepared.

    What is prepared, and from what, is in DIR/losia_data.json. Example:

        losia data list
    """
    from losia_cli.cli.console import plain
    from losia_cli.data.show import listing

    plain().print(listing(output))
