"""The sets that the paper trains on, and one more: where they come from, what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass

from losia_cli.data import originals
from losia_cli.data.originals import Row, Texts
from losia_cli.data.sources import SOURCES
from losia_cli.errors import UserError
from losia_cli.spelling import did_you_mean

SPLIT = "train"
SEED = 42  # of which rows are drawn


@dataclass(frozen=True)
class TrainingSet:
    """A training set of the paper.

    Attributes:
        name: what recipes call it.
        repository: the dataset's name on the hub.
        subset: its configuration there.
        revision: the commit it is pinned to.
        columns: what of its rows is read; the original names.
        published: how many rows its split is said to hold.
        rows: how many are drawn; None: all of them, in their order.
        convert: original row -> the texts that are trained on.
        template: LLaMA-Factory's name of the prompt; `prompts.TEMPLATES` has it.
        recipe: the shipped recipe that trains on it, or on another draw of it.
    """

    name: str
    repository: str
    subset: str | None
    revision: str
    columns: tuple[str, ...]
    published: int
    rows: int | None
    convert: Callable[[Row], Texts]
    template: str
    recipe: str


def find(name: str) -> TrainingSet:
    """The set of this name.

    Raises:
        UserError: there is none; the nearest is named.
    """
    if name not in SETS:
        advice = did_you_mean(name, SETS) or f"; there are {', '.join(SETS)}"
        raise UserError(f"there is no training set {name}{advice}")
    return SETS[name]


def _metamath(name: str, rows: int) -> TrainingSet:
    return TrainingSet(
        name,
        repository="meta-math/MetaMathQA",
        subset=None,
        revision="aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18",
        columns=("query", "response"),
        published=395_000,
        rows=rows,
        convert=originals.metamath,
        template="losia_metamath",
        recipe="llama2-7b-metamath",
    )


def _commonsense(
    name: str,
    repository: str,
    subset: str | None,
    columns: str,
    published: int,
    convert: Callable[[Row], Texts],
    revision: str | None = None,
) -> TrainingSet:
    """A set that is trained on whole; by default of the revision that evaluation reads."""
    return TrainingSet(
        name,
        repository,
        subset,
        revision or _evaluated(repository),
        tuple(columns.split()),
        published,
        None,
        convert,
        template="losia_plain",
        recipe=f"llama2-7b-{name.replace('_', '-')}",
    )


def _evaluated(repository: str) -> str:
    """The revision at which evaluation reads a dataset, whichever its configuration."""
    pins = {path: source.revision for (path, _), source in SOURCES.items()}
    return pins[repository]


_ARC = "question choices answerKey"
SETS = {
    each.name: each
    for each in (
        _metamath("metamathqa", 50_000),
        _metamath("metamathqa_30k", 30_000),
        _metamath("metamathqa_70k", 70_000),
        TrainingSet(
            "magicoder",
            repository="ise-uiuc/Magicoder-Evol-Instruct-110K",
            subset=None,
            revision="b0079beaa0361d82412520b873715bee59cc7dd4",
            columns=("instruction", "response"),
            published=111_183,
            rows=50_000,
            convert=originals.magicoder,
            template="losia_magicoder",
            recipe="llama2-7b-magicoder",
        ),
        TrainingSet(
            "alpaca_gpt4",
            repository="vicgalle/alpaca-gpt4",
            subset=None,
            revision="f7e3ded725cb81e8e564e32feb12860f376f2b51",
            columns=("instruction", "input", "output"),
            published=52_002,
            rows=50_000,
            convert=originals.alpaca,
            template="losia_alpaca",
            recipe="llama2-7b-alpaca-gpt4",
        ),
        _commonsense("arc_c", "allenai/ai2_arc", "ARC-Challenge", _ARC, 1_119, originals.arc),
        _commonsense("arc_e", "allenai/ai2_arc", "ARC-Easy", _ARC, 2_251, originals.arc),
        _commonsense(
            "hellaswag",
            "Rowan/hellaswag",
            None,
            "ctx endings label",
            39_905,
            originals.hellaswag,
        ),
        _commonsense(
            "winogrande",
            "allenai/winogrande",
            "winogrande_debiased",  # the one of 9,248 rows, which Table 8 gives
            "sentence option1 option2 answer",
            9_248,
            originals.winogrande,
        ),
        _commonsense("piqa", "baber/piqa", None, "goal sol1 sol2 label", 16_113, originals.piqa),
        _commonsense(
            "obqa",
            "allenai/openbookqa",
            "additional",
            "question_stem choices answerKey fact1",
            4_957,
            originals.openbookqa,
        ),
        _commonsense(
            "siqa",
            "lighteval/siqa",
            None,
            "context question answerA answerB answerC label",
            33_410,
            originals.siqa,
        ),
        _commonsense(
            "boolq",
            "google/boolq",
            None,
            "question passage answer",
            9_427,
            originals.boolq,
            revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
        ),
        TrainingSet(  # of `losia reproduce compare`, not of the paper
            "gsm8k",
            repository="openai/gsm8k",
            subset="main",
            revision=_evaluated("openai/gsm8k"),
            columns=("question", "answer"),
            published=7_473,
            rows=None,
            convert=originals.gsm8k,
            template="losia_plain",
            recipe="compare/smollm2-135m-gsm8k",
        ),
    )
}
