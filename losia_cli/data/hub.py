"""The original rows of a training set, downloaded from the hub and kept in its cache."""

from collections.abc import Sequence

from losia_cli.data.originals import Row
from losia_cli.data.sources import SPLIT, TrainingSet
from losia_cli.errors import UserError, first_line

_ANSWERS_WITHIN = 10.0  # seconds


def download(wanted: TrainingSet) -> Sequence[Row]:
    """The rows of a set at its pinned revision; a broken download goes on where it stopped.

    HF_ENDPOINT names another hub; with HF_HUB_OFFLINE=1 only what is in the cache is looked at.

    Raises:
        UserError: the hub does not answer, or not with this set.
    """
    import datasets
    import httpx
    from huggingface_hub import HfApi, constants

    repository, revision = wanted.repository, wanted.revision
    try:
        if not constants.HF_HUB_OFFLINE:  # asked first: the loader tries for half a minute
            HfApi().dataset_info(repository, revision=revision, timeout=_ANSWERS_WITHIN)
        return datasets.load_dataset(repository, wanted.subset, split=SPLIT, revision=revision)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise UserError(
            f"{repository} could not be had from {constants.ENDPOINT} ({first_line(error)}): try"
            f" again when it can be reached, or give a copy of its {SPLIT} split with"
            f" `losia data prepare {wanted.name} --from FILE` (JSONL, JSON, Parquet or Arrow)"
        ) from error
