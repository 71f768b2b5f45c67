"""GaLore as the paper runs it: full projection, every weight updated in backward, one by one."""

from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from transformers import PreTrainedModel

from losia_cli.errors import UserError
from losia_cli.method import LoSiAConfig
from losia_cli.method.attach import find_targets

RANK = 512
PERIOD = 200  # steps that one projection serves
SCALE = 2.0


def refuse_without_package() -> None:
    """Raise a `UserError` if galore-torch is not installed."""
    if find_spec("galore_torch") is None:
        raise UserError("galore needs a package: pip install galore-torch bitsandbytes")


def unfreeze(model: PreTrainedModel) -> None:
    """Have the linears of the decoder layers and the output layer trained in full."""
    for target in find_targets(model, LoSiAConfig(output_factor=1)):
        target.linear.requires_grad_(True)


def update_in_backward(model: PreTrainedModel, rate: float) -> None:
    """Update each trained weight as soon as its gradient is there, and drop the gradient.

    The output layer's is not projected. The first update, and then every `PERIOD`th, finds the
    projections by an SVD.
    """
    from galore_torch import GaLoreAdamW

    head = model.get_output_embeddings().weight
    projected = {"rank": RANK, "update_proj_gap": PERIOD, "scale": SCALE, "proj_type": "full"}
    for parameter in model.parameters():
        if parameter.requires_grad:
            group = {"params": [parameter]} | ({} if parameter is head else projected)
            optimizer = GaLoreAdamW([group], rate, no_deprecation_warning=True)
            parameter.register_post_accumulate_grad_hook(partial(_update, optimizer))


def _update(optimizer: torch.optim.Optimizer, _: Tensor) -> None:
    optimizer.step()
    optimizer.zero_grad()
