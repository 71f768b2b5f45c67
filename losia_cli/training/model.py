"""What can be said about a model, and what trains in it, before it is loaded."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from losia_cli.errors import UserError, first_line
from losia_cli.integrations import llamafactory
from losia_cli.method import LoSiAConfig, LoSiAError
from losia_cli.method.attach import find_targets
from losia_cli.recipes import Recipe
from losia_cli.recipes.recipe import method_settings


def settings_of(recipe: Recipe) -> LoSiAConfig | None:
    """LoSiA's settings in a recipe; None if another method trains."""
    if recipe.values.get("finetuning_type") != llamafactory.LOSIA:
        return None
    try:
        return LoSiAConfig(seed=recipe.values.get("seed", 42), **method_settings(recipe.values))
    except LoSiAError as error:
        raise UserError(str(error)) from error


def check_model(values: dict[str, Any], config: LoSiAConfig | None) -> None:
    """Raise a `UserError` if the model is not there or its shapes do not suit LoSiA."""
    name = values["model_name_or_path"]
    settings = _configuration(name, values)
    adapter = values.get("finetuning_type", "lora") in ("lora", "oft")
    tied = getattr(settings.get_text_config(), "tie_word_embeddings", False)
    if values.get("stage") == "rm" and tied and not adapter:
        raise UserError(
            f"stage rm: {name} ties its output layer to its embeddings, and LLaMA-Factory cannot"
            " save such a model with a value head: train an adapter (--method lora) or a model"
            " that is not tied"
        )
    if config is None:
        return
    if getattr(settings, "quantization_config", None):
        raise UserError(
            f"{name} is a quantized checkpoint, which cannot take the updates that LoSiA writes"
            " into it: name the model it was made from"
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                settings, trust_remote_code=values.get("trust_remote_code", False)
            )
        find_targets(model, config)
    except LoSiAError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # whatever its own code says of its sizes
        raise UserError(
            f"{name} is not a causal language model that loads: {first_line(error)}"
        ) from error


def is_local(name: str) -> bool:
    """Whether a model's name is a folder's, there or not, and none of the hub's."""
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1


def _configuration(name: str, values: dict[str, Any]) -> Any:
    folder = Path(name)
    if not folder.is_dir() and is_local(name):
        raise UserError(f"model_name_or_path: there is no folder {name}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"model_name_or_path: the folder {name} holds no model (no config.json)")
    try:
        return AutoConfig.from_pretrained(
            name,
            revision=values.get("model_revision", "main"),
            token=values.get("hf_hub_token"),
            trust_remote_code=values.get("trust_remote_code", False),
        )
    except Exception as error:  # a configuration is refused with a dozen kinds
        what = (
            f"the configuration in {name} cannot be used"
            if folder.is_dir()
            else f"{name} is no folder here and cannot be had from the hub"
        )
        raise UserError(f"model_name_or_path: {what} ({first_line(error)})") from error
