"""Every mistake: one clear sentence, exit code 2, no traceback, nothing written."""

import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from transformers import Trainer

from losia_cli import files, recipes
from losia_cli.errors import UserError
from losia_cli.training import output
from losia_cli.training.command import look_over
from tests.e2e.conftest import final_weights, losia, make_model


@pytest.fixture
def refusal(train, tmp_path):
    """What the workflow says when it refuses; asserts that it left nothing behind."""

    def says(**changes):
        with pytest.raises(UserError) as caught:
            train(**changes)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    return says


def test_missing_models(refusal, tmp_path):
    assert "there is no folder" in refusal(model_name_or_path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refusal(model_name_or_path=str(tmp_path / "empty"))
    assert "cannot be had from the hub" in refusal(model_name_or_path="no-such/model")


def test_configurations_that_cannot_be_used(refusal, tmp_path, model):
    folder = tmp_path / "odd"
    folder.mkdir()
    good = json.loads((model / "config.json").read_text())
    for text in ("{", json.dumps(good | {"hidden_size": "big"}), '{"model_type": "none"}'):
        (folder / "config.json").write_text(text)
        said = refusal(model_name_or_path=str(folder))
        assert f"the configuration in {folder} cannot be used" in said
        assert "hub" not in said.partition("(")[0]


def test_shapes_are_checked_before_the_weights_are_read(refusal, tmp_path, model):
    """On a model without weights: the file that holds them is gone."""
    folder = tmp_path / "no weights"
    folder.mkdir()
    (folder / "config.json").write_text((model / "config.json").read_text())
    changes = {"model_name_or_path": str(folder)}
    assert "leaves no row" in refusal(**changes, losia_rank_factor=0.01)
    assert "matches no linear" in refusal(**changes, losia_target="query")


def test_models_that_cannot_work(refusal, tmp_path):
    small = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 320}
    gpt2 = make_model(tmp_path / "gpt2", "gpt2", **small)
    assert "Conv1D" in refusal(model_name_or_path=str(gpt2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"losia_rank_facter": 0.1}, "did you mean losia_rank_factor"),
        ({"learning_rte": 0.1}, "did you mean learning_rate"),
        ({"losia_rank_factor": "often"}, "losia_rank_factor"),
        ({"losia_rank_factor": 1.5}, "(0, 1]"),
        ({"losia_period": 0}, "losia_period"),
        ({"max_steps": "many"}, "max_steps"),
        ({"quantization_bit": 4}, "quantized"),
        ({"deepspeed": "ds.json"}, "owns the storage"),
        ({"use_galore": True}, "optimizer of its own"),
        ({"shift_attn": True}, "shift_attn"),
        ({"torch_compile": True}, "compiled anew"),
        ({"stage": "ppo"}, "ppo"),
        ({"dataset": "summs"}, "sums"),
        ({"template": "lama2"}, "did you mean llama2?"),
        ({"streaming": True}, "dataloader_num_workers: 1"),
        ({"learning_rate": -1}, "above 0"),
        ({"learning_rate": 0}, "above 0"),
        ({"lora_target": "q_proj"}, "means nothing to finetuning_type: losia; losia_target is"),
        ({"additional_target": "embed_tokens"}, "means nothing to finetuning_type: losia"),
        ({"freeze_trainable_layers": 2}, "means nothing to finetuning_type: losia"),
        ({"packing": True, "cutoff_len": 62}, "multiple of 8"),
        ({"losia_target": "q_proj,v_porj"}, "v_porj matches no linear"),
        ({"eval_suites": ["arc-e"], "eval_data": "/nowhere"}, "there is no folder /nowhere"),
        ({"resume_from_checkpoint": True}, "holds no complete checkpoint"),
    ],
)
def test_recipes_that_cannot_work(refusal, changes, says):
    assert says in refusal(**changes)


def test_all_faults_at_once(refusal):
    said = refusal(losia_rank_factor=2, learning_rte=0.1, use_galore=True)
    assert all(part in said for part in ("(0, 1]", "learning_rate", "use_galore"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr_scheduler_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"val_size": 200}, "test_size=200"),
        ({"early_stopping_steps": 1}, "metric_for_best_model"),
        ({"tokenized_path": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_what_fails_before_the_first_step_is_one_sentence(train, tmp_path, changes, says):
    with pytest.raises(UserError, match="could not begin") as caught:
        train(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("method", [None, "lora", "full"])
def test_a_base_that_lacks_a_weight_is_not_trained_on_random_numbers(
    train, tmp_path, model, method
):
    shutil.copytree(model, tmp_path / "base")
    weights = final_weights(model)
    lost = "model.layers.1.mlp.up_proj.weight"
    del weights[lost]
    save_file(weights, tmp_path / "base/model.safetensors", {"format": "pt"})
    changes = {"losia_rank_factor": None, "losia_period": None} if method else {}
    with pytest.raises(UserError, match=rf"lacks weights \({lost} and 0 more\)"):
        train(method=method, model_name_or_path=str(tmp_path / "base"), **changes)
    assert not list((tmp_path / "out").glob("*"))


def test_what_fails_after_it_is_none(train, monkeypatch):
    """A mistake of ours must not look like the user's."""
    from losia_cli.method import LoSiAController

    monkeypatch.setattr(LoSiAController, "_after_step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()


def test_memory_that_runs_out_while_training_is_a_sentence(train, monkeypatch):
    plain, at = Trainer.training_step, []

    def step(trainer, *args, **kwargs):
        if trainer.state.global_step == at[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
        return plain(trainer, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", step)
    for folder, number, advice, changes in (
        ("unsaved", 4, "start again: no checkpoint was saved", {}),
        ("saved", 4, "go on with resume_from_checkpoint=true", {"save_steps": 3}),
        ("saved", 0, "start again: no ch", {"overwrite_output_dir": True, "seed": 7}),
    ):
        at.append(number)
        with pytest.raises(UserError, match=rf"step {number + 1} \(CUDA .*2 GiB\): .*{advice}"):
            train(folder, **changes)
    monkeypatch.undo()
    train("saved", save_steps=3, resume_from_checkpoint=True)


def test_a_disk_too_small_is_found_before_the_first_step(train, monkeypatch, tmp_path):
    train(save_steps=3)
    kept = sorted((tmp_path / "out").rglob("*.safetensors"))
    weights = (tmp_path / "out/model.safetensors").stat().st_size
    for copies, limit, fits in (
        (3.9, None, False),
        (4.2, None, True),
        (1.9, 1, False),
        (2.1, 1, True),
    ):
        space = copies * weights / 1e9
        monkeypatch.setattr(output, "free_disk", lambda path, space=space: (path, space))
        changes = {"save_steps": 3, "save_total_limit": limit}
        if fits:
            train(f"of {copies}", **changes)
        else:
            with pytest.raises(UserError, match=rf"for the model and {limit or 3} checkpoints"):
                train(f"of {copies}", **changes)
    monkeypatch.setattr(output, "free_disk", lambda path: (path, 0.0))
    with pytest.raises(UserError, match="for the model and 0 checkpoints"):
        first = str(tmp_path / "out/checkpoint-3")
        train(save_steps=3, save_total_limit=1, resume_from_checkpoint=first)
    with pytest.raises(UserError, match="has 0 GB free"):
        train(overwrite_output_dir=True, save_steps=1)
    assert sorted((tmp_path / "out").rglob("*.safetensors")) == kept
    train(overwrite_output_dir=True, save_steps=5)  # into the room of what it replaces


def test_a_loss_of_no_token_is_told_at_the_first_step(train, monkeypatch):
    """Nothing would move, and the loss would look like one."""
    plain = Trainer.training_step

    def step(trainer, model, *args, **kwargs):
        loss = plain(trainer, model, *args, **kwargs)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        return loss

    monkeypatch.setattr(Trainer, "training_step", step)
    full = {"losia_rank_factor": None, "losia_period": None}
    with pytest.raises(UserError, match="no gradient arrives at anything that trains"):
        train(method="full", **full)


def test_an_output_folder_that_is_a_file(train, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file; name a folder"):
        train()
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_in_use_is_not_touched(train, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("the only copy")
    with pytest.raises(UserError, match="is not empty"):
        train()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    train(overwrite_output_dir=True, max_steps=2)
    assert (tmp_path / "out/thesis.tex").read_text() == "the only copy"


def test_malformed_data_names_file_row_and_column(refusal, data, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    rows = json.loads((data / "sums.json").read_text())
    del rows[5]["output"]
    (folder / "sums.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text((data / "dataset_info.json").read_text())
    said = refusal(dataset_dir=str(folder))
    assert "sums.json" in said
    assert "output" in said


def test_damaged_checkpoint(train, tmp_path):
    train(save_steps=3, max_steps=3)
    state = tmp_path / "out/checkpoint-3/optimizer.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(UserError, match=r"optimizer\.pt is missing or cut short"):
        train("again", resume_from_checkpoint=str(tmp_path / "out/checkpoint-3"))


def test_the_command_exits_with_2_and_no_traceback(recipe, tmp_path):
    for arguments, says in (
        (["train", "no-such-recipe"], "no-such-recipe"),
        (["train", recipe(losia_period=0)], "losia_period"),
        (["train", recipe("other.yaml"), "--method", "lorra"], "lora"),
        (["train", recipe("other.yaml"), "learning_rate"], "learning_rate"),
    ):
        result = losia(*arguments)
        assert result.returncode == 2, result.stderr
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_all_that_is_here_is_looked_at_before_anything_is_done(recipe, tmp_path):
    """By a dry run as well: data, model and folder, all at once, and nothing is touched."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("the only copy")
    path = recipe(dataset="nope", model_name_or_path=str(tmp_path / "nomodel"))
    for option in (["--dry-run"], []):
        result = losia("train", path, *option)
        assert result.returncode == 2
        assert "3 faults in what" in result.stderr
        assert all(part in result.stderr for part in ("nope", "nomodel", "is not empty"))
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    one = losia("train", recipe(losia_rank_factor=0.001, output_dir="elsewhere"), "--dry-run")
    assert one.returncode == 2
    assert "fault" not in one.stderr


def test_dry_run_trains_nothing(recipe, tmp_path):
    result = losia("train", recipe(), "learning_rate=0.5", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "command line" in result.stdout
    assert not (tmp_path / "out").exists()
    assert recipes.load(recipe(), None, ["learning_rate=0.5"]).values["learning_rate"] == 0.5


@pytest.mark.parametrize("type_", ["losia", "full"])
def test_a_tied_model_gets_no_value_head_but_an_adapters(recipe, tied_model, type_):
    own = {} if type_ == "losia" else {"losia_rank_factor": None, "losia_period": None}
    tied = {"stage": "rm", "dataset": "pairs", "model_name_or_path": str(tied_model)}
    told = recipe(**tied, **own, finetuning_type=type_)
    with pytest.raises(UserError, match=r"stage rm: .* ties its output layer.*--method lora"):
        look_over(recipes.load(told), Console(quiet=True))
    look_over(recipes.load(told, "lora"), Console(quiet=True))


def test_a_sandbox_is_tried_before_hours_of_training(recipe, other_programs):
    other_programs("bwrap", "exit 1")
    other_programs("unshare", "exit 1")
    told = recipe(eval_suites=["mbpp"], eval_allow_code=True)
    with pytest.raises(
        UserError, match=r"^eval_suites: no sandbox for model-written code works"
    ) as refused:
        look_over(recipes.load(told), Console(quiet=True))
    assert str(refused.value).endswith("or allow it unsandboxed with eval_allow_code=unsandboxed")
    look_over(recipes.load(told, None, ["eval_allow_code=unsandboxed"]), Console(quiet=True))
    look_over(recipes.load(told, None, ["eval_suites=[piqa]"]), Console(quiet=True))


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_loaded(recipe, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot be written into: name another folder"):
        look_over(recipes.load(recipe()), Console(quiet=True))


def test_embeddings_tied_to_what_trains_them(recipe, tied_model):
    told = recipe(model_name_or_path=str(tied_model), losia_train_embeddings=True)
    with pytest.raises(UserError, match="leave train_embeddings out"):
        look_over(recipes.load(told), Console(quiet=True))
