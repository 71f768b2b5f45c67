"""What is to do of a plan, and how long it will take, by what its folder holds."""

from dataclasses import replace

import pytest

from losia_cli import recipes
from losia_cli.reproduction.cell import untrained
from losia_cli.reproduction.live import remaining
from losia_cli.reproduction.run import commands, one_gpu, to_do
from losia_cli.reproduction.store import DONE, Store
from losia_cli.reproduction.tables import cell


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "a: b #1", {"miniature": False})
    made.open()
    return made


def finish(one, store, seconds=60.0):
    scores = {suite: {"score": 0.5} for suite in one.suites}
    training = {"seconds": seconds, "resumed_from": None}
    with store.take(one):
        store.save(one, {"state": DONE, "scores": scores, "training": training})


def in_sequence():
    first = cell("llama2-7b", "hellaswag", "losia-pro")
    second = replace(cell("llama2-7b", "piqa", "losia-pro"), after=first)
    return first, second


def test_weights_that_are_gone_are_trained_again_for_a_cell_that_starts_from_them(store):
    first, second = in_sequence()
    assert to_do([first, second], store) == [first, second]
    finish(first, store)
    assert to_do([first], store) == []
    assert to_do([first, second], store) == [first, second]
    store.trained(first).mkdir()
    (store.trained(first) / "model.safetensors").touch()
    assert to_do([first, second], store) == [second]
    store.drop_model(first)
    finish(second, store)
    assert to_do([first, second], store) == []


def test_a_folder_of_any_name_reaches_the_recipe_whole(store):
    first, second = in_sequence()
    ((_, recipe, _, method, *overrides),) = commands(second, store)
    values = recipes.load(recipe, method, overrides).values
    assert values["output_dir"] == str(store.trained(second))
    assert values["model_name_or_path"] == str(store.trained(first))


def test_a_base_model_is_asked_as_its_recipe_says(store):
    asked = ("eval_limit=10%", "eval_dtype=float32", "eval_temperature=0.8", "eval_top_p=0.9")
    base = replace(untrained("llama2-7b", "llama2-7b-magicoder", ("mbpp",)), common=asked)
    ((verb, _, _, _, *options),) = commands(base, store)
    assert verb == "eval"
    assert options == [
        *("--limit", "10%", "--dtype", "float32", "--temperature", "0.8", "--top-p", "0.9"),
        *("--suite", "mbpp", "--allow-code=sandboxed"),
    ]


def test_a_cell_sees_one_gpu():
    assert one_gpu({"HOME": "/h", "FORCE_TORCHRUN": "1"}) == {
        "HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    assert one_gpu({"CUDA_VISIBLE_DEVICES": "3,4"}) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert one_gpu({"CUDA_VISIBLE_DEVICES": ""}) == {"CUDA_VISIBLE_DEVICES": ""}


def test_what_is_left_is_the_papers_hours_in_the_proportion_measured(store):
    small, large = (cell("llama2-7b", name, "lora") for name in ("arc-c", "hellaswag"))
    other = cell("llama2-7b", "hellaswag", "dora")
    assert remaining([large], [], store) == pytest.approx(10.0 * 3600)
    finish(small, store, seconds=10.0 * 3600 * 1119 / 39905 / 2)  # twice as fast as the paper
    assert remaining([large], [small], store) == pytest.approx(5.0 * 3600)
    assert remaining([large, other], [small], store) == pytest.approx(30.6 * 3600)


def test_where_the_paper_says_nothing_the_measured_time_counts(store):
    few = ("max_steps=20",)  # none of the paper's trainings
    small, large, other = (
        replace(cell("llama2-7b", name, method), common=few)
        for name, method in (("arc-c", "lora"), ("hellaswag", "lora"), ("hellaswag", "dora"))
    )
    assert remaining([large], [], store) is None
    finish(small, store, seconds=90.0)
    assert remaining([large], [small], store) == pytest.approx(90.0)
    assert remaining([other], [small], store) is None
