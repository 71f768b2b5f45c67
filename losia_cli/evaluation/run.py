"""An evaluation: settled, then suite by suite asked, scored and saved."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from losia_cli import paper
from losia_cli.evaluation import harness, loading, results
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.evaluation.judge import count
from losia_cli.evaluation.model import ResumableLM
from losia_cli.evaluation.progress import SuiteProgress
from losia_cli.evaluation.served import StoredLM
from losia_cli.evaluation.settle import Asked, Request, Setup, prepare
from losia_cli.evaluation.store import Store
from losia_cli.files import sha256_of
from losia_cli.run_folder import versions

_DECIDE = (
    "batches",
    "decoding",
    "dora",
    "generation",
    "letter",
    "loading",
    "model",
    "reading",
    "sampling",
    "served",
)  # modules that do


def evaluate(request: Request, console: Console) -> dict[str, Any]:
    """Score a model and leave the results in its folder.

    Returns:
        What `eval_results.json` then holds, and under `asked` the suites that were asked for.

    Raises:
        UserError: something is wrong with the model, the suites, the documents or the folder.
    """
    setup = prepare(request, console)
    identity = sha256_of(setup.files)
    held = results.open_folder(setup.out, identity, request.target)
    _warn_of_loss(setup, held, console)
    store = Store(setup.out)
    progress = SuiteProgress(console)
    lm = _load(setup, store, progress, console)
    shared = {"model": _described(setup.checkpoint, identity, setup.files), "versions": versions()}
    with progress.bar:
        for asked in setup.asked:
            progress.suite(asked.suite.name)
            result = _ask(lm, asked, setup, request.chat)
            results.save(setup.out, shared, asked.suite.name, result)
    store.close()
    return {**results.load(setup.out), "asked": [asked.suite.name for asked in setup.asked]}


def _warn_of_loss(setup: Setup, held: dict[str, Any], console: Console) -> None:
    """Say which whole scores a limited run is about to replace."""
    names = [asked.suite.name for asked in setup.asked]
    lost = [name for name in names if name in held and not held[name]["partial"]]
    if setup.limit is not None and lost:
        console.print(
            f"warning: this limited run replaces the whole score of {', '.join(lost)} in"
            f" {setup.out}; its responses stay stored (--out DIR keeps both)",
            style="yellow",
            markup=False,
        )


def _load(
    setup: Setup, store: Store, progress: SuiteProgress, console: Console
) -> ResumableLM | StoredLM:
    settings, found = setup.settings, setup.checkpoint
    identity = {"files": setup.files, "code": _code(), "versions": versions()}
    with console.status("loading the model"):
        if settings["backend"] == "vllm":
            served = loading.load_vllm(found, settings)
            return StoredLM(served, identity=identity | settings, store=store, watcher=progress)
        model = loading.load_model(found, settings["dtype"], settings["device"])
    settings["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    lettered = [asked.task for asked in setup.asked if asked.suite.letter]
    letters = {task.task_name for built in lettered for task in harness.leaves(built)}
    decides = {key: settings[key] for key in ("dtype", "device", "bos", "attention")}
    return ResumableLM(
        model,
        loading.load_tokenizer(found),
        identity=identity | decides,
        bos=settings["bos"],
        limit=setup.batch,
        store=store,
        seed=settings["seed"],
        letters=letters,
        watcher=progress,
    )


def _ask(lm: ResumableLM | StoredLM, asked: Asked, setup: Setup, chat: bool) -> dict[str, Any]:
    """One suite, asked, saved and described."""
    suite, started = asked.suite, time.monotonic()
    raw = harness.run(lm, suite, asked.task, limit=setup.limit, chat=chat)
    lines = results.save_raw(setup.out, suite, raw)
    found = results.headline(suite, raw)
    code: dict[str, Any] = {}
    if suite.code and setup.sandbox:
        verdicts = (verdict for line in lines for verdict in line["extracted"][0])
        code = {"sandbox": setup.sandbox.kind, "verdicts": count(verdicts)}
    return {
        **found,
        "paper": paper.score(setup.checkpoint.recipe, suite.column) if suite.column else None,
        "partial": found["documents"] < found["of"],
        "limit": setup.limit,
        "truncated": lm.count_truncated(),
        "settings": setup.settings,
        "generation": dict(suite.generation),
        "samples": suite.samples,
        **code,
        "hashes": results.prompts_hash(lines),
        "configurations": {t.task_name: harness.config_hash(t) for t in harness.leaves(asked.task)},
        "versions": raw["versions"],
        "datasets": asked.documents.used,
        "seconds": round(time.monotonic() - started, 1),
    }


def _described(found: Checkpoint, identity: str, files: dict[str, str]) -> dict[str, Any]:
    return {
        "name": found.name,
        "path": str(found.model.absolute()),
        "adapter": str(found.adapter.absolute()) if found.adapter else None,
        "identity": identity,
        "sha256": files,
        "recipe": found.recipe,
    }


def _code() -> str:
    """A hash over the modules that decide a response."""
    folder = Path(__file__).parent
    return sha256_of([(folder / f"{name}.py").read_text() for name in _DECIDE])
