"""Proof by the first optimizer step that what should train does, and that nothing else does."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from losia_cli.method.config import LoSiAError
from losia_cli.method.linear import SubnetLinear


class MovementCheck:
    """On the first step whose rates are not zero: subnets get gradients, frozen weights stay."""

    def __init__(self, model: nn.Module, layers: Mapping[str, SubnetLinear]) -> None:
        self._model, self._layers = model, layers
        self._done = False
        self._masters: dict[str, Tensor] = {}
        self._unreached: list[str] = []
        self._versions: dict[str, int] = {}

    def before(self, optimizer: Optimizer) -> None:
        """Remember the subnets and the versions of the frozen weights."""
        if not self._done and all(group["lr"] > 0 for group in optimizer.param_groups):
            self._masters = {n: layer.subnet.detach().clone() for n, layer in self._layers.items()}
            self._unreached = [n for n, layer in self._layers.items() if layer.subnet.grad is None]
            self._versions = self._frozen_versions()

    def after(self) -> None:
        """Compare; called before the masters are scattered.

        Raises:
            LoSiAError: naming subnets that no gradient reached or a frozen weight that changed.
        """
        if not self._masters:
            return
        still = [n for n, old in self._masters.items() if torch.equal(self._layers[n].subnet, old)]
        if len(still) == len(self._masters):
            raise LoSiAError(
                "the first optimizer step moved no subnet: no gradient reaches them (are all labels"
                " masked, or do reentrant checkpoints lack model.enable_input_require_grads()?)"
            )
        if self._unreached:  # a gradient of zeros is one: of what leads to weights that are zero
            raise LoSiAError(
                f"no gradient reaches {len(self._unreached)} of {len(self._masters)} subnets: the "
                "model never calls these linears, or reads their weights itself; leave their names "
                f"out of target ({', '.join(self._unreached)})"
            )
        versions = self._frozen_versions()
        changed = [name for name, version in self._versions.items() if versions[name] != version]
        if changed:
            raise LoSiAError(f"the first optimizer step changed a frozen weight: {changed[0]}")
        self._done, self._masters = True, {}

    def forget(self) -> None:
        """The step was skipped: the next one is the first."""
        self._masters = {}

    def _frozen_versions(self) -> dict[str, int]:
        return {n: p._version for n, p in self._model.named_parameters() if not p.requires_grad}
