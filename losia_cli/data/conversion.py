"""What LLaMA-Factory makes of one row: a sample, nothing at all, or a crash of the whole run."""

from dataclasses import dataclass
from typing import Any

from losia_cli.data.formats import PAIRED, PREDICT
from losia_cli.data.info import Entry
from losia_cli.data.rows import Row


@dataclass(frozen=True)
class Defect:
    """Why a row cannot be trained on.

    Attributes:
        why: what follows "the row" in a sentence.
        fatal: LLaMA-Factory crashes at it, or trains on its opposite, instead of dropping it.
    """

    why: str
    fatal: bool = False


def defect(row: Row, entry: Entry, stage: str) -> Defect | None:
    """What is wrong with a row whose columns are there and hold what they should; None: nothing.

    Stages are LLaMA-Factory's and `PREDICT`. An empty response counts too: LLaMA-Factory keeps it,
    but all it teaches is to stop.
    """
    convert = _alpaca if entry.formatting == "alpaca" else _chat
    return convert(row, entry, stage)


def _alpaca(row: Row, entry: Entry, stage: str) -> Defect | None:
    history = _value(row, entry, "history") or []
    if not all(_is_pair(turn) for turn in history):
        return Defect("has a history that is no list of [prompt, response] pairs", fatal=True)
    if stage == "pt":
        text = history or _value(row, entry, "prompt") or _value(row, entry, "query")
        return None if text else Defect("has no text")
    if stage == PREDICT:
        return None
    if stage in PAIRED:
        return _unpaired(row, entry)
    return _unanswered(row, entry, stage, _value(row, entry, "response"))


def _chat(row: Row, entry: Entry, stage: str) -> Defect | None:
    messages = _value(row, entry, "messages")
    if messages is None or None in messages:
        return Defect("has null for messages", fatal=True)
    if messages and _speaker(messages[0], entry) == entry.tags.get("system_tag", ""):
        messages = messages[1:]
    if disorder := _disorder([_speaker(message, entry) for message in messages], entry, stage):
        return disorder
    if not all(_speaks(message, entry) for message in messages):
        return Defect(f"has a message whose {entry.tags['content_tag']} is null", fatal=True)
    if stage in PAIRED:
        return _unpaired(row, entry) or _misattributed(row, entry)
    if stage in ("pt", PREDICT):
        return None
    return _unanswered(row, entry, stage, messages[-1][entry.tags["content_tag"]])


def _disorder(speakers: list[str | None], entry: Entry, stage: str) -> Defect | None:
    """Whether questions and answers do not take turns, down to an answer (dpo and rm: question)."""
    asking, answering = _sides(entry)
    fatal = stage in ("kto", "pt")  # what is dropped there leaves a hole that others fall into
    if entry.formatting == "openai":
        for speaker in speakers:
            if speaker not in {*asking, *answering, entry.tags.get("system_tag")}:
                return Defect(f"has a message by {speaker!r}, which no tag names", fatal=True)
        speakers = _join_tool_results(speakers, entry.tags.get("observation_tag"))
    if not speakers:
        return Defect("has no messages", fatal)
    for number, speaker in enumerate(speakers):
        due = answering if number % 2 else asking
        if speaker not in due:
            return Defect(f"has a message by {speaker!r} where {' or '.join(due)} is due", fatal)
    if stage in PAIRED and len(speakers) % 2 == 0:
        return Defect("does not end with what chosen and rejected answer", fatal)
    if stage not in PAIRED and len(speakers) % 2:
        return Defect("does not end with an answer", fatal)
    return None


def _sides(entry: Entry) -> tuple[list[str], list[str]]:
    """What those who ask, and those who answer, are called."""
    asking = [entry.tags.get(tag) for tag in ("user_tag", "observation_tag")]
    answering = [entry.tags.get(tag) for tag in ("assistant_tag", "function_tag")]
    return [name for name in asking if name], [name for name in answering if name]


def _join_tool_results(speakers: list[str | None], tool: str | None) -> list[str | None]:
    """Results of tools that follow each other make one turn; at the end they make none."""
    joined = [
        speaker
        for number, speaker in enumerate(speakers)
        if speaker != tool or number == 0 or speakers[number - 1] != tool
    ]
    return joined[:-1] if joined and joined[-1] == tool else joined


def _speaker(message: Row, entry: Entry) -> str | None:
    return message.get(entry.tags["role_tag"])


def _speaks(message: Row, entry: Entry) -> bool:
    calls = entry.formatting == "openai" and message.get("tool_calls")
    return bool(calls) or message.get(entry.tags["content_tag"]) is not None


def _unpaired(row: Row, entry: Entry) -> Defect | None:
    absent = [role for role in ("chosen", "rejected") if _value(row, entry, role) is None]
    return Defect(f"has no {' and no '.join(absent)} answer") if absent else None


def _misattributed(row: Row, entry: Entry) -> Defect | None:
    for role in ("chosen", "rejected"):
        message = _value(row, entry, role)
        answering = _sides(entry)[1]
        if _speaker(message, entry) not in answering:
            who = f"by {_speaker(message, entry)!r} instead of {' or '.join(answering)}"
            return Defect(f"has a {role} answer {who}", fatal=True)
        if not _speaks(message, entry):
            return Defect(f"has a {role} answer whose {entry.tags['content_tag']} is null", True)
    return None


def _unanswered(row: Row, entry: Entry, stage: str, response: Any) -> Defect | None:
    """What is wrong with a single response, or with its being wanted or not."""
    wanted = _value(row, entry, "kto_tag")
    if stage != "kto":
        if wanted is not None:
            return Defect("has a kto_tag, which the stage kto alone takes")
        return None if response else Defect("has no response")
    # There LLaMA-Factory tells wanted from unwanted by which of two responses is empty, and
    # compares each row with the response of the one before.
    if response is None or (wanted and not response):
        return Defect("has no response", fatal=True)
    return Defect("has no kto_tag", fatal=not response) if wanted is None else None


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and [type(text) for text in turn] == [str, str]


def _value(row: Row, entry: Entry, role: str) -> Any:
    return row.get(entry.columns[role]) if role in entry.columns else None
