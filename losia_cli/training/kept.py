"""Bytes that autograd keeps for backward: what decides a run's memory beside its weights."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class _Saved:
    """A tensor that autograd saved; it lives as long as the graph's node does.

    It is held without its own node, or a graph that no backward pass frees would hold itself.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class SavedTensors:
    """As a context: knows what autograd saves within it, for as long as the graph holds it."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[_Saved] = weakref.WeakSet()
        self._hooks = saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def __enter__(self) -> "SavedTensors":
        """Begin."""
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """What is saved from now on does not count."""
        self._hooks.__exit__()

    def nbytes(self, without: Iterable[Tensor]) -> int:
        """Bytes of the storages still held, each once, but for those of the tensors `without`."""
        storages = (saved.tensor.untyped_storage() for saved in self._alive)
        held = {storage.data_ptr(): storage.nbytes() for storage in storages}
        for tensor in without:
            held.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(held.values())

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._alive.add(saved)
        return saved


class KeptForBackward(TrainerCallback):
    """Counts what the first step's first forward pass keeps, parameters and buffers left out.

    Attributes:
        nbytes: None before that, and under gradient checkpointing, which keeps no such thing.
    """

    def __init__(self) -> None:
        self.nbytes: int | None = None
        self._hooks: list[RemovableHandle] = []

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: Any,
    ) -> None:
        """Watch the next forward pass, if it is the first."""
        if self.nbytes is not None or self._hooks or _checkpoints(model):
            return
        saved = SavedTensors()

        def enter(*_: Any) -> None:
            saved.__enter__()

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            saved.__exit__()
            if output is None:  # it failed, and may be tried again with fewer rows
                return
            self.nbytes = saved.nbytes((*model.parameters(), *model.buffers()))
            for hook in self._hooks:
                hook.remove()

        self._hooks = [
            model.register_forward_pre_hook(enter),
            model.register_forward_hook(leave, always_call=True),
        ]


def _checkpoints(model: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
