"""Proof by the first optimizer step that what should train does, and that nothing else does."""

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from losia_cli.method.config import LoSiAError
from losia_cli.method.linear import SubnetLinear


class MovementCheck:
    """On the first step whose rates are not zero: subnets have gradients, frozen weights stay."""

    def __init__(self, model: nn.Module, layers: Mapping[str, SubnetLinear]) -> None:
        self._model, self._layers = model, layers
        self._done = False
        self._versions: dict[str, int] | None = None

    def before(self, optimizer: Optimizer) -> None:
        """Look at the gradients, and remember the versions of the frozen weights.

        Raises:
            LoSiAError: naming the subnets that no gradient reached; no weight has been touched.
        """
        if not self._done and all(group["lr"] > 0 for group in optimizer.param_groups):
            self._expect_gradients()
            self._versions = self._frozen_versions()

    def after(self) -> None:
        """Compare the versions.

        Raises:
            LoSiAError: naming a frozen weight that changed.
        """
        if self._versions is None:
            return
        found = self._frozen_versions()
        changed = [name for name, version in self._versions.items() if found[name] != version]
        if changed:
            raise LoSiAError(f"the first optimizer step changed a frozen weight: {changed[0]}")
        self._done, self._versions = True, None

    def forget(self) -> None:
        """The step was skipped: the next one is the first."""
        self._versions = None

    def _expect_gradients(self) -> None:
        """A gradient of zeros is one: of what leads to weights that are zero; not if all are."""
        gradients = {name: layer.subnet.grad for name, layer in self._layers.items()}
        there = [gradient.any() for gradient in gradients.values() if gradient is not None]
        if not there or not torch.stack(there).any():
            raise LoSiAError(
                "no gradient reaches any subnet: are all labels masked, or do reentrant"
                " checkpoints lack model.enable_input_require_grads()?"
            )
        reached = {_alike(name) for name, gradient in gradients.items() if gradient is not None}
        unreached = [name for name in gradients if _alike(name) not in reached]
        if unreached:
            names = sorted({name.rpartition(".")[2] for name in unreached})
            raise LoSiAError(
                f"no gradient reaches {len(unreached)} of {len(gradients)} subnets, {unreached[0]}"
                " first: the model never calls these linears, or reads their weights itself; let"
                f" target name the others, without {', '.join(names)}"
            )

    def _frozen_versions(self) -> dict[str, int]:
        return {n: p._version for n, p in self._model.named_parameters() if not p.requires_grad}


def _alike(name: str) -> str:
    """One name for the experts of a layer, not all of which see a token in every batch."""
    return re.sub(r"\bexperts\.\d+\b", "experts.*", name)
