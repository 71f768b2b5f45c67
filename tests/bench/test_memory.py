"""The bytes a layer keeps for backward, to the byte, on a small Llama."""

import json

import pytest
import torch

from losia_cli.bench.memory import Kept, computed, kept_by_layer, render, run_memory_benchmark
from losia_cli.bench.methods import LORA_RANK
from losia_cli.bench.models import random_llama
from losia_cli.bench.settings import MEMORY_METHODS

HIDDEN, INTERMEDIATE, HEADS = 64, 96, 4
SHAPE = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
}


@pytest.fixture(scope="module")
def base():
    config = {**SHAPE, "vocab_size": 64, "num_hidden_layers": 1}
    return random_llama(config, torch.bfloat16, torch.device("cpu"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", MEMORY_METHODS)
def test_counted_is_computed_and_the_terms_that_arithmetic_leaves_out(base, method, attention):
    """Those are, in float32, one number per norm and, of the fused attention, one per head."""
    small = 4 * (2 + (HEADS if attention == "sdpa" else 0))
    kept = kept_by_layer(base, method, attention)
    assert kept.per_token == computed(method, attention, HIDDEN, INTERMEDIATE) + small


@pytest.mark.parametrize("method", ["floor", "losia-pro", "losia", "full", "lora"])
def test_eager_attention_keeps_its_weights_twice_and_lora_a_cast_of_its_adapters(base, method):
    adapters = LORA_RANK * (4 * 2 * HIDDEN + 3 * (HIDDEN + INTERMEDIATE))
    kept = kept_by_layer(base, method, "eager")
    assert kept.fixed == (2 * adapters if method == "lora" else 0)
    assert kept.per_pair == HEADS * (4 + 2)


def test_the_fit_finds_all_three_coefficients():
    assert Kept.fitted(lambda tokens: 7 + 5 * tokens + 3 * tokens**2, 4) == Kept(7, 5, 3)


def test_the_result_is_json_and_its_table_has_every_method():
    result = json.loads(json.dumps(run_memory_benchmark(SHAPE, ("floor", "losia-pro"))))
    entry = result["attention"]["sdpa"]["losia-pro"]
    extra = 2 * (5 * (HIDDEN // 8) + INTERMEDIATE // 8)
    assert entry["per_token"] - result["attention"]["sdpa"]["floor"]["per_token"] == extra
    lines = render(result).splitlines()
    line = next(line for line in lines if line.startswith("sdpa losia-pro"))
    assert f"{entry['per_token'] / 1024:.2f}" in line
    assert f"{extra / 1024:.2f}" in line
    assert any(line.startswith("eager floor") for line in lines)
