"""What a chat is started with: the run's own template and base."""

import json

import pytest

from losia_cli.chat import chat_arguments
from losia_cli.errors import UserError


def test_a_runs_template_is_taken_and_can_be_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "losia_run.json").write_text(json.dumps({"recipe": {"template": "llama2"}}))
    model = {"model_name_or_path": str(tmp_path)}
    assert chat_arguments(str(tmp_path), None) == {**model, "template": "llama2"}
    assert chat_arguments(str(tmp_path), "gemma") == {**model, "template": "gemma"}


def test_an_adapter_brings_its_base(tmp_path):
    adapter = json.dumps({"base_model_name_or_path": "some/base"})
    (tmp_path / "adapter_config.json").write_text(adapter)
    expected = {"model_name_or_path": "some/base", "adapter_name_or_path": str(tmp_path)}
    assert chat_arguments(str(tmp_path), None) == expected


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        chat_arguments(str(tmp_path), None)
    with pytest.raises(UserError, match="there is no folder"):
        chat_arguments(str(tmp_path / "nowhere"), None)
