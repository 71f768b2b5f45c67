"""Proof that what was saved is what was trained."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from losia_cli.errors import UserError


@torch.no_grad()
def verify_saved(model: PreTrainedModel, output: Path) -> None:
    """Reload what was saved and compare its logits with the trained model's, bit for bit.

    A model of several dtypes, whose forward pass needs autocast, has its weights compared, and so
    has one that an evaluation cast after it was saved, and one on a GPU whose logits differ by
    little: its kernels may sum in another order.

    Raises:
        UserError: it does not load, a weight is missing, or logits or weights differ.
    """
    saved, loading = type(model).from_pretrained(
        output,
        dtype="auto",
        attn_implementation=model.config._attn_implementation,
        output_loading_info=True,
    )
    faults = {key: sorted(names) for key, names in loading.items() if names}
    if faults:
        raise UserError(f"the checkpoint saved in {output} does not reload whole: {faults}")
    kept = {name for name, _ in saved.named_parameters()}  # the masters of LoSiA are not
    dtypes = {p.dtype for name, p in model.named_parameters() if name in kept}
    if dtypes != {saved.dtype}:
        _compare_weights(model, saved, output)
        return
    device = _room_for(saved, model.device)
    tokens = torch.arange(min(32, model.config.get_text_config().vocab_size), device=device)[None]
    logits = []
    for each in (model.to(device).eval(), saved.to(device).eval()):
        # the class's own forward: no autocast and no chunked loss around it
        logits.append(type(each).forward(each, input_ids=tokens).logits)
    if torch.equal(*logits):
        return
    off, size = (logits[0] - logits[1]).abs().max(), logits[0].abs().max()
    if device.type == "cpu" or not off <= 0.01 * size:
        raise UserError(
            f"the checkpoint saved in {output} gives other logits than the trained model (by up "
            f"to {off:.3g}): resume from the last checkpoint"
        )
    _compare_weights(model, saved, output)


def _compare_weights(model: PreTrainedModel, saved: PreTrainedModel, output: Path) -> None:
    trained = dict(model.named_parameters())
    for name, found in saved.named_parameters():
        narrow = min(found.dtype, trained[name].dtype, key=lambda dtype: dtype.itemsize)
        if not torch.equal(found.to(trained[name].device, narrow), trained[name].to(narrow)):
            raise UserError(
                f"{name} in the checkpoint saved in {output} is not the trained model's: resume"
                " from the last checkpoint"
            )


def _room_for(model: PreTrainedModel, device: torch.device) -> torch.device:
    """`device` if a second model fits there, else the CPU."""
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return device if torch.cuda.mem_get_info(device)[0] > 1.2 * needed else torch.device("cpu")
    return device
