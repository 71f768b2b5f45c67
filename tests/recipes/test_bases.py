"""Recipes that build on others: what wins, where it comes from, and what is refused."""

import json
from functools import reduce
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.training.checkpoints import recipe_plan

SCALARS = st.integers(0, 9)
VALUES = st.dictionaries(
    st.sampled_from("abc"), SCALARS | st.dictionaries(st.sampled_from("xyz"), SCALARS), min_size=1
)
# A file is its own values and the files it builds on, which are the same again.
TREES = st.recursive(
    st.tuples(VALUES, st.just(())),
    lambda below: st.tuples(VALUES, st.lists(below, max_size=3)),
    max_leaves=5,
)


def write(path: Path, **values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values, sort_keys=False)
    path.write_text(text)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as refused:
        recipes.load(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def plant(tree, folder: Path, name: str = "r") -> Path:
    """The files of a tree, each base in a folder of its own."""
    values, below = tree
    bases = [plant(each, folder / str(i), f"{name}{i}") for i, each in enumerate(below)]
    named = [str(path.relative_to(folder)) for path in bases]
    return write(folder / f"{name}.yaml", **values, base=named)


def over(below: dict, above: dict) -> dict:
    """What is above wins; mappings are joined."""
    joined = {
        key: over(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(below[key], dict) and isinstance(above[key], dict)
    }
    return {**below, **above, **joined}


def lowest_first(tree) -> list[dict]:
    values, below = tree
    return [*chain.from_iterable(map(lowest_first, below)), values]


def whole(tree) -> dict:
    return reduce(over, lowest_first(tree), {})


@settings(max_examples=60)
@given(TREES)
@example(({"a": 0}, [({"c": {"x": 0}}, ()), ({"c": {}}, [({"c": 0}, ())])]))
def test_what_is_named_later_wins_and_a_recipes_own_values_win_over_all(tmp_path_factory, tree):
    recipe = recipes.load(plant(tree, tmp_path_factory.mktemp("tree")))
    assert recipe.values == whole(tree)
    assert recipe.sources.keys() == recipe.values.keys()
    for key, source in recipe.sources.items():
        said = yaml.safe_load(Path(source).read_text())[key]
        value = recipe.values[key]
        assert said.items() <= value.items() if isinstance(said, dict) else said == value
        if key in tree[0]:
            assert source == str(recipe.path)


def test_a_file_that_is_named_twice_lies_below_all_that_build_on_it(tmp_path):
    write(tmp_path / "common.yaml", seed=1, run_name="common")
    write(tmp_path / "a.yaml", base="common.yaml", seed=2)
    write(tmp_path / "b.yaml", base="common.yaml", run_name="b")
    recipe = recipes.load(write(tmp_path / "top.yaml", base=["a.yaml", "b.yaml"]))
    assert recipe.values == {"seed": 2, "run_name": "b"}
    assert {key: Path(source).stem for key, source in recipe.sources.items()} == {
        "seed": "a",
        "run_name": "b",
    }


def test_a_base_is_found_beside_the_file_that_names_it_or_by_a_shipped_name(tmp_path):
    write(tmp_path / "shared/model.json", model_name_or_path="mine")
    write(tmp_path / "shared/all.yaml", base=["model.json"], seed=5)
    path = write(
        tmp_path / "here/top.yml",
        base=["llama2-7b-metamath", "../shared/all.yaml"],
        output_dir="runs/mine",
    )
    recipe = recipes.load(path, "lora", ["learning_rate=1e-5"])
    paper = recipes.load("llama2-7b-metamath", "lora").values
    changed = {"model_name_or_path": "mine", "seed": 5, "output_dir": "runs/mine"}
    assert recipe.values == paper | changed | {"learning_rate": 1e-5}
    assert recipe.sources["model_name_or_path"] == str(path.parent / "../shared/model.json")
    assert recipe.sources["template"] == "recipes/bases/metamath.yaml"
    assert recipe.sources["lora_rank"] == "recipes/methods/lora.yaml"
    assert recipe.sources["output_dir"] == str(path)
    assert recipes.faults(recipe) == []


def test_an_overlay_refers_to_keys_of_a_base_and_sets_aside_its_method(tmp_path):
    write(tmp_path / "base.yaml", bf16=True, finetuning_type="lora", use_dora=True, losia_period=7)
    path = write(tmp_path / "top.yaml", base="base.yaml", run_name="${kept} as it is")
    recipe = recipes.load(path, "full")
    assert recipe.values["pure_bf16"] is True
    assert recipe.dropped.keys() == {"use_dora", "losia_period"}
    assert not recipe.dropped.keys() & recipe.sources.keys()
    assert recipe.values["run_name"] == "${kept} as it is"
    switched_off = write(tmp_path / "off.yaml", base="base.yaml", use_dora=False)
    assert recipes.load(switched_off, "full").dropped.keys() == {"losia_period"}


def test_data_is_found_beside_a_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shared/data/dataset_info.json")
    write(tmp_path / "shared/base.yaml", dataset_dir="data")
    path = write(tmp_path / "mine/top.yaml", base="../shared/base.yaml")
    found = Path(recipes.load(path).values["dataset_dir"])
    assert found.samefile(tmp_path / "shared/data")
    write(tmp_path / "mine/data/dataset_info.json")
    assert recipes.load(path).values["dataset_dir"] == str(tmp_path / "mine/data")


def test_the_same_values_are_the_same_run_however_they_are_laid(tmp_path):
    flat = write(tmp_path / "flat.yaml", **recipes.load("gemma-2b-magicoder").values)
    built = write(tmp_path / "built.yaml", base="gemma-2b-magicoder")
    assert recipe_plan(recipes.load(flat).values) == recipe_plan(recipes.load(built).values)
    assert "base" not in recipes.load(built).llamafactory_arguments()


def test_a_recipe_that_builds_on_itself_is_refused_with_the_way_round(tmp_path):
    for name, base in (("a", "b.yaml"), ("b", "c.yaml"), ("c", "b.yaml"), ("d", "d.yaml")):
        write(tmp_path / f"{name}.yaml", base=base)
    a, b, c, d = (tmp_path / f"{name}.yaml" for name in "abcd")
    assert refusal(a) == f"{b} builds on itself: its base names {c}, which names {b}"
    assert refusal(d) == f"{d} builds on itself: its base names {d}"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("nowhere.yaml", "there is no recipe nowhere.yaml to build on; give a file's path from"),
        ("bases/lama2-7b", "did you mean bases/llama2-7b?"),
        (["quickstart", "llama2-7b-metamat"], "did you mean llama2-7b-metamath?"),
        ("folder", "there is no recipe folder to build on"),
        ("notes.txt", "notes.txt is no recipe"),
        ("broken.yaml", "broken.yaml, line 2, column 4 is not valid YAML"),
        (None, "base is null; write the name of one recipe, or a list of names"),
        (5, "base is 5; write"),
        ([["a"]], 'base is [["a"]]; write'),
        ({"a": 1}, 'base is {"a": 1}; write'),
    ],
)
def test_a_base_that_cannot_be_used_is_one_sentence(base, said, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("a: 1")
    (tmp_path / "broken.yaml").write_text("a: 1\nb: : 2\n")
    path = write(tmp_path / "top.yaml", base=base, seed=1)
    assert said in refusal(path)
    if "recipe" in said.partition(";")[0] and "build" in said:
        assert refusal(path).startswith(str(path))


def test_a_base_cannot_be_typed(tmp_path):
    recipe = recipes.load("quickstart", None, ["base=llama2-7b-metamath"])
    assert [fault for fault in recipes.faults(recipe) if "there is no such key" in fault]
