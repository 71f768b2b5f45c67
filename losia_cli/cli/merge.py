"""`losia merge`: an adapter and its base as one model."""

from pathlib import Path
from typing import Annotated

import typer

from losia_cli.cli.app import app

_DTYPES = ("float32", "bfloat16", "float16")


@app.command()
def merge(
    adapter: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run that trained an adapter, or a checkpoint.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The merged model's new folder.")
    ],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; else what the run computed in."),
    ] = None,
) -> None:
    """Write an adapter (LoRA, DoRA, converted PiSSA) into its base's weights: an ordinary model.

    What full fine-tuning or LoSiA trained is a whole model already. Needs memory for the base, and
    no GPU. Examples:

        losia merge runs/hellaswag-lora runs/hellaswag-lora-merged

        losia train llama2-7b-piqa --method lora model_name_or_path=runs/hellaswag-lora-merged
    """
    from losia_cli.errors import UserError

    if dtype not in (None, *_DTYPES):
        raise UserError(f"--dtype: {dtype!r} is not known; it is one of {', '.join(_DTYPES)}")
    from losia_cli.training.merge import merge as write

    off = write(adapter, output, dtype)
    typer.echo(
        f"{output} is written, reloaded and compared; log-probabilities of next tokens differ from"
        f" the adapter's by at most {off:.2g}"
    )
