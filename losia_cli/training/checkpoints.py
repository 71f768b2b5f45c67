"""Checkpoints that survive a kill at any moment: written, sealed, and only then counted.

A checkpoint counts once its manifest is there, which is written last; older ones are deleted only
then. The manifest holds every file's size and checksum, and the plan of the run: another recipe's
or dataset's checkpoint is refused, naming what changed.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.files import write_atomically
from losia_cli.run_folder import PREFIX

MANIFEST = "losia_checkpoint.json"
# What may differ between a run and its continuation, since it changes no weight.
FREE_KEYS = frozenset(
    "output_dir overwrite_output_dir resume_from_checkpoint dataset_dir plot_loss run_name "
    "report_to logging_steps logging_dir logging_strategy logging_first_step save_steps "
    "save_strategy save_total_limit save_only_model eval_strategy eval_steps eval_on_start "
    "do_eval do_predict per_device_eval_batch_size preprocessing_num_workers overwrite_cache "
    "dataloader_num_workers dataloader_pin_memory disable_tqdm include_num_input_tokens_seen "
    "eval_dataset compute_accuracy ddp_timeout ddp_backend tokenized_path".split()
) | frozenset(EVALUATION_KEYS)


def never_resumed(values: Mapping[str, Any]) -> str | None:
    """Why a run with these values cannot be gone on with; None if it can."""
    if values.get("stage") == "rm":
        return "LLaMA-Factory would go on from the base model of a stage rm without a word"
    for method in ("galore", "apollo"):
        if values.get(f"use_{method}") and values.get(f"{method}_layerwise"):
            return f"no checkpoint holds the moments and rates of {method}_layerwise"
    return None


def asked(
    values: Mapping[str, Any], warn: Callable[[str], None], checked: bool = False
) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` names, or the newest where it is true.

    Args:
        values: of a resolved recipe.
        warn: told of each damaged one that is passed over.
        checked: whether another process has read the one that is named.

    Raises:
        UserError: there is none, or it is damaged.
    """
    wanted = values.get("resume_from_checkpoint")
    if not wanted:
        return None
    if wanted is True or str(wanted).lower() == "true":
        return newest(Path(values["output_dir"]), warn)
    folder = Path(str(wanted))
    if not folder.is_dir():
        raise UserError(f"resume_from_checkpoint: there is no folder {folder}")
    fault = None if checked else damage(folder)
    if fault is not None:
        raise UserError(f"cannot resume from {folder}: {fault}; name another checkpoint")
    return folder


def newest(output: Path, warn: Callable[[str], None]) -> Path:
    """The newest whole checkpoint in a run's folder; `warn` is told of each that is not.

    Raises:
        UserError: there is none.
    """
    found = sorted(
        (path for path in output.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit()),
        key=lambda path: int(path.name[len(PREFIX) :]),
        reverse=True,
    )
    for path in found:
        fault = damage(path)
        if fault is None:
            return path
        warn(f"skipping {path}: {fault}")
    raise UserError(
        f"resume_from_checkpoint is true, but {output} holds no complete checkpoint: "
        "remove the key to start from the beginning"
    )


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole."""
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        return f"it is incomplete (no {MANIFEST}: it was interrupted while being written)"
    for name, (size, checksum) in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or cut short"
        if _checksum(path) != checksum:
            return f"{name} is damaged (its checksum changed)"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        OSError: there is none.
        ValueError: it is not JSON.
    """
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def seal(folder: Path, plan: Mapping[str, Any]) -> None:
    """Flush every file of a finished checkpoint to disk, then write its manifest."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, _checksum(path))
    write_atomically(folder / MANIFEST, json.dumps({"files": files, "plan": plan}, indent=1))


def recipe_plan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved recipe that a continuation must share."""
    return {key: value for key, value in sorted(values.items()) if key not in FREE_KEYS}


def refuse_other_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Raise a `UserError` naming each entry of `plan` that the checkpoint was not made with."""
    theirs = read_manifest(folder)["plan"]
    ours = json.loads(json.dumps(plan))
    changed = [
        f"{key} was {theirs.get(key)!r} and is now {ours.get(key)!r}"
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    ]
    if changed:
        raise UserError(
            f"{folder} belongs to another run: {'; '.join(changed)}. Resume with what it was made "
            "with, or start anew in another output_dir"
        )


def save_safely(
    folder: Path, write: Callable[[], None], plan: Mapping[str, Any], needed: int, first: bool
) -> None:
    """Write a checkpoint by `write`, then seal it; a failure leaves the older ones untouched.

    Args:
        folder: where `write` writes.
        write: writes all files.
        plan: what a continuation must share.
        needed: about how many bytes; checked before anything is written.
        first: this process seals (rank 0).

    Raises:
        UserError: the disk is full, or the files cannot be written.
    """
    free = shutil.disk_usage(folder.parent).free
    if first and free < needed:  # others see what the first has written by then
        raise UserError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, but a checkpoint takes about "
            f"{needed / 1e9:.1f} GB: nothing was written; free some space and resume from the "
            "checkpoint before"
        )
    try:
        if first:
            (folder / MANIFEST).unlink(missing_ok=True)
        write()
        if first:
            seal(folder, plan)
    except Exception as error:
        if not is_write_error(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"could not write {folder} ({error}): it was removed and the checkpoints before it "
            "are untouched; free some space and resume"
        ) from error


def is_write_error(error: Exception) -> bool:
    """An OSError, or how safetensors and torch.save put one."""
    words = ("I/O error", "PytorchStreamWriter", "unexpected pos", "No space", "iostream error")
    return isinstance(error, OSError) or any(word in str(error) for word in words)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
