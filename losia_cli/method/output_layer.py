"""An output layer whose weight is also the embedding's: both give the subnet its gradient.

The output layer itself is a `SubnetLinear` whose subnet has all columns. Shapes: `T` tokens, `D`
hidden size, `V` vocabulary, `R` rows of the subnet.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from losia_cli.method.linear import SubnetLinear


class SubnetEmbedding(nn.Embedding):
    """An embedding whose weight is tied to an output layer that trains a subnet.

    Its selected rows give their gradient to the output layer's `subnet`, so that this has both
    parts, the head's and the embedding's, as full fine-tuning's gradient of those rows has.
    """

    output_layer: Any  # (SubnetLinear,): in a tuple, so that it is no submodule

    def forward(self, input: Tensor) -> Tensor:
        """`(..., ) -> (..., D)`, token ids to their rows."""
        embedded = super().forward(input)
        output_layer: SubnetLinear = self.output_layer[0]
        if not torch.is_grad_enabled() or not output_layer.subnet.requires_grad:
            return embedded
        return _TiedRows.apply(embedded, output_layer.subnet, input, self.padding_idx, output_layer)


def tie_embedding(embedding: nn.Embedding, output_layer: SubnetLinear) -> None:
    """Turn `embedding` into a `SubnetEmbedding` in place; its own forward (a scale) is kept."""
    kind = type(embedding)
    bases = (SubnetEmbedding,) if kind is nn.Embedding else (kind, SubnetEmbedding)
    embedding.__class__ = type(f"Subnet{kind.__name__}", bases, {"__module__": __name__})
    cast(SubnetEmbedding, embedding).output_layer = (output_layer,)


class _TiedRows(torch.autograd.Function):
    """Identity in forward; backward adds each selected token's gradient to its subnet row."""

    @staticmethod
    def forward(
        ctx: Any,
        embedded: Tensor,
        subnet: Tensor,
        ids: Tensor,
        padding: int | None,
        layer: SubnetLinear,
    ) -> Tensor:
        ctx.layer, ctx.padding, ctx.needs_embedded = layer, padding, ctx.needs_input_grad[0]
        ctx.save_for_backward(ids)
        return embedded.view_as(embedded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        layer: SubnetLinear = ctx.layer
        ids, grad_TD = ids.flatten(), grad.reshape(-1, grad.shape[-1])
        if ctx.padding is not None:
            grad_TD = grad_TD.masked_fill((ids == ctx.padding)[:, None], 0)
        grad_TD = grad_TD.to(layer.subnet.dtype)
        if layer.score is not None:
            layer.score.gradient.index_add_(0, ids, grad_TD)
        return (
            grad if ctx.needs_embedded else None,
            _add_rows(layer, ids, grad_TD),
            None,
            None,
            None,
        )


def _add_rows(layer: SubnetLinear, ids: Tensor, grad_TD: Tensor) -> Tensor:
    """Sum `grad_TD` over the tokens of each selected row, `(R, D)`; other tokens are dropped."""
    if layer.rows is None:
        return torch.zeros_like(layer.subnet).index_add_(0, ids, grad_TD)
    count = len(layer.rows)
    place = torch.searchsorted(layer.rows, ids).clamp_(max=count - 1)
    place = torch.where(layer.rows[place] == ids, place, count)
    with_rest = grad_TD.new_zeros(count + 1, grad_TD.shape[1])
    return with_rest.index_add_(0, place, grad_TD)[:count]
