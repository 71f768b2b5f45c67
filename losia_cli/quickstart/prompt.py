"""One prompt for training, evaluation and chat: the model's own chat template.

LLaMA-Factory reads it from the tokenizer when a recipe names no `template`. A model that has none
gets LLaMA-Factory's template `default`, in training and in evaluation alike.
"""

from typing import Any

FALLBACK = "default"


def template_overrides(model: str) -> list[str]:
    """What the recipe has to say about the prompt of this model."""
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(model).chat_template
    return [] if own else [f"template={FALLBACK}"]


def complete(tokenizer: Any) -> None:
    """Give a tokenizer that has no chat template the one it will be trained with."""
    if not tokenizer.chat_template:
        from llamafactory.data.template import TEMPLATES

        TEMPLATES[FALLBACK].fix_jinja_template(tokenizer)
