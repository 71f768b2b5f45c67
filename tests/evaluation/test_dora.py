"""An evaluated DoRA adapter answers as PEFT's own does, and computes its norms once."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.dora import DoraLinearLayer

from losia_cli.errors import UserError
from losia_cli.evaluation import dora
from losia_cli.evaluation.dora import remember_norms
from tests.models import batches, tiny


def adapted(architecture, dtype):
    model = get_peft_model(
        tiny(architecture, dtype),
        LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules="all-linear", lora_dropout=0.3),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise.to(parameter.dtype))
    return model.eval()


@torch.no_grad()
def logits(model):
    return [model(input_ids=ids).logits for ids in batches(3)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # without and with biases
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_answers_as_before_to_the_last_bit(architecture, dtype, monkeypatch):
    model = adapted(architecture, dtype)
    before = logits(model)
    normed = []
    plain = DoraLinearLayer.get_weight_norm
    monkeypatch.setattr(
        DoraLinearLayer,
        "get_weight_norm",
        lambda layer, *given: (normed.append(layer), plain(layer, *given))[1],
    )
    remember_norms(model)
    for ours, theirs in zip(logits(model), before, strict=True):
        assert torch.equal(ours, theirs)
    layers = [module for module in model.modules() if isinstance(module, DoraLinearLayer)]
    assert len(normed) == len(layers) == 3 * 7


def test_a_layer_that_is_called_otherwise_is_named(monkeypatch):
    model = adapted("llama", torch.float64)
    monkeypatch.setattr(dora, "_GIVEN", ("self", "x"))
    with pytest.raises(UserError, match=r"DoraLinearLayer\.forward moved"):
        remember_norms(model)
    monkeypatch.undo()
    monkeypatch.setattr(dora, "_GIVEN", ())
    remember_norms(tiny())  # nothing to mend
