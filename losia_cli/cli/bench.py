"""`losia bench`: seconds of a training step and bytes kept for backward, method by method."""

from pathlib import Path
from typing import Annotated

import typer

from losia_cli.bench import command
from losia_cli.bench.settings import MEMORY_METHODS, PRESETS, STEP_METHODS, StepSettings
from losia_cli.cli.app import app

bench = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(bench, name="bench")
DEFAULTS = StepSettings()
Json = Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")]


@bench.callback()
def _bench() -> None:
    """Measure the methods against each other on this machine."""


@bench.command()
def step(
    model: Annotated[
        str, typer.Option(help=f"{', '.join(PRESETS)} (random weights), a path or a hub id.")
    ] = DEFAULTS.model,
    methods: Annotated[
        str, typer.Option(help="Which to measure, with commas between; the floor always is.")
    ] = ",".join(STEP_METHODS),
    batch: Annotated[int, typer.Option(help="Sequences per step; 0: the model's own.")] = 0,
    tokens: Annotated[int, typer.Option(help="Tokens per sequence; 0: the model's own.")] = 0,
    repeats: Annotated[
        int, typer.Option(help="Rounds in which every method takes its turn.")
    ] = DEFAULTS.repeats,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU.")
    ] = DEFAULTS.dtype,
    checkpointing: Annotated[
        bool, typer.Option(help="Recompute activations in backward.")
    ] = DEFAULTS.checkpointing,
    json_file: Json = None,
) -> None:
    """Time forward, backward and optimizer of a training step.

    Every method is compared with LoRA and with the floor: forward and input gradients alone.
    Nothing else should compute meanwhile. Examples:

        losia bench step --json step.json

        losia bench step --model llama2-7b --checkpointing --methods lora,losia-pro
    """
    settings = StepSettings(
        model, tuple(methods.split(",")), batch, tokens, repeats, dtype, checkpointing
    )
    command.step(settings, json_file, typer.echo, _progress)


@bench.command()
def memory(
    methods: Annotated[str, typer.Option(help="Which to count, with commas between.")] = ",".join(
        MEMORY_METHODS
    ),
    json_file: Json = None,
) -> None:
    """Count the bytes that one layer of LLaMA-2 7B keeps for backward; needs no GPU.

    Each storage counts once, parameters do not. Example:

        losia bench memory --methods floor,losia-pro,losia,lora --json memory.json
    """
    command.memory(methods.split(","), json_file, typer.echo, _progress)


@bench.command("eval")
def evaluation(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Local documents, as `losia eval --data` takes.")
    ],
    suite: Annotated[
        list[str] | None, typer.Option(help="Which suites or groups; all but MBPP's by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents of each task.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds in which both take turns.")] = 3,
    model: Annotated[
        str, typer.Option(help=f"small, {', '.join(PRESETS)} (random weights), or a folder.")
    ] = "small",
    json_file: Json = None,
) -> None:
    """Time `losia eval` against lm-evaluation-harness's own model on the same tasks.

    Scores must be equal. Nothing else should compute meanwhile. Example:

        losia bench eval --data DIR --suite mmlu-gen --json eval.json
    """
    names = suite or ["gsm8k-cot", "mmlu-ppl", "mmlu-gen", "mmlu-continuation", "table2"]
    command.evaluation(names, data, limit, repeats, model, json_file, typer.echo, _progress)


def _progress(line: str) -> None:
    typer.echo(line, err=True)
