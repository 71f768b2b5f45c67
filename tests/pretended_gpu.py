"""A GPU for tests on a machine without one: its tensors are computed by the processor.

A tensor there says that it is on `cuda:0`, and an operation that mixes it with one of the
processor's raises, as CUDA's do. What makes the processor wait for a GPU is counted.
"""

from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU, PROCESSOR = torch.device("cuda", 0), torch.device("cpu")
_COPIES = {"aten::copy_", "aten::_to_copy"}
_INDEXES = {"aten::index", "aten::index_put_"}  # a tensor of the GPU by one of the processor
_WAIT = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}


class PretendedTensor(Tensor):
    """A tensor of the pretended GPU; `held` is the processor's tensor of its values."""

    waits = 0  # for the device, of all tensors, since somebody set it to 0

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        tensor = Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype
        )
        tensor.held = held
        return tensor

    @property
    def device(self) -> torch.device:
        return GPU

    def __repr__(self) -> str:
        return f"PretendedTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**(kwargs or {}), **({"device": PROCESSOR} if "device" in (kwargs or {}) else {})}
        name = func.overloadpacket._qualified_op_name
        foreign = [leaf for leaf in tree_leaves((args, given)) if _foreign(leaf)]
        may_mix = name in _COPIES or (name in _INDEXES and not _foreign(args[0]))
        if foreign and not may_mix:
            raise RuntimeError(f"{name} mixes the GPU and the processor: {foreign}")
        masks = name in _INDEXES and any(_mask(leaf) for leaf in tree_leaves(args[1]))
        cls.waits += name in _WAIT or masks or (name in _COPIES and _foreign(args[0]))
        held = func(*tree_map(_held, args), **tree_map(_held, given))
        return return_and_correct_aliasing(func, args, given, tree_map(_there, held))


class _Placing(TorchFunctionMode):
    """Puts what is made for `cuda`, or moved there, onto the pretended GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "tolist" and isinstance(args[0], PretendedTensor):
            PretendedTensor.waits += 1
            return args[0].held.tolist()
        if name == "cpu":
            return _moved(args[0], PROCESSOR)
        if name == "to" and (place := _place(args, kwargs)) is not None:
            rest = [each for each in args[1:] if not isinstance(each, str | torch.device | Tensor)]
            dtypes = [each.dtype for each in args[1:] if isinstance(each, Tensor)]
            return _moved(args[0], place).to(*dtypes, *rest, **{**kwargs, "device": None})
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            return tree_map(_there, func(*args, **{**kwargs, "device": PROCESSOR}))
        return func(*args, **kwargs)


@contextmanager
def pretended_gpu() -> Any:
    """What is made for `cuda`, or moved there, is on the pretended GPU; no wait is counted yet."""
    PretendedTensor.waits = 0
    with _Placing():
        yield


def to_pretended_gpu(model: nn.Module) -> None:
    """Move a model there, in place; parameters that were tied are tied there."""
    there: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(PretendedTensor(parameter.data), parameter.requires_grad)
                module._parameters[name] = there.setdefault(id(parameter), moved)
        for name, buffer in module._buffers.items():
            module._buffers[name] = _there(buffer)


def to_processor(values: Any) -> Any:
    """The same structure with the processor's tensors, as `torch.load` gives it."""
    return tree_map(lambda leaf: _held(leaf).clone() if isinstance(leaf, Tensor) else leaf, values)


def _foreign(leaf: Any) -> bool:
    # a tensor without dimensions may be the processor's in any operation
    return isinstance(leaf, Tensor) and not isinstance(leaf, PretendedTensor) and leaf.dim() > 0


def _mask(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.bool


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, PretendedTensor) else leaf


def _there(leaf: Any) -> Any:
    return PretendedTensor(leaf) if type(leaf) in (Tensor, nn.Parameter) else leaf


def _place(args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    """Where `Tensor.to` is asked to move something."""
    asked = [kwargs["device"]] if kwargs.get("device") is not None else list(args[1:])
    for each in asked:
        if isinstance(each, str | torch.device):
            return torch.device(each)
        if isinstance(each, Tensor):
            return each.device
    return None


def _moved(tensor: Tensor, place: torch.device) -> Tensor:
    if isinstance(tensor, PretendedTensor) == (place.type == "cuda"):
        return tensor
    PretendedTensor.waits += place.type == "cpu"
    return PretendedTensor(tensor.detach()) if place.type == "cuda" else tensor.detach().held
