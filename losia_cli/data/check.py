"""What is wrong with a recipe's data sets: everything at once, before a model is loaded."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from losia_cli.data import info, manifest, rows
from losia_cli.data.fit import Fit
from losia_cli.data.formats import PREDICT
from losia_cli.data.info import names_in
from losia_cli.errors import UserError

_PATTERN = re.compile(r"[*?]|\[.*\]|::")


def dataset_faults(values: Mapping[str, Any]) -> list[str]:
    """Every fault of the data sets that lie in local files, one sentence each.

    Reads dataset_info.json and all rows, as LLaMA-Factory 0.9.5 would, but neither a model nor a
    tokenizer, and imports no torch. Sets that `losia data prepare` made must be as it left them.
    Data sets of a hub, tokenized ones, and the rows of those over
    half a gigabyte are not looked at. Rows that LLaMA-Factory drops in silence are a fault only
    where no other row is left, or where they lack a needed column that other rows have.

    Args:
        values: a resolved recipe: LLaMA-Factory's keys and their values.
    """
    folder, wanted = dataset_dir(values), looked_up(values)
    if not wanted:
        return []
    try:
        entries = info.read(folder)
    except UserError as error:
        return [str(error)]
    limit = values.get("max_samples")
    found = [
        fault for name, stage in wanted for fault in _faults(name, entries, folder, stage, limit)
    ]
    local = any(
        "file_name" in entry for name, _ in wanted if isinstance(entry := entries.get(name), dict)
    )
    if local and values.get("streaming") and not values.get("dataloader_num_workers"):
        found.append(
            "streaming: LLaMA-Factory deals the rows of a local file out to as many workers as"
            " dataloader_num_workers says, and without it to none: set dataloader_num_workers: 1"
        )
    return found


def dropped_rows(values: Mapping[str, Any]) -> Iterator[str]:
    """Which rows of local training sets LLaMA-Factory drops, each with its place and why.

    Args:
        values: a resolved recipe without `dataset_faults`.
    """
    folder = dataset_dir(values)
    wanted = {"dataset_dir": folder, "dataset": values.get("dataset"), "stage": _stage(values, "")}
    for name, stage in looked_up(wanted):
        entry = info.look_up(name, info.read(folder), folder)
        table = entry and rows.read(entry.path)
        if entry and table:
            limit = None if entry.sampled else values.get("max_samples")
            for index, defect in Fit(table, entry, stage, limit).defects().items():
                yield f"{table.place(index)} {defect.why}"


def dataset_dir(values: Mapping[str, Any]) -> str:
    """The folder in which a recipe's data sets are looked up."""
    return str(values.get("dataset_dir", "data"))


def looked_up(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each data set that a recipe looks up in a local folder, and the stage that it is for."""
    folder = dataset_dir(values)
    if folder == "ONLINE" or folder.startswith("REMOTE:") or _tokenized(values):
        return []
    return list(
        dict.fromkeys(
            (name, _stage(values, key))
            for key in ("dataset", "eval_dataset")
            for name in names_in(values.get(key))
        )
    )


def _stage(values: Mapping[str, Any], key: str) -> str:
    generates = values.get("predict_with_generate") and key == "eval_dataset"
    return PREDICT if generates else str(values.get("stage", "sft"))


def _tokenized(values: Mapping[str, Any]) -> bool:
    """Whether LLaMA-Factory will read tokens that it saved before, and no data set."""
    folder = Path(str(values.get("tokenized_path") or ""))
    return bool(values.get("tokenized_path")) and folder.is_dir() and any(folder.iterdir())


def _faults(
    name: str, entries: Mapping[str, Any], folder: str, stage: str, limit: int | None
) -> Iterator[str]:
    try:
        entry = info.look_up(name, entries, folder)
        if entry is None:
            return
        if changed := manifest.fault(entry):
            yield changed
            return
        if pattern := _PATTERN.search(str(entry.path.absolute())):
            yield (
                f"{entry.path.absolute()}: the datasets library takes {pattern[0]} in a path for a"
                " pattern, and would read other files or none: move the data into a folder"
                " without it"
            )
            return
        unclear = list(info.entry_faults(name, entries, folder))
        yield from unclear
        table = rows.read(entry.path)
    except UserError as error:
        yield str(error)
        return
    if table is None:
        return
    yield from table.broken
    if table.rows and not unclear:
        yield from Fit(table, entry, stage, None if entry.sampled else limit).faults()
    elif not table.rows and not table.broken:
        yield f"{entry.path} is empty; it must hold one row at least"
