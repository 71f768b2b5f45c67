"""`losia eval`: score a model on the paper's columns."""

import contextlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from losia_cli.cli.app import app
from losia_cli.errors import UserError
from losia_cli.run_folder import RECORD

ALLOW_CODE = "--allow-code"
_CODE = ("sandboxed", "unsandboxed")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The command line with each `--allow-code` given its value: the next word or `sandboxed`."""
    found: list[str] = []
    for text in arguments:
        if found and found[-1] == ALLOW_CODE:
            found[-1] = f"{ALLOW_CODE}={text if text in _CODE else _CODE[0]}"
            if text in _CODE:
                continue
        found.append(text)
    return [f"{ALLOW_CODE}={_CODE[0]}" if text == ALLOW_CODE else text for text in found]


@app.command("eval")
def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|MODEL|CHECKPOINT",
            help="A run's output_dir, a checkpoint, a model's folder, or the hub's name of one.",
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="A suite, a group (table1, table2, all) or a task of the harness's."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An adapter to lay over the model.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="The model that the run started from, in its place.")
    ] = False,
    limit: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="The first documents of each task: a partial score."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Local documents in the original columns: DIR/gsm8k/test.jsonl ..."
        ),
    ] = None,
    allow_code: Annotated[
        str | None,
        typer.Option(
            ALLOW_CODE,
            metavar="[=unsandboxed]",
            help="Run programs that the model writes (MBPP), in a sandbox or, with =, without.",
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="N|auto", help="Prompts at once; auto: by their tokens.")
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16 or auto, the weights'; else the recipe's."),
    ] = None,
    backend: Annotated[str, typer.Option(help="hf, or vllm where that is installed.")] = "hf",
    bos: Annotated[
        bool | None,
        typer.Option("--bos/--no-bos", help="BOS before each prompt; else as the family does."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask through the tokenizer's chat template.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Of sampled suites: 0.2, unless the recipe says other.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Of sampled suites: 0.95, unless the recipe says other.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 1234,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go: else RUN/eval.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    list_suites: Annotated[bool, typer.Option("--list", help="Show the suites and stop.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two finished results, A with B.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print prompts, answers and verdicts of RUN's SUITE.")
    ] = False,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="With --show: only what was answered wrongly.")
    ] = False,
) -> None:
    """Score a model with lm-evaluation-harness on the columns of the paper's tables.

    Without --suite, on those of the run's recipe (`eval_suites`). A run that was cut off goes on
    with the same command. Examples:

        losia eval --list

        losia eval runs/llama2-7b-metamath --suite gsm8k-5shot --suite gsm8k-cot

        losia eval runs/quickstart/model --suite arc-e --data my-data --limit 100

        losia eval --compare runs/losia runs/lora

        losia eval --show runs/losia gsm8k-cot --wrong
    """
    names = targets or []
    if wrong and not show:
        raise UserError("--wrong goes with --show: losia eval --show RUN SUITE --wrong")
    if list_suites + compare + show > 1:
        raise UserError("of --list, --compare and --show, give one")
    if as_json and (show or list_suites):
        raise UserError("--json goes with an evaluation or --compare, not with --list or --show")
    if list_suites:
        _print_suites()
    elif compare:
        _compare(*_pair(names, "--compare", "two folders with results, A B"), suite or (), as_json)
    elif show:
        folder, name = _pair(names, "--show", "a folder with results and a suite, RUN SUITE")
        _show(Path(folder), name, wrong)
    elif len(names) != 1:
        raise UserError(
            f"losia eval takes one run or model, and {len(names)} are given"
            f"{' (' + ', '.join(names) + ')' if names else ''}; it is the folder of a run, a"
            " checkpoint or a model, or the hub's name of one"
        )
    else:
        from losia_cli.evaluation.settle import Request

        request = Request(
            target=names[0],
            suites=suite or (),
            adapter=adapter,
            base=base,
            limit=limit,
            data=data,
            seed=seed,
            batch=_batch(batch),
            dtype=None if dtype is None else _one_of("--dtype", dtype, _DTYPES),
            backend=_one_of("--backend", backend, ("hf", "vllm")),
            out=out,
            allow_code=allowed(allow_code),
            bos=bos,
            chat=chat,
            temperature=temperature,
            top_p=top_p,
        )
        _evaluate(request, as_json)


def _pair(names: Sequence[str], option: str, what: str) -> tuple[str, str]:
    if len(names) != 2:
        raise UserError(f"{option} takes {what}; {len(names)} are given")
    return names[0], names[1]


def _batch(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--batch: {text!r} is neither auto nor a number from 1")
    return int(text)


def allowed(text: str | None) -> str | None:
    """The value of `--allow-code`: sandboxed, unsandboxed, or None where it is not given."""
    if text is None:
        return None
    return _one_of(ALLOW_CODE, text, _CODE)


def _one_of(option: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        from losia_cli.spelling import did_you_mean

        advice = did_you_mean(text, known) or f"; it is one of {', '.join(known)}"
        raise UserError(f"{option}: {text!r} is not known{advice}")
    return text


def _print_suites() -> None:
    from losia_cli.cli.console import plain
    from losia_cli.evaluation.report import suite_list

    plain().print(suite_list())


def _evaluate(request: "Request", as_json: bool) -> None:  # type: ignore[name-defined] # noqa: F821
    from losia_cli.cli.console import plain
    from losia_cli.evaluation.report import table
    from losia_cli.evaluation.run import evaluate as run

    console = plain(stderr=as_json)
    found = run(request, console)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.print(table(found, found["asked"]))
        console.print(f"results, samples and responses: {found['folder']}", soft_wrap=True)
        if (Path(request.target) / RECORD).is_file() and not (request.base or request.adapter):
            console.print(f"what was gained: {_beside_the_base(request, found)}", soft_wrap=True)


def _beside_the_base(
    request: "Request",  # type: ignore[name-defined] # noqa: F821
    found: dict[str, Any],
) -> str:
    """The command that tells a run's scores from its base model's."""
    from losia_cli.evaluation import results

    base, scored = Path(request.target) / "eval-base", {}
    with contextlib.suppress(UserError):  # none, or none that can be read
        scored = results.load(base)["suites"]
    if all(name in scored for name in found["asked"]):
        return f"losia eval --compare {shlex.quote(str(base))} {shlex.quote(found['folder'])}"
    return f"losia eval {shlex.quote(request.target)} --base, with the same options"


def _compare(first: str, second: str, suites: Sequence[str], as_json: bool) -> None:
    from losia_cli.cli.console import plain
    from losia_cli.evaluation import comparison

    found = comparison.compare(Path(first), Path(second), suites)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        plain().print(comparison.table(found))


def _show(folder: Path, name: str, wrong: bool) -> None:
    from losia_cli.evaluation import report, results

    found = results.load(folder)
    lines = results.samples(found, name)
    for text in report.samples(found["suites"][name], lines, wrong):
        typer.echo(f"{text}\n")
