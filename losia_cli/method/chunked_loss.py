"""The causal language model's loss without the logits of the whole batch.

Shapes: `T` tokens that have a label, `t` of them in a chunk, `D` hidden size, `V` vocabulary, `R`
rows of the output layer's subnet.
"""

import functools
import inspect
import warnings
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from losia_cli.method.linear import SubnetLinear

IGNORED = -100
LOGITS_PER_CHUNK = 2**25
HALF_PER_CHUNK = 256  # tokens in a chunk of float16
_OWN_LOSS_ONLY = ("shift_labels", "inputs_embeds")
_PASSED_ON = ("past_key_values", "hidden_states", "attentions")


def use_chunked_loss(model: PreTrainedModel, in_evaluation: bool = True) -> None:
    """Make `model.forward` compute its loss by `chunked_cross_entropy` whenever labels are given.

    The outputs then hold no logits. A model whose output layer is no `SubnetLinear` and not frozen
    and whole either (trained in full, adapted, quantized, sharded), or whose loss has a router's
    part, keeps its own loss. On the first batch the loss of a few tokens is compared with the
    model's own; if they differ (an architecture that does more to its logits than a projection and
    a soft cap), the model keeps its own too, and a warning says so. From then on
    `model.loss_in_chunks` tells which it is.

    Args:
        model: a causal language model of a decoder and an output layer.
        in_evaluation: also when the model is in evaluation mode; False where a metric needs logits.
    """
    own_forward = model.forward
    signature = inspect.signature(own_forward)

    @functools.wraps(getattr(own_forward, "__func__", own_forward))
    def forward(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        inputs = signature.bind(*args, **kwargs).arguments
        inputs.update(inputs.pop("kwargs", {}))
        wanted = model.training or in_evaluation
        unsuited = any(inputs.get(name) is not None for name in _OWN_LOSS_ONLY)
        if inputs.get("labels") is None or unsuited or not wanted:
            return own_forward(*args, **kwargs)
        if not trusted:
            trusted.append(_suits(model) and _agrees(model, own_forward, inputs["input_ids"]))
            model.loss_in_chunks = trusted[0]
        return _chunked_forward(model, inputs) if trusted[0] else own_forward(*args, **kwargs)

    trusted: list[bool] = []
    model.forward = MethodType(forward, model)


def chunked_cross_entropy(
    hidden_TD: Tensor, labels_T: Tensor, head: nn.Linear, softcap: float | None = None
) -> Tensor:
    """The summed cross-entropy of `head(hidden)` against `labels`, a scalar in float32 or wider.

    Projection and loss run chunk by chunk and the gradients are computed on the way, so that the
    logits of one chunk, and never `(T, V)`, exist at a time. Exact up to the order of summation.

    Args:
        hidden_TD: only the tokens that have a label.
        labels_T: int64, none of them `IGNORED`.
        head: a `SubnetLinear`, whose subnet gets its gradient, or a frozen linear.
        softcap: Gemma-2's cap c on the logits, `c tanh(z / c)`.
    """
    subnet = head.subnet if isinstance(head, SubnetLinear) else None
    trains = torch.is_grad_enabled()
    return _ChunkedLoss.apply(hidden_TD, subnet, labels_T, head, softcap, trains)


def _chunked_forward(model: PreTrainedModel, inputs: dict[str, Any]) -> CausalLMOutputWithPast:
    inputs = dict(inputs)
    labels, items = inputs.pop("labels"), inputs.pop("num_items_in_batch", None)
    for name in ("logits_to_keep", "return_dict"):
        inputs.pop(name, None)
    following = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:].flatten()
    labelled = (following != IGNORED).nonzero().flatten()  # waits for the device: before its work
    decoded = model.base_model(**inputs, return_dict=True)
    hidden_TD = decoded.last_hidden_state.flatten(0, 1).index_select(0, labelled)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    head = model.get_output_embeddings()
    labels_T = following.index_select(0, labelled)
    total = chunked_cross_entropy(hidden_TD, labels_T, head, softcap)
    count = max(len(labelled), 1) if items is None else items
    return CausalLMOutputWithPast(
        loss=total / count,
        **{name: getattr(decoded, name, None) for name in _PASSED_ON},
    )


def _suits(model: PreTrainedModel) -> bool:
    """Whether the loss is the output layer's alone, and chunks of it give all gradients."""
    head = model.get_output_embeddings()
    routed = getattr(model.config.get_text_config(), "output_router_logits", False)
    if routed or model.base_model is model:  # which has no decoder under a name that is known
        return False
    if isinstance(head, SubnetLinear):
        return True
    return (
        type(head) is nn.Linear
        and head.weight.shape == (head.out_features, head.in_features)
        and not any(parameter.requires_grad for parameter in head.parameters())
    )


@torch.no_grad()
def _agrees(model: PreTrainedModel, own_forward: Any, input_ids: Tensor) -> bool:
    """Whether both losses of the batch's first tokens are the same."""
    tokens, training = input_ids[:1, :16], model.training
    inputs = {"input_ids": tokens, "labels": tokens, "use_cache": False}
    model.eval()
    try:
        theirs = own_forward(**inputs).loss
        ours = _chunked_forward(model, inputs).loss
    except (AttributeError, TypeError):  # its decoder takes or gives something else
        ours = torch.full_like(theirs, torch.nan)
    finally:
        model.train(training)
    if torch.allclose(ours.double(), theirs.double(), rtol=1e-2, atol=1e-3):
        return True
    warnings.warn(
        f"{type(model).__name__} computes its logits in a way of its own (loss {theirs:.4f}, by "
        f"chunks {ours:.4f}): its own loss is used, and the whole batch's logits are kept",
        stacklevel=2,
    )
    return False


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        subnet: Tensor | None,
        labels: Tensor,
        head: nn.Linear,
        softcap: float | None,
        trains: bool,
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        ctx.head = head
        wide = torch.promote_types(torch.float32, hidden.dtype)
        loss = hidden.new_zeros((), dtype=wide)
        trained = head if isinstance(head, SubnetLinear) and ctx.needs_input_grad[1] else None
        grads = _Gradients(hidden, trained) if trains else None
        size = max(1, LOGITS_PER_CHUNK // head.out_features)
        with torch.autocast(device, enabled=False):
            weight = head.weight.detach().to(dtype or hidden.dtype)
            if weight.dtype == torch.float16:  # whose sums over many tokens leave its range
                size = min(size, HALF_PER_CHUNK)
            bias = None if head.bias is None else head.bias.detach().to(weight.dtype)
            for start in range(0, len(labels), size):
                piece = slice(start, start + size)
                x = hidden[piece].to(weight.dtype)
                logits = functional.linear(x, weight, bias)
                if grads is None:
                    loss += _loss(logits, labels[piece], softcap, wide)
                    continue
                part, grad_logits = _loss_and_gradient(logits, labels[piece], softcap, wide)
                loss += part
                grads.add(piece, grad_logits, x, weight)
        if grads is not None:
            ctx.save_for_backward(grads.hidden, grads.of_subnet(), grads.full)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_subnet, grad_full = ctx.saved_tensors
        if grad_full is not None:
            ctx.head.score.gradient.add_(grad_full.mul_(grad_loss))  # no second one of its size
        grad_hidden = (grad_hidden * grad_loss).to(grad_hidden.dtype)
        grad_subnet = None if grad_subnet is None else grad_subnet * grad_loss
        return grad_hidden, grad_subnet, None, None, None, None


class _Gradients:
    """The gradients of one chunked loss: of the hidden states, the subnet and, if scored, all."""

    def __init__(self, hidden: Tensor, head: SubnetLinear | None) -> None:
        self.hidden = torch.empty_like(hidden)
        self.head = head
        self.full: Tensor | None = None
        self.rows: Tensor | None = None
        if head is not None and head.score is not None:
            self.full = torch.zeros_like(head.score.gradient)
        elif head is not None:
            self.rows = torch.zeros_like(head.subnet)

    def add(self, piece: slice, grad_logits: Tensor, x: Tensor, weight: Tensor) -> None:
        """Take in one chunk: `grad_logits` `(t, V)`, `x` `(t, D)`, `weight` `(V, D)`."""
        self.hidden[piece] = (grad_logits @ weight).to(self.hidden.dtype)
        if self.full is not None:
            self.full += grad_logits.t() @ x
        elif self.rows is not None and self.head is not None:
            rows = self.head.rows
            chosen = grad_logits if rows is None else grad_logits.index_select(1, rows)
            self.rows += chosen.t() @ x

    def of_subnet(self) -> Tensor | None:
        """`(R, D)`."""
        if self.full is not None and self.head is not None:
            return self.head.selected.gather(self.full)
        return self.rows


def _loss_and_gradient(
    logits: Tensor, labels: Tensor, softcap: float | None, wide: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in `wide` of `(t, V)` logits, and its gradient in the logits' dtype."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        loss = _loss(leaf, labels, softcap, wide)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def _loss(logits: Tensor, labels: Tensor, softcap: float | None, wide: torch.dtype) -> Tensor:
    capped = logits.to(wide)
    if softcap is not None:
        capped = softcap * torch.tanh(capped / softcap)
    return functional.cross_entropy(capped, labels, reduction="sum")
