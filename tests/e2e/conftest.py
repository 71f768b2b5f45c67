"""A tiny model, its tokenizer and data, made once; and runs of the real workflow on them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from losia_cli import recipes
from losia_cli.training.command import run

SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def _sums():
    rows = [
        (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.")
        for a in range(12)
        for b in range(12)
    ]
    random.Random(0).shuffle(rows)
    return rows


def _tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    bpe.train_from_iterator(
        [" ".join(row) for row in _sums()],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def make_model(folder: Path, name: str = "llama", **changes) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SIZES, **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny llama")  # with a space


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory) -> Path:
    return make_model(
        tmp_path_factory.mktemp("models") / "gemma", "gemma", tie_word_embeddings=True
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = _sums()
    files = {
        "sums": [{"instruction": q, "input": "", "output": a} for q, a in rows],
        "texts": [{"text": f"{q} {a}"} for q, a in rows],
        "pairs": [{"instruction": q, "chosen": a, "rejected": "No."} for q, a in rows],
        "votes": [
            {"instruction": q, "output": a, "good": i % 2 == 0} for i, (q, a) in enumerate(rows)
        ],
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    info = {
        "sums": {"file_name": "sums.json"},
        "texts": {"file_name": "texts.json", "columns": {"prompt": "text"}},
        "pairs": {
            "file_name": "pairs.json",
            "ranking": True,
            "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
        },
        "votes": {
            "file_name": "votes.json",
            "columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"},
        },
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def recipe(model, data, tmp_path):
    """Writes a recipe of a short LoSiA run, with changes; None removes a key."""

    def write(name: str = "recipe.yaml", **changes) -> Path:
        values = {
            "model_name_or_path": str(model),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "losia",
            "losia_rank_factor": 0.25,
            "losia_period": 2,
            "dataset": "sums",
            "dataset_dir": str(data),
            "template": "default",
            "cutoff_len": 64,
            "per_device_train_batch_size": 4,
            "learning_rate": 1.0e-2,
            "max_steps": 9,
            "logging_steps": 1,
            "save_steps": 100,
            "output_dir": str(tmp_path / "out"),
            "report_to": "none",
            "use_cpu": True,
            **changes,
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
        return path

    return write


@pytest.fixture
def train(recipe, tmp_path):
    """Trains in this process and gives the final weights."""

    def go(out: str = "out", method: str | None = None, **changes):
        path = recipe(**{"output_dir": str(tmp_path / out), **changes})
        code = run(recipes.load(path, method), ["train", str(path)], Console(quiet=True))
        assert code == 0
        return final_weights(tmp_path / out)

    return go


def final_weights(folder: Path):
    return load_file(folder / "model.safetensors")


def losia(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """The command itself, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "losia_cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=1800,  # a machine may be busy: this only ends what hangs
    )
