"""The two suites, measured by lm-evaluation-harness: the new skill, and what was known before."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from losia_cli.quickstart import prompt

TASKS = Path(__file__).parent / "tasks"
KNOWN_DOCUMENTS = TASKS / "known.jsonl"
SKILL, KNOWN = "quickstart_skill", "quickstart_known"
BATCH_SIZE = 60  # fixed, so that two measurements of one model agree

_FILES = {SKILL: "skill.yaml", KNOWN: "known.yaml"}
_METRICS = {SKILL: ("exact_match", "last-number"), KNOWN: ("acc", "none")}


@dataclass(frozen=True)
class Score:
    """A share of right answers and its standard error, both 0 to 1, and how many were asked."""

    value: float
    stderr: float
    count: int


@dataclass(frozen=True)
class Scores:
    """Both suites' scores, and lm-eval's own result with every document and response."""

    skill: Score
    known: Score
    results: dict[str, Any]


def evaluate(model: Any, heldout: Path) -> Scores:
    """Measure lm-eval's `model` on the held-out problems (JSON lines) and on what was known.

    Every document is asked through the model's chat template, as the training data are.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import handle_non_serializable

    raw = simple_evaluate(
        model=model,
        tasks=[task(SKILL, heldout), task(KNOWN, KNOWN_DOCUMENTS)],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=True,
    )
    results = json.loads(json.dumps(raw, default=handle_non_serializable))
    return read_scores(results)


def load_model(model: str) -> Any:
    """lm-eval's model of a folder or hub name, in float32, with no BOS but the template's own.

    A folder that holds an adapter (LoRA) alone is read together with the base model it names.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    adapter = Path(model) / "adapter_config.json"
    alone = adapter.is_file()
    lm = HFLM(
        pretrained=json.loads(adapter.read_text())["base_model_name_or_path"] if alone else model,
        peft=model if alone else None,
        tokenizer=model,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype="float32",
        softmax_dtype="float32",
        batch_size=BATCH_SIZE,
        add_bos_token=False,
    )
    prompt.complete(lm.tokenizer)
    return lm


def task(name: str, documents: Path) -> dict[str, Any]:
    """The task's YAML file, asking the documents of one JSON lines file."""
    config = yaml.safe_load((TASKS / _FILES[name]).read_text())
    return {**config, "dataset_kwargs": {"data_files": {"test": str(documents)}}}


def read_scores(results: dict[str, Any]) -> Scores:
    """The scores in lm-eval's result."""
    return Scores(_score(results, SKILL), _score(results, KNOWN), results)


def _score(results: dict[str, Any], name: str) -> Score:
    metric, filtered = _METRICS[name]
    found, count = results["results"][name], results["n-samples"][name]["effective"]
    return Score(found[f"{metric},{filtered}"], found[f"{metric}_stderr,{filtered}"], count)


def response(scores: Scores, document: int) -> str:
    """What the model answered to the held-out problem with this number."""
    samples = scores.results["samples"][SKILL]
    return next(s["resps"][0][0] for s in samples if s["doc_id"] == document)
