"""From an adapter to the next base: what a sequence of tasks needs between two of them."""

import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.evaluation import checkpoint, loading
from losia_cli.training.command import run
from losia_cli.training.merge import merge
from losia_cli.training.progress import RunProgress
from tests.e2e.conftest import final_weights, losia


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_what_is_evaluated_is_what_was_trained(recipe, tmp_path, monkeypatch, method):
    """PiSSA trains on a residual that is random: its own adapter fits no other."""
    tokens, trained = torch.arange(24)[None], []

    def keep(_, *__, model, **___):
        trained.append(model.eval()(input_ids=tokens).logits.detach())

    monkeypatch.setattr(RunProgress, "on_train_end", keep)
    path = recipe(max_steps=9, output_dir=str(tmp_path / "run"))
    overrides = ["lora_rank=8", "lora_alpha=16", "learning_rate=1e-2"]
    assert run(recipes.load(path, method, overrides), [], Console(quiet=True)) == 0
    found = checkpoint.find(str(tmp_path / "run"))
    loaded = loading.load_model(found, "auto", "cpu")(input_ids=tokens).logits
    torch.testing.assert_close(loaded, trained[0], rtol=1e-4, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(found.model)(input_ids=tokens).logits
    assert (base - trained[0]).abs().max() > 0.1


def test_a_resumed_pissa_is_converted_from_where_it_began(recipe, tmp_path):
    """Its conversion takes off the first adapter, not the one that the checkpoint brought."""
    path = recipe(max_steps=6, save_steps=3, output_dir=str(tmp_path / "run"))
    told = ["lora_rank=8", "lora_alpha=16", "learning_rate=1e-2"]
    assert run(recipes.load(path, "pissa", told), [], Console(quiet=True)) == 0
    converted = tmp_path / "run/pissa_converted/adapter_model.safetensors"
    whole = load_file(converted)
    (tmp_path / "run/checkpoint-6/losia_checkpoint.json").unlink()
    converted.unlink()
    again = recipes.load(path, "pissa", [*told, "resume_from_checkpoint=true"])
    assert run(again, [], Console(quiet=True)) == 0
    resumed = load_file(converted)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    elsewhere = [*told, f"resume_from_checkpoint={tmp_path}/run/checkpoint-3"]
    other = recipe(max_steps=6, save_steps=3, output_dir=str(tmp_path / "other"))
    with pytest.raises(UserError, match="output_dir does not hold pissa_init"):
        run(recipes.load(other, "pissa", elsewhere), [], Console(quiet=True))
    shutil.rmtree(tmp_path / "run/pissa_init")
    with pytest.raises(UserError, match="does not hold pissa_init"):
        run(again, [], Console(quiet=True))


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_a_merged_model_is_the_next_base(recipe, train, model, tmp_path, method):
    path = recipe(max_steps=4, output_dir=str(tmp_path / method))
    assert (
        run(recipes.load(path, method, ["lora_rank=4", "lora_alpha=8"]), [], Console(quiet=True))
        == 0
    )
    assert merge(tmp_path / method, tmp_path / "merged") < 1e-4
    merged, base = final_weights(tmp_path / "merged"), final_weights(model)
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}
    trained = train(max_steps=2, model_name_or_path=str(tmp_path / "merged"))
    assert any(not torch.equal(trained[name], merged[name]) for name in merged)


def test_the_command(recipe, tmp_path):
    path = recipe(max_steps=2, output_dir=str(tmp_path / "lora"))
    assert run(recipes.load(path, "lora"), [], Console(quiet=True)) == 0
    told = losia("merge", tmp_path / "lora", tmp_path / "merged")
    assert told.returncode == 0, told.stderr
    assert "reloaded and compared" in told.stdout
    assert final_weights(tmp_path / "merged")
    again = losia("merge", tmp_path / "lora", tmp_path / "merged")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "exists: name a folder that does not" in again.stderr
