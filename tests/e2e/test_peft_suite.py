"""The recipe of the public PEFT comparison, run on a tiny model: its settings work together."""

import json

import pytest
from rich.console import Console

from losia_cli import recipes
from losia_cli.reproduction.peft_suite import experiments, recipe
from losia_cli.training.command import run

RUNS = {each.name: (each.method, each.overrides) for each in experiments() if each.method}
RUNS |= {"losia-pro": (None, ())}


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_in_miniature(model, data, tmp_path, name):
    method, overrides = RUNS[name]
    tiny = {
        "model_name_or_path": model,
        "dataset": "sums",
        "dataset_dir": data,
        "template": "default",
        "max_steps": 3,
        "bf16": "false",
        "pure_bf16": "false",
        "use_cpu": "true",
        "eval_suites": "[]",
        "output_dir": tmp_path / "out",
    }
    changes = [f"{key}={value}" for key, value in tiny.items()]
    resolved = recipes.load(recipe(), method, [*overrides, *changes])
    assert run(resolved, [], Console(quiet=True)) == 0
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert record["steps"] == 3
    assert record["recipe"]["train_sampling_strategy"] == "group_by_length"
