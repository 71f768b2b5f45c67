"""Documents per second of each suite, against the harness's own model on the same tasks.

Both answer the same built tasks on the same weights in turn, so that only what computes the
responses differs: `HFLM` with a fixed batch, and ours. Scores must be equal, document by document.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from losia_cli.bench.models import load_base
from losia_cli.bench.settings import PRESETS
from losia_cli.bench.table import table
from losia_cli.errors import UserError
from losia_cli.evaluation import harness, results, suites
from losia_cli.evaluation.batches import limit_for
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.model import ResumableLM
from losia_cli.evaluation.sandbox import Program, find_sandbox, unsandboxed
from losia_cli.evaluation.store import Store
from losia_cli.evaluation.suites import Suite
from losia_cli.quickstart.model import prepare_base_model
from losia_cli.run_folder import versions

# Not the harness's "auto", which is sought anew in every round by running out of memory.
PLAIN_BATCH = {"cpu": 8, "cuda": 16}
SMALL = "small"
TINY = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


@dataclass
class _Watch:
    """When the first request was answered, as our model and as the harness's tell it."""

    first: float | None = None
    dbdict: None = None

    def begin(self, requests: int) -> None:
        """Nothing is answered yet."""

    def advance(self, requests: int, tokens: int) -> None:
        """Some are."""
        self.first = self.first or time.perf_counter()

    def add_partial(self, *_: Any) -> None:
        """One is."""
        self.advance(1, 0)


@dataclass
class _Timing:
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peak: int = 0


def run_evaluation_benchmark(
    names: Sequence[str],
    data: Path,
    limit: int,
    repeats: int,
    model: str,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measure suites one after another, both ways in turn.

    Args:
        names: suites.
        data: the folder of local documents.
        limit: documents of each task.
        repeats: rounds.
        model: a model's folder, `small` or one of `PRESETS`: random weights, which do not stop by
            themselves.
        progress: told each measurement.

    Raises:
        UserError: an unknown suite, or documents that are not there.
    """
    harness.quieten()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = suites.find(names)
    loaded = _load(model, device)
    found = {}
    for suite in chosen:
        timings = {"plain": _Timing(), "losia": _Timing()}
        documents = 0
        for round_ in range(repeats):
            for kind, timing in timings.items():
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds, first, scores = _measure(kind, suite, data, limit, *loaded)
                if device == "cuda":
                    timing.peak = max(timing.peak, torch.cuda.max_memory_allocated())
                documents = len(scores)
                timing.seconds.append(seconds)
                timing.first.append(first)
                timing.scores = scores
                progress(f"{suite.name} {kind} {round_ + 1}/{repeats}: {seconds:.2f} s")
        found[suite.name] = _summary(timings["plain"], timings["losia"], documents)
    return {
        "model": model,
        "dtype": str(loaded[0].dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "plain": f"HFLM, batch {PLAIN_BATCH[device]}",
        "versions": versions(),
        "suites": found,
        "sandbox": _sandboxed(),
    }


def _load(model: str, device: str) -> tuple[Any, Any]:
    """A folder's model, or one of random weights whose vocabulary is the packaged tokenizer's."""
    shape = TINY if model == SMALL else PRESETS[model].config if model in PRESETS else None
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if shape is None:
        loaded = load_base(model, dtype, torch.device(device)).eval()
        return loaded, AutoTokenizer.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(prepare_base_model())
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id")}
    config = AutoConfig.for_model("llama", **{**shape, **special, "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval(), tokenizer


def _measure(
    kind: str, suite: Suite, data: Path, limit: int, model: Any, tokenizer: Any
) -> tuple[float, float, list[float]]:
    """Seconds in all, seconds to the first answer, and the documents' scores."""
    watch, started = _Watch(), time.perf_counter()

    def wrong(responses: Sequence[Sequence[str]], _: Any) -> list[list[str]]:
        return [["wrong"] * len(texts) for texts in responses]  # judging is measured apart

    index = (lambda _: TaskManager()) if kind == "plain" else None
    built = harness.build(suite, Documents(data), wrong, index)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "plain":
            lm = HFLM(
                pretrained=model,
                tokenizer=tokenizer,
                batch_size=PLAIN_BATCH[model.device.type],
                softmax_dtype="float32",
                add_bos_token=False,
            )
            lm.set_cache_hook(watch)
        else:
            leaves = harness.leaves(built)
            lm = ResumableLM(
                model,
                tokenizer,
                identity={},
                bos=False,
                limit=limit_for(model.config, model.dtype, model.device.type),
                store=Store(Path(folder)),
                seed=1,
                letters={task.task_name for task in leaves if suite.letter},
                watcher=watch,
            )
        ready = time.perf_counter()
        raw = harness.run(lm, suite, built, limit=limit, chat=False)
        seconds = time.perf_counter() - ready
        lines = results.save_raw(Path(folder), suite, raw)
    assert watch.first is not None
    return seconds, watch.first - started, [line["score"] for line in lines]


def _summary(plain: _Timing, ours: _Timing, documents: int) -> dict[str, Any]:
    seconds = {
        "plain": statistics.median(plain.seconds),
        "losia": statistics.median(ours.seconds),
    }
    first = {"plain": statistics.median(plain.first), "losia": statistics.median(ours.first)}
    return {
        "documents": documents,
        "seconds": seconds,
        "documents_per_second": {kind: documents / value for kind, value in seconds.items()},
        "faster": seconds["plain"] / seconds["losia"],
        "first_answer": first,
        "first_answer_ratio": first["losia"] / first["plain"],
        "differing_scores": sum(a != b for a, b in zip(plain.scores, ours.scores, strict=True)),
        "rounds": {"plain": plain.seconds, "losia": ours.seconds},
        "peak_memory_bytes": {"plain": plain.peak or None, "losia": ours.peak or None},
    }


def _sandboxed(repeats: int = 15) -> dict[str, Any] | None:
    """Seconds of a small program in the sandbox and without one, in turn; None: no sandbox here."""
    program = Program("def double(x):\n    return 2 * x", ("assert double(2) == 4",))
    try:
        kinds = {"sandboxed": find_sandbox(), "bare": unsandboxed()}
    except UserError:
        return None
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, kind in kinds.items():
            started = time.perf_counter()
            kind.run(program)
            seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(some) for name, some in seconds.items()}
    return {
        "kind": kinds["sandboxed"].kind,
        "seconds": middle,
        "ratio": middle["sandboxed"] / middle["bare"],
    }


def render(result: dict[str, Any]) -> str:
    """The table to read."""
    header = ("suite", "documents", "plain/s", "losia/s", "faster", "first answer", "scores")
    lines = [
        (
            name,
            str(suite["documents"]),
            f"{suite['documents_per_second']['plain']:.2f}",
            f"{suite['documents_per_second']['losia']:.2f}",
            f"{suite['faster']:.2f} x",
            f"{suite['first_answer_ratio']:.2f} of plain",
            f"{suite['differing_scores']} differ" if suite["differing_scores"] else "equal",
        )
        for name, suite in result["suites"].items()
    ]
    return (
        f"{table(header, lines)}\n\n"
        f"plain: {result['plain']}; {result['device']}, {result['threads']} threads\n"
        f"{_boxed(result['sandbox'])}"
    )


def _boxed(box: dict[str, Any] | None) -> str:
    if box is None:
        return "no sandbox works here: what one takes was not measured"
    milliseconds = 1000 * box["seconds"]["sandboxed"]
    return (
        f"a program in the sandbox ({box['kind']}): {milliseconds:.0f} ms,"
        f" {box['ratio']:.2f} of a bare interpreter's"
    )
