"""The rows of local data files, as the loader that LLaMA-Factory calls takes them."""

import json
import re
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from losia_cli.errors import UserError, first_line

Row = dict[str, Any]

# The loader fixes the columns and their types on the first piece of the first file.
JSON_PIECE = 10 << 20  # bytes, and the rest of the line
CSV_PIECE = 10_000  # rows
WHOLE = sys.maxsize

ORIGINALS = (".jsonl", ".json", ".parquet", ".arrow")  # what copies of a data set come in
LARGE = 1 << 29  # bytes; more would take minutes and gigabytes to read, twice

_DECODE = json.JSONDecoder().raw_decode
_BLANKS = re.compile(r"\s*")
_NEXT_OBJECT = re.compile(r"^\{", re.MULTILINE)


@dataclass
class Table:
    """The rows of a data set's files, one file after another.

    Attributes:
        rows: the rows that could be read.
        starts: each file, and the index of its first row in `rows`.
        first_piece: how many rows the loader has seen when it fixes columns and types.
        broken: one sentence on each file that holds what is no row.
    """

    rows: list[Row] = field(default_factory=list)
    starts: list[tuple[int, Path]] = field(default_factory=list)
    first_piece: int = WHOLE
    broken: list[str] = field(default_factory=list)

    def place(self, index: int) -> str:
        """Where a row is: its file, and its number there, from 1."""
        start, path = self.starts[bisect_right(self.starts, index, key=lambda item: item[0]) - 1]
        return f"{path}, row {index - start + 1:,}"


class _Part(NamedTuple):
    """One file's rows, how many the first piece holds, and what is broken in it."""

    rows: list[Row]
    first_piece: int = WHOLE
    broken: str | None = None


def read(path: Path, original: bool = False) -> Table | None:
    """All rows of a file, or of a folder's files.

    Args:
        path: the file or the folder.
        original: whether rows will be drawn from it: then files over `LARGE` are read too, for
            which None stands else, and in the order of their names, not in the loader's.

    Raises:
        UserError: there is no such file, or its type is none that LLaMA-Factory reads.
    """
    table, files = Table(), sorted(_files(path)) if original else _files(path)
    if not original and sum(file.stat().st_size for file in files) > LARGE:
        return None
    for file in files:
        part = _read_file(file)
        table.starts.append((len(table.rows), file))
        if not table.rows:
            table.first_piece = part.first_piece
        elif part.rows:
            table.first_piece = min(table.first_piece, len(table.rows))
        table.rows += part.rows
        if part.broken:
            table.broken.append(part.broken)
    return table


def read_original(path: Path) -> list[Row]:
    """All rows of a copy of a data set, a file or the files of a folder.

    Raises:
        UserError: there is no such file, its type is none that is read here, or it is broken.
    """
    table = read(path, original=True)
    assert table is not None  # it is read whatever its size
    if table.broken:
        raise UserError(table.broken[0])
    return table.rows


def _read_file(path: Path) -> _Part:
    try:
        return _READERS[path.suffix](path)
    except UserError as error:
        return _Part([], broken=str(error))
    except OSError as error:
        return _Part([], broken=f"{path} cannot be read: {error.strerror or error}")


def _files(path: Path) -> list[Path]:
    types = ", ".join(_READERS)
    if path.is_file():
        if path.suffix not in _READERS:
            raise UserError(f"{path}: LLaMA-Factory reads files of the types {types} only")
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: there is no such file")
    files = list(path.iterdir())  # as LLaMA-Factory lists them
    if not files:
        raise UserError(f"{path}: the folder is empty")
    readers = {_READERS.get(file.suffix) for file in files}
    if len(readers) > 1 or None in readers:
        stranger = next((file for file in files if file.suffix not in _READERS), files[0])
        rule = f"the files of a folder must all be of one type ({types})"
        raise UserError(f"{path}: {rule}; move {stranger.name} away")
    return files


def _read_json(path: Path) -> _Part:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line:,} is not UTF-8 text; save it as UTF-8") from error
    if not text.lstrip().startswith("["):
        return _read_objects(path, text, _first_piece_end(data))
    if data.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    return _Part(_read_array(path, text))


def _read_array(path: Path, text: str) -> list[Row]:
    try:
        rows = json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, {_mark(error)} is not valid JSON: {error.msg}") from error
    if rows and all(isinstance(row, str) for row in rows):
        return [{"text": row} for row in rows]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(_not_an_object(path, number, row))
    return rows


def _read_objects(path: Path, text: str, piece_end: int) -> _Part:
    """JSON objects one after another, most often one in a line; goes on after a broken one."""
    rows: list[Row] = []
    faults: list[str] = []
    first_piece = WHOLE
    position = _skip_blanks(text, 0)
    while position < len(text):
        if position >= piece_end and first_piece == WHOLE:
            first_piece = len(rows)
        try:
            row, end = _DECODE(text, position)
        except json.JSONDecodeError as error:
            line = text.count("\n", 0, position) + 1
            what = f"the row on line {line:,} is not valid JSON"
            faults.append(f"{path}: {what}: {error.msg} ({_mark(error)})")
            following = _NEXT_OBJECT.search(text, position + 1)
            end = following.start() if following else len(text)
        else:
            if isinstance(row, dict):
                rows.append(row)
            else:
                faults.append(_not_an_object(path, len(rows) + 1, row))
        position = _skip_blanks(text, end)
    more = f" (one of {len(faults):,} broken rows)" if len(faults) > 1 else ""
    return _Part(rows, first_piece, faults[0] + more if faults else None)


def _skip_blanks(text: str, position: int) -> int:
    return _BLANKS.match(text, position).end()  # type: ignore[union-attr]


def _first_piece_end(data: bytes) -> int:
    """How many characters the loader reads before it fixes columns and types."""
    if len(data) <= JSON_PIECE:
        return WHOLE
    end = data.find(b"\n", JSON_PIECE)
    return WHOLE if end < 0 else len(data[: end + 1].decode("utf-8-sig"))


def _not_an_object(path: Path, number: int, row: Any) -> str:
    shown = json.dumps(row, ensure_ascii=False)[:40]
    return f'{path}, row {number:,} is {shown}; a row must be an object, {{"COLUMN": VALUE}}'


def _mark(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno:,}, column {error.colno:,}"


def _read_csv(path: Path) -> _Part:
    from pyarrow import ArrowInvalid, csv, string, types  # type: ignore[import-untyped]

    size = path.stat().st_size
    if not size:
        return _Part([])
    try:
        table = csv.read_csv(
            path,
            # One block, so that a column's type fits all its rows; one thread, so that a message
            # says which row.
            read_options=csv.ReadOptions(block_size=size + 1, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=_short),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except ArrowInvalid as error:
        raise _unreadable(path, "CSV", error) from error
    for index, column in enumerate(table.schema):
        if types.is_temporal(column.type):  # text to the loader
            table = table.set_column(index, column.name, table.column(index).cast(string()))
    return _Part(table.to_pylist(), CSV_PIECE)


def _short(row: Any) -> str:
    """What to do with a row of another number of values: the loader fills up a short one."""
    return "skip" if row.actual_columns < row.expected_columns else "error"


def _read_parquet(path: Path) -> _Part:
    from pyarrow import ArrowInvalid, parquet

    try:
        return _Part(parquet.read_table(path).to_pylist())
    except ArrowInvalid as error:
        raise _unreadable(path, "Parquet", error) from error


def _read_arrow(path: Path) -> _Part:
    from pyarrow import ArrowInvalid, ipc, memory_map

    try:
        with memory_map(str(path)) as source:
            try:
                return _Part(ipc.open_stream(source).read_all().to_pylist())
            except ArrowInvalid:
                return _Part(ipc.open_file(source).read_all().to_pylist())
    except ArrowInvalid as error:
        raise _unreadable(path, "Arrow", error) from error


def _read_text(path: Path) -> _Part:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    return _Part([{"text": line} for line in lines])


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as {kind}: {first_line(error)}")


_READERS: dict[str, Callable[[Path], _Part]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".txt": _read_text,
}
