"""The miniature's files: training sets in their sources' columns, and documents to score on.

No document is a training row too; which words and numbers they share is left to chance.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from losia_cli.reproduction.miniature import rows
from losia_cli.reproduction.miniature.problems import (
    different,
    draw_choice,
    draw_program,
    draw_sum,
)

ASKED = 20  # documents of each split that is scored
_TRAINED_ON = 400
_SUMS = {"metamathqa": 500, "metamathqa_30k": 300, "metamathqa_70k": 700}  # as 50, 30 and 70 K
_SHOTS = 20

# Two of MMLU's subjects for each of its four domains.
SUBJECTS = (
    *("abstract_algebra", "astronomy", "formal_logic", "philosophy"),
    *("high_school_macroeconomics", "sociology", "business_ethics", "clinical_knowledge"),
)

# A training set -> the folder and the split that are scored, the number of options, and both rows.
_CHOICES: dict[str, tuple[str, str, int, Callable[..., rows.Row], Callable[..., rows.Row]]] = {
    "arc_c": ("arc_challenge", "test", 4, rows.arc_challenge, rows.arc_challenge),
    "arc_e": ("arc_easy", "test", 4, rows.arc_easy, rows.arc_easy),
    "obqa": ("openbookqa", "test", 4, rows.openbookqa, rows.openbookqa),
    "hellaswag": ("hellaswag", "validation", 4, rows.hellaswag, rows.hellaswag),
    "winogrande": ("winogrande", "validation", 2, rows.winogrande, rows.winogrande),
    "piqa": ("piqa", "validation", 2, rows.piqa, rows.piqa),
    "siqa": ("social_i_qa", "validation", 3, rows.siqa, rows.siqa),
    "boolq": ("boolq", "validation", 2, rows.boolq, rows.super_glue_boolq),
}


def write(sources: Path, documents: Path) -> list[str]:
    """Write both; the training rows' texts.

    Args:
        sources: the folder for NAME.jsonl of each training set.
        documents: the folder that `losia eval --data` reads.
    """
    training = {**_sums(documents), **_programs(documents), **_facts(documents)}
    training |= {name: _one_choice(name, documents) for name in _CHOICES}
    for name, found in training.items():
        _write(sources / f"{name}.jsonl", found)
    values = (value for found in training.values() for row in found for value in row.values())
    return [value for value in values if isinstance(value, str)]


def _sums(documents: Path) -> dict[str, list[rows.Row]]:
    most = max(_SUMS.values())
    problems = different(draw_sum, ASKED + _SHOTS + most, "sums")
    asked, shots, taught = _parts(problems, ASKED, _SHOTS)
    _write(documents / "gsm8k/test.jsonl", _rows(rows.gsm8k, asked))
    _write(documents / "gsm8k/train.jsonl", _rows(rows.gsm8k, shots))
    return {name: _rows(rows.metamath, taught[:count]) for name, count in _SUMS.items()}


def _programs(documents: Path) -> dict[str, list[rows.Row]]:
    problems = different(draw_program, 10 + ASKED + _TRAINED_ON, "programs")
    shots, asked, taught = _parts(problems, 10, ASKED)
    _write(documents / "mbpp/prompt.jsonl", _rows(rows.mbpp, shots))
    _write(documents / "mbpp/test.jsonl", _rows(rows.mbpp, asked, first=11))
    return {"magicoder": _rows(rows.magicoder, taught)}


def _facts(documents: Path) -> dict[str, list[rows.Row]]:
    shots = 5
    each = shots + ASKED
    count = len(SUBJECTS) * each + _TRAINED_ON
    problems = different(partial(draw_choice, options=4), count, "facts")
    for place, subject in enumerate(SUBJECTS):
        dev, test, _ = _parts(problems[place * each :], shots, ASKED)
        for split, part in (("dev", dev), ("test", test)):
            found = [{**row, "subject": subject} for row in _rows(rows.mmlu, part)]
            _write(documents / "mmlu" / subject / f"{split}.jsonl", found)
    return {"alpaca_gpt4": _rows(rows.alpaca, problems[-_TRAINED_ON:])}


def _one_choice(name: str, documents: Path) -> list[rows.Row]:
    folder, split, options, taught_row, asked_row = _CHOICES[name]
    draw = partial(draw_choice, options=options)
    asked, taught, _ = _parts(different(draw, ASKED + _TRAINED_ON, name), ASKED, _TRAINED_ON)
    _write(documents / folder / f"{split}.jsonl", _rows(asked_row, asked))
    return _rows(taught_row, taught)


def _parts(problems: Sequence[Any], first: int, second: int) -> tuple[Any, Any, Any]:
    return problems[:first], problems[first : first + second], problems[first + second :]


def _rows(row: Callable[..., rows.Row], problems: Iterable[Any], first: int = 1) -> list[rows.Row]:
    return [row(problem, number) for number, problem in enumerate(problems, first)]


def _write(path: Path, found: Iterable[rows.Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
