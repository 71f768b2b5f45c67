"""The one place that reaches into lm-evaluation-harness: its tasks, built and run as shipped.

What is laid over a task: where its documents come from, generation settings, and for MBPP the
samples and the judge. Prompts, filters, metrics and standard errors stay the harness's.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task as task_module
from lm_eval import evaluator
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import handle_non_serializable
from torch.utils import collect_env

from losia_cli.data.sources import source
from losia_cli.errors import UserError, first_line
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.passk import pass_at_k
from losia_cli.evaluation.suites import Suite

PINNED = "0.4.13"
FEWSHOT_SEED = 1234
TASKS = Path(task_module.__file__).parent.parent / "tasks"
MBPP_SHOTS = (2, 3, 4)  # the stock task's examples, by their numbers in the prompt split

Judge = Callable[[Sequence[Sequence[str]], Sequence[dict[str, Any]]], list[list[str]]]


def expect_pinned() -> None:
    """Refuse a harness whose inside may have moved.

    Raises:
        UserError: another version, or a name that is no longer there.
    """
    found = version("lm-eval")
    if found != PINNED:
        raise UserError(
            f"lm-eval {found} is installed, and the scores here are defined by {PINNED}:"
            f" pip install lm-eval=={PINNED}"
        )
    if getattr(task_module, "datasets", None) is None:
        raise UserError("lm-eval's api.task no longer loads documents through `datasets`")


def quieten() -> None:
    """Only errors: what the harness warns about is said by us, or settled."""
    evaluator.get_git_commit_hash = lambda: None  # it would be the working folder's
    collect_env.get_pretty_env_info = cache(collect_env.get_pretty_env_info)  # takes half a second
    datasets.disable_progress_bars()
    for name in ("lm_eval", "huggingface_hub"):  # the latter's retries, when there is no network
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def without_bars() -> Iterator[None]:
    """While documents are only looked at, before a process goes on with something else."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@cache
def _every_task() -> TaskManager:
    return TaskManager()  # reads 12,000 files: seconds


def _needed_tasks(suite: Suite) -> TaskManager:
    if not suite.folder:
        return _every_task()
    return TaskManager(include_path=str(TASKS / suite.folder), include_defaults=False)


def task_names() -> list[str]:
    """All tasks and groups that the harness ships."""
    return _every_task().all_tasks


# -------------------------------------------------------------------------------- building


def build(
    suite: Suite,
    documents: Documents,
    judge: Judge | None,
    index: Callable[[Suite], TaskManager] | None = None,
) -> Task | Group:
    """The suite's task, or group of tasks, with its documents loaded.

    Args:
        suite: what to ask.
        documents: where the documents come from.
        judge: for `suite.code`: programs and their documents -> verdicts.
        index: what to look its task up in; by default the part of the harness that holds it.

    Raises:
        UserError: documents that cannot be had or are not the task's.
    """
    with _documents_from(documents, spare="train" if suite.shots == 0 else None):
        if suite.code:
            assert judge is not None
            return ConfigurableTask(config=_mbpp(suite, judge))
        manager = (index or _needed_tasks)(suite)
        if suite.domains:
            _leave_out_missing(manager, documents)
        _refuse_without_a_score(suite.task, manager)
        built = _load(manager, suite)
        groups = built.get("groups", {})
        found = groups.get(suite.task) or built["tasks"].get(suite.task)
        if found is None:
            raise UserError(
                f"{suite.task} is a tag of several tasks: name the tasks themselves, such as"
                f" {', '.join(sorted(built['tasks'])[:2])}"
            )
    return found


def _load(manager: TaskManager, suite: Suite) -> Any:
    try:
        built = manager.load([suite.task])
    except UserError:
        raise
    except Exception as error:  # a task's own code, and what it imports
        raise UserError(
            f"{suite.name} cannot be built from lm-evaluation-harness's task"
            f" ({type(error).__name__}: {first_line(error)})"
        ) from error
    for task in built["tasks"].values():  # of groups too
        if getattr(task.config, "unsafe_code", False):
            raise UserError(
                f"{suite.name} runs programs that the model writes, outside our sandbox: of such"
                " tasks MBPP alone can be asked"
            )
    return built


def _refuse_without_a_score(name: str, manager: TaskManager) -> None:
    """Some groups only gather tasks: the harness gives them no score."""
    entry = manager.task_index.get(name)
    config = (entry.cfg or {}) if entry is not None and entry.kind.name == "GROUP" else None
    if config is not None and not config.get("aggregate_metric_list"):
        tasks = [one if isinstance(one, str) else one.get("task") for one in config["task"]]
        some = ", ".join([task for task in tasks if task][:2])
        such = f", such as {some}" if some else ""
        raise UserError(f"{name} is a group without a score of its own: name its tasks{such}")


def leaves(built: Task | Group) -> list[Any]:
    """The tasks of a suite."""
    return built.get_all_tasks() if isinstance(built, Group) else [built]


@contextmanager
def _documents_from(documents: Documents, spare: str | None) -> Iterator[None]:
    """While tasks are built, their datasets are loaded by `documents`."""

    class Loader:
        load_dataset = staticmethod(partial(documents.load, spare=spare))

        def __getattr__(self, name: str) -> Any:
            return getattr(datasets, name)

    plain = task_module.datasets
    task_module.datasets = Loader()
    try:
        yield
    finally:
        task_module.datasets = plain


def _leave_out_missing(manager: TaskManager, documents: Documents) -> None:
    """Take tasks without a local folder out of their tags: a part of MMLU is still a group."""
    index = manager.task_index
    for entry in index.values():
        if entry.kind.name != "TAG":
            continue
        known = ((name, index[name].cfg or {}) for name in sorted(entry.tags) if name in index)
        parts = {name: place for name, config in known if (place := _part_of_a_set(config))}
        missing = {name for name, place in parts.items() if not documents.has(*place)}
        if parts and missing == parts.keys():
            folder = documents.folder(*next(iter(parts.values())))
            raise UserError(
                f"{folder.parent} holds none of {entry.name}; at least one subject of each domain"
                f" is needed, such as {folder.name}"
            )
        entry.tags -= missing


def _part_of_a_set(config: dict[str, Any]) -> tuple[str, str | None] | None:
    """A task's dataset and configuration, if such a one is a folder of its own."""
    place = config.get("dataset_path", ""), config.get("dataset_name")
    known = source(*place)
    return place if known is not None and known.parts else None


def _mbpp(suite: Suite, judge: Judge) -> dict[str, Any]:
    """The stock task's prompt with several samples and our judge.

    The stock file names functions that fetch code from the network when they are imported, so it
    is read without them; the examples come from the dataset, whose rows they are.
    """
    stock = load_yaml(TASKS / suite.folder / "mbpp.yaml", resolve_func=False)
    counts = [k for k in (1, 10) if k <= suite.samples]

    def score(references: Any, predictions: Any, **_: Any) -> dict[str, float]:
        verdicts = predictions[0]
        right = sum(verdict == "passed" for verdict in verdicts)
        return {f"pass@{k}": pass_at_k(len(verdicts), right, k) for k in counts}

    return {
        **stock,
        "unsafe_code": False,  # it is judged in our sandbox
        "fewshot_split": "prompt",
        "fewshot_config": {"sampler": "first_n", "process_docs": _examples},
        "repeats": suite.samples,
        "filter_list": [{"name": "judged", "filter": [{"function": "custom", "filter_fn": judge}]}],
        "metric_list": [{"metric": score, "aggregation": "mean", "higher_is_better": True}],
    }


def _examples(rows: Any) -> list[dict[str, Any]]:
    chosen = {row["task_id"]: {**row, "is_fewshot": True} for row in rows}
    missing = [number for number in MBPP_SHOTS if number not in chosen]
    if missing:
        raise UserError(f"MBPP's prompt split lacks the example with task_id {missing[0]}")
    return [chosen[number] for number in MBPP_SHOTS]


# -------------------------------------------------------------------------------- running


def run(
    lm: Any, suite: Suite, built: Task | Group, *, limit: float | None, chat: bool
) -> dict[str, Any]:
    """The harness's own result of a suite, with every document, prompt and response.

    Args:
        lm: the harness's model.
        suite: what is asked.
        built: of `build`.
        limit: documents of each task, or a share below 1; None for all.
        chat: whether prompts go through the tokenizer's chat template.
    """
    raw = evaluator.simple_evaluate(
        model=lm,
        tasks=[built],
        task_manager=TaskManager(include_defaults=False),
        num_fewshot=suite.shots,
        gen_kwargs=dict(suite.generation) or None,
        limit=limit,
        apply_chat_template=chat,
        fewshot_random_seed=FEWSHOT_SEED,
    )
    return json.loads(json.dumps(raw, default=handle_non_serializable))


def config_hash(task: Any) -> str:
    """A hash over a task's resolved configuration: equal hashes, equal tasks."""
    config = {
        k: v for k, v in task.dump_config().items() if k not in ("metadata", "dataset_kwargs")
    }
    text = json.dumps(config, sort_keys=True, default=_named)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__name__)
