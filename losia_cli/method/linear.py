"""The linear layer that trains a core subnet only, with LoSiA's and LoSiA-Pro's backward.

Shapes: `B` tokens of the batch, `M` inputs, `N` outputs, `R` rows and `C` columns of the subnet.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from losia_cli.method.importance import Score
from losia_cli.method.subnet import Subnet


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """The wider of float32 and `dtype`: what masters and scores are kept in."""
    return torch.promote_types(torch.float32, dtype)


class SubnetLinear(nn.Linear):
    """`y = x W^T + b` with everything frozen but `W[rows][:, columns]`.

    The layer takes over the linear's own `weight` `(N, M)` and `bias` and adds one parameter,
    `subnet` `(R, C)`: the master copy, in the wider of float32 and the weight's dtype, of the
    entries that are trained. Forward reads `weight` alone; backward gives `subnet` its gradient;
    `scatter` writes the masters back. `subnet` is never part of the state dict.

    Args:
        linear: the layer to take over; its weight and bias are frozen.
        subnet: the first subnet.
        pro: LoSiA-Pro: save `x[:, columns]` in forward, and compute `dy[:, rows]^T x[:, columns]`
            in backward (Eq. 9), not the full `dy^T x`.
        keep_input: under `pro`, save the whole input all the same, since something else keeps it
            alive: then it costs nothing, while the gathered part would.
    """

    rows: Tensor | None
    columns: Tensor | None

    def __init__(
        self, linear: nn.Linear, subnet: Subnet, pro: bool = True, keep_input: bool = False
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.pro, self.keep_input = pro, keep_input
        self.score: Score | None = None
        self.register_buffer("rows", subnet.rows, persistent=False)
        self.register_buffer("columns", subnet.columns, persistent=False)
        self.subnet = nn.Parameter(self._gathered(subnet))
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., M) -> (..., N)`."""
        if torch.is_grad_enabled() and (self.subnet.requires_grad or x.requires_grad):
            return _SubnetProduct.apply(x, self.weight, self.bias, self.subnet, self)
        return functional.linear(x, self.weight, self.bias)

    @property
    def selected(self) -> Subnet:
        """The subnet that is trained now."""
        return Subnet(self.rows, self.columns)

    @torch.no_grad()
    def scatter(self) -> None:
        """Write the masters into the weight, rounded to its dtype."""
        self.selected.scatter_(self.weight, self.subnet)

    @torch.no_grad()
    def select(self, subnet: Subnet) -> Tensor:
        """Make `subnet`, of the same size, the trained one and return its masters `(R, C)`.

        The masters are gathered from the weight; the caller decides what becomes of the old ones.
        """
        self.rows, self.columns = subnet.rows, subnet.columns
        self.subnet.copy_(self._gathered(subnet))
        return self.subnet

    def gradient_of_subnet(self, grad_y_BN: Tensor, x_BM: Tensor) -> Tensor:
        """`(dy^T x)[rows][:, columns]`, `(R, C)`; the full product only where it must be."""
        if self.pro and self.score is None:
            grad_y = grad_y_BN if self.rows is None else grad_y_BN.index_select(1, self.rows)
            return grad_y.t() @ x_BM
        full_NM = grad_y_BN.t() @ x_BM
        if self.score is not None:
            self.score.gradient.add_(full_NM)
        return self.selected.gather(full_NM)

    def extra_repr(self) -> str:
        """The linear's own description and the subnet's size."""
        return f"{super().extra_repr()}, subnet={tuple(self.subnet.shape)}, pro={self.pro}"

    def _gathered(self, subnet: Subnet) -> Tensor:
        return subnet.gather(self.weight.detach()).to(master_dtype(self.weight.dtype))

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[f"{prefix}subnet"]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *rest: Any,
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *rest
        )
        if f"{prefix}subnet" in missing_keys:
            missing_keys.remove(f"{prefix}subnet")
        with torch.no_grad():  # the old weight's masters must not overwrite the new one
            self.subnet.copy_(self._gathered(self.selected))


class _SubnetProduct(torch.autograd.Function):
    """`x W^T + b`, with a gradient for `x` and for the subnet.

    The dtype is settled in forward: autocast's if it is on, else the input's own. A cast copy of
    the weight lives within one pass only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        subnet: Tensor,
        layer: SubnetLinear,
    ) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        x_cast = x.to(dtype)
        bias_cast = None if bias is None else bias.to(dtype)
        y = functional.linear(x_cast, weight.to(dtype), bias_cast)
        ctx.layer, ctx.dtype, ctx.x_dtype = layer, dtype, x.dtype
        columns = layer.columns if layer.pro and layer.score is None else None
        ctx.gather_later = columns is not None and layer.keep_input
        saved = None
        if ctx.needs_input_grad[3]:
            if columns is None or layer.keep_input:
                saved = x_cast
            else:
                saved = x_cast.index_select(-1, columns)
        ctx.save_for_backward(saved, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        saved, weight = ctx.saved_tensors
        layer: SubnetLinear = ctx.layer
        grad_x = grad_subnet = None
        with _without_autocast(grad_y.device.type):
            grad_y = grad_y.to(ctx.dtype)
            if ctx.needs_input_grad[0]:
                grad_x = (grad_y @ weight.to(ctx.dtype)).to(ctx.x_dtype)
            if saved is not None:
                x_2d = saved.reshape(-1, saved.shape[-1])
                if ctx.gather_later:
                    x_2d = x_2d.index_select(1, layer.columns)
                grad_y_BN = grad_y.reshape(-1, grad_y.shape[-1])
                grad_subnet = layer.gradient_of_subnet(grad_y_BN, x_2d).to(layer.subnet.dtype)
        return grad_x, None, None, grad_subnet, None


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Nothing, where it is off as it should be in backward: entering it costs microseconds."""
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()
