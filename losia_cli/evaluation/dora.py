"""DoRA's norms once, not at every token: in evaluation no weight changes."""

from functools import partial
from inspect import signature

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from torch import Tensor, nn

from losia_cli.errors import UserError

_GIVEN = ("self", "x", "lora_A", "lora_B", "scaling", "base_layer", "base_result")


def remember_norms(model: nn.Module) -> None:
    """Let the DoRA layers of an evaluated model find what they scale by at their first call.

    PEFT writes out W + B A and sums it up at each call: with one token, that is most of the time.

    Raises:
        UserError: PEFT's layer is called otherwise than 0.18's.
    """
    layers = [module for module in model.modules() if type(module) is DoraLinearLayer]
    if layers and tuple(signature(DoraLinearLayer.forward).parameters) != _GIVEN:
        raise UserError("peft: DoraLinearLayer.forward moved: losia needs peft 0.18")
    for layer in layers:
        layer.forward = partial(_forward, layer, {})


def _forward(
    layer: DoraLinearLayer,
    scales: dict[torch.dtype, Tensor],
    x: Tensor,
    *,
    lora_A: nn.Module,
    lora_B: nn.Module,
    scaling: float,
    base_layer: nn.Linear,
    base_result: Tensor,
) -> Tensor:
    """What is added to the base layer's result, `(..., N)`, for `x` `(..., M)`."""
    if x.dtype not in scales:
        eye = torch.eye(base_layer.in_features, device=x.device, dtype=x.dtype)
        weight = base_layer.weight.to(x.dtype)
        norm = layer.get_weight_norm(weight, lora_B(lora_A(eye)).T, scaling)
        scales[x.dtype] = (layer.weight / norm)[None]
    scale = scales[x.dtype]
    own = base_result if base_layer.bias is None else base_result - base_layer.bias
    return (scale - 1) * own + scale * lora_B(lora_A(x)) * scaling
