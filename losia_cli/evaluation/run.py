"""An evaluation: settled, then suite by suite asked, scored and saved."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from losia_cli.evaluation import harness, letter, loading, results
from losia_cli.evaluation.batches import Limit
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.evaluation.model import ResumableLM
from losia_cli.evaluation.progress import SuiteProgress
from losia_cli.evaluation.served import StoredLM
from losia_cli.evaluation.settle import BATCH_TOKENS, Request, Setup, prepare
from losia_cli.evaluation.store import Store
from losia_cli.evaluation.suites import Suite
from losia_cli.reproduction import paper
from losia_cli.training.record import versions

_DECIDE = ("batches", "generation", "letter", "model", "reading", "sampling")  # modules that do


def evaluate(request: Request, console: Console) -> dict[str, Any]:
    """Score a model and leave the results in its folder.

    Returns:
        What `eval_results.json` then holds, and under `asked` the suites that were asked for.

    Raises:
        UserError: something is wrong with the model, the suites, the documents or the folder.
    """
    setup = prepare(request, console)
    identity = _digest(setup.files)
    results.open_folder(setup.out, identity, request.target)
    store = Store(setup.out)
    progress = SuiteProgress(console)
    lm = _load(setup, store, progress, console)
    shared = {"model": _described(setup.checkpoint, identity, setup.files), "versions": versions()}
    with progress.bar:
        for suite in setup.suites:
            progress.suite(suite.name)
            result = _ask(lm, suite, setup, request.chat)
            results.save(setup.out, shared, suite.name, result)
    store.close()
    return {**results.load(setup.out), "asked": [suite.name for suite in setup.suites]}


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
    batch = settings["batch"] if isinstance(settings["batch"], int) else None
    settled = {
        task.task_name: letter.settled
        for suite in setup.suites
        if suite.letter
        for task in harness.leaves(setup.built[suite.name])
    }
    decides = {key: settings[key] for key in ("dtype", "device", "bos", "attention")}
    return ResumableLM(
        model,
        loading.load_tokenizer(found),
        identity=identity | decides,
        bos=settings["bos"],
        limit=Limit(BATCH_TOKENS[settings["device"]], batch),
        store=store,
        seed=settings["seed"],
        settled=settled,
        watcher=progress,
    )


def _ask(lm: ResumableLM | StoredLM, suite: Suite, setup: Setup, chat: bool) -> dict[str, Any]:
    """One suite, asked, saved and described."""
    started = time.monotonic()
    lm.truncated.clear()
    built = setup.built[suite.name]
    raw = harness.run(lm, suite, built, limit=setup.limit, chat=chat)
    lines = results.save_raw(setup.out, suite, raw)
    found = results.headline(suite, raw)
    code: dict[str, Any] = {}
    if suite.code and setup.sandbox:
        code = {"sandbox": setup.sandbox.kind, "verdicts": setup.verdicts[suite.name]}
    return {
        **found,
        "paper": paper.score(setup.checkpoint.recipe, suite.column) if suite.column else None,
        "partial": found["documents"] < found["of"],
        "limit": setup.limit,
        "truncated": sum(map(len, lm.truncated.values())),
        "settings": setup.settings,
        "generation": dict(suite.generation),
        "samples": suite.samples,
        **code,
        "hashes": results.prompts_hash(lines),
        "configurations": {t.task_name: harness.config_hash(t) for t in harness.leaves(built)},
        "versions": raw["versions"],
        "datasets": setup.documents[suite.name].used,
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


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """A hash over the modules that decide a response."""
    folder = Path(__file__).parent
    return _digest([(folder / f"{name}.py").read_text() for name in _DECIDE])
