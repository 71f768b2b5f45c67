"""How much each entry of a weight matters, measured from full gradients over a time slot."""

from typing import Protocol

import torch
from torch import Tensor


def sensitivity(gradient: Tensor, weight: Tensor) -> Tensor:
    """`I = |g w - (g w)^2 / 2|`, elementwise: the loss change if an entry were zero (Eq. 3)."""
    change = gradient * weight
    return change.addcmul_(change, change, value=-0.5).abs_()


class Score(Protocol):
    """The importance of a weight `(N, M)`, built up over the optimizer steps of a slot.

    `gradient` `(N, M)` gathers the full gradient over micro-batches; `advance` takes it in, once
    per optimizer step, and clears it; `value` is the importance so far; `state` are the tensors a
    checkpoint must hold between two steps.
    """

    gradient: Tensor

    def advance(self, weight: Tensor) -> None:
        """Take in the optimizer step's gradient, which is finite."""

    def value(self) -> Tensor:
        """The importance, `(N, M)`."""

    def state(self) -> dict[str, Tensor]:
        """What must outlive the step, by name."""


class SensitivityScore:
    """`s = I_bar U_bar`: the smoothed sensitivity times its smoothed uncertainty (Eq. 4 to 6)."""

    def __init__(self, like: Tensor, betas: tuple[float, float]) -> None:
        self.gradient = torch.zeros_like(like)
        self.smoothed = torch.zeros_like(like)
        self.uncertainty = torch.zeros_like(like)
        self.betas = betas

    def advance(self, weight: Tensor) -> None:
        """Move both averages by one step; the uncertainty uses the new average, as Eq. 5 has it."""
        now = sensitivity(self.gradient, weight)
        self.smoothed.lerp_(now, 1 - self.betas[0])
        self.uncertainty.lerp_(now.sub_(self.smoothed).abs_(), 1 - self.betas[1])
        self.gradient.zero_()

    def value(self) -> Tensor:
        """The score of Eq. 6, `(N, M)`."""
        return self.smoothed * self.uncertainty

    def state(self) -> dict[str, Tensor]:
        """The two averages."""
        return {"smoothed": self.smoothed, "uncertainty": self.uncertainty}


class GradientScore:
    """`|g|`, the paper's GL, which keeps no averages: of the slot's last optimizer step."""

    def __init__(self, like: Tensor) -> None:
        self.gradient = torch.zeros_like(like)

    def advance(self, weight: Tensor) -> None:
        """The gradient is the score, whatever the weight."""

    def value(self) -> Tensor:
        """`|g|`, `(N, M)`."""
        return self.gradient.abs()

    def state(self) -> dict[str, Tensor]:
        """Nothing lives longer than the step."""
        return {}
