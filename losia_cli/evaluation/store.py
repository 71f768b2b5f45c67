"""Responses of a model, kept as they come, so that a run that was cut off goes on."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError

FILE = "responses.sqlite"
_WAIT = 60.0  # seconds for another process to finish its write


class Store:
    """What was answered, by a key that names all that decides the answer.

    Several processes may share one store. An entry is whole and on the disk, or not there.

    Raises:
        UserError: the file cannot be opened, read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=_WAIT)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )

    def get(self, key: str) -> Any | None:
        """What was kept under `key`; None if nothing was."""
        with self._explained():
            row = self._database.execute(
                "SELECT value FROM responses WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep `value`, anything that JSON holds; floats come back to the last bit."""
        with self._explained(), self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?)", (key, json.dumps(value))
            )

    def close(self) -> None:
        """Leave the file to others."""
        self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"could not use the stored responses in {self.path} ({error}): see that the folder"
                " can be written and the disk has room, or delete that file to answer all anew"
            ) from error
