"""A checkpoint as a model in memory."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from losia_cli.errors import UserError, first_line
from losia_cli.evaluation.checkpoint import Checkpoint, adapter_settings

# BOS tokens of the families whose models expect one at the start of every text.
_EXPECTED_BOS = ("<s>", "<bos>", "<|begin_of_text|>")


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(checkpoint.tokenizer)
    except (OSError, ValueError, KeyError, TypeError) as error:
        place = checkpoint.tokenizer
        raise UserError(f"the tokenizer in {place} cannot be read: {first_line(error)}") from error


def bos_by_default(tokenizer: Any) -> bool:
    """Whether prompts should begin with BOS: for Llama and Gemma, else by the tokenizer's rule."""
    if tokenizer.bos_token_id is None:
        return False
    own = tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    return own or tokenizer.bos_token in _EXPECTED_BOS


def context_length(checkpoint: Checkpoint) -> int | None:
    """The tokens that the model's context holds, as its configuration says."""
    config = config_of(checkpoint.model).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def attention_of(config: Any) -> str:
    """How a model of this configuration attends: torch's kernels cap no scores, as Gemma 2 does."""
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else "sdpa"


def load_model(checkpoint: Checkpoint, dtype: str, device: str) -> Any:
    """The model on its device, in evaluation mode, in the dtype (`auto`: the weights').

    Raises:
        UserError: it cannot be read, lacks weights, or is larger than the GPU.
    """
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    if dtype == "auto" and device == "cpu" and _stored(checkpoint.model) == torch.float16:
        wanted = torch.float32  # a processor has no float16 to speak of
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            checkpoint.model,
            dtype=wanted,
            attn_implementation=attention_of(config_of(checkpoint.model)),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        place = checkpoint.model
        raise UserError(f"the model in {place} cannot be read: {first_line(error)}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UserError(
            f"the model in {checkpoint.model} lacks weights ({missing[0]} and {len(missing) - 1}"
            " more): its scores would be those of random numbers"
        )
    try:
        model.to(device)
        if checkpoint.adapter is not None:
            from peft import PeftModel

            from losia_cli.evaluation.dora import remember_norms

            model = PeftModel.from_pretrained(model, str(checkpoint.adapter))
            remember_norms(model)
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the model in {checkpoint.model} does not fit into the GPU's memory: use a smaller"
            " dtype (--dtype bfloat16) or a larger GPU"
        ) from error


def expect_vllm() -> None:
    """Refuse where vLLM is not installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("vllm") is None:
        raise UserError(
            "--backend vllm: vLLM is not installed; it pins another torch, so give it and losia an"
            " environment of their own (pip install vllm), or leave the option out"
        )


def load_vllm(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Any:
    """The checkpoint in vLLM, as the harness drives it.

    Raises:
        UserError: its adapter is of a kind that vLLM does not take.
    """
    from lm_eval.models.vllm_causallms import VLLM

    adapter = {} if checkpoint.adapter is None else adapter_settings(checkpoint.adapter)
    if adapter.get("use_dora"):
        raise UserError(
            "--backend vllm: vLLM takes no DoRA adapter: write it into its base first,"
            f" losia merge {checkpoint.name} MERGED"
        )

    return VLLM(
        pretrained=str(checkpoint.model),
        tokenizer=str(checkpoint.tokenizer),
        lora_local_path=str(checkpoint.adapter) if checkpoint.adapter else None,
        max_lora_rank=max(16, 1 << (adapter.get("r", 1) - 1).bit_length()),  # 16, 32, 64, ...
        dtype=settings["dtype"],
        add_bos_token=settings["bos"],
        seed=settings["seed"],
        batch_size="auto",
    )


def adapter_misfit(adapter: Path, model: Path) -> str | None:
    """The first shape of a LoRA adapter that is not the model's, in words; None if all fit.

    Raises:
        UserError: either cannot be read.
    """
    with torch.device("meta"):
        frame = AutoModelForCausalLM.from_config(config_of(model))
    linears = {name: m for name, m in frame.named_modules() if isinstance(m, nn.Linear)}
    for path in adapter.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read: {first_line(error)}") from error
        for key, shape in shapes.items():
            misfit = _misfit(key.removeprefix("base_model.model."), shape, linears)
            if misfit:
                return misfit
    return None


def _misfit(key: str, shape: Sequence[int], linears: Mapping[str, nn.Linear]) -> str | None:
    for part, side, axis in ((".lora_A.", "takes", 1), (".lora_B.", "gives", 0)):
        name, found, _ = key.partition(part)
        if found and name not in linears:
            return f"the model has no linear layer {name}"
        if found and shape[axis] != (here := linears[name].weight.shape[axis]):
            return f"{name} {side} {here} features and the adapter {shape[axis]}"
    return None


def _stored(model: Path) -> Any:
    return getattr(config_of(model), "dtype", None)


def config_of(model: Path) -> Any:
    """The configuration of the model in a folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{model}/config.json cannot be read: {first_line(error)}") from error
