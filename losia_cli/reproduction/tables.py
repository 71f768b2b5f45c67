"""The paper's tables as plans: which model gives which number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from losia_cli.analysis.continual import TASKS
from losia_cli.errors import UserError
from losia_cli.evaluation.suites import GROUPS, SUITES
from losia_cli.reproduction import paper, peft_suite
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.spelling import did_you_mean

# A recipe's training set -> the suites that score it.
SCORED_ON = {
    "metamath": ("gsm8k-5shot", "gsm8k-cot"),
    "magicoder": ("mbpp",),
    "alpaca-gpt4": ("mmlu-ppl", "mmlu-gen"),
    **{name: (name,) for name in GROUPS["table2"]},
}
PEFT_SUITE, COMPARE = "peft-suite", "compare"
ALONE, UNTRAINED = "ST", "untrained"  # columns: of Table 12, and ours for the base model
BENCHMARKS = ("table14", "table15")  # of no trained models
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
# Of the comparison: what is taught -> the suite that asks for it; what should not be forgotten.
_TAUGHT = {"arc-e": "arc-e", "gsm8k": "gsm8k-train-prompt"}
KEPT = ("piqa", "hellaswag")
_MEASURED = ("Mem(GB)", "Seconds")
_FULL, _LOW_RANK, _SUBNET = (1e-5, 3e-5, 1e-4), (5e-4, 1e-3, 3e-3), (5e-4, 1e-3, 2e-3)
_REDRAWN = ("losia_localization=random", "losia_initial_subnet=random")
# A row -> its method, its rates, and what is laid over. LoRA's rank of 8 trains about as many
# parameters as p = 1/8.
_COMPARED: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "full fine-tuning": ("full", _FULL, ()),
    "LoRA r=8": ("lora", _LOW_RANK, ("lora_rank=8", "lora_alpha=16")),
    "LoRA r=64": ("lora", _LOW_RANK, ()),
    "PiSSA r=8": ("pissa", _LOW_RANK, ("lora_rank=8", "lora_alpha=16")),
    "DoRA r=8": ("dora", _LOW_RANK, ("lora_rank=8", "lora_alpha=16")),
    "GaLore r=128": ("galore", _FULL, ("galore_rank=128", "galore_update_interval=50")),
    "LoSiA-Pro p=1/8": ("losia-pro", _SUBNET, ()),
    "LoSiA-Pro p=1/4": ("losia-pro", _SUBNET, ("losia_rank_factor=0.25",)),
    "random subnets 1/8": ("losia-pro", _SUBNET, _REDRAWN),
    "static scored 1/8": ("losia-pro", _SUBNET, ("losia_schedule=static",)),
}
_ROWS = {"@30K": "metamathqa_30k", "@50K": "metamathqa", "@70K": "metamathqa_70k"}


@dataclass(frozen=True)
class Reading:
    """Which number of a scored model is meant.

    Attributes:
        suite: the suite.
        also: one of its further metrics, in place of the headline.
        domain: one of its parts, in place of the whole.
    """

    suite: str
    also: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Place:
    """A number of a table: its row, its column, and the cell it is read from.

    Several places of one row and column are that number by several seeds, or at several rates.
    """

    row: tuple[str, ...]
    column: str
    cell: Cell
    reading: Reading


def names() -> list[str]:
    """The tables that there are plans for."""
    return list(_PLANS)


def places(name: str) -> list[Place]:
    """All numbers of a table, the base models' among them.

    Raises:
        UserError: there is no plan of this name.
    """
    if name not in _PLANS:
        advice = did_you_mean(name, names()) or f"; there are {', '.join(names())}"
        benchmark = f"; it is a benchmark: make reproduce-{name}" if name in BENCHMARKS else ""
        raise UserError(f"there is no plan of {name}{benchmark or advice}")
    return list(_PLANS[name]())


def cell(model: str, dataset: str, method: str, *overrides: str) -> Cell:
    """The cell of a shipped recipe, scored on what its training set is for."""
    suites = SCORED_ON[dataset]
    return Cell(f"{model}-{dataset}", model, dataset, method, overrides, suites)


def base(model: str, recipe: str, suites: tuple[str, ...]) -> Cell:
    """The cell of a model as it is."""
    return Cell(recipe, model, "", BASE, (), suites)


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
    untrained = _untrained("llama2-7b", tuple(columns))
    for dataset, (column, suite) in columns.items():
        yield Place((BASE,), column, untrained, Reading(suite))
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
    untrained = _untrained("llama2-7b", TASKS)
    for method in ("lora", "losia"):
        last: Cell | None = None
        for dataset in TASKS:
            overlay, rate = _TRAINED_BY.get(method, method), rates(method)[0]
            trained = cell("llama2-7b", dataset, overlay, f"learning_rate={rate:g}")
            alone, last = trained, replace(trained, suites=TASKS, after=last)
            for task in TASKS:
                yield Place((method, _column(task)), _column(dataset), last, Reading(task))
            yield Place((method, _column(dataset)), ALONE, alone, Reading(dataset))
            yield Place((method, _column(dataset)), UNTRAINED, untrained, Reading(dataset))


def _column(suite: str) -> str:
    return SUITES[suite].column


def _untrained(model: str, datasets: tuple[str, ...]) -> Cell:
    suites = tuple(suite for dataset in datasets for suite in SCORED_ON[dataset])
    return base(model, f"{model}-{datasets[0]}", suites)


def _all_columns(row: tuple[str, ...], scored: Cell, datasets: tuple[str, ...]) -> Iterator[Place]:
    """A place for every column that these training sets are scored in."""
    for suite in (suite for dataset in datasets for suite in SCORED_ON[dataset]):
        yield Place(row, SUITES[suite].column, scored, Reading(suite))
        if suite == "mbpp":
            yield Place(row, "MBPP Pass@10", scored, Reading(suite, also=SUITES[suite].also[0]))


def _peft_suite() -> Iterator[Place]:
    """The experiments that LLaMA-Factory has a method for, and ours by the recipe as it is."""
    model, scored = "llama3.2-3b", ("gsm8k-train-prompt",)
    ours = ("losia-pro", "losia-pro", ())
    theirs = [(e.name, e.method, e.overrides) for e in peft_suite.experiments() if e.method]
    yield Place((BASE,), "GSM8K", base(model, peft_suite.recipe(), scored), Reading(*scored))
    for name, method, overrides in (ours, *theirs):
        trained = Cell(peft_suite.recipe(), model, "metamath", method, overrides, scored)
        yield Place((name,), "GSM8K", trained, Reading(*scored))


def _compare() -> Iterator[Place]:
    """A small real model, taught two real sets by every method at three rates each."""
    for dataset, skill in _TAUGHT.items():
        recipe, suites = f"compare/smollm2-135m-{dataset}", (skill, *KEPT)
        untrained = base("smollm2-135m", recipe, suites)
        columns = [(SUITES[suite].column or "GSM8K", suite) for suite in suites]
        for column, suite in columns:
            yield Place((dataset, BASE), column, untrained, Reading(suite))
        for name, (method, tried, overrides) in _COMPARED.items():
            for rate in tried:
                given = (*overrides, f"learning_rate={rate:g}")
                trained = Cell(recipe, "smollm2-135m", dataset, method, given, suites)
                for column, suite in columns:
                    yield Place((dataset, name), column, trained, Reading(suite))


def published(name: str) -> paper.Table:
    """The numbers that a table's are laid beside: the paper's or, for `peft-suite`, PEFT's own."""
    if name == COMPARE:
        columns = ("ARC-E", "GSM8K", *(SUITES[suite].column for suite in KEPT), *_MEASURED)
        title = "SmolLM2-135M taught two sets by every method, each at the best of three rates"
        return paper.Table(title, ("taught", "method"), columns, ())
    if name != PEFT_SUITE:
        return paper.table(int(name.removeprefix("table")))
    rows = tuple(
        paper.Row(
            {"experiment": one.name},
            {
                "GSM8K": one.values["accuracy"],
                "Mem(GB)": one.values["memory"] / 1e9,
                "Seconds": one.values["step seconds"],
            },
        )
        for one in peft_suite.experiments()
    )
    title = "PEFT's comparison on MetaMathQA, Llama-3.2-3B, beside its numbers on one L40S"
    return paper.Table(title, ("experiment",), ("GSM8K", *_MEASURED), rows)


_PLANS: dict[str, Callable[[], Iterator[Place]]] = {
    "table1": _domain_specific,
    "table2": _commonsense,
    "table3": _ablations,
    "table4": _periods,
    "table5": _sequences,
    "table12": _sequences,
    "table10": _rank_factors,
    "table11": _domains_of_mmlu,
    PEFT_SUITE: _peft_suite,
    COMPARE: _compare,
}
