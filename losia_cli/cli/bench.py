"""`losia bench`: seconds of a training step and bytes kept for backward, method by method."""

from pathlib import Path
from typing import Annotated

import typer

from losia_cli.bench import command
from losia_cli.bench.settings import (
    MEMORY_METHODS,
    PRESETS,
    SIZE_DEFAULTS,
    SIZE_METHODS,
    STEP_METHODS,
    StepSettings,
)
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
        str,
        typer.Option(help=f"Which of {', '.join(STEP_METHODS)} to measure; the floor always is."),
    ] = ",".join(DEFAULTS.methods),
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
    command.step(settings, json_file)


@bench.command()
def sizes(
    model: Annotated[
        str, typer.Option(help=f"{', '.join(PRESETS)} (random weights), a path or a hub id.")
    ] = SIZE_DEFAULTS.model,
    methods: Annotated[str, typer.Option(help=f"Which of {', '.join(SIZE_METHODS)}.")] = ",".join(
        SIZE_DEFAULTS.methods
    ),
    repeats: Annotated[int, typer.Option(help="Rounds to measure.")] = SIZE_DEFAULTS.repeats,
    checkpointing: Annotated[
        bool, typer.Option(help="Recompute activations in backward.")
    ] = SIZE_DEFAULTS.checkpointing,
    json_file: Json = None,
) -> None:
    """Count what LoRA's ranks and LoSiA's factors train: the paper's Table 14.

    On a GPU, memory and time of training steps are measured too. Example:

        losia bench sizes --json sizes.json
    """
    settings = StepSettings(
        model, tuple(methods.split(",")), repeats=repeats, checkpointing=checkpointing
    )
    command.sizes(settings, json_file)


@bench.command()
def latency(
    files: Annotated[
        list[Path], typer.Argument(metavar="JSON...", help="Of losia bench step or sizes.")
    ],
    plot: Annotated[Path | None, typer.Option(help="Draw memory and latency to this file.")] = None,
) -> None:
    """Lay step benchmarks side by side in microseconds per token: the paper's Table 15.

    Nothing is measured. Example:

        losia bench latency with.json without.json --plot latency.png
    """
    command.compare_latencies(files, plot)


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
    command.memory(methods.split(","), json_file)


@bench.command("eval")
def evaluation(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Local documents, as `losia eval --data` takes.")
    ],
    suite: Annotated[
        list[str] | None, typer.Option(help="Suites or groups; else a GSM8K, MMLU's, table2.")
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
    command.evaluation(names, data, limit, repeats, model, json_file)
