"""What a reproduction keeps: a folder for each cell, with its lock, its log and its result.

In the reproduction's folder:

    reproduction.json       which kind of plan the folder is for
    cells/NAME/cell.json    what it is made of; then its result, or what went wrong
    cells/NAME/log.txt      all that training and evaluation printed
    cells/NAME/model/       the trained model, its checkpoints and its scores
"""

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from losia_cli.data import manifest
from losia_cli.data.info import names_in
from losia_cli.errors import UserError
from losia_cli.files import sha256_of, write_atomically, writing_into
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.run_folder import PREFIX, RECORD, WEIGHTS

KIND = "reproduction.json"
SCHEMA = 1
DONE, FAILED, RUNNING, WAITING = "done", "failed", "running", "waiting"
_LOOKS = 10  # at a lock, before it counts as held


class Store:
    """The cells in a folder.

    Raises:
        UserError: the folder holds another kind of plan, or cannot be written into.
    """

    def __init__(self, root: Path, kind: Mapping[str, Any]) -> None:
        self.root = root
        self.kind = {"schema": SCHEMA, **kind}
        if (root / KIND).is_file() and any(root.glob("cells/*/cell.json")):
            _expect_kind(root / KIND, self.kind)

    def open(self) -> None:
        """Make the folder, where nothing has been kept yet."""
        with writing_into(self.root, "--output"):
            (self.root / "cells").mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / KIND, json.dumps(self.kind, indent=1))

    def folder(self, cell: Cell) -> Path:
        """The cell's folder."""
        return self.root / "cells" / cell.name

    def trained(self, cell: Cell) -> Path:
        """Where the cell's model and its scores are."""
        return self.folder(cell) / "model"

    def adapter(self, cell: Cell) -> bool:
        """Whether what the cell trained is an adapter, which another cell must merge first."""
        return (self.trained(cell) / "adapter_config.json").is_file()

    def merged(self, cell: Cell) -> Path:
        """The model that the cell starts from, where the one before it left an adapter."""
        return self.folder(cell) / "start"

    def log(self, cell: Cell) -> Path:
        """What the cell's processes printed."""
        return self.folder(cell) / "log.txt"

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What `cell.json` says, None where the cell has not been begun.

        Raises:
            UserError: the file was edited or is damaged.
        """
        path = self.folder(cell) / "cell.json"
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            whole = found.pop("digest") == sha256_of(found)
        except (ValueError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise UserError(
                f"{path} is not as it was written, so that its numbers cannot be believed: remove"
                f" the folder {path.parent}, and the same command measures the cell once more"
            )
        return found

    def save(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Write `cell.json`, whole."""
        content = json.loads(json.dumps(result))
        content["digest"] = sha256_of(content)
        write_atomically(self.folder(cell) / "cell.json", json.dumps(content, indent=1))

    def begin(self, cell: Cell) -> None:
        """Note what a cell is about to be trained on, where it has learned nothing yet."""
        if cell.method != BASE and not self._learned(cell):
            content = {"schema": SCHEMA, "state": WAITING, **_described(cell)}
            self.save(cell, {**content, "data": _data(cell)})

    def expect_same_data(self, cells: Iterable[Cell], left: Iterable[Cell]) -> None:
        """Refuse to mix rows: what cells have learned from is what others are to be trained on.

        Args:
            cells: of a table.
            left: those of them that are to be trained.

        Raises:
            UserError: a set was prepared anew, of other rows, since a cell began.
        """
        asked: dict[str, str] = {}
        for cell in left:
            asked |= _data(cell) if cell.method != BASE else {}
        for cell in cells if asked else ():
            begun = (self.result(cell) or {}).get("data", {}) if self._learned(cell) else {}
            for name, prepared in asked.items():
                if begun.get(name, prepared) != prepared:
                    raise UserError(
                        f"{self.folder(cell)} was trained on other rows than {name} has now:"
                        " prepare those again (`losia data prepare`), or remove the folder, and the"
                        " same command trains the cell anew"
                    )

    def state(self, cell: Cell) -> str:
        """Done, failed, running in some process, or waiting."""
        result = self.result(cell)
        if result is not None and missing_suites(cell, result) == ():
            return DONE
        if _is_held(self.folder(cell) / "lock"):
            return RUNNING
        return FAILED if result is not None and result["state"] == FAILED else WAITING

    @contextlib.contextmanager
    def take(self, cell: Cell, gpu: str = "") -> Iterator[IO[str] | None]:
        """Hold the cell for this process and those that inherit the file; None if it is taken.

        A child that outlives a killed parent goes on holding it, so that none else writes there.

        Args:
            cell: the one to hold.
            gpu: the one that it is to run on, which the file notes.
        """
        self.folder(cell).mkdir(parents=True, exist_ok=True)
        with (self.folder(cell) / "lock").open("a") as file:
            held = _lock(file, fcntl.LOCK_EX, _LOOKS)
            if held:
                file.truncate(0)
                file.write(gpu)
                file.flush()
            yield file if held else None

    def expect_idle(self, gpu: str) -> None:
        """Refuse a second cell beside one: their memory and their seconds would be both's.

        Raises:
            UserError: a cell is running on the GPU, of whichever process.
        """
        for path in self.root.glob("cells/*/lock"):
            if path.read_text(encoding="utf-8") == gpu and _is_held(path):
                raise UserError(
                    f"GPU {gpu} is at work on {path.parent}, and a table's cells run alone: wait"
                    " for it to end, or give this one another GPU with CUDA_VISIBLE_DEVICES"
                )

    def drop_model(self, cell: Cell) -> None:
        """Remove the weights of a scored cell; its scores and records stay."""
        folder = self.trained(cell)
        for pattern in WEIGHTS:
            for path in folder.glob(pattern):
                path.unlink()
        for path in [*folder.glob(f"{PREFIX}*"), *folder.glob("pissa_*"), self.merged(cell)]:
            shutil.rmtree(path, ignore_errors=True)

    def _learned(self, cell: Cell) -> bool:
        """Whether it has a checkpoint, or came to its end, wherever its model is now."""
        folder, result = self.trained(cell), self.result(cell) or {}
        ended = "scores" in result or (folder / RECORD).is_file()
        return ended or any(folder.glob(f"{PREFIX}*"))


def _is_held(lock: Path) -> bool:
    if not lock.is_file():
        return False
    with lock.open("a") as file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: IO[str], how: int, times: int = 1) -> bool:
    """Lock a file until it is closed by all who have it open; whether it could be had.

    Who only asks for a cell's state shares it for a moment: whoever wants the cell tries again.
    """
    for attempt in range(times):
        if attempt:
            time.sleep(0.05)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
    return False


def missing_suites(cell: Cell, result: Mapping[str, Any]) -> tuple[str, ...]:
    """The suites that a finished or failed cell has no score of."""
    return tuple(suite for suite in cell.suites if suite not in result.get("scores", {}))


def gather(cell: Cell, store: Store) -> dict[str, Any]:
    """What a trained and scored cell's own files say, to be kept as its result."""
    folder = store.trained(cell)
    scored = json.loads((folder / "eval" / "eval_results.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "state": DONE,
        **_described(cell),
        "scores": scored["suites"],
        "evaluation": {key: value for key, value in scored.items() if key != "suites"},
        "training": None,
    }
    if cell.method != BASE:
        result["training"] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        begun = store.result(cell) or {}  # what is prepared now may be what came since
        result["data"] = begun.get("data", _data(cell))
    return result


def _data(cell: Cell) -> dict[str, str]:
    """The SHA-256 of each prepared set that the cell trains on."""
    values = cell.resolved.values
    records = manifest.read(Path(values["dataset_dir"]))
    return {
        name: records[name]["sha256"] for name in names_in(values["dataset"]) if name in records
    }


def failure(cell: Cell, code: int, log: Sequence[str]) -> dict[str, Any]:
    """What is kept of a cell whose process ended badly."""
    described = _described(cell)
    return {"schema": SCHEMA, "state": FAILED, **described, "exit_code": code, "log": list(log)}


def _described(cell: Cell) -> dict[str, Any]:
    return {
        "title": cell.title,
        "identity": cell.identity,
        "recipe": cell.recipe,
        "method": cell.method,
        "overrides": list(cell.all_overrides),
        "after": cell.after and cell.after.name,
    }


def _expect_kind(path: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != wanted:
        raise UserError(
            f"{path.parent} holds the results of another plan"
            f" ({_spelled(found) if isinstance(found, dict) else f'{KIND} is damaged'}), not of"
            f" this one ({_spelled(wanted)}): name another folder with --output DIR"
        )


def _spelled(kind: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in kind.items() if value not in (None, [], ""))
