"""All that the miniature stands on, made once in a folder, and made anew where it is damaged."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from losia_cli.files import sha256, writing_into
from losia_cli.reproduction.miniature import documents, models

MANIFEST = "world.json"


@dataclass(frozen=True)
class World:
    """Where everything is.

    Attributes:
        models: a model's name in the plans -> its folder.
        sources: a training set -> its rows, in the original columns.
        documents: what `losia eval --data` reads.
        data: where `losia data prepare` puts the training sets.
    """

    models: dict[str, Path]
    sources: dict[str, Path]
    documents: Path
    data: Path


def make(folder: Path, console: Console) -> World:
    """The world in a folder, which is made on the first call and reused from then on.

    A folder that another version made, or one of whose files was changed, is made anew.

    Raises:
        UserError: the folder cannot be written into.
    """
    folder = folder.absolute()
    with writing_into(folder, "--output"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not _is_whole(folder):
                console.print(f"making tiny models, rows and documents in {folder}", soft_wrap=True)
                _make(folder)
    return at(folder)


def at(folder: Path) -> World:
    """Where everything of a world in this folder is, or will be once it is made."""
    folder = folder.absolute()
    places = {name: folder / "models" / place for name, (place, *_) in models.MODELS.items()}
    sources = {path.stem: path for path in sorted((folder / "sources").glob("*.jsonl"))}
    return World(places, sources, folder / "documents", folder / "data")


def _make(folder: Path) -> None:
    """The same files every time, the manifest last."""
    shutil.rmtree(folder, ignore_errors=True)
    models.write(folder / "models", documents.write(folder / "sources", folder / "documents"))
    files = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"version": _version(), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"].items()
        return manifest["version"] == _version() and all(
            sha256(folder / name) == digest for name, digest in files
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _version() -> str:
    """A hash of the code that makes the world."""
    here = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in here)).hexdigest()
