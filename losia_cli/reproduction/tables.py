"""The paper's tables as plans: which model gives which number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from losia_cli import paper
from losia_cli.analysis.continual import TASKS
from losia_cli.errors import UserError
from losia_cli.evaluation.suites import GROUPS, SUITES
from losia_cli.reproduction import peft_suite, small_model
from losia_cli.reproduction.cell import BASE, Cell, untrained
from losia_cli.reproduction.place import Place, Reading
from losia_cli.spelling import did_you_mean

# A recipe's training set -> the suites that score it.
SCORED_ON = {
    "metamath": ("gsm8k-5shot", "gsm8k-cot"),
    "magicoder": ("mbpp",),
    "alpaca-gpt4": ("mmlu-ppl", "mmlu-gen"),
    **{name: (name,) for name in GROUPS["table2"]},
}
COMPARE = "compare"
ALONE, UNTRAINED = "ST", "untrained"  # columns: of Table 12, and ours for the base model
# Of no trained models -> their target of make.
BENCHMARKS = {
    **{name: name for name in ("table14", "table15", "figure11", "figure12")},
    "figure5": "table15",
}
DOMAINS = ("metamath", "magicoder", "alpaca-gpt4")

# LoSiA-Pro's update is LoSiA's, in less time: it stands for both.
_TRAINED_BY = {"losia": "losia-pro"}
_ABLATIONS = {
    "vanilla": "losia-pro",
    "synchronous": "ablations/synchronous",
    "gradient": "ablations/gradient",
    "no-rewarm": "ablations/no-rewarm",
    "full-head": "ablations/full-head",
}
_ROWS = {"@30K": "metamathqa_30k", "@50K": "metamathqa", "@70K": "metamathqa_70k"}


def names() -> list[str]:
    """The tables that there are plans for."""
    return list(_TABLES)


def places(name: str) -> list[Place]:
    """All numbers of a table, the base models' among them.

    Raises:
        UserError: there is no plan of this name.
    """
    if name not in _TABLES:
        if name in BENCHMARKS:
            target = f"make reproduce-{BENCHMARKS[name]}"
            raise UserError(f"there is no plan of {name}; it is a benchmark: {target}")
        advice = "" if name.removeprefix("table").isdigit() else did_you_mean(name, names())
        all_of_them = f"; there are {', '.join(names())}"
        raise UserError(f"there is no plan of {name}{advice or all_of_them}")
    return list(_TABLES[name].places())


def cell(model: str, dataset: str, method: str, *overrides: str) -> Cell:
    """The cell of a shipped recipe, scored on what its training set is for."""
    suites = SCORED_ON[dataset]
    return Cell(f"{model}-{dataset}", model, dataset, method, overrides, suites)


def _domain_specific() -> Iterator[Place]:
    rows = [(row.fields["model"], row.fields["method"]) for row in paper.table(1).rows]
    for model in dict.fromkeys(model for model, _ in rows):
        yield from _all_columns((model, BASE), _untrained(model, DOMAINS), DOMAINS)
        for method in [method for other, method in rows if other == model]:
            for dataset in DOMAINS:
                trained = cell(model, dataset, _TRAINED_BY.get(method, method))
                yield from _all_columns((model, method), trained, (dataset,))


def _commonsense() -> Iterator[Place]:
    datasets = GROUPS["table2"]
    model = "llama2-7b"
    yield from _all_columns((model, BASE), _untrained(model, datasets), datasets)
    for row in paper.table(2).rows:
        method = row.fields["method"]
        for dataset in datasets:
            for rate in rates(method):
                overlay = _TRAINED_BY.get(method, method)
                trained = cell(model, dataset, overlay, f"learning_rate={rate:g}")
                yield from _all_columns((model, method), trained, (dataset,))


def rates(method: str) -> tuple[float, float]:
    """The two learning rates that were tried on the commonsense sets (Table 9)."""
    found = [paper.value(9, f"LR, {which}", method=method) for which in ("lower", "higher")]
    low, high = (rate for rate in found if rate is not None)
    return low, high


def _ablations() -> Iterator[Place]:
    columns = {"metamath": ("GSM8K", "gsm8k-5shot"), "alpaca-gpt4": ("MMLU", "mmlu-ppl")}
    as_it_is = _untrained("llama2-7b", tuple(columns))
    for dataset, (column, suite) in columns.items():
        yield Place((BASE,), column, as_it_is, Reading(suite))
        for setting, method in _ABLATIONS.items():
            trained = cell("llama2-7b", dataset, method)
            yield Place((setting,), column, trained, Reading(suite))


def _periods() -> Iterator[Place]:
    reading = Reading("gsm8k-5shot")
    for column, dataset in _ROWS.items():
        overrides = () if dataset == "metamathqa" else (f"dataset={dataset}",)
        yield Place((BASE, ""), column, _untrained("llama2-7b", ("metamath",)), reading)
        for row in paper.table(4).rows:
            method, period = row.fields["method"], row.fields.get("T", "")
            overlay = _period_overlay(period) if period else method
            trained = cell("llama2-7b", "metamath", overlay, *overrides)
            yield Place((method, period), column, trained, reading)


def _period_overlay(period: str) -> str:
    return "losia-pro" if period == "100" else f"ablations/period-{period}"


def _rank_factors() -> Iterator[Place]:
    reading = Reading("gsm8k-5shot")
    for model in ("gemma-2b", "llama2-7b"):
        yield Place((model,), UNTRAINED, _untrained(model, ("metamath",)), reading)
        for column in paper.table(10).columns:
            bottom = column.partition("/")[2]
            overlay = "losia-pro" if bottom == "8" else f"ablations/rank-factor-{bottom}"
            trained = cell(model, "metamath", overlay)
            yield Place((model,), column, trained, reading)


def _domains_of_mmlu() -> Iterator[Place]:
    for setting in (BASE, "vanilla", "gradient"):
        scored = (
            _untrained("llama2-7b", ("alpaca-gpt4",))
            if setting == BASE
            else cell("llama2-7b", "alpaca-gpt4", _ABLATIONS[setting])
        )
        for domain in SUITES["mmlu-ppl"].domains:
            yield Place((setting,), domain, scored, Reading("mmlu-ppl", domain=domain))
        yield Place((setting,), "Avg.", scored, Reading("mmlu-ppl"))


def _sequences() -> Iterator[Place]:
    """Each task's score after every task of the sequence, and of a model trained on it alone."""
    as_it_is = _untrained("llama2-7b", TASKS)
    for method in ("lora", "losia"):
        last: Cell | None = None
        for dataset in TASKS:
            overlay, rate = _TRAINED_BY.get(method, method), rates(method)[0]
            trained = cell("llama2-7b", dataset, overlay, f"learning_rate={rate:g}")
            alone, last = trained, replace(trained, suites=TASKS, after=last)
            for task in TASKS:
                yield Place((method, _column(task)), _column(dataset), last, Reading(task))
            yield Place((method, _column(dataset)), ALONE, alone, Reading(dataset))
            yield Place((method, _column(dataset)), UNTRAINED, as_it_is, Reading(dataset))


def _column(suite: str) -> str:
    return SUITES[suite].column


def _untrained(model: str, datasets: tuple[str, ...]) -> Cell:
    suites = tuple(suite for dataset in datasets for suite in SCORED_ON[dataset])
    return untrained(model, f"{model}-{datasets[0]}", suites)


def _all_columns(row: tuple[str, ...], scored: Cell, datasets: tuple[str, ...]) -> Iterator[Place]:
    """A place for every column that these training sets are scored in."""
    for suite in (suite for dataset in datasets for suite in SCORED_ON[dataset]):
        yield Place(row, SUITES[suite].column, scored, Reading(suite))
        if suite == "mbpp":
            yield Place(row, "MBPP Pass@10", scored, Reading(suite, also=SUITES[suite].also[0]))


def published(name: str) -> paper.Table:
    """The numbers that a table's are laid beside."""
    return _TABLES[name].published()


@dataclass(frozen=True)
class _Table:
    """A table's numbers, and those that they are laid beside."""

    places: Callable[[], Iterator[Place]]
    published: Callable[[], paper.Table]


_TABLES = {
    "table1": _Table(_domain_specific, partial(paper.table, 1)),
    "table2": _Table(_commonsense, partial(paper.table, 2)),
    "table3": _Table(_ablations, partial(paper.table, 3)),
    "table4": _Table(_periods, partial(paper.table, 4)),
    "table5": _Table(_sequences, partial(paper.table, 5)),
    "table10": _Table(_rank_factors, partial(paper.table, 10)),
    "table11": _Table(_domains_of_mmlu, partial(paper.table, 11)),
    "table12": _Table(_sequences, partial(paper.table, 12)),
    "peft-suite": _Table(peft_suite.places, peft_suite.published),
    COMPARE: _Table(small_model.places, small_model.published),
}
