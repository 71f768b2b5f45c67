"""The public MetaMathQA comparison of PEFT methods: its settings and numbers, as published."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Experiment:
    """One published result.

    Attributes:
        name: its folder there, METHOD/VARIANT.
        source: the file it is from, REPOSITORY/PATH@COMMIT.
        values: `trainable` parameters; `accuracy` on GSM8K in percent; `memory`, the highest
            reserved, in bytes; `seconds` and `step seconds`; `forgetting` in nats per token.
        method: what `losia train --method` calls it; None where LLaMA-Factory has no such method.
        overrides: `key=value` over the recipe and the method that give its settings.
    """

    name: str
    source: str
    values: Mapping[str, float]
    method: str | None
    overrides: tuple[str, ...]


def recipe() -> str:
    """The name of the recipe that the experiments' methods and overrides are laid over."""
    return str(_file()["recipe"])


def settings() -> dict[str, Any]:
    """What the experiments share, under the names used there."""
    return dict(_file()["settings"])


def experiments() -> tuple[Experiment, ...]:
    """The published results that are transcribed, in the file's order."""
    return tuple(_experiment(row) for row in _file()["rows"])


def _experiment(row: Mapping[str, Any]) -> Experiment:
    data, name = _file(), row["experiment"]
    path = f"{data['folder']}/{name.replace('/', '--')}.json"
    return Experiment(
        name,
        f"{data['repository']}/{path}@{data['commit']}",
        dict(zip(data["columns"], row["values"], strict=True)),
        row.get("method"),
        tuple(row.get("overrides", ())),
    )


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("peft_suite.yaml").read_text(encoding="utf-8"))
