"""What is wrong with a recipe: everything at once, before a model is loaded."""

import os
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_type_hints

from losia_cli.errors import UserError
from losia_cli.evaluation import suites
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.recipes.needs import packages
from losia_cli.recipes.ranges import out_of_range
from losia_cli.recipes.recipe import OTHERS_KEYS, Recipe
from losia_cli.recipes.values import misfit
from losia_cli.spelling import did_you_mean

_OWN_OPTIMIZER = (
    "it brings an optimizer of its own, and LoSiA needs one parameter group for each of its groups"
)
_OWN_STORAGE = "it owns the storage of the weights, and LoSiA updates the weights in place"
_OWN_LINEARS = "it replaces the linear layers that LoSiA trains"
_LORA_ONLY = "it belongs to LoRA"

# Keys that LoSiA refuses when they are set, and why.
_REFUSED = {
    "quantization_bit": "a quantized base cannot take the updates that LoSiA writes into it",
    "deepspeed": f"{_OWN_STORAGE}; several GPUs train by DDP",
    "fsdp": f"{_OWN_STORAGE}; several GPUs train by DDP",
    "use_hyper_parallel": _OWN_STORAGE,
    "use_mca": _OWN_STORAGE,
    "use_liger_kernel": (
        "its fused loss reads the output layer's weight past LoSiA; enable_liger_kernel does not"
    ),
    "auto_find_batch_size": "it starts a training over, and LoSiA's timeline would go on",
    "use_unsloth": "it replaces the backward passes that LoSiA changes",
    "use_kt": _OWN_LINEARS,
    "fp8": _OWN_LINEARS,
    "use_galore": _OWN_OPTIMIZER,
    "use_apollo": _OWN_OPTIMIZER,
    "use_badam": _OWN_OPTIMIZER,
    "use_adam_mini": _OWN_OPTIMIZER,
    "use_muon": _OWN_OPTIMIZER,
    "torch_compile": "every layer would be compiled anew whenever another group is scored",
    "mixture_of_depths": "it lets tokens skip layers, whose importance then cannot be compared",
    "shift_attn": "it replaces the attention whose inputs LoSiA-Pro shares",
    "adapter_name_or_path": (
        "LoSiA trains a plain checkpoint; merge the adapter first and name the merged model"
    ),
    "use_llama_pro": "it trains added blocks, and LoSiA subnets of every block",
    "use_dora": _LORA_ONLY,
    "use_rslora": _LORA_ONLY,
    "pissa_init": _LORA_ONLY,
    "loraplus_lr_ratio": _LORA_ONLY,
}
_REFUSED_OPTIMIZERS = {
    **dict.fromkeys(("adalomo", "apollo", "galore", "lomo"), _OWN_OPTIMIZER),
    "schedule_free": "it keeps averages of the weights, which a re-selection would mix",
}
_REFUSED_ENVIRONMENT = {
    "USE_MCA": "Megatron shards the weights itself",
    "USE_KT": "KTransformers replaces the linear layers",
    "USE_RAY": "Ray's workers do not know LoSiA",
    "ACCELERATE_USE_DEEPSPEED": f"DeepSpeed: {_OWN_STORAGE}",
    "ACCELERATE_USE_FSDP": f"FSDP: {_OWN_STORAGE}",
}

# Where LLaMA-Factory, or we, take more than its dataclasses say.
_NAMES = (
    "dataset",
    "eval_dataset",
    "freeze_trainable_modules",
    "freeze_extra_modules",
    "lora_target",
    "oft_target",
    "additional_target",
    "galore_target",
    "apollo_target",
)
_WIDER: dict[str, Any] = {
    **dict.fromkeys(_NAMES, list[str]),
    "interleave_probs": list[float],
    "finetuning_type": Literal["losia"],
    "resume_from_checkpoint": bool,  # true: the newest complete one
}


def check(recipe: Recipe) -> None:
    """Raise a `UserError` that lists every fault of the recipe, one in a line."""
    found = faults(recipe)
    if found:
        count = "1 fault" if len(found) == 1 else f"{len(found)} faults"
        raise UserError("\n  ".join([f"{count} in the recipe {recipe.path.name}:", *found]))


def faults(recipe: Recipe) -> list[str]:
    """Every fault that shows without the model and the data, each with what to do about it.

    Loads LLaMA-Factory, to ask it for the keys it knows: this takes seconds.
    """
    losia = recipe.values.get("finetuning_type") == "losia"
    return [
        *_missing(recipe.values),
        *_no_suites(recipe),
        *(_refused(recipe) if losia else _out_of_place(recipe)),
        *_unusable(recipe),
        *_unpackable(recipe),
        *_no_template(recipe),
        *_not_installed(recipe),
    ]


def _missing(values: dict[str, Any]) -> Iterator[str]:
    if not any(values.get(key) for key in ("do_train", "do_eval", "do_predict")):
        yield "do_train: missing, so that nothing would run; add do_train: true"
    if not values.get("model_name_or_path"):
        yield "model_name_or_path: missing; add the folder or the hub's name of the model to train"
    if not values.get("output_dir"):
        yield "output_dir: missing; add the folder for the result, such as output_dir: runs/first"
    if values.get("do_train") and not values.get("dataset"):
        yield "dataset: missing; add the name of a data set in dataset_info.json"


def _refused(recipe: Recipe) -> Iterator[str]:
    """What LoSiA cannot work with."""
    advice = "remove it, or choose another finetuning_type"
    for key, why in _REFUSED.items():
        if recipe.values.get(key):
            yield f"{_at(recipe, key)}: not with LoSiA: {why}; {advice}"
    if recipe.values.get("stage") == "ppo":
        why = "PPO's own loop generates with the model while training it; use dpo, kto or orpo"
        yield f"{_at(recipe, 'stage')}: ppo does not go with LoSiA: {why}"
    optim = str(recipe.values.get("optim", ""))
    for start, why in _REFUSED_OPTIMIZERS.items():
        if optim.startswith(start):
            yield f"{_at(recipe, 'optim')}: not {optim} with LoSiA: {why}; use adamw_torch"
    for name, why in _REFUSED_ENVIRONMENT.items():
        if os.environ.get(name, "").lower() in ("1", "true", "y"):
            yield f"{name} (environment): not with LoSiA: {why}; unset {name}"


def _out_of_place(recipe: Recipe) -> Iterator[str]:
    """Our keys where another method trains."""
    chosen = recipe.values.get("finetuning_type")
    method = "lora, the default" if chosen is None else chosen
    for key in recipe.values:
        if key.startswith("losia_"):
            advice = "remove it, or train with finetuning_type: losia"
            yield f"{_at(recipe, key)}: means nothing to finetuning_type: {method}; {advice}"


def _unpackable(recipe: Recipe) -> Iterator[str]:
    """Packed rows are padded to a multiple of 8, and what they are packed with is not."""
    values = recipe.values
    packed, length = values.get("packing") or values.get("neat_packing"), values.get("cutoff_len")
    if values.get("stage", "sft") == "sft" and packed and isinstance(length, int) and length % 8:
        yield f"{_at(recipe, 'cutoff_len')}: must be a multiple of 8 where rows are packed"


def _no_suites(recipe: Recipe) -> Iterator[str]:
    """What `losia eval` would refuse after the training, hours later."""
    names = recipe.values.get("eval_suites") or []
    if not isinstance(names, list) or not names:
        return
    where = _at(recipe, "eval_suites")
    try:
        chosen = suites.find([str(name) for name in names])
    except UserError as error:
        yield f"{where}: {error}"
        return
    code = [suite.name for suite in chosen if suite.code]
    if code and not recipe.values.get("eval_allow_code"):
        yield (
            f"{where}: {code[0]} runs programs that the model writes; allow it with"
            " eval_allow_code: true"
        )


def _unusable(recipe: Recipe) -> Iterator[str]:
    """Keys that nobody knows, or LoSiA does not read, and values that their key cannot hold."""
    try:
        known = _known_keys()
    except ImportError as error:
        yield f"LLaMA-Factory cannot be loaded, so that its keys are not checked: {error}"
        return
    losia = recipe.values.get("finetuning_type") == "losia"
    for key, value in recipe.values.items():
        if key.startswith("losia_") and not losia:
            continue  # reported as out of place
        if key not in known:
            ours = [name for name in known if name.startswith("losia_")]
            alike = ours if key.startswith("losia_") else known
            advice = did_you_mean(key, alike) or "; remove it"
            yield f"{_at(recipe, key)}: there is no such key{advice}"
        elif losia and key.startswith(OTHERS_KEYS) and key not in _REFUSED:
            advice = "losia_target is its like" if key == "lora_target" else "remove it"
            yield f"{_at(recipe, key)}: means nothing to finetuning_type: losia; {advice}"
        elif problem := misfit(key, value, known[key]) or out_of_range(key, value):
            yield f"{_at(recipe, key)}: {problem}"


def _no_template(recipe: Recipe) -> Iterator[str]:
    from losia_cli.integrations.llamafactory import templates

    name = recipe.values.get("template")
    try:
        known = templates()
    except ImportError:  # which `_unusable` tells
        return
    if isinstance(name, str) and name not in known:
        advice = did_you_mean(name, known) or "; leave the key out for the model's own"
        yield f"{_at(recipe, 'template')}: there is no template {name}{advice}"


def _not_installed(recipe: Recipe) -> Iterator[str]:
    refused = _REFUSED if recipe.values.get("finetuning_type") == "losia" else {}
    for need in packages(recipe.values):
        if need.missing and need.key not in refused:
            yield f"{_at(recipe, need.key)}: needs the {need.what}; {need.where}"


@cache
def _known_keys() -> dict[str, Any]:
    """Every key a recipe may hold, with its type."""
    from llamafactory import hparams

    from losia_cli.method.config import LoSiAConfig

    known = {f"losia_{name}": hint for name, hint in get_type_hints(LoSiAConfig).items()}
    del known["losia_seed"]  # LLaMA-Factory's seed is every part's
    for arguments in (
        hparams.ModelArguments,
        hparams.DataArguments,
        hparams.TrainingArguments,
        hparams.FinetuningArguments,
        hparams.GeneratingArguments,
    ):
        hints = get_type_hints(arguments)
        known |= {field.name: hints[field.name] for field in fields(arguments) if field.init}
    known |= EVALUATION_KEYS
    return known | {key: Union[known[key], wider] for key, wider in _WIDER.items()}  # noqa: UP007


def _at(recipe: Recipe, key: str) -> str:
    return f"{key} ({recipe.sources[key]})"
