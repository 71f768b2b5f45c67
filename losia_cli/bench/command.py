"""Run a benchmark, print its table, write its JSON; importing this loads no torch."""

import sys
from collections.abc import Sequence
from pathlib import Path

from losia_cli.bench.settings import StepSettings
from losia_cli.files import refuse_unwritable, write_json


def step(settings: StepSettings, json_file: Path | None) -> None:
    """Measure a training step and print the table, LLaMA-2 7B's beside the paper's latencies.

    Raises:
        UserError: the model cannot be loaded, or `json_file` cannot be written.
    """
    refuse_unwritable(json_file)
    from losia_cli.bench import latency
    from losia_cli.bench.step import render, run_step_benchmark

    result = run_step_benchmark(settings, _progress)
    print(render(result))
    if settings.model == latency.PAPERS_MODEL:
        print("\n" + latency.render([result]))
    write_json(json_file, result)


def sizes(settings: StepSettings, json_file: Path | None) -> None:
    """Count parameters by size, measure their memory on a GPU, and print the table.

    Raises:
        UserError: an unknown method, the model cannot be loaded, or `json_file` cannot be written.
    """
    refuse_unwritable(json_file)
    from losia_cli.bench.sizes import render, run_size_benchmark

    result = run_size_benchmark(settings, _progress)
    print(render(result))
    write_json(json_file, result)


def compare_latencies(files: Sequence[Path], plot: Path | None) -> None:
    """Read step or size benchmarks, print them as one table of latencies, and draw them.

    Raises:
        UserError: a file is not a measurement like the others, or `plot` cannot be written.
    """
    refuse_unwritable(plot)
    from losia_cli.bench import latency

    results = latency.read(files)
    print(latency.render(results))
    if plot is not None:
        from losia_cli.bench.plot import draw

        draw(results, plot)


def memory(methods: Sequence[str], json_file: Path | None) -> None:
    """Count what a layer of LLaMA-2 7B keeps for backward and print the table.

    Raises:
        UserError: an unknown method, or `json_file` cannot be written.
    """
    refuse_unwritable(json_file)
    from losia_cli.bench.memory import render, run_memory_benchmark

    result = run_memory_benchmark(methods=methods, progress=_progress)
    print(render(result))
    write_json(json_file, result)


def evaluation(
    names: Sequence[str],
    data: Path,
    limit: int,
    repeats: int,
    model: str,
    json_file: Path | None,
) -> None:
    """Measure how fast suites are answered and print the table.

    Raises:
        UserError: an unknown suite, no documents, or `json_file` cannot be written.
    """
    refuse_unwritable(json_file)
    from losia_cli.bench.evaluation import render, run_evaluation_benchmark

    result = run_evaluation_benchmark(names, data, limit, repeats, model, _progress)
    print(render(result))
    write_json(json_file, result)


def _progress(line: str) -> None:
    print(line, file=sys.stderr)
