"""Putting the method into a model: find its linears, check them, replace them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from losia_cli.method.config import LoSiAConfig, LoSiAError
from losia_cli.method.linear import SubnetLinear
from losia_cli.method.localization import random_subnet
from losia_cli.method.output_layer import tie_embedding
from losia_cli.method.subnet import Subnet

# Linears of one block that read the same tensor: gathered apart, their parts may outweigh it.
SHARED_INPUTS = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
# Every attention kernel but the eager one keeps its output, which this linear reads, for backward.
AFTER_ATTENTION = "o_proj"


@dataclass(frozen=True)
class Target:
    """One linear to train: its name, its timeline group and the size of its subnet."""

    name: str
    linear: nn.Linear
    group: int | None  # None: outside the timeline, trained in full
    rows: int | None  # None: all
    columns: int | None  # None: all


def share(size: int, factor: float) -> int:
    """`floor(size * factor)`, safe from the rounding of `factor`."""
    return math.floor(size * factor + 1e-9)


def find_targets(model: PreTrainedModel, config: LoSiAConfig) -> list[Target]:
    """Every linear that `config` trains; works on a model on the meta device as well.

    Groups are numbered as in the authors' code: the output layer first if it is tuned as a subnet,
    then the decoder layers in order. (Section 3.3 gives slots to decoder layers alone.)

    Raises:
        LoSiAError: the model is quantized, has fused expert weights or no plain linears, a name
            in `target` matches nothing, a linear is too small for the rank factor, or
            `train_embeddings` is set and they are tied to the output layer.
    """
    _refuse_what_cannot_work(model)
    if config.train_embeddings and _are_tied(model):
        raise LoSiAError(
            "train_embeddings is set, but the embeddings are tied to the output layer, which "
            "trains them: leave train_embeddings out, and set output_factor to 1 to train all rows"
        )
    head = _output_layer(model, config)
    first = 1 if head is not None and head.group == 0 else 0
    targets = [] if head is None else [head]
    layers_name, layers = decoder_layers(model)
    group = first
    for index, layer in enumerate(layers):
        found = [
            _layer_target(f"{layers_name}.{index}.{name}", linear, group, config)
            for name, linear in layer.named_modules()
            if type(linear) is nn.Linear and config.wants(name)
        ]
        targets += found
        group += bool(found)  # a layer of a hybrid model may have none of the names
    available = {n.rpartition(".")[2] for n, m in layers.named_modules() if type(m) is nn.Linear}
    if unknown := config.targets - available - {"all"}:
        raise LoSiAError(
            f"target {', '.join(sorted(unknown))} matches no linear of {type(model).__name__}; "
            f"its decoder layers have {', '.join(sorted(available))}"
        )
    return targets


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder layers: the longest list of modules with linears.

    A list within another (a layer's experts) is none, nor is one beside the decoder (what sees).

    Raises:
        LoSiAError: the model has no such list.
    """
    find = getattr(model, "get_decoder", None)
    decoder: nn.Module = (find() if callable(find) else None) or model
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    lists: list[tuple[str, nn.ModuleList]] = []
    for name, module in decoder.named_modules(prefix=prefix):  # outer ones come before inner ones
        within = any(name.startswith(f"{outer}.") for outer, _ in lists)
        if isinstance(module, nn.ModuleList) and len(module) > 0 and not within:
            first = module[0].modules()
            lists += [(name, module)] if any(isinstance(part, nn.Linear) for part in first) else []
    if not lists:
        raise LoSiAError(
            f"{type(model).__name__} has no decoder layers made of torch.nn.Linear, which LoSiA "
            "trains (a Conv1D model such as GPT-2 is not supported)"
        )
    return max(lists, key=lambda item: len(item[1]))


def replace_linears(
    model: PreTrainedModel, targets: Sequence[Target], config: LoSiAConfig
) -> dict[str, SubnetLinear]:
    """Freeze `model`, put a `SubnetLinear` with a random subnet in each target's place.

    Returns:
        The new layers by name, in the order of the targets.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = _are_tied(model)
    _freeze(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    kept = _inputs_kept_anyway(model, config)
    layers = {}
    for target in targets:
        keep_input = target.name.rpartition(".")[2] in kept
        first = _first_subnet(target, generator)
        layer = SubnetLinear(target.linear, first, config.pro, keep_input)
        model.set_submodule(target.name, layer)
        layers[target.name] = layer
        if tied and target.linear is head:
            tie_embedding(embedding, layer)
    return layers


def _are_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and model.get_input_embeddings().weight is head.weight


def _refuse_what_cannot_work(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if getattr(model, "is_quantized", False) or getattr(model, "quantization_method", None):
        raise LoSiAError(
            f"{name} is quantized, but LoSiA updates the weights themselves: load it unquantized"
        )
    _, layers = decoder_layers(model)
    for part, module in layers.named_modules():
        own = module.named_parameters(recurse=False)
        fused = [each for each, parameter in own if parameter.dim() == 3]
        if fused and not isinstance(module, nn.Conv1d):
            raise LoSiAError(
                f"{name} keeps its experts in one 3-D weight ({part}.{fused[0]}), not in "
                "torch.nn.Linear: mixture-of-experts models of this form are not supported"
            )


def _output_layer(model: PreTrainedModel, config: LoSiAConfig) -> Target | None:
    head = model.get_output_embeddings()
    if head is None or config.output_factor == 0:
        return None
    if type(head) is not nn.Linear:
        raise LoSiAError(
            f"the output layer is a {type(head).__name__}, not a torch.nn.Linear: "
            "set output_factor to 0 to leave it alone"
        )
    name = next(name for name, module in model.named_modules() if module is head)
    if config.output_factor == 1:
        return Target(name, head, None, None, None)
    rows = share(head.out_features, config.output_factor)
    if rows == 0:
        raise LoSiAError(
            f"output_factor {config.output_factor} leaves no row of {name}, which has "
            f"{head.out_features}: raise it to at least {1 / head.out_features:.3g}"
        )
    return Target(name, head, 0, rows, None)


def _layer_target(name: str, linear: nn.Linear, group: int, config: LoSiAConfig) -> Target:
    rows = share(linear.out_features, config.rank_factor)
    columns = share(linear.in_features, config.rank_factor)
    if rows == 0 or columns == 0:
        smallest = 1 / min(linear.out_features, linear.in_features)
        raise LoSiAError(
            f"rank_factor {config.rank_factor} leaves no row or no column of {name} "
            f"({linear.out_features} x {linear.in_features}): raise it to at least {smallest:.3g}"
        )
    return Target(name, linear, group, rows, columns)


def _freeze(model: PreTrainedModel, config: LoSiAConfig) -> None:
    model.requires_grad_(False)
    if config.train_norms:
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.requires_grad_(True)
    if config.train_embeddings:
        model.get_input_embeddings().requires_grad_(True)


def _first_subnet(target: Target, generator: torch.Generator) -> Subnet:
    if target.rows is None:
        return Subnet(None, None)
    return random_subnet(target.linear.weight, target.rows, target.columns, generator)


def _inputs_kept_anyway(model: PreTrainedModel, config: LoSiAConfig) -> set[str]:
    """The last names of the linears that had better save their whole input (see SubnetLinear)."""
    kept = set()
    for names in SHARED_INPUTS:
        reading = [name for name in names if config.wants(name)]
        if len(reading) * config.rank_factor > 1:
            kept.update(reading)
    if getattr(model.config, "_attn_implementation", "eager") != "eager":
        kept.add(AFTER_ATTENTION)
    return kept
