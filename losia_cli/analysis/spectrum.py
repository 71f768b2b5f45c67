"""What training did to the singular vectors of a model's weights: the paper's Figure 8."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from losia_cli.errors import UserError
from losia_cli.evaluation import checkpoint, loading
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.method.attach import decoder_layers
from losia_cli.training.merge import computed_in

INTRUDER = 0.5  # a singular vector less like any of before is a new one


@dataclass(frozen=True)
class Spectrum:
    """One weight W before and after training.

    Attributes:
        linear: its name in the model.
        similarities: for each of the first left singular vectors afterwards, the largest absolute
            cosine with any of before, (top,).
        change: |W' - W| / |W|, Frobenius.
        rank: the effective rank of W' - W.
    """

    linear: str
    similarities: Tensor
    change: float
    rank: float

    @property
    def intruders(self) -> int:
        """How many of the first singular vectors are like none of before."""
        return int((self.similarities < INTRUDER).sum())


class Trained:
    """A model beside the one it started from, both in memory.

    Args:
        run: the output_dir of a run, one of its checkpoints, or a model.
        base: what it started from, where it holds no record of that.

    Raises:
        UserError: either model cannot be had.
    """

    def __init__(self, run: str, base: str | None = None) -> None:
        found = checkpoint.find(run)
        kept = "auto" if found.adapter is None else computed_in(found)
        self._before = loading.load_model(_started_from(found, run, base), kept, "cpu")
        self._after = loading.load_model(found, kept, "cpu")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def linears(self, layers: Sequence[int] | None) -> list[str]:
        """The names of the linears in decoder layers.

        Args:
            layers: by number; None stands for the one in the middle, () for all.

        Raises:
            UserError: a layer is not there.
        """
        prefix, there = decoder_layers(self._before)
        wanted = [len(there) // 2] if layers is None else list(layers) or range(len(there))
        for number in wanted:
            if not 0 <= number < len(there):
                raise UserError(f"--layers: there is no layer {number}, only 0 to {len(there) - 1}")
        return [
            f"{prefix}.{number}.{name}"
            for number in wanted
            for name, module in there[number].named_modules()
            if isinstance(module, nn.Linear)
        ]

    def spectrum(self, linear: str, top: int) -> Spectrum:
        """What became of one weight's first `top` singular vectors.

        Raises:
            UserError: the trained model's is of another shape, or not there.
        """
        before = self._before.get_submodule(linear).weight.detach()
        try:
            after, kept = _weight(self._after, linear)
        except AttributeError as error:
            raise UserError(f"the trained model has no linear {linear}: name its base") from error
        if before.shape != after.shape:
            shapes = f"{tuple(after.shape)}, and {tuple(before.shape)}"
            raise UserError(f"{linear} is {shapes} in the base: name its own")
        # The frozen weights of a run are cast before it: that is no part of what it changed.
        old = before.to(kept).to(self._device, torch.float32)
        new = after.to(self._device, torch.float32)
        alike = similarities(old, new, top).cpu()
        change = ((new - old).norm() / old.norm()).item()
        return Spectrum(linear, alike, change, effective_rank(new - old))


def _started_from(found: Checkpoint, run: str, base: str | None) -> Checkpoint:
    if base is not None:
        return checkpoint.find(base)
    if found.adapter is not None:
        return checkpoint.find(str(found.model))
    if not found.recipe:
        raise UserError(f"{run} does not say what it started from: name that model with --base")
    return checkpoint.find(run, base=True)


def _weight(model: Any, linear: str) -> tuple[Tensor, torch.dtype]:
    """A linear's weight, with an adapter's part, and the dtype that its own is kept in."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    module = plain.get_submodule(linear)
    if not isinstance(module, BaseTunerLayer):
        return module.weight.detach(), module.weight.dtype
    kept = module.get_base_layer().weight.dtype
    merged = copy.deepcopy(module).float()  # an adapter's part may be less than a half can hold
    merged.merge()
    return merged.get_base_layer().weight.detach(), kept


def similarities(before: Tensor, after: Tensor, top: int) -> Tensor:
    """How much of each singular vector was there before.

    Args:
        before: a weight, (N, M).
        after: the trained one, (N, M).
        top: how many of the trained one's left singular vectors to look at, the largest first.

    Returns:
        The largest absolute cosine of each with any left singular vector of before,
        (min(top, N, M),).
    """
    old, new = (torch.linalg.svd(each, full_matrices=False).U for each in (before, after))
    return (old.T @ new[:, :top]).abs().amax(0).clamp(max=1)


def effective_rank(update: Tensor) -> float:
    """The exponential of the entropy of the singular values' shares (Roy and Vetterli, 2007).

    From 1 to min(N, M); 0 for no update.
    """
    values = torch.linalg.svdvals(update).double()
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()
