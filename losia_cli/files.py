"""Files that survive a crash, and what tells whether they are the same."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: Any) -> str:
    """Likewise of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def free_disk(path: Path) -> tuple[Path, float]:
    """The nearest folder to a path that is there, and the GB that are free on its disk."""
    whole = path.absolute()
    place = next(folder for folder in (whole, *whole.parents) if folder.exists())
    return place, shutil.disk_usage(place).free / 1e9


def expect_writable(path: Path) -> None:
    """Refuse a path that cannot be made, as far as permissions and read-only disks tell.

    Raises:
        UserError: the nearest folder that is there cannot be written into.
    """
    place, _ = free_disk(path)
    if not os.access(place, os.W_OK):
        raise UserError(f"{path}: {place} cannot be written into: name another folder")


def refuse_unwritable(path: Path | None) -> None:
    """Before minutes are spent: there must be a folder for the file that was asked for, if any.

    Raises:
        UserError: there is none, or the path is a folder's.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"cannot write {path}: name a file in a folder that exists")


def write_json(path: Path | None, content: Any) -> None:
    """Write the file that was asked for, if any.

    Raises:
        UserError: it cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def writing_into(folder: Path, option: str) -> Iterator[None]:
    """What is done inside writes into a folder, which the user names by an option.

    Raises:
        UserError: it cannot be written into.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written into ({error.strerror or error}): make room, or name"
            f" another folder with {option} DIR"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # it would take up what a full disk lacks
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
