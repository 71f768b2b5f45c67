"""`losia_data.json`: what the prepared sets of a folder were made of, and their hashes."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losia_cli.data.info import Entry
from losia_cli.data.training_sets import SEED, SETS
from losia_cli.errors import UserError
from losia_cli.files import sha256, write_atomically

MANIFEST = "losia_data.json"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """A training set's name -> its record; nothing where nothing was prepared.

    Raises:
        UserError: the file is no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(record["sha256"], str) for record in records.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is damaged: remove it, and prepare the sets again with `losia data prepare`"
        )
    return records


def write(folder: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the manifest of a folder."""
    write_atomically(folder / MANIFEST, json.dumps(records, indent=2, ensure_ascii=False) + "\n")


def fault(entry: Entry) -> str | None:
    """How a prepared set differs from its record; None if it does not, or is not a prepared one."""
    record = read(entry.info.parent).get(entry.name)
    if record is None or entry.path != prepared(entry.info.parent, entry.name):
        return None
    if not entry.path.is_file():
        return f"{entry.path} is missing: make it with `{_command(entry, record)}`"
    if digest(entry.path) != record["sha256"]:
        return (
            f"{entry.path} is not as it was prepared ({MANIFEST} has another SHA-256): make it anew"
            f" with `{_command(entry, record)}`, or register your own rows by another name"
        )
    return None


def _command(entry: Entry, record: Mapping[str, Any]) -> str:
    """The command that made the set, and makes the same again."""
    rows = record.get("rows asked for", "all")
    usual = SETS[entry.name].rows if entry.name in SETS else None
    given = {
        "--from": record.get("source", {}).get("file"),
        "--rows": None if rows == (usual or "all") else rows,
        "--seed": None if record.get("seed") == SEED else record.get("seed"),
        "--output": None if entry.info.parent == Path("data") else entry.info.parent,
    }
    options = [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    return shlex.join(["losia", "data", "prepare", entry.name, *options])


def prepared(folder: Path, name: str) -> Path:
    """Where the rows of a prepared set are."""
    return folder / f"{name}.jsonl"


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of all files in a folder."""
    if path.is_dir():
        parts = [f"{each.name}:{digest(each)}" for each in sorted(path.iterdir())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return sha256(path)
