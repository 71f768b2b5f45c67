"""What a chat is started with: the run's own template and base."""

import json
import shutil

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from losia_cli.chat import chat_arguments
from losia_cli.errors import UserError
from tests.e2e.conftest import make_model


@pytest.fixture
def run(tmp_path):
    folder = make_model(tmp_path / "run")
    (folder / "losia_run.json").write_text(json.dumps({"recipe": {"template": "llama2"}}))
    return folder


def test_a_runs_template_is_taken_and_can_be_replaced(run):
    model = {"model_name_or_path": str(run)}
    assert chat_arguments(str(run), None) == {**model, "template": "llama2"}
    assert chat_arguments(str(run), "gemma") == {**model, "template": "gemma"}


def test_what_else_shapes_the_prompt_is_the_runs_too(run):
    recipe = {"template": "qwen3", "enable_thinking": False, "default_system": None, "seed": 1}
    (run / "losia_run.json").write_text(json.dumps({"recipe": recipe}))
    expected = {"model_name_or_path": str(run), "template": "qwen3", "enable_thinking": False}
    assert chat_arguments(str(run), None) == expected


def test_a_checkpoint_has_its_runs_template(run):
    checkpoint = run / "checkpoint-7"
    shutil.copytree(run, checkpoint, ignore=shutil.ignore_patterns("losia_run.json", "checkpoint*"))
    expected = {"model_name_or_path": str(checkpoint), "template": "llama2"}
    assert chat_arguments(str(checkpoint), None) == expected


def test_an_adapter_brings_its_base(tmp_path):
    base, adapter = make_model(tmp_path / "base"), tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    expected = {"model_name_or_path": str(base), "adapter_name_or_path": str(adapter)}
    assert chat_arguments(str(adapter), None) == expected


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        chat_arguments(str(tmp_path), None)
    with pytest.raises(UserError, match="there is no folder"):
        chat_arguments(str(tmp_path / "nowhere"), None)
    with pytest.raises(UserError, match=r"no folder runs/qickstart, and the hub's .* not be had"):
        chat_arguments("runs/qickstart", None)
