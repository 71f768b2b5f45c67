"""The paper's columns: which of lm-evaluation-harness's tasks gives each, and how it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from losia_cli.errors import UserError
from losia_cli.spelling import did_you_mean

GREEDY = {"do_sample": False, "max_gen_toks": 256}
SAMPLED = {
    "do_sample": True, "temperature": 0.2, "top_p": 0.95, "top_k": 0, "max_gen_toks": 256
}  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """One column.

    Attributes:
        name: what `--suite` calls it.
        task: the harness's task or group.
        folder: where its YAML files are among the harness's tasks; "" to look through them all.
        metric: the headline, as the harness writes it, `metric,filter`.
        also: further metrics that are shown.
        shots: examples in each prompt; None for what the task says.
        generation: generation settings laid over the task's; empty where nothing is generated.
        samples: responses to each prompt.
        code: whether responses are programs, to be run.
        letter: whether a response is right only if it is a single letter.
        tasks: how many tasks the whole group has; 0 where that is not declared.
        documents: how many there are to be asked, as published; likewise.
        domains: what the group's parts are called -> the harness's name of each.
        table: where the paper reports it.
        column: the paper's name of it.
    """

    name: str
    task: str
    folder: str = ""
    metric: str = "acc,none"
    also: tuple[str, ...] = ()
    shots: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    code: bool = False
    letter: bool = False
    tasks: int = 0
    documents: int = 0
    domains: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    column: str = ""


_DOMAINS = ("stem", "social sciences", "humanities", "other")


def _domains(pattern: str, space: str = " ") -> dict[str, str]:
    return {name: pattern.format(name.replace(" ", space)) for name in _DOMAINS}


def _gsm8k(name: str, task: str, shots: int, column: str = "") -> Suite:
    flexible, strict = "exact_match,flexible-extract", "exact_match,strict-match"
    table = "Table 1" if column else ""
    return Suite(
        name, task, "gsm8k", flexible, (strict,), shots, GREEDY, documents=1319, table=table,
        column=column,
    )  # fmt: skip


def _choice(
    name: str, task: str, folder: str, column: str, documents: int, norm: bool = True
) -> Suite:
    also = ("acc_norm,none",) if norm else ()
    return Suite(
        name, task, folder, also=also, shots=0, documents=documents, table="Table 2", column=column
    )


_MBPP = Suite(
    "mbpp", "mbpp", "mbpp", "pass@1,judged", ("pass@10,judged",), 3, SAMPLED, samples=10,
    code=True, documents=500, table="Table 1", column="MBPP Pass@1",
)  # fmt: skip

SUITES = {
    suite.name: suite
    for suite in (
        _gsm8k("gsm8k-5shot", "gsm8k", 5, "GSM8K 5-shot"),
        _gsm8k("gsm8k-cot", "gsm8k_cot_zeroshot", 0, "GSM8K 0-shot, CoT"),
        _gsm8k("gsm8k-train-prompt", "gsm8k", 0),
        _MBPP,
        replace(
            _MBPP, name="mbpp-greedy", also=(), generation=GREEDY, samples=1, table="", column=""
        ),
        Suite(
            "mmlu-ppl", "mmlu", "mmlu/default", shots=0, tasks=57, documents=14042,
            domains=_domains("mmlu_{}", "_"), table="Table 1", column="MMLU 0-shot, PPL",
        ),
        Suite(
            "mmlu-gen", "mmlu_generative", "mmlu/generative", "exact_match,get_response",
            shots=5, generation=GREEDY, letter=True, tasks=57, documents=14042,
            domains=_domains("mmlu_generative::{}"), table="Table 1", column="MMLU 5-shot, GEN",
        ),
        Suite(
            "mmlu-continuation", "mmlu_continuation", "mmlu/continuation", shots=0,
            tasks=57, documents=14042, domains=_domains("mmlu_continuation::{}"),
        ),
        _choice("arc-c", "arc_challenge", "arc", "ARC-C", 1172),
        _choice("arc-e", "arc_easy", "arc", "ARC-E", 2376),
        _choice("hellaswag", "hellaswag", "hellaswag", "HellaSwag", 10042),
        _choice("winogrande", "winogrande", "winogrande", "Winogrande", 1267, norm=False),
        _choice("piqa", "piqa", "piqa", "PIQA", 1838),
        _choice("obqa", "openbookqa", "openbookqa", "OBQA", 500),
        _choice("siqa", "social_iqa", "siqa", "SIQA", 1954, norm=False),
        _choice("boolq", "boolq", "super_glue", "BoolQ", 3270, norm=False),
    )
}  # fmt: skip

GROUPS = {
    "table1": ("gsm8k-5shot", "gsm8k-cot", "mbpp", "mmlu-ppl", "mmlu-gen"),
    "table2": tuple(name for name, suite in SUITES.items() if suite.table == "Table 2"),
    "all": tuple(SUITES),
}


def find(names: Sequence[str]) -> list[Suite]:
    """The suites of these names, groups spelled out, each once.

    A name that is none of ours is taken for a task of the harness's, if it has such a task; that
    takes seconds to find out.

    Raises:
        UserError: nothing has such a name.
    """
    return [SUITES.get(name) or _stock(name) for name in _spelled(names)]


def foreign(names: Sequence[str]) -> list[str]:
    """The names that are none of ours, for which `find` asks the harness."""
    return [name for name in _spelled(names) if name not in SUITES]


def _spelled(names: Sequence[str]) -> list[str]:
    """The suites' names, groups spelled out, each once."""
    return list(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))


def _stock(name: str) -> Suite:
    """A suite of any task of the harness's; its first metric is the headline."""
    ours = [*SUITES, *GROUPS]
    from losia_cli.evaluation import harness

    tasks = harness.task_names()
    if name not in tasks:
        advice = did_you_mean(name, [*ours, *tasks])
        raise UserError(
            f"there is no suite and no task of lm-evaluation-harness called {name}"
            f"{advice or '; `losia eval --list` names the suites'}"
        )
    return Suite(name, name, metric="")


def parse_limit(text: str) -> tuple[float, bool]:
    """How many of a task's documents are asked: the number, or the share and True.

    Raises:
        ValueError: it is neither a whole number nor a percentage.
    """
    if text.endswith("%"):
        return float(text.removesuffix("%")) / 100, True
    return int(text), False
