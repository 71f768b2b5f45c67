"""What turns a shipped recipe into its miniature: the paper's settings, scaled to tiny models."""

from typing import Any

from losia_cli.errors import UserError
from losia_cli.recipes import override
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.miniature.documents import ASKED
from losia_cli.reproduction.miniature.world import World

# What is scaled, so that settings that differ in the paper differ here as they do there.
_TIMES = {
    "learning_rate": 50,
    "losia_period": 1 / 12,
    "galore_update_interval": 1 / 12,
    "galore_rank": 1 / 32,
    "lora_rank": 1 / 16,
    "lora_alpha": 1 / 16,
}
_FIXED: dict[str, Any] = {
    "max_steps": 300,
    "cutoff_len": 512,
    "bf16": False,
    "dataloader_pin_memory": False,
    "logging_steps": 50,
    "save_steps": 100,
    "plot_loss": False,
    "report_to": "none",
}


def overrides(world: World, cell: Cell) -> list[str]:
    """The `key=value` that turn a cell's recipe into its miniature.

    Args:
        world: of `make`.
        cell: as its table has it, nothing of the plan's own laid over it.

    Raises:
        UserError: there is no tiny model in the place of this one.
    """
    if cell.model not in world.models:
        known = ", ".join(world.models)
        raise UserError(f"there is no miniature of {cell.model}, only of {known}")
    changes: dict[str, Any] = {
        "model_name_or_path": str(world.models[cell.model]),
        "eval_data": str(world.documents),
        "eval_limit": ASKED,
        "eval_dtype": "float32",
    }
    if cell.method != BASE:
        values = cell.resolved.values
        changes |= {"dataset_dir": str(world.data), **_FIXED, **_scaled(values)}
    return [override(key, value) for key, value in changes.items()]


def _scaled(values: dict[str, Any]) -> dict[str, Any]:
    """What `_TIMES` names, as far as it is a number (T may be `auto`); whole numbers stay whole."""
    found = {key: values[key] for key in _TIMES if isinstance(values.get(key), int | float)}
    return {
        key: max(1, round(value * _TIMES[key])) if isinstance(value, int) else value * _TIMES[key]
        for key, value in found.items()
    }
