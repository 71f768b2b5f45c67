"""What is evaluated: the folders of a model, its tokenizer and adapter, and a hash of them all."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError, first_line
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.files import sha256
from losia_cli.run_folder import PREFIX, RECORD, WEIGHTS

ADAPTER = "adapter_config.json"

_VOCABULARY = ("tokenizer*", "*.model", "vocab*")
_TOKENIZER = (
    *_VOCABULARY,
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
_CONFIG = ("config.json", "generation_config.json", ADAPTER)


@dataclass(frozen=True)
class Checkpoint:
    """A model to be evaluated.

    Attributes:
        name: as the user gave it.
        model: the folder of its weights.
        tokenizer: the folder of its tokenizer.
        adapter: the folder of the adapter on top, if there is one.
        recipe: the resolved recipe of the run that made it; empty if none is known.
        trained_with_bos: whether its training samples began with BOS; None if not known.
    """

    name: str
    model: Path
    tokenizer: Path
    adapter: Path | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    trained_with_bos: bool | None = None

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of every file that decides a response, by its name."""
        parts = (
            (self.model, _CONFIG + WEIGHTS),
            (self.tokenizer, _TOKENIZER),
            (self.adapter, _CONFIG + WEIGHTS),
        )
        found = {
            f"{'adapter/' if folder == self.adapter else ''}{path.name}": path
            for folder, patterns in parts
            for path in (_files(folder, patterns) if folder else ())
        }
        with ThreadPoolExecutor() as threads:  # hashing lets others run
            return dict(zip(found, threads.map(sha256, found.values()), strict=True))


def find(target: str, *, adapter: Path | None = None, base: bool = False) -> Checkpoint:
    """The model of a run's folder, a checkpoint's, any model's, or the hub's.

    Args:
        target: a folder, or the hub's name of a model.
        adapter: a folder with an adapter to lay over it.
        base: the model that the run started from, in its place.

    Raises:
        UserError: no such folder, no model or tokenizer in it, an adapter of another base.
    """
    folder = Path(target)
    of_adapter = {} if adapter is None or base else _record(adapter)
    record = of_adapter or _record(folder)
    recipe = record.get("recipe", {})
    if base:
        if adapter is not None:
            raise UserError("--base and --adapter: give one, for they are two models")
        if not recipe:
            raise UserError(
                f"--base: {target} holds no {RECORD}, so that its base model is not known: name"
                " the base model itself"
            )
        asked = {key: recipe[key] for key in EVALUATION_KEYS if key in recipe}
        model = _folder(recipe["model_name_or_path"])
        return _checked(Checkpoint(f"the base of {target}", model, model, recipe=asked))
    if adapter is None and folder.is_dir() and (folder / ADAPTER).is_file():
        adapter, model = folder, _folder(_base_of(folder, recipe))
    else:
        model = _folder(target)
    tokenizer = adapter if adapter and _files(adapter, _VOCABULARY) else model
    if adapter is not None and (adapter / ADAPTER).is_file():
        adapter = _of_the_base(adapter)
    bos = record.get("begins_with_bos")
    return _checked(Checkpoint(target, model, tokenizer, adapter, recipe, bos))


def _record(folder: Path) -> dict[str, Any]:
    """What `losia train` left in the folder, or beside the checkpoint."""
    for place in (folder, folder.parent) if folder.name.startswith(PREFIX) else (folder,):
        if (place / RECORD).is_file():
            return _object(place / RECORD)
    return {}


def _base_of(adapter: Path, recipe: dict[str, Any]) -> str:
    """What an adapter says of its base or, where it is not found from here, what its run says."""
    named = adapter_settings(adapter).get("base_model_name_or_path") or ""
    run = recipe.get("model_name_or_path")
    if not named and not run:
        raise UserError(f"{adapter} does not say of which model it is: name it, and --adapter")
    return run if run and not Path(named).is_dir() and Path(run).is_dir() else named


def _of_the_base(adapter: Path) -> Path:
    """The adapter that fits the base: PiSSA's own fits only the residual that it was trained on.

    That residual is of a random decomposition, and loading would draw another one.
    """
    if not str(adapter_settings(adapter).get("init_lora_weights")).startswith("pissa"):
        return adapter
    converted = adapter / "pissa_converted"
    if (converted / ADAPTER).is_file():
        return converted
    raise UserError(
        f"{adapter} fits the residual weights that PiSSA trained on, not the base, and {converted}"
        " is not there: train with pissa_convert: true"
    )


def _folder(name: str) -> Path:
    """Where a model is: its own folder, or the hub's copy."""
    folder = Path(name)
    if not folder.is_dir():
        if name.count("/") != 1 or name.startswith(("/", ".", "~")):
            raise UserError(f"there is no folder {name}: name a run, a checkpoint or a model")
        return _from_hub(name)
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*_CONFIG, "*.safetensors", "*.safetensors.index.json", *_TOKENIZER]
    older = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
    twice = ["original/*", "consolidated*"]  # the same weights in another layout
    have = partial(snapshot_download, name, ignore_patterns=twice)
    try:
        folder = Path(have(allow_patterns=patterns))
        if not _files(folder, WEIGHTS):
            folder = Path(have(allow_patterns=[*patterns, *older]))
        return folder
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"there is no folder {name}, and the hub's model of that name could not be had"
            f" ({first_line(error)})"
        ) from error


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    model, tokenizer, adapter = checkpoint.model, checkpoint.tokenizer, checkpoint.adapter
    if not (model / "config.json").is_file():
        raise UserError(f"{model} holds no model (no config.json): name the folder of a run")
    if not _files(model, WEIGHTS):
        raise UserError(f"{model} holds no weights (no .safetensors file): did the run finish?")
    if not _files(tokenizer, _VOCABULARY):
        raise UserError(f"{tokenizer} holds no tokenizer: copy the base model's into it")
    if adapter is not None:
        if not (adapter / ADAPTER).is_file() or not _files(adapter, WEIGHTS):
            raise UserError(f"--adapter: {adapter} holds no adapter ({ADAPTER} and its weights)")
        _fits(adapter, model)
    return checkpoint


def _fits(adapter: Path, model: Path) -> None:
    """Refuse an adapter whose shapes are another model's."""
    from losia_cli.evaluation.loading import adapter_misfit

    made_for = adapter_settings(adapter).get("base_model_name_or_path")
    misfit = adapter_misfit(adapter, model)
    if misfit:
        raise UserError(
            f"the adapter {adapter} was made for {made_for} and does not fit {model}: {misfit}"
        )


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What an adapter's folder says of it.

    Raises:
        UserError: it is damaged.
    """
    return _object(folder / ADAPTER)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
        reason = "no object"
    except ValueError as error:
        reason = first_line(error)
    raise UserError(f"{path} is damaged ({reason})")


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    def found() -> Iterator[Path]:
        for pattern in patterns:
            yield from (path for path in folder.glob(pattern) if path.is_file())

    return sorted(set(found()))
