"""`losia train`: fine-tune what a recipe says."""

import sys
from typing import Annotated

import typer

from losia_cli.cli.app import app


@app.command(context_settings={"ignore_unknown_options": True})  # said of them as overrides
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A LLaMA-Factory YAML or JSON file, or a name that `losia recipes` lists."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Laid over the recipe.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Lay a method over it: lora, full, losia-pro, ablations/synchronous ..."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the resolved recipe; train nothing.")
    ] = False,
) -> None:
    """Fine-tune a model as a recipe says, in LLaMA-Factory's workflow.

    A recipe is a LLaMA-Factory file; `finetuning_type: losia` trains with LoSiA. Examples:

        losia train quickstart output_dir=runs/mine    (after `losia quickstart`)

        losia train recipes/llama2-7b-metamath.yaml learning_rate=1e-4

        losia train llama2-7b-metamath --method lora --dry-run

        losia train RECIPE resume_from_checkpoint=true
    """
    from losia_cli import recipes
    from losia_cli.cli.console import plain

    console = plain()
    from losia_cli.training.command import evaluate_after, look_over, run

    resolved = recipes.load(recipe, method, overrides or [])
    if dry_run:
        console.print(recipes.describe(resolved))
        look_over(resolved, console)
        return

    arguments = ["train", str(resolved.path), *(overrides or [])]
    code = run(resolved, arguments + (["--method", method] if method else []), console)
    if code == 0:
        evaluate_after(resolved, console)
    sys.exit(code)
