"""The world is made whole, once, and the same each time."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from losia_cli import paper
from losia_cli.errors import UserError
from losia_cli.reproduction import miniature

MODELS = ("gemma-2b", "llama2-7b", "llama2-13b")
MAKE = """
import sys
from pathlib import Path
from rich.console import Console
from losia_cli.reproduction import miniature
miniature.make(Path(sys.argv[1]), Console())
"""


def files(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def root(world):
    return world.documents.parent


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Made by another process, whose hashes are salted otherwise."""
    folder = tmp_path_factory.mktemp("elsewhere") / "world"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", MAKE, str(folder)], env=environment, check=False)
    assert done.returncode == 0
    return folder


def test_every_process_makes_the_same_world(world, elsewhere):
    assert files(root(world)) == files(elsewhere)


def test_made_once_it_is_left_alone(world, quiet):
    before = {path: path.stat().st_mtime_ns for path in root(world).rglob("*")}
    assert miniature.make(root(world), quiet) == world
    assert {path: path.stat().st_mtime_ns for path in root(world).rglob("*")} == before


def cut_short(folder):
    path = folder / "models/gemma-2b/model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def edited(folder):
    path = folder / "sources/piqa.jsonl"
    path.write_text(path.read_text().replace("takes", "takez", 1))


def removed(folder):
    (folder / "documents/gsm8k/test.jsonl").unlink()


def unfinished(folder):
    (folder / "world.json").unlink()


def unreadable(folder):
    (folder / "world.json").write_text("[]")


def of_another_version(folder):
    path = folder / "world.json"
    path.write_text(path.read_text().replace('"version": "', '"version": "0'))


def test_damaged_it_is_made_anew(elsewhere, quiet):
    whole = files(elsewhere)
    for damage in (cut_short, edited, removed, unfinished, unreadable, of_another_version):
        damage(elsewhere)
        assert files(elsewhere) != whole
        miniature.make(elsewhere, quiet)
        assert files(elsewhere) == whole, damage.__name__


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path, quiet):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written into"):
        miniature.make(tmp_path / "file" / "world", quiet)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_of_the_papers_architecture_and_generates(world, name):
    folder = world.models[name]
    recipe = {"model_name_or_path": str(folder), "finetuning_type": "losia"}
    assert paper.row_of(recipe) == {"model": name, "method": "losia"}
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert model.config.model_type == name.split("-")[0].removesuffix("2")
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (name == "gemma-2b")
    assert len(tokenizer) == model.config.vocab_size
    prompt = tokenizer("Anna has 3 pens and finds 4 more.", return_tensors="pt")
    made = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert made.shape[1] > prompt["input_ids"].shape[1]
    for module in model.modules():  # the paper's least rank factor, and a quarter of its least p_o
        if isinstance(module, torch.nn.Linear):
            assert min(module.weight.shape) >= 16
    assert model.config.vocab_size >= 64


def test_models_are_of_three_sizes(world):
    sizes = {name: sum(tensor.numel() for tensor in weights(world, name)) for name in MODELS}
    assert sizes["gemma-2b"] < sizes["llama2-7b"] < sizes["llama2-13b"] < 1e6
    assert set(world.models) == {*MODELS, "llama3.2-3b"}
    layers = [AutoConfig.from_pretrained(world.models[name]).num_hidden_layers for name in MODELS]
    assert min(layers) > 1


def weights(world, name):
    return load_file(world.models[name] / "model.safetensors").values()


@pytest.mark.parametrize("name", MODELS)
def test_the_tokenizer_is_as_llamas(world, name):
    tokenizer = AutoTokenizer.from_pretrained(world.models[name])
    config = AutoConfig.from_pretrained(world.models[name])
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert special == (config.pad_token_id, config.bos_token_id, config.eos_token_id)
    assert len(set(special)) == 3
    text = "  Ben has 12 caf\N{LATIN SMALL LETTER E WITH ACUTE}s:\n\n\tx = 7\r\n"
    tokens = tokenizer(text)["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens[1:]) == text
    assert [tokenizer.decode(token) for token in tokenizer("2507")["input_ids"]][1:] == [*"2507"]
