"""A model that answers as it is told, and documents written by hand."""

import json
from collections.abc import Callable
from pathlib import Path

from lm_eval.api.model import LM

SUBJECTS = {
    "stem": "astronomy",
    "social sciences": "sociology",
    "humanities": "philosophy",
    "other": "business_ethics",
}


class Scripted(LM):
    """Says what `answer(document, number of the sample)` gives: to see the scoring alone."""

    tokenizer_name = "none"

    def __init__(self, answer: Callable[[dict, int], str]) -> None:
        super().__init__()
        self.answer = answer
        self.prompts: list[str] = []

    def generate_until(self, requests, disable_tqdm=False):
        self.prompts += [request.args[0] for request in requests]
        seen: dict[tuple, int] = {}
        said = []
        for request in requests:
            key = (request.task_name, request.doc_id)
            seen[key] = seen.get(key, -1) + 1
            said.append(self.answer(request.doc, seen[key]))
        return said

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def write(data: Path, place: str, rows: list[dict]) -> None:
    """The rows as `data/place.jsonl`."""
    path = data / f"{place}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sums(count: int, start: int = 0) -> list[dict]:
    return [
        {"question": f"What is {n} plus 2?", "answer": f"It is {n + 2}.\n#### {n + 2}"}
        for n in range(start, start + count)
    ]


def problem(number: int) -> dict:
    """A problem of MBPP's columns."""
    return {
        "task_id": number,
        "text": f"Write a function to add {number}.",
        "code": f"def add(n): return n + {number}",
        "test_list": [f"assert add({n}) == {n + number}" for n in range(3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def question(number: int, subject: str, answer: int) -> dict:
    """A question of MMLU's columns."""
    return {
        "question": f"Which of these comes {number}th?",
        "subject": subject,
        "choices": [f"thing {number}{letter}" for letter in "abcd"],
        "answer": answer,
    }


def one_of_each(data: Path, subjects=(), count: int = 4) -> Path:
    """Some rows of every dataset that suites read, in every split that they read."""
    for split, start in (("train", 100), ("validation", 200), ("test", 300), ("prompt", 0)):
        for folder, row in _ROWS.items():
            extra = 8 if split in ("train", "prompt") else 0  # examples to draw from
            rows = [row(start + n) for n in range(1, count + extra + 1)]
            write(data, f"{folder}/{split}", rows)
    for subject in subjects or SUBJECTS.values():
        for split, start in (("dev", 900), ("test", 300)):
            rows = [
                question(start + n, subject, n % 4) for n in range(5 if split == "dev" else count)
            ]
            write(data, f"mmlu/{subject}/{split}", rows)
    return data


def _four(number: int, stem: str = "question") -> dict:
    choices = {"text": [f"{number}{letter}" for letter in "abcd"], "label": list("ABCD")}
    return {stem: f"Which is {number}?", "choices": choices, "answerKey": "ABCD"[number % 4]}


_ROWS: dict[str, Callable[[int], dict]] = {
    "gsm8k": lambda n: sums(1, n)[0],
    "mbpp": problem,
    "arc_challenge": _four,
    "arc_easy": _four,
    "openbookqa": lambda n: _four(n, "question_stem"),
    "hellaswag": lambda n: {
        "activity_label": "Counting", "ctx_a": f"She counts to {n}.", "ctx_b": "then she",
        "endings": [f"goes on to {n + k}." for k in range(1, 5)], "label": str(n % 4),
    },
    "winogrande": lambda n: {
        "sentence": f"The cup {n} is not in the box since _ is too large.",
        "option1": "the cup", "option2": "the box", "answer": str(n % 2 + 1),
    },
    "piqa": lambda n: {"goal": f"Count to {n}", "sol1": "by ones", "sol2": "no", "label": n % 2},
    "social_i_qa": lambda n: {
        "context": f"Ann counted to {n}.", "question": "How does she feel?",
        "answerA": "tired", "answerB": "proud", "answerC": "bored", "label": str(n % 3 + 1),
    },
    "boolq": lambda n: {
        "passage": f"{n} is a number.", "question": f"is {n} a number", "label": n % 2
    },
}  # fmt: skip
