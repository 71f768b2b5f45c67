"""A shipped recipe becomes its miniature, and what differs in the paper still differs."""

from dataclasses import replace

import pytest

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.reproduction import miniature
from losia_cli.reproduction.cell import untrained
from losia_cli.reproduction.miniature.documents import ASKED
from losia_cli.reproduction.tables import cell, places

DATASETS = ("metamath", "magicoder", "alpaca-gpt4")


def resolved(world, dataset, method, *given):
    changes = miniature.overrides(world, cell("llama2-7b", dataset, method, *given))
    return recipes.load(f"llama2-7b-{dataset}", method, [*given, *changes]).values


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", recipes.methods())
def test_a_recipe_keeps_its_keys_and_its_method(world, dataset, method):
    plain = recipes.load(f"llama2-7b-{dataset}", method).values
    small = resolved(world, dataset, method)
    added = {"eval_data", "eval_limit", "max_steps", "dataloader_pin_memory"}
    assert set(small) == set(plain) | added
    for key in ("finetuning_type", "dataset", "template", "optim", "seed", "eval_suites"):
        assert small.get(key) == plain.get(key)
    assert small["model_name_or_path"] == str(world.models["llama2-7b"])
    assert small["dataset_dir"] == str(world.data)
    assert (small["eval_data"], small["eval_limit"]) == (str(world.documents), ASKED)
    assert not small["bf16"]
    assert not small.get("pure_bf16")


def test_what_differs_in_the_paper_differs_here(world):
    periods = [
        resolved(world, "metamath", "losia-pro", f"losia_period={period}")["losia_period"]
        for period in (25, 50, 75, 100, 125, 150)
    ]
    assert periods == sorted(set(periods))
    assert periods[0] >= 1
    given = [f"learning_rate={rate}" for rate in (5e-5, 1e-4)]
    low, high = (resolved(world, "metamath", "lora", one)["learning_rate"] for one in given)
    assert high == pytest.approx(2 * low)


def test_every_group_is_selected_anew(world):
    for dataset in DATASETS:
        values = resolved(world, dataset, "losia-pro")
        assert values["max_steps"] > 5 * values["losia_period"]  # 4 layers and the output layer


def small(world, one):
    changes = miniature.overrides(world, one)
    return replace(one, common=tuple(changes), after=one.after and small(world, one.after))


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4", "table10", "peft-suite"])
def test_cells_that_differ_stay_different(world, table):
    cells = {place.cell for place in places(table) if place.cell.dataset in ("metamath", "arc-c")}
    assert len(cells) > 2
    made = [small(world, one) for one in cells]
    assert len({one.identity for one in made}) == len({one.identity for one in cells})


def test_a_model_without_a_miniature_is_one_sentence(world):
    with pytest.raises(UserError, match="no miniature of llama9-7b, only of gemma-2b"):
        miniature.overrides(world, cell("llama9-7b", "metamath", "losia"))


def test_an_untrained_model_is_only_scored(world):
    changes = miniature.overrides(world, untrained("llama2-13b", "llama2-13b-metamath", ()))
    keys = {change.partition("=")[0] for change in changes}
    assert keys == {"model_name_or_path", "eval_data", "eval_limit", "eval_dtype"}
    values = recipes.load("llama2-7b-metamath", None, changes).values
    assert values["model_name_or_path"] == str(world.models["llama2-13b"])
