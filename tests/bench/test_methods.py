"""That every row trains what its name says, and does the work it is timed for."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from losia_cli.bench.methods import (
    LORA_RANK,
    STEPS_PER_TURN,
    FullGradient,
    Row,
    TrainingStep,
    rows,
    scored_group,
)
from losia_cli.bench.models import sharing_copy
from losia_cli.bench.settings import STEP_METHODS
from losia_cli.method.linear import SubnetLinear
from tests.models import LAYERS, assert_same, batches, loss_of, tiny, weights

ROWS = {row.name: row for row in rows(STEP_METHODS)}
LOSIA = [row for row in ROWS.values() if row.method.startswith("losia")]
IDS = batches(1)[0]


def base(dtype=torch.float32, **changes):
    return tiny(dtype=dtype, **changes)


def step(name, model, **kwargs):
    return TrainingStep(ROWS[name], sharing_copy(model), IDS, **kwargs)


def run(training):
    for phase in training.phases:
        phase()


def test_losia_has_a_row_without_and_one_with_a_scored_group():
    assert [row.name for row in rows(["lora", "losia-pro"])] == [
        "floor", "lora", "losia-pro", "losia-pro-scored",
    ]  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_shares_memory_and_nothing_else(tied):
    model = base(tie_word_embeddings=tied)
    copy = sharing_copy(model)
    theirs = dict(model.named_parameters())
    for name, parameter in copy.named_parameters():
        assert parameter is not theirs[name]
        assert parameter.data_ptr() == theirs[name].data_ptr()
        assert not parameter.requires_grad and theirs[name].requires_grad
    assert (copy.lm_head.weight is copy.model.embed_tokens.weight) == tied
    assert torch.equal(loss_of(copy, IDS), loss_of(model, IDS))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_the_loss_of_the_base(name):
    model = base()
    training = step(name, model)
    training.forward()
    torch.testing.assert_close(training._loss, loss_of(model, IDS), rtol=1e-5, atol=1e-6)


def test_the_floor_has_the_gradient_of_the_embeddings_output_and_no_other():
    model = base()
    training = step("floor", model)
    outputs = []
    training.model.get_input_embeddings().register_forward_hook(lambda *a: outputs.append(a[2]))
    before = weights(model)
    run(training)
    assert outputs[0].grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert_same(weights(model), before, rtol=0, atol=0)


def test_full_trains_every_parameter():
    model = base()
    before = weights(model)
    run(step("full", model))
    assert all(not torch.equal(value, before[name]) for name, value in weights(model).items())


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_adapters_are_float32_in_every_decoder_linear_and_the_base_stays(name):
    model = base(torch.bfloat16)
    before = weights(model)
    training = step(name, model)
    trained = {n: p for n, p in training.model.named_parameters() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in trained.items()}
    per_linear = 3 if name == "dora" else 2
    assert len(trained) == LAYERS * 7 * per_linear
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    run(training)
    moved = [n for n, p in trained.items() if not torch.equal(p, start[n])]
    assert len([n for n in moved if "lora_B" in n]) == LAYERS * 7  # A has no gradient while B is 0
    assert_same(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("row", LOSIA, ids=lambda row: row.name)
def test_losia_trains_its_subnets(row):
    model = base()
    before = weights(model)
    training = step(row.name, model)
    run(training)
    layers = {n: m for n, m in training.model.named_modules() if isinstance(m, SubnetLinear)}
    assert len(layers) == LAYERS * 7 + 1
    assert {layer.pro for layer in layers.values()} == {row.method != "losia"}
    for name, layer in layers.items():
        change = model.get_submodule(name).weight != before[f"{name}.weight"]
        assert change.sum() == layer.selected.gather(change).sum() > 0


@pytest.mark.parametrize("row", LOSIA, ids=lambda row: row.name)
def test_through_a_turn_one_decoder_layer_is_scored_or_none_and_no_subnet_moves(row):
    model = base()
    training = step(row.name, model)
    layers = training.controller.layers
    first = {name: layer.rows for name, layer in layers.items()}
    expected = [target.name for target in scored_group(model)] if row.scored else []
    assert len(expected) == (7 if row.scored else 0)
    for _ in range(STEPS_PER_TURN):
        training.forward()
        training.backward()
        scored = [name for name, layer in layers.items() if layer.score is not None]
        assert scored == expected
        assert all(layers[name].score.gradient.abs().sum() > 0 for name in scored)
        training.update()
        assert all(layers[name].rows is rows for name, rows in first.items())


def products(training):
    with FlopCounterMode(display=False) as counter:
        run(training)
    return counter.get_total_flops()


def test_every_row_multiplies_what_its_method_must_beyond_the_floor():
    """Operations of all matrix products, against the floor's, by the shapes alone."""
    model, tokens = base(), IDS.numel()
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    head = shapes.pop("lm_head")
    scored = {target.name for target in scored_group(model)}
    full = sum(n * m for n, m in shapes.values())
    scored_full = sum(n * m for name, (n, m) in shapes.items() if name in scored)
    small = {name: (n // 8) * (m // 8) for name, (n, m) in shapes.items()}
    head_rows = head[0] // 8 * head[1]
    expected = {
        "full": full + head[0] * head[1],
        "losia": full + head[0] * head[1],
        "losia-scored": full + head[0] * head[1],
        "losia-pro": sum(small.values()) + head_rows,
        "losia-pro-scored": scored_full
        + head_rows
        + sum(size for name, size in small.items() if name not in scored),
        "lora": 3 * LORA_RANK * sum(n + m for n, m in shapes.values()),
    }
    floor = products(step("floor", model))
    for name, size in expected.items():
        assert products(step(name, model)) - floor == 2 * tokens * size, name
    last = IDS.shape[0]  # tokens without a label, which the chunked loss never projects
    for name, of_head in (("losia-pro", head_rows), ("lora", 0)):
        chunked = step(f"{name}-chunked", model)
        run(chunked)  # the first step compares its loss with the model's own
        saved = 2 * last * (2 * head[0] * head[1] + of_head)
        assert products(chunked) - floor == 2 * tokens * expected[name] - saved
    with FlopCounterMode(display=False) as counter:
        FullGradient(scored_group(model), tokens).multiply()
    assert counter.get_total_flops() == 2 * tokens * scored_full


@pytest.mark.parametrize("name", ROWS)
def test_checkpointing_runs_every_layer_twice(name):
    counts = []
    for checkpointing in (False, True):
        training = step(name, base(), checkpointing=checkpointing)
        run(training)
        calls = []
        for module in training.model.modules():
            if type(module).__name__ == "LlamaMLP":
                module.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        run(training)
        counts.append(len(calls))
    assert counts == [LAYERS, 2 * LAYERS]


@pytest.mark.parametrize("name", ROWS)
def test_bfloat16_trains_under_autocast(name):
    training = step(name, base(torch.bfloat16))
    run(training)
    training.forward()
    assert torch.isfinite(training._loss)


def test_rows_are_named_after_method_and_scoring():
    assert Row("losia").name == "losia"
    assert Row("losia", scored=True).name == "losia-scored"
