"""What a stage needs of a data set, and which of LLaMA-Factory's formats its columns resemble."""

from collections.abc import Mapping
from typing import Any

from losia_cli.data import info
from losia_cli.data.shape import BOOLEAN, OBJECT, TEXT, Field

Columns = Mapping[str, Field]

PREDICT = "predict"  # no stage of LLaMA-Factory's: rows to generate answers for need none
PAIRED = ("dpo", "rm")  # stages that compare a chosen and a rejected answer

# Names that data sets give their columns, the likeliest first.
_PROMPTS = ("instruction", "prompt", "question", "query", "problem", "input", "text", "goal")
_RESPONSES = ("output", "response", "completion", "answer", "solution", "code", "target", "label")
_DOCUMENTS = ("text", "content", "document", *_PROMPTS)

_NAMED = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")
_CHATS = (("from", "value"), ("role", "content"))  # what a message's author and text are called
_SPEAKERS = (("human", "gpt"), ("user", "assistant"))  # what those who ask and answer are called
_DEFAULTS = {tag: info.DEFAULT_TAGS[tag] for tag in _NAMED}


def needs(formatting: str, stage: str) -> tuple[str, ...]:
    """What must have a column, for the stage to have anything to train on."""
    alpaca = formatting == "alpaca"
    messages = () if alpaca else ("messages",)
    if stage in PAIRED:
        return (*messages, "chosen", "rejected")
    if stage in ("pt", PREDICT):
        return messages
    response = ("response",) if alpaca else ()
    return (*messages, *response, "kto_tag") if stage == "kto" else (*messages, *response)


def suggest(columns: Columns, stage: str) -> dict[str, Any] | None:
    """What to write into the data set's entry so that LLaMA-Factory finds what the stage needs.

    None where the columns' names and kinds do not say which holds what.
    """
    for name, column in columns.items():
        if tags := _tags(column):
            found = {"messages": name} | _answers(columns, stage, OBJECT)
            return _entry("sharegpt", stage, found, {} if tags == _DEFAULTS else {"tags": tags})
    found = _prompts(columns, stage) | _answers(columns, stage, TEXT)
    return _entry("alpaca", stage, found, {}) if "prompt" in found else None


def _entry(
    formatting: str, stage: str, found: dict[str, str], tags: dict[str, Any]
) -> dict[str, Any] | None:
    if any(role not in found for role in needs(formatting, stage)):
        return None
    ranking = {"ranking": True} if stage in PAIRED else {}
    return {"formatting": formatting} | ranking | {"columns": found} | tags


def _tags(column: Field) -> dict[str, str]:
    """What the parts and the speakers of a column of messages are called; empty if it holds none.

    The speakers are those of the first conversation.
    """
    for author, text in _CHATS:
        if _is(column.part(author), TEXT) and _is(column.part(text), TEXT):
            speakers = [each.get(author) for each in column.value if isinstance(each, dict)]
            usual = _SPEAKERS[_CHATS.index((author, text))]
            asks, answers = next((p for p in _SPEAKERS if any(s in speakers for s in p)), usual)
            names = (author, text, asks, answers, "system")
            return dict(zip(_DEFAULTS, names, strict=True))
    return {}


def _prompts(columns: Columns, stage: str) -> dict[str, str]:
    prompt = _first(columns, _DOCUMENTS if stage == "pt" else _PROMPTS)
    found = {"prompt": prompt} if prompt else {}
    if prompt == "instruction" and _is(columns.get("input"), TEXT):
        found["query"] = "input"
    return found


def _answers(columns: Columns, stage: str, kind: str) -> dict[str, str]:
    """The columns a stage needs beside the prompt; `kind` is what a preferred answer is."""
    if stage in PAIRED:
        return {role: role for role in ("chosen", "rejected") if _is(columns.get(role), kind)}
    response = _first(columns, _RESPONSES) if kind is TEXT and stage != "pt" else None
    wanted = [name for name, column in columns.items() if stage == "kto" and _is(column, BOOLEAN)]
    found = {"response": response, "kto_tag": wanted[0] if wanted else None}
    return {role: name for role, name in found.items() if name}


def _first(columns: Columns, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _is(columns.get(name), TEXT)), None)


def _is(column: Field | None, kind: str) -> bool:
    return column is not None and column.kind is kind
