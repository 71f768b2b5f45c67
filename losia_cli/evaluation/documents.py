"""Where a task's documents come from: pinned revisions of the hub's datasets, or local files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losia_cli.data.rows import ORIGINALS, read_original
from losia_cli.data.sources import source
from losia_cli.errors import UserError, first_line
from losia_cli.files import sha256


@dataclass
class Documents:
    """Loads datasets for the harness, and remembers what they were.

    Attributes:
        data: the folder of local files; None for the hub.
        used: dataset -> its revision, or each local file's SHA-256.
    """

    data: Path | None
    used: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data is not None and not self.data.is_dir():
            raise UserError(f"--data: there is no folder {self.data}")

    def load(
        self, path: str, name: str | None = None, *, spare: str | None = None, **options: Any
    ) -> Any:
        """What `datasets.load_dataset` gives: split -> rows.

        Args:
            path: the dataset's name on the hub.
            name: its configuration.
            spare: a split that nothing will read; it is empty where no local file holds it.
            options: `datasets.load_dataset`'s.

        Raises:
            UserError: the hub cannot be reached, or a local file is missing or misses a column.
        """
        if self.data is None or path in ("json", "parquet", "arrow", "csv"):
            return self._remote(path, name, **options)
        known = source(path, name)
        return Splits(self, self.folder(path, name), known.columns if known else (), spare)

    def folder(self, path: str, name: str | None) -> Path:
        """Where the local files of a dataset and its configuration belong."""
        assert self.data is not None
        known = source(path, name)
        folder = self.data / (known.folder if known else path.split("/")[-1])
        part = folder / (name or "")
        return part if (known.parts if known else part.is_dir()) else folder

    def has(self, path: str, name: str | None) -> bool:
        """Whether a dataset's documents can be here: any of the hub's, or a local folder."""
        return self.data is None or self.folder(path, name).is_dir()

    def _remote(self, path: str, name: str | None, **options: Any) -> Any:
        import datasets

        known = source(path, name)
        label = path if name is None else f"{path} ({name})"
        if known is not None:
            options["revision"] = known.revision
        try:
            found = datasets.load_dataset(path, name, **options)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            folder = known.folder if known else path.split("/")[-1]
            raise UserError(
                f"the dataset {label} could not be had ({first_line(error)}): connect to the"
                f" hub once, or name a folder with --data DIR (a recipe's eval_data) that holds it"
                f" as {folder}/SPLIT.jsonl"
            ) from error
        self.used[label] = {"revision": options.get("revision") or "the newest"}
        return found


class Splits(dict[str, Any]):
    """A local dataset: a file for each split, read when it is asked for."""

    def __init__(
        self, documents: Documents, folder: Path, columns: tuple[str, ...], spare: str | None
    ) -> None:
        super().__init__()
        self._documents, self._folder = documents, folder
        self._columns, self._spare = columns, spare

    def __missing__(self, split: str) -> Any:
        import datasets

        path = self._file(split)
        if path is None:
            return datasets.Dataset.from_dict({column: [] for column in self._columns})
        found = read_original(path)
        try:
            rows = datasets.Dataset.from_list(found)
        except (ValueError, TypeError) as error:  # pyarrow's
            several = "a column holds values of several kinds"
            raise UserError(f"{path}: {several} ({first_line(error)}); it must be one") from error
        _complete(path, rows, self._columns)
        place = path.relative_to(self._documents.data or Path()).as_posix()
        self._documents.used.setdefault("local files", {})[place] = sha256(path)
        self[split] = rows
        return rows

    def _file(self, split: str) -> Path | None:
        for suffix in ORIGINALS:
            if (path := self._folder / f"{split}{suffix}").is_file():
                return path
        if split == self._spare:
            return None
        raise UserError(
            f"there is no {self._folder / split} with an ending of {', '.join(ORIGINALS)}: put a"
            " file there, in the original dataset's columns"
        )


def _complete(path: Path, rows: Any, columns: tuple[str, ...]) -> None:
    """Refuse rows that lack what the tasks read."""
    if not len(rows):
        raise UserError(f"{path} holds no rows: put the split's documents there")
    for column in columns:
        if column not in rows.column_names:
            raise UserError(
                f"{path}: the column {column} is missing (it has {', '.join(rows.column_names)});"
                " local files keep the original dataset's columns"
            )
        if rows.data.column(column).null_count:
            row = rows[column].index(None) + 1
            raise UserError(f"{path}: row {row} has nothing in the column {column}")
