"""What is said of a model before it is loaded, of its gradients, and of it once it is saved."""

import pytest
import torch
from transformers import AutoConfig, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from losia_cli.errors import UserError
from losia_cli.method import LoSiAConfig
from losia_cli.training.guards import FiniteGradients
from losia_cli.training.model import check_model
from losia_cli.training.proof import verify_saved
from tests.models import seeing, tiny


def test_a_model_that_sees_reloads_as_its_own_kind(tmp_path):
    model = seeing()
    model.save_pretrained(tmp_path)
    verify_saved(model, tmp_path)
    with torch.no_grad():
        model.lm_head.weight[3] += 1
    with pytest.raises(UserError, match="other logits"):
        verify_saved(model, tmp_path)


def test_a_model_that_an_evaluation_cast_is_compared_in_its_dtype(tmp_path):
    """As bf16_full_eval does, after the training has been saved."""
    model = tiny(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    model.to(torch.bfloat16)
    verify_saved(model, tmp_path)
    with torch.no_grad():
        model.lm_head.weight[3] += 1
    with pytest.raises(UserError, match=r"lm_head\.weight in the checkpoint"):
        verify_saved(model, tmp_path)


def test_a_quantized_checkpoint_is_refused_before_it_is_loaded(tmp_path):
    config = AutoConfig.for_model("llama", num_hidden_layers=1)
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    config.save_pretrained(tmp_path)
    values = {"model_name_or_path": str(tmp_path)}
    check_model(values, None)
    with pytest.raises(UserError, match="quantized checkpoint"):
        check_model(values, LoSiAConfig())


@pytest.mark.parametrize("clipped", [True, False])
def test_what_is_said_of_a_gradient_that_is_not_finite(tmp_path, clipped):
    """Clipping spreads one to all: then no parameter is named, and clipping is no advice."""
    model = tiny()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.model.norm.weight.grad[0] = torch.nan
    if clipped:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    args = TrainingArguments(str(tmp_path), max_grad_norm=1.0 if clipped else 0.0, use_cpu=True)
    with pytest.raises(UserError, match="not finite at step 1") as raised:
        FiniteGradients().on_pre_optimizer_step(args, TrainerState(), TrainerControl(), model=model)
    assert ("of model.norm.weight" in str(raised.value)) is not clipped
    assert ("set max_grad_norm" in str(raised.value)) is not clipped
