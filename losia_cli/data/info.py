"""`dataset_info.json`: where LLaMA-Factory looks a data set up, and what the file says of one."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError
from losia_cli.spelling import did_you_mean

FORMATTINGS = ("alpaca", "sharegpt", "openai")

ROLES = (
    "prompt",
    "query",
    "response",
    "history",
    "messages",
    "system",
    "tools",
    "images",
    "videos",
    "audios",
    "chosen",
    "rejected",
    "kto_tag",
)
# What LLaMA-Factory takes where an entry has no "columns" or no "tags" at all. Where it has them,
# the ones it leaves out are nothing.
DEFAULT_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "conversations",
}
DEFAULT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_KEYS = (
    *ELSEWHERE,
    "file_name",
    "file_sha1",  # of older versions, ignored
    "formatting",
    "ranking",
    "subset",
    "split",
    "folder",
    "num_samples",
    "columns",
    "tags",
)


@dataclass(frozen=True)
class Entry:
    """What dataset_info.json says of a data set that lies in a local file.

    Attributes:
        name: the data set's name.
        info: the path of dataset_info.json.
        path: the file, or the folder of files, with the rows.
        formatting: alpaca, sharegpt or openai.
        ranking: whether each row holds a chosen and a rejected answer.
        sampled: whether `num_samples` rows are drawn, instead of taking the first.
        columns: what a column is for (prompt, response, messages, ...) -> its name.
        tags: role_tag, content_tag and what each role is called, for sharegpt and openai.
    """

    name: str
    info: Path
    path: Path
    formatting: str
    ranking: bool
    sampled: bool
    columns: dict[str, str]
    tags: dict[str, str]


def names_in(value: Any) -> list[str]:
    """The names in a list or, as LLaMA-Factory also takes them, between commas."""
    names = value.split(",") if isinstance(value, str) else value
    return [str(name).strip() for name in names] if isinstance(names, list) else []


def read(folder: str) -> dict[str, Any]:
    """The entries of FOLDER/dataset_info.json by name.

    Raises:
        UserError: the file is missing, or not a JSON object.
    """
    path = Path(folder, "dataset_info.json")
    if not path.is_file():
        advice = "set dataset_dir to the folder that holds it"
        raise UserError(f"{path}: there is no such file to look data sets up in; {advice}")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}, {place} is not valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    if not isinstance(entries, dict):
        raise UserError(f'{path} must hold an object, {{"NAME": {{"file_name": ...}}}}')
    return entries


def look_up(name: str, entries: Mapping[str, Any], folder: str) -> Entry | None:
    """The data set's entry; None where its rows are not in a local file (the hub's, a script's).

    Raises:
        UserError: the name is unknown, or its entry says nothing of where the rows are.
    """
    info = Path(folder, "dataset_info.json")
    if name not in entries:
        some = _listed(list(entries)[:10]) + (", ..." if len(entries) > 10 else "")
        advice = did_you_mean(name, entries) or f"; it has {some}"
        raise UserError(f"{info}: there is no data set {name}{advice}")
    entry = entries[name]
    if not isinstance(entry, dict):
        raise UserError(f'{info}, {name}: must be an object, {{"file_name": ...}}')
    if any(key in entry for key in ELSEWHERE):
        return None
    if not isinstance(entry.get("file_name"), str):
        raise UserError(f"{info}, {name}: no file_name, so that nothing says where its rows are")
    return Entry(
        name=name,
        info=info,
        path=Path(folder, entry["file_name"]),
        formatting=entry.get("formatting", "alpaca"),
        ranking=entry.get("ranking", False),
        sampled=entry.get("num_samples") is not None,
        columns=_texts(entry.get("columns", DEFAULT_COLUMNS)),
        tags=_texts(entry.get("tags", DEFAULT_TAGS)),
    )


def entry_faults(name: str, entries: Mapping[str, Any], folder: str) -> Iterator[str]:
    """What is wrong with a data set's entry in itself, whatever its rows are."""
    entry = entries[name]
    where = f"{Path(folder, 'dataset_info.json')}, {name}"
    for key in entry:
        # A key that resembles none may be a comment: LLaMA-Factory passes over it.
        if key not in _KEYS and (advice := did_you_mean(key, _KEYS)):
            yield f"{where}: there is no key {key}{advice}"
    for key, known in (("columns", ROLES), ("tags", tuple(DEFAULT_TAGS))):
        yield from _mapping_faults(entry.get(key, {}), key, known, where)
    if entry.get("formatting", "alpaca") not in FORMATTINGS:
        yield f"{where}: formatting must be one of {_listed(FORMATTINGS)}"
    if not isinstance(entry.get("ranking", False), bool):
        yield f"{where}: ranking must be true or false, not {entry['ranking']!r}"
    split = str(entry.get("split", "train"))
    if split.partition("[")[0] != "train":
        yield f"{where}: split {split}: a local file has the split train only; remove the key"


def _mapping_faults(mapping: Any, key: str, known: tuple[str, ...], where: str) -> Iterator[str]:
    if not isinstance(mapping, dict):
        yield f'{where}: {key} must be an object, {{"{known[0]}": "NAME"}}'
        return
    for name, value in mapping.items():
        if name not in known:
            advice = did_you_mean(name, known) or f"; its keys are {_listed(known)}"
            yield f"{where}: {key} has no key {name}{advice}"
        elif not isinstance(value, str | None):
            yield f"{where}: {key}, {name} must be a name in quotes, not {value!r}"


def _texts(mapping: Any) -> dict[str, str]:
    items = mapping.items() if isinstance(mapping, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
