"""Everything about an evaluation that is settled before the model loads, checked and shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from losia_cli.errors import UserError
from losia_cli.evaluation import checkpoint, harness, loading, suites
from losia_cli.evaluation.batches import Limit, limit_for
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.judge import judge
from losia_cli.evaluation.sandbox import Program, Sandbox, find_sandbox, unsandboxed
from losia_cli.evaluation.suites import Suite, parse_limit

UNSANDBOXED = "unsandboxed"


@dataclass(frozen=True)
class Request:
    """What `losia eval` was asked for; the recipe's keys fill what is None."""

    target: str
    suites: Sequence[str] = ()
    adapter: Path | None = None
    base: bool = False
    limit: str | None = None
    data: Path | None = None
    seed: int = 1234
    batch: int | None = None
    dtype: str | None = None
    backend: str = "hf"
    out: Path | None = None
    allow_code: bool | str | None = None
    bos: bool | None = None
    chat: bool = False
    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class Asked:
    """A suite, its documents, and the harness's task or group that asks them."""

    suite: Suite
    documents: Documents
    task: Any


@dataclass(frozen=True)
class Setup:
    """All that is settled before the model loads."""

    checkpoint: Checkpoint
    asked: Sequence[Asked]
    sandbox: Sandbox | None
    limit: float | None
    batch: Limit
    settings: dict[str, Any]
    files: dict[str, str]
    out: Path


def prepare(request: Request, console: Console) -> Setup:
    """Check and settle everything that needs no model."""
    harness.expect_pinned()
    if request.backend == "vllm":
        loading.expect_vllm()
    harness.quieten()
    found = checkpoint.find(request.target, adapter=request.adapter, base=request.base)
    recipe = found.recipe
    dtype = _first(request.dtype, found.recipe.get("eval_dtype"), "auto")
    config = loading.config_of(found.model)
    stored = getattr(config, "dtype", None) or torch.float32
    computed = stored if dtype == "auto" else getattr(torch, dtype)
    batch = replace(limit_for(config, computed, _device()), prompts=request.batch)
    names = request.suites or recipe.get("eval_suites") or ()
    if not names:
        raise UserError(
            "no suite is named, and the run's recipe has no eval_suites: add --suite NAME"
            " (`losia eval --list` shows them)"
        )
    for name in suites.foreign(names):
        console.print(f"looking for {name} among the harness's own tasks", style="dim")
    chosen = [_generating(suite, request, recipe) for suite in suites.find(names)]
    sandbox = _sandbox(chosen, _first(request.allow_code, recipe.get("eval_allow_code")))
    data = _first(request.data, recipe.get("eval_data"))
    asked = [_asked(suite, Path(data) if data else None, sandbox) for suite in chosen]
    limit = _limit(_first(request.limit, recipe.get("eval_limit")), asked)
    settings = _settings(request, found, config, dtype, batch, console)
    for suite in chosen:
        _fits(suite, found)
    out = request.out or _default_out(request)
    return Setup(found, asked, sandbox, limit, batch, settings, found.hashes(), out)


def expect_documents(
    names: Sequence[str], data: str | Path | None = None, limit: str | int | None = None
) -> None:
    """Have what suites ask before the hours of a training whose model they are for.

    Args:
        names: of the suites.
        data: the folder of local documents; None for the hub, where they are fetched.
        limit: `eval_limit`.

    Raises:
        UserError: a name is unknown, documents are missing or damaged, the limit is past them.
    """
    harness.expect_pinned()
    folder = Path(data) if data else None
    with harness.without_bars():
        asked = [_asked(suite, folder, unsandboxed()) for suite in suites.find(names)]
    _limit(limit, asked, "eval_limit")


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _generating(suite: Suite, request: Request, recipe: Mapping[str, Any]) -> Suite:
    """The suite with the sampling that was asked for."""
    if not suite.generation.get("do_sample"):
        return suite
    given = suite.generation
    temperature = _first(request.temperature, recipe.get("eval_temperature"), given["temperature"])
    top_p = _first(request.top_p, recipe.get("eval_top_p"), given["top_p"])
    if not 0 < temperature < math.inf:
        raise UserError(f"--temperature: {temperature:g} is not above 0 (mbpp-greedy samples none)")
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p: {top_p:g} is not above 0 and at most 1")
    return replace(suite, generation={**given, "temperature": temperature, "top_p": top_p})


def _sandbox(chosen: Sequence[Suite], allowed: bool | str | None) -> Sandbox | None:
    code = [suite.name for suite in chosen if suite.code]
    if not code:
        return None
    if not allowed:
        raise UserError(
            f"{code[0]} runs programs that the model writes: allow it with --allow-code (in a"
            " sandbox), or leave the suite out"
        )
    return unsandboxed() if allowed == UNSANDBOXED else find_sandbox()


def _asked(suite: Suite, data: Path | None, sandbox: Sandbox | None) -> Asked:
    documents = Documents(data)
    judges = partial(_judge, sandbox) if suite.code and sandbox else None
    return Asked(suite, documents, harness.build(suite, documents, judges))


def _judge(
    sandbox: Sandbox,
    responses: Sequence[Sequence[str]],
    documents: Sequence[dict[str, Any]],
) -> list[list[str]]:
    """The verdicts on every response to every document."""
    programs = [
        Program(f"{document['test_setup_code']}\n{text}", tuple(document["test_list"]))
        for texts, document in zip(responses, documents, strict=True)
        for text in texts
    ]
    found = iter(judge(programs, sandbox))
    return [[next(found).value for _ in texts] for texts in responses]


def _limit(given: str | int | None, asked: Sequence[Asked], name: str = "--limit") -> float | None:
    """Documents of each task, or a share below 1."""
    if given is None:
        return None
    text = str(given)
    try:
        number, percent = parse_limit(text)
    except ValueError:
        raise UserError(f"{name}: {text!r} is neither a number nor a percentage") from None
    if not number > 0:
        raise UserError(f"{name}: {text} asks for nothing; give a number from 1, or up to 100%")
    for one in asked:
        longest = 1 if percent else max(len(task.eval_docs) for task in harness.leaves(one.task))
        if number > longest:
            there = "100%" if percent else str(longest)
            raise UserError(f"{name}: {text} is past the end, since {one.suite.name} has {there}")
    return None if number == 1 and percent else number


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _settings(
    request: Request, found: Checkpoint, config: Any, dtype: str, batch: Limit, console: Console
) -> dict[str, Any]:
    """What silently changes scores, settled, checked and shown."""
    tokenizer = loading.load_tokenizer(found)
    bos = request.bos if request.bos is not None else loading.bos_by_default(tokenizer)
    if bos and tokenizer.bos_token_id is None:
        raise UserError(f"--bos: the tokenizer in {found.tokenizer} has no BOS token")
    if request.chat and not tokenizer.chat_template:
        raise UserError(f"--chat: the tokenizer in {found.tokenizer} has no chat template")
    settings = {
        "backend": request.backend,
        "dtype": dtype,
        "device": _device(),
        "bos": bos,
        "chat_template": request.chat,
        "seed": request.seed,
        "fewshot_seed": harness.FEWSHOT_SEED,
    }
    if request.backend == "hf":  # another backend has its own
        attention = loading.attention_of(config)
        settings |= {"softmax": "float32", "attention": attention, "batch": str(batch)}
    shown = "  ".join(f"{key} {value}" for key, value in settings.items())
    console.print(shown, style="dim")
    if found.trained_with_bos is not None and found.trained_with_bos != bos and not request.chat:
        was, now = ("with", "without") if found.trained_with_bos else ("without", "with")
        console.print(
            f"warning: the model was trained {was} BOS and is evaluated {now}: choose by"
            " --bos or --no-bos, or ask in its chat template by --chat",
            style="yellow",
        )
    return settings


def _fits(suite: Suite, found: Checkpoint) -> None:
    asked, context = suite.generation.get("max_gen_toks", 0), loading.context_length(found)
    if context is not None and asked >= context:
        raise UserError(
            f"{suite.name} generates up to {asked} tokens, and the model's context holds {context}:"
            " no prompt would fit beside them"
        )


def _default_out(request: Request) -> Path:
    folder = Path(request.target)
    if request.adapter is not None:
        return request.adapter / "eval"
    if not folder.is_dir():
        return Path("runs/eval") / request.target.replace("/", "--")
    return folder / ("eval-base" if request.base else "eval")
