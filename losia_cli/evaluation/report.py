"""Results to read: the table of a run, the list of suites, what was asked and answered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from losia_cli.evaluation.results import is_share, left_out, right_choice
from losia_cli.evaluation.suites import GROUPS, SUITES


def table(found: Mapping[str, Any], names: Sequence[str]) -> Table:
    """The scores of some suites in `eval_results.json`, shares in percent, with standard errors."""
    view = Table(title=Text(found["model"]["name"]), title_justify="left")
    for column in ("suite", "metric", "score", "documents", "shots", "notes"):
        numbers = column in ("score", "documents", "shots")
        view.add_column(
            column,
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=column == "score",
        )
    for name in names:
        suite = found["suites"][name]
        documents = f"{suite['documents']:,}"
        if suite["partial"]:
            documents += f" of {suite['of']:,}"
        metric = suite["metric"]
        score = Text(_written(metric, suite["score"], suite["stderr"]), style="bold")
        shots = str(suite["shots"])
        view.add_row(name, _short(metric), score, documents, shots, _notes(suite))
        for metric, also in suite["also"].items():
            told = _written(metric, also["score"], also["stderr"])
            view.add_row("", _short(metric), told, style="dim")
        for domain, part in suite["domains"].items():
            told = _written(suite["metric"], part["score"], part["stderr"])
            view.add_row("", domain, told, style="dim")
    average = _average({name: found["suites"][name] for name in names})
    if average is not None:
        view.add_section()
        partial = any(found["suites"][name]["partial"] for name in GROUPS["table2"])
        view.add_row("table2", "average", f"{100 * average:.2f}", "", "", "partial" * partial)
    return view


def _short(metric: str) -> str:
    """`acc` for `acc,none`: a filter's name only where there are several."""
    return metric.removesuffix(",none").removesuffix(",judged").replace(",", ", ")


def _written(metric: str, score: float, stderr: float | None) -> str:
    times = 100 if is_share(metric) else 1
    return f"{times * score:.2f}" + (f" ± {times * stderr:.2f}" if stderr is not None else "")


def _average(suites: Mapping[str, Any]) -> float | None:
    names = GROUPS["table2"]
    if not all(name in suites for name in names):
        return None
    return sum(suites[name]["score"] for name in names) / len(names)


def _notes(suite: Mapping[str, Any]) -> str:
    notes = []
    if suite.get("paper") is not None:
        notes.append(f"the paper: {suite['paper']:.2f}")
    if suite["partial"]:
        notes.append("partial")
    notes += left_out(suite)
    if suite.get("sandbox"):
        verdicts = ", ".join(
            f"{count} {name}" for name, count in suite["verdicts"].items() if count
        )
        notes.append(f"{verdicts} ({suite['sandbox']})")
    return "; ".join(notes)


def suite_list() -> Table:
    """All suites and groups."""
    view = Table()
    for column in ("suite", "task", "headline", "the paper's"):
        view.add_column(column, overflow="fold")
    for suite in SUITES.values():
        samples = f", {suite.samples} samples" if suite.samples > 1 else ""
        task = f"{suite.task}, {suite.shots} shots{samples}"
        place = f"{suite.table}, {suite.column}" if suite.table else ""
        view.add_row(suite.name, task, _short(suite.metric), place)
    view.add_section()
    for group, members in GROUPS.items():
        view.add_row(group, "every suite" if group == "all" else ", ".join(members))
    return view


def sample(line: Mapping[str, Any]) -> str:
    """One document: what was asked, what was answered, what it was worth."""
    known = {1: "right", 0: "wrong", None: "no verdict of its own"}
    verdict = known.get(line["score"], line["score"])
    parts = [f"── {line['task']}, document {line['document']}: {verdict}", line["prompt"]]
    if line["choices"]:
        parts.append("── choices, and the log-likelihood of each")
        right = right_choice(line)
        for number, choice in enumerate(line["choices"]):
            mark = "*" if number == right else " "
            parts.append(f"{mark}{choice}  {line['responses'][number][0][0]}")
    else:
        parts += ["── wanted", str(line["target"]), "── answered"]
        parts += [str(text) for text in line["responses"][0]]
        parts.append(f"── taken as {json.dumps(line['extracted'][0], ensure_ascii=False)}")
    return "\n".join(parts)


def samples(
    result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], wrong: bool
) -> list[str]:
    """The documents of a suite, all or those answered wrongly, and first that some are left out."""
    done, whole = f"{result['documents']:,}", f"{result['of']:,}"
    first = [f"partial: {done} of {whole} documents"] if result["partial"] else []
    if wrong:
        lines = [line for line in lines if line["score"] is not None and line["score"] < 1]
    return first + [sample(line) for line in lines]
