"""Rows of the original sets, turned into what is trained on: the texts of the authors' code.

Each function takes a row in the columns of its set, none of which is null, and gives the texts
`instruction` (no loss on it), `output` and, for Alpaca, `system`. Where the authors train on the
whole text, all of it is the output.
"""

from collections.abc import Mapping
from typing import Any

from losia_cli.data.prompts import ALPACA_HEADER, ALPACA_HEADER_WITH_INPUT

Row = Mapping[str, Any]
Texts = dict[str, str]


class Unusable(Exception):
    """Why a row cannot be trained on: what follows "the row", in words that other rows share."""


def metamath(row: Row) -> Texts:
    """MetaMathQA."""
    return _texts(_text(row, "query").strip(), _text(row, "response").strip())


def magicoder(row: Row) -> Texts:
    """Magicoder's Evol-Instruct."""
    return _texts(_text(row, "instruction").strip(), _text(row, "response").strip())


def alpaca(row: Row) -> Texts:
    """Alpaca-GPT4; its header says whether an input follows the instruction."""
    instruction, given = _text(row, "instruction"), str(row["input"])
    if given.strip():
        header, asked = ALPACA_HEADER_WITH_INPUT, f"{instruction}\n\n### Input:\n{given}"
    else:
        header, asked = ALPACA_HEADER, instruction
    return {"system": header, **_texts(asked.rstrip(), _text(row, "output").strip())}


def arc(row: Row) -> Texts:
    """ARC, both parts."""
    return _whole(f"Question: {_text(row, 'question').strip()}\nAnswer: {_choice(row).strip()}")


def openbookqa(row: Row) -> Texts:
    """OpenBookQA with the fact that a question is about."""
    fact, question = _text(row, "fact1"), _text(row, "question_stem")
    return _texts(f"Given that: {fact}\nQuestion: {question}?\nAnswer: ", _choice(row))


def hellaswag(row: Row) -> Texts:
    """HellaSwag: the right ending of a story."""
    endings = row["endings"]
    place = _number(row, "label", len(endings))
    return _texts(f"{_text(row, 'ctx').strip()} ", _said(endings[place]).strip())


def winogrande(row: Row) -> Texts:
    """Winogrande: what follows the right option."""
    before, blank, after = _text(row, "sentence").partition("_")
    if not blank:
        raise Unusable("has no blank (_) in its sentence")
    option = ("option1", "option2")[_number(row, "answer", 2, first=1)]
    return _texts(f"{before}{_text(row, option)}", _said(after))


def piqa(row: Row) -> Texts:
    """PIQA."""
    solution = ("sol1", "sol2")[_number(row, "label", 2)]
    return _whole(f"Question: {_text(row, 'goal')}\nAnswer: {_text(row, solution)}")


def siqa(row: Row) -> Texts:
    """SIQA."""
    answer = ("answerA", "answerB", "answerC")[_number(row, "label", 3, first=1)]
    asked = f"{_text(row, 'context')} {_text(row, 'question')}".strip()
    return _whole(f"Q: {asked}\nA: {_text(row, answer)}")


def boolq(row: Row) -> Texts:
    """BoolQ."""
    if not isinstance(row["answer"], bool):
        raise Unusable("has an answer that is neither true nor false")
    asked = f"{_text(row, 'passage').strip()}\nQuestion: {_text(row, 'question').strip()}?"
    return _whole(f"{asked}\nAnswer:\n{'yes' if row['answer'] else 'no'}\n")


def gsm8k(row: Row) -> Texts:
    """GSM8K, as the harness asks it without examples."""
    return _texts(f"Question: {_text(row, 'question')}\nAnswer:", f" {_text(row, 'answer')}")


def _texts(instruction: str, output: str) -> Texts:
    return {"instruction": instruction, "output": output}


def _whole(text: str) -> Texts:
    """A text with the loss on all of it."""
    return _texts("", text)


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"has no text in {column}")
    return value


def _said(answer: Any) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise Unusable("has an empty right answer")
    return answer


def _choice(row: Row) -> str:
    """The right one of lettered choices."""
    choices = row["choices"]
    try:
        return _said(dict(zip(choices["label"], choices["text"], strict=True))[row["answerKey"]])
    except (KeyError, TypeError, ValueError) as error:
        raise Unusable("has no right answer in answerKey") from error


def _number(row: Row, column: str, count: int, first: int = 0) -> int:
    """The place, from 0, of the right one of `count` answers that are numbered from `first`."""
    try:
        place = int(row[column]) - first
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < count:
        raise Unusable(f"has no right answer in {column}")
    return place
