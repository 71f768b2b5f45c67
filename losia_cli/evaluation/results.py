"""What an evaluation leaves: our small stable result, the harness's own, every sample.

In the results folder:

    eval_results.json        ours: each suite's scores and all that decides them
    lm_eval/SUITE.json       the harness's result as it gave it, without samples
    samples/SUITE.jsonl      a line for each document: prompt, target, responses, verdict
    responses.sqlite         stored responses, for a run that was cut off
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock

from losia_cli.errors import UserError
from losia_cli.evaluation.suites import Suite
from losia_cli.files import write_atomically, writing_into
from losia_cli.spelling import did_you_mean

FILE = "eval_results.json"
SCHEMA = 1
# Words in the names of the harness's metrics that are not from 0 to 1.
_NO_SHARES = frozenset(
    "perplexity bits bleu chrf ter wer cer mse mae rmse rouge1 rouge2 rougeL likelihood".split()
)

Result = dict[str, Any]


def open_folder(folder: Path, identity: str, name: str) -> dict[str, Result]:
    """The suites that a results folder holds, which can be written into and is this model's.

    Raises:
        UserError: it holds another model's, cannot be read, or cannot be written into.
    """
    with writing_into(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may look at this moment
    if not (folder / FILE).is_file():
        return {}
    found = _read(folder / FILE)
    if found is None:
        raise UserError(
            f"{folder / FILE} is LLaMA-Factory's, and would be lost: name another folder with"
            " --out DIR"
        )
    held = found["model"]
    if held["identity"] != identity:
        raise UserError(
            f"{folder} holds the results of {held['name']}, whose weights or tokenizer are not"
            f" those of {name}: name another folder with --out DIR"
        )
    return found["suites"]


def load(folder: Path) -> dict[str, Any]:
    """`eval_results.json` of a results folder, or of a run's folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    for place in (folder, folder / "eval"):
        found = _read(place / FILE) if (place / FILE).is_file() else None
        if found is not None:
            return {**found, "folder": str(place)}
    there = "run `losia eval` on the model first" if folder.is_dir() else "there is no such folder"
    raise UserError(f"{folder} holds no {FILE} of `losia eval`: {there}")


def _read(path: Path) -> dict[str, Any] | None:
    """Our result in a file; None of LLaMA-Factory's own, of an evaluation while it trained."""
    try:
        found = json.loads(path.read_text())
        schema = found.get("schema")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: remove it and evaluate once more") from error
    if schema is None:
        return None
    if schema != SCHEMA:
        raise UserError(
            f"{path} was written in schema {schema}, and this version reads"
            f" {SCHEMA}: remove it and evaluate once more"
        )
    return found


def samples(found: Mapping[str, Any], suite: str) -> list[dict[str, Any]]:
    """The samples of a suite in what `load` gave."""
    folder = Path(found["folder"])
    path = folder / "samples" / f"{suite}.jsonl"
    if suite not in found["suites"] or not path.is_file():
        held = [name for name in found["suites"] if path.with_name(f"{name}.jsonl").is_file()]
        missing = f" (only of {', '.join(held)}): run `losia eval` with --suite {suite} first"
        advice = did_you_mean(suite, held) or missing
        raise UserError(f"{folder} holds no samples of {suite}{advice}")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def save(folder: Path, shared: Mapping[str, Any], suite: str, result: Result) -> None:
    """Write `eval_results.json` whole, with one more suite beside those that it holds by now."""
    with FileLock(folder / ".lock"):  # of other processes that write theirs
        held = load(folder)["suites"] if (folder / FILE).is_file() else {}
        content = {"schema": SCHEMA, **shared, "suites": {**held, suite: result}}
        _write(folder / FILE, json.dumps(content, indent=1))


def save_raw(folder: Path, suite: Suite, raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write the harness's result and its samples; the samples as written."""
    plain = {key: value for key, value in raw.items() if key != "samples"}
    _write(folder / "lm_eval" / f"{suite.name}.json", json.dumps(plain, indent=1))
    lines = list(_samples(suite, raw))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    _write(folder / "samples" / f"{suite.name}.jsonl", text)
    return lines


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"could not write {path} ({error.strerror}): free some space and run the same command"
            " again; the stored responses are kept"
        ) from error


# ------------------------------------------------------------------------- what the harness says


def headline(suite: Suite, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a suite in the harness's result."""
    found = raw["results"][_root(suite, raw)]
    metric = suite.metric or _first_metric(found)
    parts = {name: raw["results"][group] for name, group in suite.domains.items()}
    tasks = raw["n-samples"].values()
    done, whole = (sum(n[key] for n in tasks) for key in ("effective", "original"))
    if math.isnan(found[metric]):
        raise UserError(f"{suite.name}: the score is NaN, which is none")
    return {
        "metric": metric,
        **_scored(found, metric),
        "also": {other: _scored(found, other) for other in suite.also},
        "domains": {name: _scored(part, metric) for name, part in parts.items()},
        "documents": done,
        "of": whole,
        "tasks": len(raw["n-samples"]),
        "of_tasks": suite.tasks or len(raw["n-samples"]),
        "shots": max(raw["n-shot"][name] for name in raw["n-samples"]),
    }


def _scored(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
    return {"score": found[metric], "stderr": _number(found.get(_stderr(metric)))}


def left_out(scored: Mapping[str, Any]) -> list[str]:
    """What a suite's score lacks beside documents, in words: tasks, what was cut off prompts."""
    found = []
    if scored["tasks"] < scored["of_tasks"]:
        found.append(f"{scored['tasks']} of {scored['of_tasks']} tasks")
    if scored["truncated"]:
        found.append(f"{scored['truncated']} prompts cut")
    return found


def _root(suite: Suite, raw: Mapping[str, Any]) -> str:
    return suite.task if suite.task in raw["results"] else next(iter(raw["results"]))


def _stderr(metric: str) -> str:
    name, _, chosen = metric.partition(",")
    return f"{name}_stderr,{chosen}"


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _first_metric(found: Mapping[str, Any]) -> str:
    named = [key for key, value in found.items() if "," in key and _number(value) is not None]
    return next(key for key in named if "_stderr," not in key)


def _samples(suite: Suite, raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line for each document: of several filters, the headline's."""
    headline = suite.metric or _first_metric(raw["results"][_root(suite, raw)])
    metric, _, chosen = headline.partition(",")
    for task, lines in raw["samples"].items():
        filters = [line["filter"] for line in lines]
        wanted = chosen if chosen in filters else next(iter(filters), "")
        for line in lines:
            if line["filter"] != wanted:
                continue
            score = line[metric if metric in line else line["metrics"][0]]
            prompt, choices = _asked(line["arguments"])
            yield {
                "task": task,
                "document": line["doc_id"],
                "prompt": prompt,
                "choices": choices,
                "target": line["target"],
                "responses": line["resps"],
                "extracted": line["filtered_resps"],
                "score": _worth(metric, score),
                "prompt_hash": line["prompt_hash"],
                "target_hash": line["target_hash"],
                "document_hash": line["doc_hash"],
            }


def _worth(metric: str, value: Any) -> float | None:
    """What a document alone is worth, of what the harness keeps of it; None where that is nothing.

    Some metrics are of all documents at once. Of a choice they keep what is right and what was
    answered, each a number or a word; of a text's perplexity its log-likelihood and its length.
    """
    if isinstance(value, list | tuple):
        if len(value) != 2 or any(isinstance(each, list | tuple | dict) for each in value):
            return None
        value = float(value[0] == value[1]) if is_share(metric) else value[0]
    return _number(value)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1, which is shown in percent."""
    words = metric.partition(",")[0].split("_")
    return words[-1] == "acc" or _NO_SHARES.isdisjoint(words)


def _asked(arguments: list[list[Any]]) -> tuple[str, list[str] | None]:
    """The prompt, and the choices that may follow it; None where there are none.

    Winogrande's choices differ in the prompt, not in what is scored after it: they begin there.
    """
    if not all(len(each) > 1 and isinstance(each[1], str) for each in arguments):
        return arguments[0][0], None  # a response was generated, or the text itself is scored
    columns = zip(*(before for before, _ in arguments), strict=False)
    prompt = "".join(c[0] for c in takewhile(lambda column: len(set(column)) == 1, columns))
    return prompt, [before[len(prompt) :] + after for before, after in arguments]


def right_choice(line: Mapping[str, Any]) -> int | None:
    """Which of a sample's choices is right; None where there are none, or they share one ending."""
    for number, choice in enumerate(line["choices"] or ()):
        if line["target"] in (number, choice.strip()):
            return number
    return None


def prompts_hash(lines: list[dict[str, Any]]) -> dict[str, str]:
    """One hash over all prompts, and one over all targets: equal hashes, equal questions."""
    return {
        key: hashlib.sha256("".join(line[f"{key}_hash"] for line in lines).encode()).hexdigest()
        for key in ("prompt", "target")
    }
