"""The vocabulary's side against the models' own losses and full fine-tuning's gradients."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from losia_cli.method import LoSiAConfig, attach, use_chunked_loss
from losia_cli.method import chunked_loss as chunks
from losia_cli.method.linear import SubnetLinear
from losia_cli.method.subnet import Subnet
from tests.models import ARCHITECTURES, batches, loss_of, tiny


def masked_batch(seed=3):
    (ids,) = batches(1, size=3, length=11, seed=seed)
    ids[1, 7:] = 0  # padding
    labels = ids.masked_fill(ids == 0, -100)
    labels[:, :4] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": (ids != 0).long()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("items", [None, 7])
def test_chunked_loss_is_the_models_own(architecture, items, monkeypatch):
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 5 * 64)  # five tokens at a time
    model = tiny(architecture)
    model.requires_grad_(False)
    own = model(**masked_batch(), num_items_in_batch=items).loss
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_chunked_loss(model)
        output = model(**masked_batch(), num_items_in_batch=items)
    torch.testing.assert_close(output.loss, own.to(output.loss.dtype), rtol=1e-6, atol=1e-6)
    assert output.logits is None


def test_chunked_loss_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 5 * 64)
    for architecture in ARCHITECTURES:
        own = tiny(architecture)
        ours = copy.deepcopy(own)
        controllers = [attach(m, LoSiAConfig(output_factor=0.5, seed=2)) for m in (own, ours)]
        use_chunked_loss(ours)
        for model in (own, ours):
            (3 * model(**masked_batch()).loss).backward()
        for name, layer in controllers[0].layers.items():
            other = controllers[1].layers[name].subnet.grad
            torch.testing.assert_close(layer.subnet.grad, other, rtol=1e-4, atol=1e-6)


def test_without_gradients_only_the_loss_is_computed(monkeypatch):
    model = tiny()
    attach(model, LoSiAConfig(output_factor=0.5))
    use_chunked_loss(model)
    with_gradients = model(**masked_batch()).loss.detach()

    def never(*_):
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(chunks, "_loss_and_gradient", never)
    with torch.no_grad():
        assert torch.equal(model(**masked_batch()).loss, with_gradients)


def test_many_tokens_of_one_label_stay_within_half_precision():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 16, bias=False).half()
    layer = SubnetLinear(head, Subnet(None, None))
    hidden = torch.randn(4096, 8).half()
    hidden[:, 0] = 30
    labels = torch.zeros(4096, dtype=torch.long)
    chunks.chunked_cross_entropy(hidden.requires_grad_(), labels, layer).backward()
    assert layer.subnet.grad.isfinite().all()
    wide = head.weight.detach().float().requires_grad_()
    torch.nn.functional.cross_entropy(hidden.float() @ wide.t(), labels, reduction="sum").backward()
    torch.testing.assert_close(layer.subnet.grad, wide.grad, rtol=1e-2, atol=1.0)


def test_a_model_with_logits_of_its_own_keeps_its_loss():
    model = tiny().requires_grad_(False)
    plain = model.forward

    def doubled(*args, **kwargs):  # a model that scales its logits, as Granite's does
        output = plain(*args, **{**kwargs, "labels": None})
        logits, labels = 8 * output.logits, kwargs["labels"]
        output.loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        )
        return output

    doubled.__wrapped__ = plain
    model.forward = doubled
    (ids,) = batches(1)
    expected = loss_of(model, ids)
    use_chunked_loss(model)
    with pytest.warns(UserWarning, match="its own loss is used"):
        loss = loss_of(model, ids)
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_adapters_get_the_same_gradients(architecture, monkeypatch):
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 5 * 64)
    gradients = []
    for chunked in (False, True):
        torch.manual_seed(0)
        model = tiny(architecture, dtype=torch.float32)
        if chunked:
            use_chunked_loss(model)
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
        output = adapted(**masked_batch())
        assert (output.logits is None) == chunked
        output.loss.backward()
        gradients.append([p.grad for p in adapted.parameters() if p.requires_grad])
    assert gradients[0]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "adapt",
    [
        lambda model: model,
        lambda model: get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"])),
        lambda model: get_peft_model(
            model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
        ),
    ],
    ids=["full", "lora", "saved"],
)
def test_an_output_layer_that_trains_otherwise_keeps_its_gradients(adapt):
    own, ours = (tiny(dtype=torch.float32) for _ in range(2))
    use_chunked_loss(ours)
    for model in (own, ours):
        torch.manual_seed(0)
        adapted = adapt(model)
        adapted(**masked_batch()).loss.backward()
    found = [
        {name: p.grad for name, p in model.named_parameters() if "lm_head" in name}
        for model in (own, ours)
    ]
    assert any(grad is not None for grad in found[0].values())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["mamba", "llama4_text"])
def test_models_that_are_their_own_decoder_or_know_no_attention_have_the_same_loss(kind):
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **sizes, **({} if kind == "mamba" else heads))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    own = model(**masked_batch()).loss
    use_chunked_loss(model)
    torch.testing.assert_close(model(**masked_batch()).loss, own, rtol=1e-5, atol=1e-5)


def test_a_decoder_that_cannot_be_asked_alone_leaves_the_model_its_loss():
    class Odd(torch.nn.Module):
        def forward(self, **_):
            return ()

    model = tiny().requires_grad_(False)
    own = model(**masked_batch()).loss
    model.odd, model.base_model_prefix = Odd(), "odd"
    use_chunked_loss(model)
    with pytest.warns(UserWarning, match="its own loss is used"):
        loss = model(**masked_batch()).loss
    assert torch.equal(loss, own)


def test_a_routers_part_of_the_loss_is_kept():
    model = tiny().requires_grad_(False)
    model.config.output_router_logits = True
    use_chunked_loss(model)
    assert model(**masked_batch()).logits is not None


def test_labels_all_masked_give_zero_not_nan():
    model = tiny()
    attach(model)
    use_chunked_loss(model)
    (ids,) = batches(1)
    loss = model(input_ids=ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss.item() == 0


def test_evaluation_can_keep_its_logits():
    model = tiny().requires_grad_(False)
    use_chunked_loss(model, in_evaluation=False)
    (ids,) = batches(1)
    assert model(input_ids=ids, labels=ids).logits is None
    assert model.eval()(input_ids=ids, labels=ids).logits.shape == (*ids.shape, 64)


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3_text", "llama"])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("factor", [0.25, 1.0])
@pytest.mark.parametrize("scored", [True, False])
def test_tied_rows_get_full_fine_tunings_gradient(architecture, chunked, factor, scored):
    """Both parts, the head's and the embedding's; the padding row gets none of the latter."""
    model = tiny(architecture, tie_word_embeddings=True)
    full = copy.deepcopy(model)
    controller = attach(model, LoSiAConfig(output_factor=factor, initial_subnet="random"))
    head = controller.layers["lm_head"]
    if chunked:
        use_chunked_loss(model)
    if scored:
        head.score = controller._new_score(head)
    for each in (model, full):
        each(**masked_batch()).loss.backward()
    expected = full.lm_head.weight.grad
    torch.testing.assert_close(
        head.subnet.grad, head.selected.gather(expected), rtol=1e-5, atol=1e-7
    )
    if scored:
        torch.testing.assert_close(head.score.gradient, expected, rtol=1e-5, atol=1e-7)


def test_the_tie_is_kept_and_the_scale_too():
    model = tiny("gemma")
    before = model(input_ids=batches(1)[0]).logits
    attach(model)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model(input_ids=batches(1)[0]).logits, before)


def test_output_factor_zero_freezes_and_one_trains_outside_the_timeline():
    frozen = attach(tiny(), LoSiAConfig(output_factor=0))
    assert "lm_head" not in frozen.layers
    assert len(frozen.groups) == 3
    whole = attach(tiny(), LoSiAConfig(output_factor=1))
    assert whole.layers["lm_head"].subnet.shape == (64, 32)
    assert len(whole.groups) == 3
    assert whole.parameter_groups()[-1]["losia_group"] is None
    part = attach(tiny(), LoSiAConfig(output_factor=1 / 8))
    assert part.groups[0] == ["lm_head"]
    assert part.layers["lm_head"].subnet.shape == (8, 32)
    assert len(part.groups) == 4
