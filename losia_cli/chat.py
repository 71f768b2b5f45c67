"""Talking to a trained model: its run says which template and which base it needs."""

from typing import Any

from losia_cli.evaluation import checkpoint

# Keys of a recipe that shape the prompt.
_PROMPT = ("template", "default_system", "enable_thinking", "tool_format")


def chat_arguments(model: str, template: str | None) -> dict[str, Any]:
    """LLaMA-Factory's inference arguments for a run's folder, a checkpoint or a hub's name.

    Raises:
        UserError: there is no such model, or it lacks weights, tokenizer or, an adapter, its base.
    """
    found = checkpoint.find(model)
    arguments = {"model_name_or_path": str(found.model)}
    if found.adapter is not None:
        arguments["adapter_name_or_path"] = str(found.adapter)
    asked = {key: found.recipe[key] for key in _PROMPT if found.recipe.get(key) is not None}
    return arguments | asked | ({"template": template} if template else {})
