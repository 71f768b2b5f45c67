"""When a subnet is chosen anew, from what, and what is left of the one before."""

import pytest
import torch
from torch import nn

from losia_cli.method import LoSiAConfig, attach
from losia_cli.method.attach import decoder_layers
from losia_cli.method.localization import greedy
from tests.method.test_oracles import MOVING, Run, scores
from tests.models import batches, loss_of, tiny, weights


def test_random_selections_ignore_the_gradients_and_follow_seed_and_step():
    def chosen(data, **changes):
        config = LoSiAConfig(**{**MOVING, "localization": "random", "schedule": "sync", **changes})
        return Run(tiny(), config, total=60).start().steps(data).chosen()

    one, other = (chosen(batches(27, seed=seed)) for seed in (1, 2))
    assert one == other, "no gradient has a say"
    assert one != chosen(batches(27), seed=1)
    by_step = {}
    for step, name, rows, columns in one:
        by_step.setdefault(step, {})[name] = (rows, columns)
    a, b = list(by_step.values())[:2]
    assert a != b, "drawn anew each time"
    assert a["model.layers.0.self_attn.q_proj"] != a["model.layers.0.self_attn.o_proj"]


def test_gl_takes_the_last_gradient_of_the_slot_alone():
    data = batches(3)
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "output_factor": 0}, importance="gradient")).start()
    run.steps(data[:2])
    full = tiny()
    full.load_state_dict(weights(run.model))
    loss_of(full, data[2]).backward()
    run.steps(data[2:])
    assert run.selections
    for selection in run.selections:
        grad = full.get_submodule(selection.name).weight.grad
        want = greedy(grad.abs(), len(selection.subnet.rows), len(selection.subnet.columns))
        assert torch.equal(want.rows, selection.subnet.rows)
        assert torch.equal(want.columns, selection.subnet.columns)


def test_a_slot_without_a_gradient_keeps_its_subnet():
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "output_factor": 0})).start()
    before = {name: layer.selected for name, layer in run.controller.layers.items()}
    for _ in range(3):
        run.controller.skip_step()
    assert run.selections
    for selection in run.selections:
        assert torch.equal(selection.subnet.rows, before[selection.name].rows)
        assert torch.equal(selection.subnet.columns, before[selection.name].columns)


def test_the_first_subnets_follow_the_seed():
    one, other = (
        attach(tiny(), LoSiAConfig(**MOVING, seed=seed)).layers["model.layers.0.mlp.up_proj"]
        for seed in (0, 1)
    )
    assert not torch.equal(one.rows, other.rows)


@pytest.mark.parametrize(
    ("attention", "factor", "kept"),
    [
        ("sdpa", 1 / 8, {"o_proj"}),
        ("eager", 1 / 8, set()),
        ("eager", 0.4, {"q_proj", "k_proj", "v_proj"}),
        ("eager", 0.6, {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}),
    ],
)
def test_inputs_that_something_else_keeps_are_saved_whole(attention, factor, kept):
    config = LoSiAConfig(rank_factor=factor, initial_subnet="random")
    controller = attach(tiny(attention=attention), config)
    found = {
        name.rpartition(".")[2] for name, layer in controller.layers.items() if layer.keep_input
    }
    assert found == kept


def test_the_longest_list_is_the_decoders():
    model = nn.Module()
    model.vision = nn.ModuleList([nn.Linear(2, 2)])
    model.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert decoder_layers(model)[0] == "layers"


def test_running_out_of_memory_scores_fewer_groups_at_a_time():
    model = tiny()
    controller = attach(model, LoSiAConfig(**{**MOVING, "initial_subnet": "scored"}))
    held = []

    def loss(ids):
        firsts = (controller.layers[names[0]] for names in controller.groups.values())
        held.append(sum(layer.score is not None for layer in firsts))
        if held[-1] > 1:
            raise torch.OutOfMemoryError
        return loss_of(model, ids)

    controller.score_first_subnets(batches(1), loss)
    assert held == [4, 2, 1, 1, 1, 1]

    whole = tiny()
    other = attach(whole, LoSiAConfig(**{**MOVING, "initial_subnet": "scored"}))
    other.score_first_subnets(batches(1), lambda ids: loss_of(whole, ids))
    for name, layer in controller.layers.items():
        assert torch.equal(layer.rows, other.layers[name].rows), name


def test_as_many_groups_are_scored_as_fit():
    """Four tensors of the weight's size in the masters' dtype: two averages, gradient, product."""
    controller = attach(tiny(), LoSiAConfig(**MOVING))
    entries = [
        sum(controller.layers[name].weight.numel() for name in names)
        for _, names in sorted(controller.groups.items())
    ]
    sizes = [4 * 8 * count for count in entries]
    assert controller._fitting([0, 1, 2, 3], sum(sizes[:2])) == [0, 1]
    assert controller._fitting([0, 1, 2, 3], sum(sizes[:2]) - 1) == [0]
    assert controller._fitting([0, 1, 2, 3], 0) == [0]


def test_the_last_step_of_a_slot_reaches_the_entries_that_leave():
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "output_factor": 0})).start()
    layer = run.controller.layers["model.layers.0.mlp.up_proj"]
    run.steps(batches(2))
    seen = {}
    plain = run.controller._check.after
    look = {"old": lambda: layer.selected, "masters": lambda: layer.subnet.detach().clone()}
    run.controller._check.after = lambda: (
        plain(),
        seen.update({key: value() for key, value in look.items()}),
    )
    run.steps(batches(1, seed=9))
    assert not torch.equal(layer.rows, seen["old"].rows)
    assert torch.equal(seen["old"].gather(layer.weight), seen["masters"])


def test_the_rate_is_given_back_without_a_scheduler():
    run = Run(tiny(), LoSiAConfig(**MOVING)).start()
    run.scheduler.step = lambda: None
    for ids in batches(7):
        run.steps([ids])
        assert [g["lr"] for g in run.optimizer.param_groups] == [1e-2] * 4


def test_a_skipped_step_does_not_spoil_the_next_ones_score():
    run = Run(tiny(dtype=torch.float32), LoSiAConfig(**{**MOVING, "period": 9})).start()
    for layer in run.controller.layers.values():
        if layer.score is not None:
            layer.score.gradient.fill_(torch.inf)
    run.controller.skip_step()
    run.steps(batches(1))
    assert any(value.any() for value in scores(run.controller).values())


def test_what_an_optimizer_skips_is_scored_neither():
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "period": 9})).start()
    run.controller._check.before = lambda _: None
    hooks = run.optimizer._optimizer_step_pre_hooks.values()
    run.optimizer.step = lambda: [hook(run.optimizer, (), {}) for hook in hooks]
    run.optimizer.found_inf = torch.tensor(1.0)
    run.steps(batches(1))
    assert not any(value.any() for value in scores(run.controller).values())


def test_a_checkpoint_loaded_after_the_start_sets_the_scores():
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "period": 4})).start().steps(batches(6))
    other = Run(tiny(), LoSiAConfig(**{**MOVING, "period": 4})).start()
    other.optimizer.load_state_dict(run.optimizer.state_dict())
    for name, layer in run.controller.layers.items():
        score = other.controller.layers[name].score
        assert (score is None) == (layer.score is None)
        if score is not None:
            assert torch.equal(score.value(), layer.score.value())


def test_only_a_run_too_short_is_warned_about(caplog):
    Run(tiny(), LoSiAConfig(**MOVING), total=24).start()
    assert not [record for record in caplog.records if record.name.startswith("losia")]
    Run(tiny(), LoSiAConfig(**MOVING), total=7).start()
    assert "never re-selected" in caplog.text
