"""The base model, and copies of it that share its weights."""

import copy
import os
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from losia_cli.bench.settings import PRESETS
from losia_cli.errors import UserError, first_line


def load_base(name: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A preset with random weights, made on `device`, or a pre-trained model, moved there.

    Raises:
        UserError: `name` is neither a preset nor a model that can be loaded, or it is a preset
            whose weights alone are more than the device's memory.
    """
    if name in PRESETS:
        _refuse_too_large(name, dtype, device)
        return random_llama(PRESETS[name].config, dtype, device)
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device).train()
    except torch.OutOfMemoryError as error:
        raise UserError(f"the model {name} does not fit into the GPU's memory") from error
    except (OSError, ValueError) as error:
        presets = ", ".join(PRESETS)
        raise UserError(
            f"no model {name!r}: it is none of {presets}, and loading it failed"
            f" ({first_line(error)})"
        ) from error


def random_llama(
    config: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """A Llama of the given configuration with freshly drawn weights."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=dtype)
    return model.train()


def _refuse_too_large(name: str, dtype: torch.dtype, device: torch.device) -> None:
    model = random_llama(PRESETS[name].config, dtype, torch.device("meta"))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    there = _memory(device)
    if there is not None and weights > there:
        raise UserError(
            f"{name} takes {weights / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')}, but the "
            f"{device.type.upper()} has {there / 1e9:.1f} GB of memory: measure a smaller model, "
            "such as losia bench step --model smollm2-135m"
        )


def _memory(device: torch.device) -> int | None:
    """Bytes that `device` has; None where weights take none."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "meta":
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def sharing_copy(base: PreTrainedModel) -> PreTrainedModel:
    """A copy of `base` with modules and parameters of its own over the same memory.

    A method can be put into the copy, and dropped with it, while `base` stays as it is, but for
    what the method writes into the weights. All parameters of the copy are frozen; ties are kept.
    """
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in base.parameters()
    }
    shared.update({id(buffer): buffer for buffer in base.buffers()})
    return copy.deepcopy(base, shared)
