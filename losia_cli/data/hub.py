"""What comes from the hub, and is kept in its cache: original rows, and tokenizers."""

from collections.abc import Sequence
from pathlib import Path

from losia_cli.data.originals import Row
from losia_cli.data.training_sets import SPLIT, TrainingSet
from losia_cli.errors import UserError, first_line

_ANSWERS_WITHIN = 10.0  # seconds
_TOKENIZER = ["*.json", "*.model", "*.txt", "*.jinja"]


def download(wanted: TrainingSet) -> Sequence[Row]:
    """The rows of a set at its pinned revision; a broken download goes on where it stopped.

    HF_ENDPOINT names another hub; with HF_HUB_OFFLINE=1 only what is in the cache is looked at.

    Raises:
        UserError: the hub does not answer, or not with this set.
    """
    import httpx
    from huggingface_hub import HfApi, constants

    repository, revision = wanted.repository, wanted.revision
    try:
        if not constants.HF_HUB_OFFLINE:  # asked first: the loader tries for half a minute
            HfApi().dataset_info(repository, revision=revision, timeout=_ANSWERS_WITHIN)
        return _load(repository, wanted.subset, revision)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise UserError(
            f"{repository} could not be had from {constants.ENDPOINT} ({first_line(error)}): try"
            f" again when it can be reached, or give a copy of its {SPLIT} split with"
            f" `losia data prepare {wanted.name} --from FILE` (JSONL, JSON, Parquet or Arrow)"
        ) from error


def _load(repository: str, subset: str | None, revision: str) -> Sequence[Row]:
    import datasets  # seconds, which a hub that does not answer shall not cost

    try:
        return datasets.load_dataset(repository, subset, split=SPLIT, revision=revision)
    except datasets.exceptions.DatasetsError as error:
        raise ValueError(first_line(error.__cause__ or error)) from error


def tokenizer(model: str) -> Path:
    """The folder of a model's tokenizer.

    Args:
        model: a folder, or the hub's name of a model.

    Raises:
        UserError: the hub does not answer, or not with this model.
    """
    if Path(model).is_dir():
        return Path(model)
    import httpx
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=_TOKENIZER))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(
            f"the tokenizer of {model} could not be had from {constants.ENDPOINT}"
            f" ({first_line(error)}): name a model's folder with --model DIR"
        ) from error
