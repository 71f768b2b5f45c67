"""The real base model, converted from scratch once per session, and a tiny one with its words."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from losia_cli.quickstart.model import MODEL_FOLDER, is_complete, prepare_base_model


@pytest.fixture(scope="session")
def base_model(tmp_path_factory) -> Path:
    """Made where an interrupted copy lies already, so that this shows its repair as well."""
    cache = tmp_path_factory.mktemp("cache with a space")
    broken = cache / MODEL_FOLDER
    broken.mkdir()
    (broken / "config.json").write_text("{")
    (cache / f"{MODEL_FOLDER}.partial").mkdir()
    assert not is_complete(broken)
    return prepare_base_model(cache)


@pytest.fixture(scope="session")
def tiny_model(base_model, tmp_path_factory) -> Path:
    """Two random layers with the base model's configuration, tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny smollm"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(base_model, **sizes, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_without_template(tiny_model, tmp_path_factory) -> Path:
    """The same as a base model is: with nothing said about how a chat is written."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def untouched(path: Path) -> tuple[int, ...]:
    """What of a file tells whether it was written since; reading it changes none of it."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode
