"""What a run's folder holds beside its weights: its record and, of LoSiA, what it trained when."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from losia_cli import __version__
from losia_cli.files import write_atomically

PREFIX = "checkpoint-"  # of the folders in it that it can be resumed from
RECORD = "losia_run.json"
SELECTIONS = "losia_selections.jsonl"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")  # of models and adapters
_PACKAGES = (
    "torch", "transformers", "tokenizers", "llamafactory", "datasets", "accelerate", "peft",
    "lm-eval",
)  # fmt: skip


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"losia": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_record(output: Path, record: dict[str, Any]) -> None:
    """Write `losia_run.json` into the run's folder."""
    write_atomically(output / RECORD, json.dumps(record, indent=2, default=str) + "\n")


def holds_model(output: Path) -> bool:
    """Whether a finished training's weights are there; its record comes after they were proven."""
    weights = any(any(output.glob(pattern)) for pattern in WEIGHTS)
    return weights and (output / RECORD).is_file()
