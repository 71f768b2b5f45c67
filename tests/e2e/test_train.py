"""The real workflow on tiny models: what it leaves behind, every stage, every key, every method."""

import json
import math
import signal

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.integrations import llamafactory
from losia_cli.method import LoSiAConfig, attach
from losia_cli.training import checkpoints, command, launch
from losia_cli.training.checkpoints import newest
from losia_cli.training.output import finished, left_behind, settle_output
from tests.e2e.conftest import final_weights, losia

STAGES = {
    "sft": {},
    "pt": {"stage": "pt", "dataset": "texts", "template": None},
    "dpo": {"stage": "dpo", "dataset": "pairs"},
    "orpo": {"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo"},
    "kto": {"stage": "kto", "dataset": "votes"},
    "rm": {"stage": "rm", "dataset": "pairs"},
}
RESUMABLE = [stage for stage in STAGES if stage != "rm"]


def same(ours, theirs) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_result_is_a_plain_checkpoint(train, tmp_path, model):
    weights = train()
    out = tmp_path / "out"
    assert weights.keys() == final_weights(model).keys()
    reloaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert AutoTokenizer.from_pretrained(out).chat_template
    record = json.loads((out / "losia_run.json").read_text())
    assert record["steps"] == 9
    assert record["timeline"] == {
        "groups": 4, "period": 2, "total_steps": 9, "warmup_steps": 0, "schedule": "async",
        "rewarm": True, "never_reselected": [],
    }  # fmt: skip
    assert record["selections"] == 1 + 3 * 7
    assert record["reload_verified"] is True
    assert record["recipe"]["losia_period"] == 2
    assert record["tokens"] > 0
    assert record["total_parameters"] == reloaded.num_parameters()


def test_ties_are_kept(train, tmp_path, tied_model):
    weights = train(model_name_or_path=str(tied_model))
    assert "lm_head.weight" not in weights
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not torch.equal(
        weights["model.embed_tokens.weight"], final_weights(tied_model)["model.embed_tokens.weight"]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_stages_train(train, stage, model, tmp_path):
    if stage == "rm":
        with_head = train(**STAGES[stage], max_steps=3)
        base = final_weights(model)
        changed = [n for n, w in base.items() if not torch.equal(w, with_head[n])]
        assert changed
        assert not any("lm_head" in name for name in changed)
        assert (tmp_path / "out" / "value_head.safetensors").is_file()
        return
    assert not same(train(**STAGES[stage], max_steps=3), final_weights(model))


@pytest.mark.parametrize(
    "run", [*(STAGES[stage] for stage in RESUMABLE), {"optim": "adamw_bnb_8bit"}], ids=str
)
def test_resuming_is_never_having_stopped(train, tmp_path, run):
    """Bit for bit, from a checkpoint in the middle of a slot and of an epoch."""
    changes = {
        **run,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "max_steps": 12,
    }
    whole = train("whole", save_steps=5, **changes)
    resumed = train(
        "again",
        save_steps=5,
        resume_from_checkpoint=str(tmp_path / "whole/checkpoint-5"),
        **changes,
    )
    assert same(resumed, whole)


@pytest.mark.parametrize("length", [{"max_steps": 6}, {"max_steps": -1, "num_train_epochs": 1}])
def test_a_finished_run_has_no_step_left(train, tmp_path, length):
    whole = train("out", save_steps=6 if "num_train_epochs" not in length else 36, **length)
    (tmp_path / "out/losia_run.json").unlink()  # else nothing is done at all
    again = train("out", save_steps=1000, resume_from_checkpoint=True, **length)
    assert same(again, whole)
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert record["steps"] == (36 if "num_train_epochs" in length else 6)


def test_going_on_with_a_finished_run_leaves_its_results_alone(train, tmp_path):
    train(save_steps=3)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    train(save_steps=3, resume_from_checkpoint=True)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    with pytest.raises(UserError, match="max_steps was 9 and is now 12"):
        train(save_steps=3, resume_from_checkpoint=True, max_steps=12)


def test_a_resumed_run_counts_its_own_part(train, tmp_path):
    train(save_steps=6)
    whole = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert 0 < whole["saving_seconds"] < whole["seconds"]
    resume = str(tmp_path / "out/checkpoint-6")
    train("again", resume_from_checkpoint=resume, save_steps=100)
    part = json.loads((tmp_path / "again/losia_run.json").read_text())
    assert 0 < part["tokens"] < whole["tokens"] / 2
    assert (part["steps"], part["resumed_from"]) == (9, resume)


def test_more_is_asked_of_a_finished_run_or_less_of_it_is_there(train, recipe, tmp_path):
    weights = train(save_steps=9)
    last = tmp_path / "out/checkpoint-9"

    def nothing_is_left(**changes):
        return finished(last, recipes.load(recipe(**{"save_steps": 9, **changes})).values)

    assert nothing_is_left(resume_from_checkpoint=True, logging_steps=3)
    assert not nothing_is_left(do_predict=True, eval_dataset="sums")
    assert not nothing_is_left(learning_rate=None)
    assert not nothing_is_left(max_steps=12)
    train("other", save_steps=9, learning_rate=1e-3)
    elsewhere = {"output_dir": str(tmp_path / "other"), "resume_from_checkpoint": str(last)}
    assert not nothing_is_left(**elsewhere), "the model there is another run's"
    saved = tmp_path / "out/model.safetensors"
    saved.unlink()
    assert not nothing_is_left(resume_from_checkpoint=True)
    assert same(train(save_steps=9, resume_from_checkpoint=True), weights)


def test_a_checkpoint_may_lie_elsewhere(train, recipe, tmp_path):
    train(save_steps=5)
    elsewhere, link = tmp_path / "disk/checkpoint-5", tmp_path / "out/checkpoint-5"
    elsewhere.parent.mkdir()
    link.rename(elsewhere)
    link.symlink_to(elsewhere)
    again = recipes.load(recipe(resume_from_checkpoint=str(link)))
    assert settle_output(again, print) == link
    train(overwrite_output_dir=True, max_steps=1)
    assert not link.is_symlink()
    assert elsewhere.is_dir()


def test_another_runs_folder_is_not_written_into_by_resuming(train, tmp_path):
    train("first", save_steps=5)
    resume = str(tmp_path / "first/checkpoint-5")
    train("second", save_steps=5, max_steps=5)
    changes = {"resume_from_checkpoint": resume, "save_steps": 5}
    with pytest.raises(UserError, match="second is not empty"):
        train("second", **changes)
    train("second", overwrite_output_dir=True, **changes)
    left = {path.name for path in (tmp_path / "second").glob("checkpoint-*")}
    assert left == {"checkpoint-9"}


@pytest.mark.parametrize("packing", ["packing", "neat_packing"])
def test_tokens_of_packed_rows_are_counted(train, tmp_path, packing):
    train(**{packing: True}, max_steps=2)
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert record["tokens"] == 2 * 4 * 64


def test_resume_true_takes_the_newest_whole_checkpoint(train, tmp_path):
    whole = train("out", save_steps=3)
    (tmp_path / "out/checkpoint-9/losia_checkpoint.json").unlink()
    weights = tmp_path / "out/checkpoint-6/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    warned = []
    assert newest(tmp_path / "out", warned.append).name == "checkpoint-3"
    assert "incomplete" in warned[0]
    assert "damaged" in warned[1]
    assert same(train("out", save_steps=3, resume_from_checkpoint=True), whole)


def test_resuming_another_plan_is_refused(train, tmp_path, data):
    train("first", save_steps=5)
    checkpoint = str(tmp_path / "first/checkpoint-5")
    with pytest.raises(UserError, match=r"learning_rate was 0\.01 and is now 0\.1"):
        train("second", resume_from_checkpoint=checkpoint, learning_rate=0.1)
    rows = json.loads((data / "sums.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    rows[7]["output"] = "something else"
    (other / "sums.json").write_text(json.dumps(rows))
    (other / "dataset_info.json").write_text((data / "dataset_info.json").read_text())
    with pytest.raises(UserError, match=r"\(data\) was '144 rows"):
        train("second", resume_from_checkpoint=checkpoint, dataset_dir=str(other))


def test_save_only_model_cannot_be_resumed_and_says_so(train, tmp_path):
    train("first", save_steps=5, save_only_model=True)
    with pytest.raises(UserError, match="save_only_model"):
        train("second", resume_from_checkpoint=str(tmp_path / "first/checkpoint-5"))


def test_reward_models_cannot_be_resumed_and_say_so(train, tmp_path):
    train("first", save_steps=2, **{**STAGES["rm"], "max_steps": 3})
    with pytest.raises(UserError, match="rm"):
        train("second", **STAGES["rm"], resume_from_checkpoint=str(tmp_path / "first/checkpoint-2"))


def test_layerwise_galore_cannot_be_resumed_and_says_so(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    told = ["galore_rank=4", "resume_from_checkpoint=true"]
    with pytest.raises(UserError, match="moments and rates of galore_layerwise; start anew"):
        settle_output(recipes.load(recipe(), "galore", told), print)


@pytest.mark.parametrize("key", ["model_name_or_path", "ref_model", "adapter_name_or_path"])
def test_what_a_run_starts_from_is_not_overwritten(recipe, tmp_path, key):
    folder = tmp_path / "out/checkpoint-5"
    folder.mkdir(parents=True)
    changes = {key: str(folder), "overwrite_output_dir": True}
    with pytest.raises(UserError, match=r"would remove .*checkpoint-5, which the run needs"):
        settle_output(recipes.load(recipe(**changes)), print)
    assert folder.is_dir()


def test_an_older_checkpoint_that_was_gone_on_from_outlives_newer_ones(train, tmp_path):
    train(save_steps=3)
    resume = str(tmp_path / "out/checkpoint-3")
    train(save_steps=1000, max_steps=9, resume_from_checkpoint=resume)
    train(save_steps=4, save_total_limit=1, resume_from_checkpoint=resume)
    left = {path.name for path in (tmp_path / "out").glob("checkpoint-*")}
    assert left == {"checkpoint-9"}


def test_norms_and_embeddings_train_in_float32(train, model):
    """Small steps round away in bfloat16: none of these weights would move."""
    trained = train(
        bf16=True, losia_train_norms=True, losia_train_embeddings=True, learning_rate=1e-4
    )
    for name, before in final_weights(model).items():
        if "norm" in name or "embed" in name:
            begun = before.bfloat16().float()  # as the base weights are cast
            assert not torch.equal(trained[name].float(), begun), name


def test_what_trains_in_float32_puts_out_the_dtype_of_computation(model):
    """A float32 residual stream would be kept for backward, and a cast of it by every linear."""
    half = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    attach(half, LoSiAConfig(train_norms=True, train_embeddings=True))
    llamafactory._train_in_float32(half)
    seen = []
    for name, module in half.named_modules():
        if "norm" in name or name.endswith(("embed_tokens", "layers.1")):
            module.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
            own = [parameter.dtype for parameter in module.parameters(recurse=False)]
            assert set(own) <= {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        half(input_ids=torch.arange(8)[None])
    assert seen == [torch.bfloat16] * (1 + 2 * 3 + 1 + 1)


@pytest.mark.parametrize("first", [True, False])
def test_another_launcher_s_processes(monkeypatch, first):
    """Its first one checks and settles; those that `losia train` starts never do."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0" if first else "1")
    assert launch.first_process() is first
    assert not launch.wants_torchrun()
    monkeypatch.setenv("LOSIA_WORKER", "1")
    assert not launch.first_process()


def test_of_several_machines_the_first_one_evaluates(monkeypatch, recipe, tmp_path):
    begun = []
    monkeypatch.setattr(command.os, "execv", lambda _, words: begun.append(words[-2:]))
    told = recipes.load(recipe(eval_suites=["arc-e"]))
    for rank in ("1", "0"):
        monkeypatch.setenv("NODE_RANK", rank)
        command.evaluate_after(told, Console(quiet=True))
    assert begun == [["eval", str(tmp_path / "out")]]


def test_a_worker_finds_the_checkpoint_of_true_itself(recipe, train, tmp_path):
    train(save_steps=3)
    values = recipes.load(recipe(resume_from_checkpoint=True)).values
    assert checkpoints.asked(values, print, checked=True) == tmp_path / "out/checkpoint-9"


def test_the_loss_on_held_out_rows_is_recorded(train, tmp_path):
    train(val_size=8, eval_strategy="steps", eval_steps=3, eval_on_start=True)
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    log = json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert len(losses) == 4
    assert record["held_out_loss"] == losses[-1] < losses[0]


def test_accumulation_is_a_larger_batch(train):
    """Rows of unequal length: the loss is averaged over the step's tokens, not over its batches."""
    small = train(
        "small",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        losia_initial_subnet="random",
    )
    large = train("large", per_device_train_batch_size=8, losia_initial_subnet="random")
    for name, value in small.items():
        torch.testing.assert_close(value, large[name], rtol=1e-3, atol=1e-4)


# Each key, with a value that is not its default; the runs must differ from the plain one.
KEYS = {
    "losia_rank_factor": 0.5,
    "losia_output_factor": 0.0,
    "losia_period": "auto",
    "losia_importance": "gradient",
    "losia_ema": [0.1, 0.1],
    "losia_schedule": "static",
    "losia_rewarm": False,
    "losia_reset": "fresh",
    "losia_localization": "random",
    "losia_initial_subnet": "random",
    "losia_target": "q_proj",
    "losia_train_norms": True,
    "losia_train_embeddings": True,
    "seed": 7,
}


def test_every_key_changes_a_run(train):
    plain = train("plain")
    assert same(train("again"), plain), "the same seed gives the same run"
    for number, (key, value) in enumerate(KEYS.items()):
        assert not same(train(f"changed-{number}", **{key: value}), plain), key


def test_losia_and_losia_pro_keep_other_tensors_but_train_alike(train, tmp_path):
    plain = train("pro", disable_gradient_checkpointing=True)
    other = train("plain", disable_gradient_checkpointing=True, losia_pro=False)
    for name, value in plain.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)
    pro, full = (
        json.loads((tmp_path / name / "losia_run.json").read_text())["kept_for_backward_bytes"]
        for name in ("pro", "plain")
    )
    assert pro < full


METHODS = {
    "losia": {},
    "losia-pro": {},
    "full": {},
    "lora": {"lora_rank": 4},
    "dora": {"lora_rank": 4},
    "pissa": {"lora_rank": 4},
    "galore": {"galore_rank": 4},
    "full-8bit": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_with_the_same_command(recipe, tmp_path, method):
    from rich.console import Console

    from losia_cli import recipes
    from losia_cli.training.command import run

    path = recipe(max_steps=2)
    overrides = [f"{key}={value}" for key, value in METHODS[method].items()]
    resolved = recipes.load(path, method, overrides)
    assert run(resolved, [], Console(quiet=True)) == 0
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert record["steps"] == 2
    adapter = method in ("lora", "dora", "pissa")
    assert (tmp_path / "out/adapter_model.safetensors").is_file() == adapter
    assert record["reload_verified"] is not adapter
    assert (record["timeline"] is not None) == method.startswith("losia")
    assert record["kept_for_backward_bytes"] is None  # the layers are checkpointed


def test_adapters_are_trained_by_the_same_loss_as_losia(recipe, tmp_path, monkeypatch):
    """Chunk by chunk, or memory would compare losses and not methods; the numbers are the same."""
    from rich.console import Console

    from losia_cli import recipes
    from losia_cli.integrations import llamafactory
    from losia_cli.training.command import run

    records, losses = [], []
    for name in ("chunked", "own"):
        out = tmp_path / name
        path = recipe(max_steps=4, disable_gradient_checkpointing=True, output_dir=str(out))
        assert run(recipes.load(path, "lora", ["lora_rank=4"]), [], Console(quiet=True)) == 0
        records.append(json.loads((out / "losia_run.json").read_text()))
        log = json.loads((out / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in log if "loss" in entry])
        monkeypatch.setattr(llamafactory, "use_chunked_loss", lambda *_, **__: None)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert records[0]["kept_for_backward_bytes"] < records[1]["kept_for_backward_bytes"]
    assert [record["loss_in_chunks"] for record in records] == [True, False]


@pytest.mark.parametrize("kind", ["oft", "freeze"])
def test_the_rest_of_llama_factory_passes_through(train, kind, recipe):
    changes = {
        "finetuning_type": kind,
        "losia_rank_factor": None,
        "losia_period": None,
        "max_steps": 2,
    }
    if kind == "freeze":
        train(**changes)
        return
    from rich.console import Console

    from losia_cli import recipes
    from losia_cli.training.command import run

    path = recipe(**changes, oft_rank=0, oft_block_size=4)
    assert run(recipes.load(path), [], Console(quiet=True)) == 0


def test_a_json_recipe_trains_too(recipe, tmp_path):
    import yaml
    from rich.console import Console

    from losia_cli import recipes
    from losia_cli.training.command import run

    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(yaml.safe_load(recipe(max_steps=2).read_text())))
    assert run(recipes.load(path), [], Console(quiet=True)) == 0


def test_evaluation_and_packing_in_the_loop(train, tmp_path):
    train(
        val_size=0.2,
        eval_strategy="steps",
        eval_steps=4,
        packing=True,
        neat_packing=False,
        max_steps=4,
    )
    log = json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in log)
    assert all(entry["grad_norm"] > 0 for entry in log if "grad_norm" in entry)


def test_an_earlier_runs_adapter_does_not_stay_over_new_weights(recipe, train, tmp_path):
    from rich.console import Console

    from losia_cli import recipes
    from losia_cli.chat import chat_arguments
    from losia_cli.training.command import run

    path = recipe(max_steps=1, losia_rank_factor=None, losia_period=None)
    assert run(recipes.load(path, "lora", ["lora_rank=2"]), [], Console(quiet=True)) == 0
    assert (tmp_path / "out/adapter_config.json").is_file()
    train(max_steps=1, overwrite_output_dir=True)
    assert not list((tmp_path / "out").glob("adapter_*"))
    assert chat_arguments(str(tmp_path / "out"), None) == {
        "model_name_or_path": str(tmp_path / "out"),
        "template": "default",
    }


def test_a_folder_that_is_also_the_start_keeps_what_it_holds(recipe, tmp_path):
    from losia_cli import recipes

    out = tmp_path / "out"
    out.mkdir()
    (out / "adapter_config.json").write_text("{}")
    path = recipe(overwrite_output_dir=True)
    starting = recipes.load(path, "lora", [f"adapter_name_or_path={out}/"])
    assert left_behind(starting.values, None) == []
    assert left_behind(recipes.load(path, "lora").values, None) == [out / "adapter_config.json"]


@pytest.mark.parametrize(
    "fault",
    [
        {"eval_strategy": "steps", "eval_steps": 1},  # of no evaluation set
        {"lr_scheduler_type": "cosine_with_min_lr"},  # without its lowest rate
    ],
)
def test_an_earlier_run_outlives_one_that_cannot_begin(recipe, train, tmp_path, fault):
    train(save_steps=5)
    kept = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(UserError):
        train(overwrite_output_dir=True, **fault)
    left = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*") if path.is_file()}
    log = tmp_path / "out/trainer_log.jsonl"  # which LLaMA-Factory removes when it loads
    assert kept.keys() - left.keys() <= {log}
    assert all(left[path] == inode for path, inode in kept.items() if path != log)


@pytest.mark.parametrize("losia", [True, False])
def test_evaluating_alone_trains_nothing_and_ends_well(train, tmp_path, losia):
    changes = {"do_train": False, "do_eval": True, "eval_dataset": "sums", "dataset": None}
    if not losia:
        changes |= {"finetuning_type": "full", "losia_rank_factor": None, "losia_period": None}
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):  # nothing to be loaded
        train(**changes)
    assert json.loads((tmp_path / "out/eval_results.json").read_text())["eval_loss"] > 0


def test_evaluating_alone_removes_nothing(recipe, tmp_path):
    from losia_cli import recipes

    kept = tmp_path / "out/checkpoint-1/model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    evaluating = recipes.load(recipe(do_train=False, do_eval=True, overwrite_output_dir=True))
    assert settle_output(evaluating, print) is None
    assert left_behind(evaluating.values, None) == []


def test_evaluating_alone_keeps_the_training_s_log(train, tmp_path):
    train()
    log = (tmp_path / "out/trainer_log.jsonl").read_text()
    train(
        do_train=False,
        do_eval=True,
        eval_dataset="sums",
        dataset=None,
        model_name_or_path=str(tmp_path / "out"),
    )
    assert (tmp_path / "out/trainer_log.jsonl").read_text().startswith(log)


@pytest.mark.parametrize(
    "changes",
    [
        {"upcast_layernorm": True},
        {"finetuning_type": "freeze", "losia_rank_factor": None, "losia_period": None},
    ],
)
def test_weights_of_two_dtypes_reload(train, tmp_path, changes):
    train(max_steps=2, bf16=True, **changes)
    assert json.loads((tmp_path / "out/losia_run.json").read_text())["reload_verified"]


def test_a_resumed_runs_log_goes_on(train, tmp_path):
    train(max_steps=4, save_steps=2)
    log = tmp_path / "out/trainer_log.jsonl"
    train(max_steps=4, save_steps=2, resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))
    steps = [json.loads(line).get("current_steps") for line in log.read_text().splitlines()]
    assert steps[:4] == [1, 2, 3, 4]
    assert 3 in steps[4:]


def test_streamed_rows_train(train):
    train(streaming=True, dataloader_num_workers=1, max_steps=2)


def test_token_accuracy_still_gets_its_logits(train, tmp_path):
    train(val_size=0.2, eval_strategy="steps", eval_steps=2, compute_accuracy=True, max_steps=2)
    log = json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
    assert any("eval_accuracy" in entry for entry in log)


def test_bfloat16_on_a_float16_checkpoint(train, tmp_path, model):
    from tests.e2e.conftest import make_model

    half = make_model(tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.float16).save_pretrained(half)
    weights = train(model_name_or_path=str(half), bf16=True)
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_what_it_is_compared_with_begins_as_the_same_function(train, tmp_path, stage):
    """Under bfloat16 the policy's float32 weights are cast, and so must the reference's be."""
    train(**STAGES[stage], bf16=True, max_steps=1, logging_steps=1)
    log = (tmp_path / "out/trainer_log.jsonl").read_text().splitlines()
    undecided = {"dpo": math.log(2), "kto": 0.5}[stage]  # no reward yet
    assert json.loads(log[0])["loss"] == pytest.approx(undecided, abs=1e-6)


def test_a_gradient_that_is_not_finite_stops_before_the_weights(train, tmp_path):
    listening = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(UserError, match=r"not finite at step \d+"):
        train(learning_rate=1e30, save_steps=1, max_grad_norm=0)
    last = newest(tmp_path / "out", print)
    weights = final_weights(last)
    assert all(value.isfinite().all() for value in weights.values())
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == listening


def test_help_answers_at_once_and_without_torch():
    import resource
    import subprocess
    import sys

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    for words in ([], ["train"]):
        start = spent()
        result = losia(*words, "--help")
        assert result.returncode == 0
        assert "losia train" in result.stdout or not words
        assert spent() - start < 5  # a benchmark says 0.2 s; this only bounds accidents
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, losia_cli.cli; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "False"
