"""What is trained, in which groups, and which models and settings are refused by name."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from losia_cli.method import LoSiAConfig, LoSiAError, attach
from losia_cli.method.attach import decoder_layers, find_targets, share
from losia_cli.method.movement import MovementCheck
from tests.models import ARCHITECTURES, LAYERS, seeing, tiny


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_of_every_layer_and_nothing_else(architecture):
    model = tiny(architecture)
    linears = {n for n, m in model.named_modules() if type(m) is torch.nn.Linear}
    controller = attach(model, LoSiAConfig(rank_factor=0.25))
    assert set(controller.layers) == linears
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{name}.subnet" for name in linears}
    assert controller.groups[0] == ["lm_head"]
    for layer in range(LAYERS):
        assert all(f"layers.{layer}." in name for name in controller.groups[layer + 1])


def test_llama_2_7b_has_the_papers_number_of_trainable_parameters():
    """Table 14, in which the output layer's p_o = 1/8 is counted, on a model without storage."""
    config = AutoConfig.for_model("llama", intermediate_size=11008)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    for factor, paper in ((1 / 16, 42.8e6), (1 / 8, 122.1e6), (1 / 4, 439.3e6)):
        targets = find_targets(model, LoSiAConfig(rank_factor=factor))
        count = sum(
            t.rows * (t.columns if t.columns is not None else t.linear.in_features) for t in targets
        )
        assert count == pytest.approx(paper, rel=0.06), factor


def test_bias_is_frozen():
    model = tiny("qwen2")
    attach(model)
    bias = model.model.layers[0].self_attn.q_proj.bias
    assert bias is not None
    assert not bias.requires_grad


def test_target_names_the_linears():
    controller = attach(tiny(), LoSiAConfig(target=["q_proj", "v_proj"], output_factor=0))
    assert {name.rpartition(".")[2] for name in controller.layers} == {"q_proj", "v_proj"}
    assert len(controller.layers) == 2 * LAYERS
    by_string = attach(tiny(), LoSiAConfig(target="q_proj, v_proj", output_factor=0))
    assert set(by_string.layers) == set(controller.layers)


def test_norms_and_embeddings_train_on_request():
    model = tiny()
    controller = attach(model, LoSiAConfig(train_norms=True, train_embeddings=True))
    trained = {n for n, p in model.named_parameters() if p.requires_grad and "subnet" not in n}
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= trained
    assert len(trained) == 2 + 2 * LAYERS
    rest = [g["params"] for g in controller.parameter_groups() if g["losia_group"] is None]
    assert [len(params) for params in rest] == [1, 1 + 2 * LAYERS]


@pytest.mark.parametrize(
    ("size", "factor", "count"), [(100, 0.29, 29), (10, 0.7, 7), (9, 1 / 8, 1)]
)
def test_share_is_the_floor_and_safe_from_rounding(size, factor, count):
    assert share(size, factor) == count


def refused(model, says, **settings):
    with pytest.raises(LoSiAError, match=says):
        attach(model, LoSiAConfig(**settings))


def test_refusals():
    refused(tiny(), "matches no linear of LlamaForCausalLM; .* q_proj", target="query")
    refused(tiny(), r"leaves no row or no column of model\.layers\.0.*at least", rank_factor=0.01)
    refused(tiny(), "output_factor 0.001 leaves no row", output_factor=0.001)
    refused(tiny("gemma"), "embeddings are tied", train_embeddings=True)
    small = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32}
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **small))
    refused(gpt2, "Conv1D")
    mixtral = AutoConfig.for_model(
        "mixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1, vocab_size=32,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    refused(AutoModelForCausalLM.from_config(mixtral), "3-D weight")
    quantized = tiny()
    quantized.is_quantized = True
    refused(quantized, "quantized")


def test_a_short_convolution_is_no_fused_expert():
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 32,
        "num_attention_heads": 2, "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention"],
    }  # fmt: skip
    controller = attach(AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **small)))
    assert {"model.layers.0.conv.in_proj", "model.layers.1.self_attn.q_proj"} <= set(
        controller.layers
    )


def test_groups_are_numbered_without_gaps():
    """Those of a hybrid's layers that have the names; a gap would be a slot that turns nothing."""
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "vocab_size": 32,
        "num_attention_heads": 2, "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention"] * 2,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **small))
    controller = attach(model, LoSiAConfig(target="q_proj,k_proj"))
    assert {group: len(names) for group, names in controller.groups.items()} == {0: 1, 1: 2, 2: 2}


def test_what_sees_is_no_decoder():
    """However deep it is."""
    model = seeing(depth=4)
    controller = attach(model, LoSiAConfig())
    assert all(name == "lm_head" or ".language_model." in name for name in controller.layers)
    assert len(controller.groups) == 1 + 2


def test_experts_of_a_layer_are_no_decoder_layers():
    """However many they are: the longest list counts only among those within no other."""
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(torch.nn.Module() for _ in range(2))
    for layer in model.layers:
        layer.experts = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(8))
    assert decoder_layers(model) == ("layers", model.layers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rank_factor": 0}, r"rank_factor is 0, but must be in \(0, 1\]"),
        ({"rank_factor": 1.5}, "rank_factor"),
        ({"output_factor": -0.1}, "output_factor"),
        ({"period": 0}, "period"),
        ({"period": "often"}, "'auto'"),
        ({"ema": (0.5, 1.0)}, "ema"),
        ({"schedule": "asynchronous"}, "schedule is 'asynchronous', but must be one of"),
        ({"reset": "none"}, "reset"),
    ],
)
def test_settings_out_of_range_are_named(settings, says):
    with pytest.raises(LoSiAError, match=says):
        LoSiAConfig(**settings)


def test_all_faults_at_once():
    with pytest.raises(LoSiAError, match=r"rank_factor.*period"):
        LoSiAConfig(rank_factor=2, period=0)


def test_optimizer_of_other_groups_is_refused():
    model = tiny()
    controller = attach(model)
    with pytest.raises(LoSiAError, match="parameter_groups"):
        controller.drive(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]))


def test_experts_without_a_token_are_no_fault_but_a_linear_never_called_is():
    def layers(**reached):
        subnets = {name: nn.Parameter(torch.ones(2)) for name in reached}
        for name, there in reached.items():
            subnets[name].grad = torch.ones(2) if there else None
        return {name: SimpleNamespace(subnet=subnet) for name, subnet in subnets.items()}

    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    experts = {f"model.layers.{i}.mlp.experts.{j}.up": i == j for i in range(2) for j in range(2)}
    MovementCheck(nn.Module(), layers(**experts)).before(optimizer)
    whole = experts | {"layers.0.mlp.0": True, "layers.0.mlp.2": False}
    with pytest.raises(LoSiAError, match=r"1 of 6 subnets, layers\.0\.mlp\.2 first"):
        MovementCheck(nn.Module(), layers(**whole)).before(optimizer)
