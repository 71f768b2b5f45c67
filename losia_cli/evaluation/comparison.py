"""Two results side by side, document by document: what differs, and whether it is luck."""

from collections.abc import Mapping, Sequence
from math import isclose, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table
from rich.text import Text

from losia_cli.errors import UserError
from losia_cli.evaluation import results
from losia_cli.evaluation.suites import GROUPS

Line = Mapping[str, Any]


def compare(first: Path, second: Path, suites: Sequence[str] = ()) -> dict[str, Any]:
    """The paired difference of every suite that both hold.

    The difference of two scores on the same documents has the standard error of the mean of the
    documents' differences, which is smaller than that of two independent scores.

    Args:
        first: a results folder, or a run's.
        second: another.
        suites: suites or groups of them to compare; empty for all.

    Returns:
        `{"a", "b", "suites": {name: {"metric", "a", "b", "difference", "stderr", "documents",
        "partial", "settings", "gained", "lost", "right"}}}`, shares from 0 to 1, `partial` whether
        either run was limited, `settings` those that are not the same, with both values, `gained`
        and `lost` the documents, by task and number, that only the second or only the first
        answers better. `right` is `{"a", "b", "difference", "stderr"}` of the right choice's
        log-likelihood in nats, None where it cannot be told: a finer scale than right or wrong,
        for the same documents. And `"left_out"`: suites whose score is no mean of their documents'.

    Raises:
        UserError: they share no suite that can be compared, or a suite's prompts differ.
    """
    a, b = results.load(first), results.load(second)
    both = [name for name in a["suites"] if name in b["suites"]]
    asked = {suite: GROUPS.get(suite, (suite,)) for suite in suites}
    absent = [suite for suite, names in asked.items() if not set(both).intersection(names)]
    if absent or not both:
        what = f"nothing of {', '.join(absent)}" if absent else "no suite"
        raise UserError(
            f"{first} and {second} share {what} ({', '.join(a['suites'])} and"
            f" {', '.join(b['suites'])}): evaluate both on it"
        )
    wanted = {name for names in asked.values() for name in names} or both
    shared = [name for name in both if name in wanted]
    lines = {name: [results.samples(each, name) for each in (a, b)] for name in shared}
    means = [n for n in shared if all(map(_is_mean, (a["suites"][n], b["suites"][n]), lines[n]))]
    if not means:
        raise UserError(
            f"the scores of {', '.join(shared)} are no means of their documents', so that nothing"
            " is paired"
        )
    found = {name: _paired(name, *lines[name]) for name in means}
    for name, suite in found.items():
        suite["metric"] = a["suites"][name]["metric"]
        suite["partial"] = a["suites"][name]["partial"] or b["suites"][name]["partial"]
        suite["settings"] = _other_settings(a["suites"][name], b["suites"][name])
    left_out = [name for name in shared if name not in found]
    models = {"a": a["model"]["name"], "b": b["model"]["name"]}
    return {**models, "suites": found, "left_out": left_out}


def _other_settings(first: Line, second: Line) -> dict[str, list[Any]]:
    """The settings that move scores and are not the same in both: both values."""
    ours, theirs = ({**each["generation"], **each["settings"]} for each in (first, second))
    keys = (key for key in {**ours, **theirs} if key not in ("batch", "device"))
    return {
        key: [ours.get(key), theirs.get(key)] for key in keys if ours.get(key) != theirs.get(key)
    }


def _is_mean(suite: Mapping[str, Any], lines: Sequence[Line]) -> bool:
    scores = [line["score"] for line in lines]
    return None not in scores and isclose(fmean(scores), suite["score"], abs_tol=1e-6)


def _paired(suite: str, first: Sequence[Line], second: Sequence[Line]) -> dict[str, Any]:
    one, other = (
        {(line["task"], line["document"]): line for line in lines} for lines in (first, second)
    )
    both = [key for key in one if key in other]
    asked = ("document_hash", "target_hash", "prompt_hash")
    for task, number in both:
        pair = one[task, number], other[task, number]
        changed = [key for key in asked if pair[0][key] != pair[1][key]]
        if changed:
            raise UserError(
                f"{suite}: document {number} of {task} is not the same in both"
                f" ({changed[0].replace('_', ' ')} differs), so that nothing is paired: evaluate"
                " both with the same data and settings"
            )
    if not both:
        raise UserError(f"{suite}: the two results share no document")
    differences = {key: other[key]["score"] - one[key]["score"] for key in both}
    right = [tuple(map(right_likelihood, (one[key], other[key]))) for key in both]
    known = [(a, b) for a, b in right if a is not None and b is not None]
    return {
        **_difference([(one[key]["score"], other[key]["score"]) for key in both]),
        "documents": len(both),
        "gained": [f"{task} {number}" for (task, number), d in differences.items() if d > 0],
        "lost": [f"{task} {number}" for (task, number), d in differences.items() if d < 0],
        "right": _difference(known) if len(known) == len(both) else None,
    }


def _difference(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    a, b = (fmean(values) for values in zip(*pairs, strict=True))
    differences = [second - first for first, second in pairs]
    error = stdev(differences) / sqrt(len(pairs)) if len(pairs) > 1 else None
    return {"a": a, "b": b, "difference": fmean(differences), "stderr": error}


def right_likelihood(line: Line) -> float | None:
    """The log-likelihood of a sample's right choice, in nats."""
    number = results.right_choice(line)
    return None if number is None else line["responses"][number][0][0]


def table(found: dict[str, Any]) -> Table:
    """The comparison to read."""
    view = Table(title=Text(f"A: {found['a']}\nB: {found['b']}"), title_justify="left")
    for column in ("suite", "A", "B", "B - A", "documents", "better in B", "better in A"):
        view.add_column(column, justify="left" if column == "suite" else "right")
    for name, suite in found["suites"].items():
        view.add_row(
            name,
            *_numbers(suite, 100 if results.is_share(suite["metric"]) else 1),
            f"{suite['documents']:,}" + ", partial" * suite["partial"],
            str(len(suite["gained"])),
            str(len(suite["lost"])),
        )
        if suite["right"]:
            view.add_row("  right choice, nats", *_numbers(suite["right"], 1), style="dim")
    notes = [
        f"{name} was asked with other settings: {key} {a} in A, {b} in B"
        for name, suite in found["suites"].items()
        for key, (a, b) in suite["settings"].items()
    ]
    if found["left_out"]:
        names = ", ".join(found["left_out"])
        notes.append(f"left out, whose scores are no means of documents: {names}")
    view.caption = Text("\n".join(notes)) if notes else None
    return view


def _numbers(found: Mapping[str, Any], times: float) -> list[Text]:
    error = f" ± {times * found['stderr']:.2f}" if found["stderr"] is not None else ""
    difference = Text(f"{times * found['difference']:+.2f}{error}", style="bold")
    return [*(Text(f"{times * found[key]:.2f}") for key in ("a", "b")), difference]
