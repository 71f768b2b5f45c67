"""A training set from its source to a file that LLaMA-Factory reads: drawn, converted, registered.

Which rows are drawn depends on nothing but the seed and how many there are: the source's rows are
put in the order of the SHA-256 of "SEED:PLACE" (PLACE counts from 0), and the first that can be
used are taken. So the file's first rows are a random sample too, and 30,000 rows are among the
50,000 of the same seed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from losia_cli import __version__
from losia_cli.data import hub, info, manifest
from losia_cli.data.check import dataset_dir, looked_up
from losia_cli.data.originals import Row, Texts, Unusable
from losia_cli.data.rows import ORIGINALS, read_original
from losia_cli.data.training_sets import SEED, SETS, SPLIT, TrainingSet
from losia_cli.errors import UserError
from losia_cli.files import write_atomically, writing_into

_INFO = "dataset_info.json"
_ROLES = {"instruction": "prompt", "output": "response", "system": "system"}
_NAMED = 5  # rows of each kind that cannot be used
_HELD_OUT = ("test", "valid", "dev", "eval")  # what files of other splits begin with


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        wanted: the training set.
        source: a local copy of its original rows, a file or a folder of files; None: the hub.
        rows: how many to draw; None: as the paper.
        seed: which of them.
    """

    wanted: TrainingSet
    source: Path | None = None
    rows: int | None = None
    seed: int = SEED

    def origin(self) -> dict[str, Any]:
        """All that decides what the file will hold."""
        rows = self.rows or self.wanted.rows
        return {
            "losia": __version__,
            "source": self._source(),
            "seed": None if rows is None else self.seed,
            "rows asked for": rows or "all",
        }

    @property
    def where(self) -> str:
        """The source, for people."""
        return self.wanted.repository if self.source is None else str(self.source)

    def _source(self) -> dict[str, Any]:
        if self.source is not None:
            return {"file": str(self.source), "sha256": manifest.digest(self.source)}
        wanted = self.wanted
        pin = {"repository": wanted.repository, "revision": wanted.revision, "split": SPLIT}
        return pin | ({"subset": wanted.subset} if wanted.subset else {})


@dataclass
class Draw:
    """The rows that are trained on, and what was passed over on the way.

    Attributes:
        texts: one for each row.
        skipped: why rows could not be used -> the places of those that were come across, from 1.
    """

    texts: list[Texts] = field(default_factory=list)
    skipped: dict[str, list[int]] = field(default_factory=dict)


def prepare(request: Request, folder: Path, console: Console, again: bool = False) -> None:
    """Make FOLDER/NAME.jsonl and register it; nothing, where it is there unchanged.

    Other entries of the folder's dataset_info.json are kept.

    Args:
        request: what to make.
        folder: a recipe's `dataset_dir`.
        console: where it is told what was done.
        again: make it though it is there.

    Raises:
        UserError: the source cannot be had or does not hold what it should, the folder cannot be
            written into, or has another set of this name.
    """
    from filelock import FileLock

    if request.source is not None:
        _expect_type(request.source)
    lock = folder / ".losia_data.lock"
    with writing_into(folder, "--output"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if again or not _is_there(request, folder):
                    _make(request, folder, console)
                else:
                    console.print(f"{request.wanted.name}: already in {folder}, unchanged")
        except UserError:
            if list(folder.iterdir()) == [lock]:  # nothing but ours: no folder is left
                shutil.rmtree(folder, ignore_errors=True)
            raise


def prepare_missing(values: Mapping[str, Any], console: Console) -> None:
    """Make the paper's sets that a recipe trains on and its dataset_dir does not have.

    Raises:
        UserError: as `prepare`.
    """
    folder = Path(dataset_dir(values))
    for name in unprepared(values):
        console.print(f"{name} is not in {folder} yet: preparing it", soft_wrap=True)
        prepare(Request(SETS[name]), folder, console)


def unprepared(values: Mapping[str, Any]) -> list[str]:
    """The paper's sets that a recipe trains on and its dataset_dir does not have.

    Raises:
        UserError: its dataset_info.json is broken.
    """
    folder, names = Path(dataset_dir(values)), (name for name, _ in looked_up(values))
    return [name for name in names if name in SETS and not registered(name, folder)]


def registered(name: str, folder: Path) -> bool:
    """Whether the folder has a set of this name, prepared or the user's own.

    Raises:
        UserError: its dataset_info.json is broken.
    """
    return (folder / _INFO).is_file() and name in info.read(str(folder))


def order(size: int, seed: int) -> list[int]:
    """The places 0 .. size - 1 in the order in which a seed draws them."""
    return sorted(
        range(size), key=lambda place: hashlib.sha256(f"{seed}:{place}".encode()).digest()
    )


def draw(
    rows: Sequence[Row], wanted: TrainingSet, count: int | None, places: Iterable[int]
) -> Draw:
    """Convert the rows at these places, from 0, until there are `count` texts; None: all."""
    made = Draw()
    for place in places:
        if len(made.texts) == count:
            break
        try:
            made.texts.append(_convert(rows[place], wanted))
        except Unusable as why:
            made.skipped.setdefault(str(why), []).append(place + 1)
    return made


def _convert(row: Row, wanted: TrainingSet) -> Texts:
    for column in wanted.columns:
        if row.get(column) is None:
            raise Unusable(f"has nothing in {column}")
    texts = wanted.convert(row)
    for column, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unusable(f"has half a character in its {column}") from error
    return texts


def _expect_type(source: Path) -> None:
    if not source.exists():
        raise UserError(f"--from: there is no file {source}")
    held_out = [path for path in source.glob("*") if path.name.lower().startswith(_HELD_OUT)]
    if held_out:
        raise UserError(
            f"--from: {source} holds {min(held_out).name}, which is not to be trained on: name the"
            f" file with the {SPLIT} split"
        )
    if source.is_file() and source.suffix not in ORIGINALS:
        raise UserError(
            f"--from: {source} is of no type that is read here: {', '.join(ORIGINALS)}, in the"
            " original set's columns"
        )


def _is_there(request: Request, folder: Path) -> bool:
    name = request.wanted.name
    record = manifest.read(folder).get(name)
    if record is None or not registered(name, folder):
        return False
    if any(record.get(key) != value for key, value in request.origin().items()):
        return False
    path = manifest.prepared(folder, name)
    return path.is_file() and manifest.digest(path) == record["sha256"]


def _make(request: Request, folder: Path, console: Console) -> None:
    name = request.wanted.name
    records = manifest.read(folder)
    if name not in records and registered(name, folder):
        raise UserError(
            f"{folder / _INFO} has a set {name} that was not prepared by losia: rename it there, or"
            " give another folder with --output DIR"
        )
    rows = _rows(request)
    made = _drawn(request, rows, console)
    path = manifest.prepared(folder, name)
    write_atomically(path, "".join(f"{json.dumps(t, ensure_ascii=False)}\n" for t in made.texts))
    records[name] = request.origin() | {
        "rows in the source": len(rows),
        "rows": len(made.texts),
        "skipped": {
            why: {"rows": len(places), "such as": places[:_NAMED]}
            for why, places in made.skipped.items()
        },
        "sha256": manifest.digest(path),
    }
    manifest.write(folder, records)
    _register(name, made.texts[0], folder)
    done = f"{len(made.texts):,} of {len(rows):,} rows of {request.where}"
    console.print(f"{name}: {done} in {path}", soft_wrap=True)
    for why, places in made.skipped.items():
        console.print(f"  {_skipped(why, places)}", style="yellow")


def _rows(request: Request) -> Sequence[Row]:
    """The original rows, whose columns are what they should be."""
    wanted, source = request.wanted, request.source
    rows = hub.download(wanted) if source is None else read_original(source)
    if not len(rows):
        raise UserError(f"{request.where} holds no rows")
    missing = [column for column in wanted.columns if column not in rows[0]]
    if missing:
        raise UserError(
            f"{request.where}: there is no column {' and no '.join(missing)} (its columns are"
            f" {', '.join(rows[0]) or 'none'}); {wanted.name} needs {', '.join(wanted.columns)}"
        )
    return rows


def _drawn(request: Request, rows: Sequence[Row], console: Console) -> Draw:
    """The rows asked for.

    Raises:
        UserError: there are not as many.
    """
    wanted, count = request.wanted, request.rows or request.wanted.rows
    places: Sequence[int] = range(len(rows)) if count is None else order(len(rows), request.seed)
    shown = track(places, wanted.name, console=console, transient=True)
    made = draw(rows, wanted, count, shown if console.is_terminal else places)
    missing = (count or 1) - len(made.texts)
    if missing > 0 and (request.rows or request.source is None or not made.texts):
        skipped = "".join(f"; {_skipped(*item)}" for item in made.skipped.items())
        raise UserError(
            f"{wanted.name}: {count or 1:,} rows are wanted, and {len(made.texts):,} of"
            f" {len(rows):,} can be used{skipped}"
        )
    if missing > 0:
        few = f"fewer usable rows than the {count:,} that the paper draws"
        console.print(f"{wanted.name}: the copy has {few}: all are taken")
    elif count is None and len(rows) < wanted.published:
        few = f"{len(rows):,} of the {wanted.published:,} rows that are published"
        console.print(f"{wanted.name}: the copy has {few}: all are taken")
    return made


def _skipped(why: str, places: Sequence[int]) -> str:
    some = ", ".join(f"{place:,}" for place in places[:_NAMED])
    more = ", ..." if len(places) > _NAMED else ""
    number = "1 row" if len(places) == 1 else f"{len(places):,} rows"
    return f"skipped: {number} that {why} ({some}{more})"


def _register(name: str, texts: Texts, folder: Path) -> None:
    path = folder / _INFO
    entries = info.read(str(folder)) if path.is_file() else {}
    columns = {_ROLES[column]: column for column in texts}
    entries[name] = {"file_name": manifest.prepared(folder, name).name, "columns": columns}
    write_atomically(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
