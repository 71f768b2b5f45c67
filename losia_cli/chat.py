"""Talking to a trained model: its run says which template and which base it needs."""

import json
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError


def chat_arguments(model: str, template: str | None) -> dict[str, Any]:
    """LLaMA-Factory's inference arguments for a run's folder, a checkpoint or a hub's name.

    Raises:
        UserError: a folder that is no model, or an adapter whose base is not known.
    """
    from losia_cli.training.record import RECORD

    folder = Path(model)
    record = folder / RECORD
    recipe = json.loads(record.read_text())["recipe"] if record.is_file() else {}
    arguments: dict[str, Any] = {"model_name_or_path": model}
    if folder.is_dir() and (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        arguments = {"model_name_or_path": base, "adapter_name_or_path": model}
    elif folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{model} holds no model (no config.json): name the output_dir of a finished run"
        )
    elif not folder.is_dir() and model.count("/") != 1:
        raise UserError(f"there is no folder {model}")
    template = template or recipe.get("template")
    return arguments | ({"template": template} if template else {})
