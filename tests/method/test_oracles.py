"""What proves the method right: whole runs against full fine-tuning and against each other."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from losia_cli.integrations.callback import LoSiACallback
from losia_cli.method import LoSiAConfig, LoSiAError, attach, use_chunked_loss
from losia_cli.method.subnet import overlap
from tests.models import ARCHITECTURES, assert_same, batches, loss_of, tiny, weights

FULL = {"rank_factor": 1.0, "output_factor": 1.0, "initial_subnet": "random"}
MOVING = {"rank_factor": 0.25, "output_factor": 0.25, "period": 3, "initial_subnet": "random"}


def adamw(parameters, **kwargs):
    return torch.optim.AdamW(parameters, **{"lr": 1e-2, "weight_decay": 0.01, **kwargs})


def schedule(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))


class Run:
    """A bare training loop: `accumulate` micro-batches a step, gradients clipped."""

    def __init__(self, model, config, total=24, warmup=0, **optimizer):
        self.model, self.clip = model, 0.5
        self.controller = None
        if config is None:
            parameters = [m.weight for m in model.modules() if type(m) is torch.nn.Linear]
            model.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            self.optimizer = adamw(parameters, **optimizer)
        else:
            self.controller = attach(model, config)
            self.optimizer = adamw(self.controller.parameter_groups(), **optimizer)
            self.controller.drive(self.optimizer)
        self.scheduler = schedule(self.optimizer)
        self.selections, self.total, self.warmup = [], total, warmup

    def start(self, score_on=()):
        if self.controller.needs_first_subnets:
            self.controller.score_first_subnets(score_on, lambda ids: loss_of(self.model, ids))
        self.controller.on_selection.append(self.selections.append)
        self.controller.start(self.total, self.warmup)
        return self

    def steps(self, data, accumulate=1):
        for start in range(0, len(data), accumulate):
            for ids in data[start : start + accumulate]:
                (loss_of(self.model, ids) / accumulate).backward()
            trained = [p for g in self.optimizer.param_groups for p in g["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
        return self

    def chosen(self):
        return [
            (
                s.step,
                s.name,
                s.subnet.rows.tolist(),
                None if s.subnet.columns is None else s.subnet.columns.tolist(),
            )
            for s in self.selections
        ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pro", [True, False])
def test_p_1_is_full_fine_tuning(architecture, pro):
    """Oracle 1, step for step: the same linears, the tied embedding through the head."""
    model = tiny(architecture)
    full = Run(copy.deepcopy(model), None)
    ours = Run(model, LoSiAConfig(**FULL, schedule="static", pro=pro)).start()
    for ids in batches(6):
        full.steps([ids])
        ours.steps([ids])
        assert_same(weights(ours.model), weights(full.model))


def test_p_1_is_full_fine_tuning_across_selections_that_keep_moments():
    model = tiny()
    full = Run(copy.deepcopy(model), None).steps(batches(20))
    settings = LoSiAConfig(**FULL, period=2, rewarm=False, reset="keep")
    ours = Run(model, settings, total=20).start().steps(batches(20))
    assert len(ours.selections) > 7 * 3
    assert_same(weights(ours.model), weights(full.model))


def test_float32_stays_within_1e_5():
    model = tiny(dtype=torch.float32)
    full = Run(copy.deepcopy(model), None).steps(batches(8))
    ours = Run(model, LoSiAConfig(**FULL, schedule="static")).start().steps(batches(8))
    assert_same(weights(ours.model), weights(full.model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reset", ["moments", "fresh", "keep"])
@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("importance", ["sensitivity", "gradient"])
def test_losia_is_losia_pro_across_selections(reset, mode, importance):
    """Oracle 2."""
    settings = {**MOVING, "reset": reset, "schedule": mode, "importance": importance}
    runs = [
        Run(tiny(), LoSiAConfig(**settings, pro=pro)).start().steps(batches(24))
        for pro in (True, False)
    ]
    assert runs[0].chosen() == runs[1].chosen() != []
    assert_same(weights(runs[0].model), weights(runs[1].model))


@pytest.mark.parametrize("initial", ["random", "scored"])
def test_accumulation_is_a_larger_batch(initial):
    """Oracle 3: k micro-batches of b are one batch of k b."""
    settings = LoSiAConfig(**{**MOVING, "initial_subnet": initial})
    small = batches(36)
    joint = [torch.cat(small[i : i + 3]) for i in range(0, 36, 3)]
    apart = Run(tiny(), settings, total=12).start(joint[:2]).steps(small, accumulate=3)
    together = Run(tiny(), settings, total=12).start(joint[:2]).steps(joint)
    assert apart.chosen() == together.chosen() != []
    assert_same(weights(apart.model), weights(together.model), rtol=1e-6, atol=1e-8)


@settings(max_examples=12)
@given(
    factor=st.sampled_from([1 / 8, 0.3, 0.9]),
    output=st.sampled_from([0.0, 0.1, 1.0]),
    period=st.integers(1, 5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    mode=st.sampled_from(["async", "sync", "static"]),
    localization=st.sampled_from(["greedy", "random"]),
    architecture=st.sampled_from(["llama", "gemma", "phi3", "qwen2"]),
)
def test_outside_all_subnets_nothing_changes(
    factor, output, period, dtype, mode, localization, architecture
):
    """Oracle 5, bit for bit; and inside one slot the change is one rows x columns rectangle."""
    model = tiny(architecture, dtype)
    base = weights(model)
    run = Run(
        model,
        LoSiAConfig(
            factor,
            output,
            period,
            schedule=mode,
            localization=localization,
            initial_subnet="random",
        ),
        total=14,
        lr=0.1,
    ).start()
    touched = {
        n: torch.zeros(la.weight.shape, dtype=torch.bool) for n, la in run.controller.layers.items()
    }
    for ids in batches(14):
        before = weights(model)
        selected = {n: la.selected for n, la in run.controller.layers.items()}
        run.steps([ids])
        for name, layer in run.controller.layers.items():
            inside = torch.zeros_like(touched[name])
            selected[name].scatter_(inside, torch.ones_like(layer.subnet, dtype=torch.bool))
            changed = weights(model)[f"{name}.weight"] != before[f"{name}.weight"]
            assert not (changed & ~inside).any(), f"{name} changed outside its subnet"
            touched[name] |= inside
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    for name, value in weights(model).items():
        linear = name.removesuffix(".weight")
        linear = "lm_head" if tied and "embed_tokens" in name else linear
        outside = (
            ~touched[linear] if linear in touched else torch.ones_like(value, dtype=torch.bool)
        )
        assert torch.equal(value[outside], base[name][outside]), f"{name} changed outside"


def test_inside_one_slot_the_changed_entries_are_the_rectangle():
    model = tiny()
    base = weights(model)
    run = Run(model, LoSiAConfig(**{**MOVING, "period": 50})).start().steps(batches(5))
    for name, layer in run.controller.layers.items():
        changed = weights(model)[f"{name}.weight"] != base[f"{name}.weight"]
        expected = torch.zeros_like(changed)
        layer.selected.scatter_(expected, torch.ones_like(layer.subnet, dtype=torch.bool))
        assert torch.equal(changed, expected), name


@pytest.mark.parametrize("stop", range(1, 13))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_at_any_step_is_never_having_stopped(stop, dtype, tmp_path):
    """Oracle 4, bit for bit, selection boundaries and half-filled scores included."""
    data = batches(12)

    def fresh():
        return Run(tiny(dtype=dtype), LoSiAConfig(**MOVING), total=12)

    whole = fresh().start().steps(data)
    first = fresh().start().steps(data[:stop])
    torch.save(
        [first.model.state_dict(), first.optimizer.state_dict(), first.scheduler.state_dict()],
        tmp_path / "checkpoint.pt",
    )
    model, optimizer, scheduler = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second = fresh()
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    second.scheduler.load_state_dict(scheduler)
    second.start().steps(data[stop:])
    assert second.controller.step == 12
    assert_same(weights(second.model), weights(whole.model), rtol=0, atol=0)


def test_an_optimizer_that_reloads_its_own_state_changes_nothing():
    """As accelerate does when it prepares one, after the Trainer loaded a checkpoint's weights."""
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "initial_subnet": "scored"}))
    trained = {name: value + 1 for name, value in weights(run.model).items()}
    run.model.load_state_dict(trained)
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    assert run.controller.needs_first_subnets
    for layer in run.controller.layers.values():
        layer.scatter()
    assert_same(weights(run.model), trained, rtol=0, atol=0)


def test_resuming_with_other_sizes_is_refused():
    run = Run(tiny(), LoSiAConfig(**MOVING)).start().steps(batches(2))
    other = Run(tiny(), LoSiAConfig(**{**MOVING, "rank_factor": 0.5}))
    with pytest.raises(LoSiAError, match="resume with the settings it was made with"):
        other.optimizer.load_state_dict(run.optimizer.state_dict())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradient_checkpointing_changes_nothing(reentrant, attention):
    plain = Run(tiny(attention=attention), LoSiAConfig(**MOVING)).start().steps(batches(24))
    model = tiny(attention=attention)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    again = Run(model, LoSiAConfig(**MOVING)).start().steps(batches(24))
    assert again.chosen() == plain.chosen() != []
    assert_same(weights(again.model), weights(plain.model))


def test_chunked_loss_changes_nothing():
    runs = []
    for chunked in (True, False):
        run = Run(tiny("gemma2"), LoSiAConfig(**MOVING))
        if chunked:
            use_chunked_loss(run.model)
        runs.append(run.start().steps(batches(24)))
    assert runs[0].chosen() == runs[1].chosen()
    assert_same(weights(runs[0].model), weights(runs[1].model), rtol=1e-4, atol=1e-6)


def test_rewarming_multiplies_the_schedulers_rate_and_gives_it_back():
    run = Run(tiny(), LoSiAConfig(**{**MOVING, "period": 4}), total=40).start()
    used, plain = [], []
    run.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append([g["lr"] for g in optimizer.param_groups])
    )
    for step, ids in enumerate(batches(12)):
        run.steps([ids])
        plain.append(1e-2 / (1 + 0.1 * step))
    for step in range(12):
        for group in range(4):
            factor = step % 4 / 4 if step // 4 == group + 1 else 1.0
            assert used[step][group] == pytest.approx(plain[step] * factor)
    after = [g["lr"] for g in run.optimizer.param_groups]
    assert after == pytest.approx([1e-2 / 2.2] * 4)


def test_resets():
    """Moments, step counts and masters of one linear right after its re-selection."""
    for reset in ("moments", "fresh", "keep"):
        halves = {**MOVING, "rank_factor": 0.5, "output_factor": 0}
        run = Run(tiny(), LoSiAConfig(**{**halves, "reset": reset})).start()
        layer = run.controller.layers["model.layers.0.mlp.up_proj"]
        run.steps(batches(2))
        old, masters = layer.selected, layer.subnet.detach().clone()
        run.steps(batches(1, seed=9))
        state = run.optimizer.state.get(layer.subnet, {})
        if reset == "fresh":
            assert not state
        else:
            assert state["step"] == 3
            everywhere = torch.zeros(layer.weight.shape, dtype=torch.bool)
            old.scatter_(everywhere, torch.ones_like(masters, dtype=torch.bool))
            stayed = layer.selected.gather(everywhere)
            assert 0 < stayed.sum() < stayed.numel()
            assert not state["exp_avg"][~stayed].any()
            assert state["exp_avg"][stayed].any() == (reset == "keep")
        expected = layer.selected.gather(layer.weight)
        torch.testing.assert_close(layer.subnet.detach(), expected)


@pytest.mark.parametrize("reset", ["moments", "keep"])
def test_moments_of_a_side_are_reset_too(reset):
    """Adafactor's second moments are of rows and of columns, which are others' from now on."""
    controller = attach(model := tiny(), LoSiAConfig(**{**MOVING, "reset": reset}))
    optimizer = torch.optim.Adafactor(controller.parameter_groups(), lr=1e-3)
    controller.drive(optimizer)
    controller.start(12)
    fresh = []

    def look(selection):
        state = optimizer.state[controller.layers[selection.name].subnet]
        fresh.extend(v.clone() for v in state.values() if v.dim() > 0)

    controller.on_selection.append(look)
    for ids in batches(6):
        loss_of(model, ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert fresh
    assert not any(value.any() for value in fresh)


def in_8_bits(controller):
    """An optimizer of bitsandbytes', for subnets large enough that it keeps 8 bits of them."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    optimizer = bitsandbytes.optim.AdamW8bit(controller.parameter_groups(), lr=1e-2)
    controller.drive(optimizer)
    controller.start(12)
    return optimizer


def large(**changes):
    model = tiny(dtype=torch.float32, hidden_size=128, intermediate_size=256)
    return model, attach(model, LoSiAConfig(**{**MOVING, "rank_factor": 0.5, **changes}))


def train_on(model, optimizer, data):
    for ids in data:
        loss_of(model, ids).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_an_optimizer_with_a_loader_of_its_own_resumes():
    """bitsandbytes' load_state_dict calls no hooks."""
    model, controller = large()
    optimizer = in_8_bits(controller)
    train_on(model, optimizer, batches(7))
    saved, state = weights(model), copy.deepcopy(optimizer.state_dict())
    train_on(model, optimizer, batches(3, seed=5))
    other, resumed = large()
    other.load_state_dict(saved)
    again = in_8_bits(resumed)
    again.load_state_dict(state)
    assert resumed.step == 7
    train_on(other, again, batches(3, seed=5))
    assert_same(weights(other), weights(model), rtol=0, atol=0)


@pytest.mark.parametrize("reset", ["moments", "fresh", "keep"])
def test_moments_in_8_bits_are_reset(reset):
    """`keep` cannot carry them over: it is `moments` there."""
    model, controller = large(reset=reset, output_factor=0)
    optimizer = in_8_bits(controller)
    found = []

    def look(selection):
        state = optimizer.state[controller.layers[selection.name].subnet]
        moments = [state[f"qmap{i}"][state[f"state{i}"].long()] for i in (1, 2)]
        zero = not any(state[f"absmax{i}"].any() for i in (1, 2))
        found.append((zero, all(m.any() for m in moments), state["step"]))

    name = "model.layers.0.mlp.up_proj"
    controller.on_selection.append(lambda chosen: look(chosen) if chosen.name == name else None)
    train_on(model, optimizer, batches(3))
    assert found == [(True, True, 0 if reset == "fresh" else 3)]
    train_on(model, optimizer, batches(1, seed=5))  # and goes on from there


@pytest.mark.parametrize("importance", ["gradient", "sensitivity"])
def test_a_group_that_is_alone_begins_each_slot_anew(importance):
    """It is scored in every slot: nothing of the one before may stay in its score."""
    period = 1 if importance == "gradient" else 2
    alone = {**MOVING, "output_factor": 0, "period": period, "importance": importance}
    run = Run(tiny(num_hidden_layers=1), LoSiAConfig(**alone)).start()
    assert len(run.controller.groups) == 1
    for ids in batches(3 * period):
        run.steps([ids])
        values = scores(run.controller).values()
        assert any(value.any() for value in values) is (run.controller.step % period != 0)
    assert len(run.selections) == 3 * len(run.controller.layers)


def test_entries_that_stay_selected_keep_their_masters():
    run = Run(tiny(dtype=torch.bfloat16), LoSiAConfig(**{**MOVING, "output_factor": 0})).start()
    layer = run.controller.layers["model.layers.0.mlp.up_proj"]
    run.steps(batches(2))
    seen = {}
    run.controller._check.after = lambda: seen.update(
        old=layer.selected, masters=layer.subnet.detach().clone()
    )
    run.steps(batches(1, seed=9))
    masters, full = seen["masters"], torch.full(layer.weight.shape, torch.nan)
    seen["old"].scatter_(full, masters)
    kept = layer.selected.gather(full)
    stayed = ~kept.isnan()
    assert 0 < stayed.sum() < stayed.numel()
    assert torch.equal(layer.subnet[stayed], kept[stayed])
    assert (kept[stayed] != kept[stayed].bfloat16().float()).any(), "masters hold more than bf16"


def test_scored_first_subnet_captures_more_than_a_random_one():
    from losia_cli.method.localization import captured

    model, data = tiny(), batches(1)
    config = LoSiAConfig(**{**MOVING, "initial_subnet": "scored", "schedule": "static"})
    scored = Run(model, config).start(data)
    full = tiny()
    loss_of(full, data[0]).backward()
    random = Run(tiny(), LoSiAConfig(**MOVING)).controller
    for name, layer in scored.controller.layers.items():
        linear = full.get_submodule(name)
        importance = (linear.weight.grad * linear.weight).abs()
        assert captured(importance, layer.selected) > captured(
            importance, random.layers[name].selected
        )


def test_scoring_in_small_portions_chooses_the_same():
    data = batches(3)
    chosen = []
    for memory, rounds in ((None, 1), (1, 1), (None, 2), (None, 100)):
        model = tiny()
        controller = attach(model, LoSiAConfig(**{**MOVING, "initial_subnet": "scored"}))
        held = []

        def loss(ids, model=model, controller=controller, held=held):
            held.append(
                sum(
                    any(controller.layers[name].score is not None for name in names)
                    for names in controller.groups.values()
                )
            )
            return loss_of(model, ids)

        controller.score_first_subnets(data, loss, memory, rounds)
        groups = len(controller.groups)
        expected = 1 if memory == 1 else -(-groups // rounds)
        assert max(held) == expected
        assert len(held) == 3 * -(-groups // expected)
        chosen.append([layer.subnet.detach().clone() for layer in controller.layers.values()])
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(layer.score is None for layer in controller.layers.values())
    for other in chosen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(chosen[0], other, strict=True))


def test_start_without_the_scores_it_needs_is_refused():
    controller = attach(tiny(), LoSiAConfig())
    controller.drive(adamw(controller.parameter_groups()))
    with pytest.raises(LoSiAError, match="score_first_subnets"):
        controller.start(10)


def test_a_subnet_that_no_gradient_reaches_is_named():
    run = Run(tiny(), LoSiAConfig(**MOVING)).start()
    run.controller.layers["model.layers.1.mlp.up_proj"].subnet.requires_grad_(False)
    said = r"reaches 1 of 22 .*\.1\.mlp\.up_proj first.*without up_proj"
    with pytest.raises(LoSiAError, match=said):
        run.steps(batches(1))


def test_gradients_that_are_all_zero_are_told_before_decay_moves_anything():
    run = Run(tiny(), LoSiAConfig(**MOVING)).start()
    for layer in run.controller.layers.values():
        layer.subnet.register_hook(torch.zeros_like)
    before = {name: layer.subnet.clone() for name, layer in run.controller.layers.items()}
    with pytest.raises(LoSiAError, match="no gradient reaches any subnet"):
        run.steps(batches(1))
    for name, layer in run.controller.layers.items():
        assert torch.equal(layer.subnet, before[name])


def test_what_leads_to_zeros_may_stand_still():
    """An expanded block's output begins at zero: no gradient comes past it, and then it does."""
    model = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    run = Run(model, LoSiAConfig(**MOVING)).start()
    up = run.controller.layers["model.layers.1.mlp.up_proj"]
    before = up.subnet.detach().clone()
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    run.steps(batches(1))
    assert torch.equal(up.subnet, before)
    run.steps(batches(1, seed=9))
    assert not torch.equal(up.subnet, before)


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40])
def test_first_subnets_are_scored_at_the_scale_of_half_precision(scale):
    """Gradients that float16 would round to nothing choose what float32's do."""
    config = LoSiAConfig(**{**MOVING, "initial_subnet": "scored"})
    wide, half = tiny(dtype=torch.float32), tiny(dtype=torch.float32).half()
    chosen = []
    for model in (wide, half):
        controller = attach(model, config)
        if model is half:
            controller.loss_scale = lambda: scale
        controller.score_first_subnets(
            batches(2), lambda ids, model=model: 1e-5 * loss_of(model, ids).float()
        )
        chosen.append({n: layer.selected for n, layer in controller.layers.items()})
    same = [overlap(chosen[0][name], chosen[1][name]) for name in chosen[0]]
    assert sum(same) / len(same) > 0.9


def test_an_optimizer_that_is_not_driven_is_refused():
    """It would train nothing, or something else, in silence."""
    controller = attach(tiny(), LoSiAConfig(**{**MOVING, "initial_subnet": "random"}))
    with pytest.raises(LoSiAError, match="call drive before start"):
        controller.start(12)
    optimizer = adamw(controller.parameter_groups())
    controller.drive(optimizer)
    with pytest.raises(LoSiAError, match="driven already"):
        controller.drive(optimizer)
    args, state = TrainingArguments(use_cpu=True), TrainerState(max_steps=12)
    begin = LoSiACallback(controller).on_train_begin
    with pytest.raises(LoSiAError, match="not the one that the controller drives"):
        begin(args, state, TrainerControl(), optimizer=adamw(controller.parameter_groups()))
    begin(args, state, TrainerControl(), optimizer=optimizer)


def test_scoring_leaves_no_gradient_behind():
    """Not in what surrounds the model either: a value head would begin with the scored batches'."""
    model = tiny()
    controller = attach(model, LoSiAConfig(**{**MOVING, "initial_subnet": "scored"}))
    around = torch.nn.Module()
    around.model, around.head = model, torch.nn.Linear(1, 1)
    rows = [{"input_ids": ids[0]} for ids in batches(8)]
    loader = torch.utils.data.DataLoader(rows, batch_size=2)

    def loss(batch):
        return around.head(loss_of(model, batch["input_ids"])[None].float()).sum()

    controller.drive(adamw(controller.parameter_groups()))
    callback = LoSiACallback(controller, loss)
    args = TrainingArguments(per_device_train_batch_size=2, use_cpu=True)
    state = TrainerState(max_steps=12)
    callback.on_train_begin(args, state, TrainerControl(), model=around, train_dataloader=loader)
    assert all(parameter.grad is None for parameter in around.parameters())


def test_a_frozen_weight_that_moves_is_named():
    run = Run(tiny(), LoSiAConfig(**MOVING)).start()
    norm = run.model.model.norm.weight

    def grow(*_):
        norm.detach().mul_(2)

    run.optimizer.register_step_pre_hook(grow)
    with pytest.raises(LoSiAError, match=r"changed a frozen weight: model\.norm\.weight"):
        run.steps(batches(1))


def test_loss_scaling_leaves_the_choice_alone():
    plain = Run(tiny(dtype=torch.float32), LoSiAConfig(**MOVING)).start()
    plain.clip = 1e9
    plain.steps(batches(12))
    run = Run(tiny(dtype=torch.float32), LoSiAConfig(**MOVING)).start()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    run.controller.loss_scale = scaler.get_scale
    for ids in batches(12):
        scaler.scale(loss_of(run.model, ids)).backward()
        scaler.step(run.optimizer)
        scaler.update()
        run.optimizer.zero_grad()
        run.scheduler.step()
    assert run.chosen() == plain.chosen() != []
    assert_same(weights(run.model), weights(plain.model), rtol=1e-4, atol=1e-5)


def test_the_callback_finds_the_scale_of_half_precision():
    controller = attach(model := tiny(), LoSiAConfig(**MOVING))
    optimizer = adamw(controller.parameter_groups())
    controller.drive(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaler.scale(torch.ones(1))  # it makes its scale when it is first used
    args, state = TrainingArguments(use_cpu=True), TrainerState(max_steps=12)
    Accelerator(cpu=True)  # what its optimizer asks where it is
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)
    LoSiACallback(controller).on_train_begin(
        args, state, TrainerControl(), model=model, optimizer=wrapped
    )
    assert controller.loss_scale() == 2.0**12


def scores(controller):
    """What each measured linear's score has gathered so far."""
    return {
        name: layer.score.value().clone()
        for name, layer in controller.layers.items()
        if layer.score is not None
    }


@pytest.mark.parametrize("fused", [True, False])
def test_steps_that_a_loss_scaler_skips_count_and_change_nothing(fused):
    run = Run(tiny(dtype=torch.float32), LoSiAConfig(**MOVING))
    run.optimizer = torch.optim.AdamW(run.controller.parameter_groups(), lr=1e-3, fused=fused)
    run.controller.drive(run.optimizer)
    run.controller.start(12)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    run.controller.loss_scale = scaler.get_scale
    skipped = (0, 1, 5)
    for step, ids in enumerate(batches(12)):
        before = {name: tensor.clone() for name, tensor in weights(run.model).items()}
        scored = scores(run.controller)
        scaler.scale(loss_of(run.model, ids) * (torch.inf if step in skipped else 1)).backward()
        scaler.step(run.optimizer)
        scaler.update()
        run.optimizer.zero_grad()
        if run.controller.step == step:  # the optimizer was not even called
            run.controller.skip_step()
        assert run.controller.step == step + 1
        after = weights(run.model)
        assert all(torch.equal(after[n], t) for n, t in before.items()) is (step in skipped)
        if step in skipped:
            assert all(
                torch.equal(t, scored[n]) for n, t in scores(run.controller).items() if n in scored
            )
    assert all(torch.isfinite(tensor).all() for tensor in weights(run.model).values())


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop])
def test_any_torch_optimizer_works(make):
    model = tiny()
    controller = attach(model, LoSiAConfig(**MOVING))
    optimizer = make(controller.parameter_groups(), lr=1e-3)
    controller.drive(optimizer)
    controller.start(12)
    for ids in batches(12):
        loss_of(model, ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert controller.step == 12
