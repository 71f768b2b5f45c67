import io
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.method.config import LoSiAConfig
from losia_cli.recipes import Recipe
from losia_cli.recipes.recipe import method_settings

MINIMAL = {
    "model_name_or_path": "some/model",
    "do_train": True,
    "finetuning_type": "losia",
    "dataset": "rows",
    "template": "llama2",
    "output_dir": "runs/test",
}


def written(folder: Path, **changes) -> Path:
    """A recipe's file: the minimal one with changes; a change to None takes the key out."""
    values = {key: value for key, value in (MINIMAL | changes).items() if value is not None}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def made_of(**values) -> Recipe:
    """A recipe of these values, without a file."""
    values = MINIMAL | values
    return Recipe(Path("r.yaml"), values, dict.fromkeys(values, "r.yaml"), {})


def faults_of(**values) -> list[str]:
    return recipes.faults(made_of(**values))


@pytest.mark.parametrize("method", ["full", "full-8bit", "galore"])
def test_full_methods_are_pure_bfloat16_where_the_recipe_is_bfloat16(method, tmp_path):
    assert recipes.load(written(tmp_path, bf16=True), method).values["pure_bf16"] is True
    assert recipes.load(written(tmp_path), method).values["pure_bf16"] is False
    typed = recipes.load(written(tmp_path), method, ["bf16=true"])
    assert typed.values["pure_bf16"] is True


# --- reading


def test_a_json_recipe_is_read_as_a_yaml_one_is(tmp_path):
    path = written(tmp_path, learning_rate=1e-4, losia_ema=[0.5, 0.5])
    as_json = tmp_path / "recipe.json"
    as_json.write_text(json.dumps(yaml.safe_load(path.read_text())))
    assert recipes.load(as_json).values == recipes.load(path).values
    assert recipes.load(as_json, "lora", ["seed=3"]).values["seed"] == 3


def test_every_value_has_the_source_it_came_from(tmp_path):
    path = written(tmp_path, learning_rate=1e-3, lora_rank=2, losia_period=7)
    recipe = recipes.load(path, "lora", ["learning_rate=1e-5", "seed=1"])
    assert recipe.values["learning_rate"] == 1e-5
    assert recipe.values["lora_rank"] == 64
    assert recipe.values.keys() == recipe.sources.keys()
    assert recipe.sources["learning_rate"] == recipe.sources["seed"] == "command line"
    assert recipe.sources["lora_rank"] == "recipes/methods/lora.yaml"
    assert recipe.sources["dataset"] == str(path)
    assert recipes.load("quickstart").sources["seed"] == "recipes/quickstart.yaml"


def test_a_method_sets_aside_what_the_recipe_says_of_another(tmp_path):
    losia = written(tmp_path, losia_period=7, losia_pro=False)
    over_losia = recipes.load(losia, "lora")
    assert {"losia_period", "losia_pro"} == over_losia.dropped.keys()
    assert not over_losia.dropped.keys() & over_losia.values.keys()
    assert method_settings(over_losia.values) == {}
    assert recipes.load(losia, "losia-pro").values["losia_period"] == 7

    lora = written(tmp_path, finetuning_type="lora", use_dora=True, lora_rank=8)
    over_lora = recipes.load(lora, "losia-pro")
    assert over_lora.dropped.keys() == {"use_dora", "lora_rank"}
    assert recipes.faults(over_lora) == []
    assert recipes.load(lora, "dora").dropped == {}


def test_keys_of_other_methods_are_set_aside_by_losia(tmp_path):
    """They would mean nothing, and `lora_target` would seem to choose the linears."""
    path = written(tmp_path, finetuning_type="lora", lora_target="q_proj", lora_rank=8, seed=3)
    laid = recipes.load(path, "losia-pro")
    assert laid.dropped.keys() == {"lora_target", "lora_rank"}
    assert laid.values["seed"] == 3
    assert "lora_rank" in recipes.load(path, "dora").values


def test_a_typed_losia_key_under_another_method_is_a_fault(tmp_path):
    recipe = recipes.load(written(tmp_path), "lora", ["losia_period=5"])
    (fault,) = recipes.faults(recipe)
    assert "losia_period (command line)" in fault
    assert "finetuning_type: lora" in fault


def test_the_methods_settings_and_llamafactorys_arguments_part_the_values(tmp_path):
    path = written(tmp_path, losia_ema=[0.5, 0.6], losia_target=["q_proj"], losia_period="auto")
    recipe = recipes.load(path)
    config = LoSiAConfig(**method_settings(recipe.values))
    assert (config.ema, config.target, config.period) == ((0.5, 0.6), ("q_proj",), "auto")
    assert recipe.llamafactory_arguments() == MINIMAL


@pytest.mark.parametrize("name", [field.name for field in fields(LoSiAConfig)])
def test_every_setting_of_the_method_is_a_key_but_the_seed(name):
    default = getattr(LoSiAConfig(), name)
    value = list(default) if isinstance(default, tuple) else default
    assert bool(faults_of(**{f"losia_{name}": value})) == (name == "seed")


KEYS = st.sampled_from(["learning_rate", "seed", "default_system", "lr_scheduler_kwargs.min_lr"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]))
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS


@given(KEYS, SCALARS | st.lists(SCALARS))
def test_a_typed_value_is_read_as_it_was_meant(tmp_path_factory, key, value):
    path = written(tmp_path_factory.getbasetemp())
    recipe = recipes.load(path, None, [f"{key}={json.dumps(value)}"])
    first, _, rest = key.partition(".")
    assert recipe.values[first] == ({rest: value} if rest else value)
    assert recipe.sources[first] == "command line"


@given(NUMBERS | st.text(st.characters(exclude_categories=["C"], exclude_characters="$")))
def test_what_we_hand_on_to_a_command_is_read_as_it_was(tmp_path_factory, value):
    path = written(tmp_path_factory.getbasetemp())
    recipe = recipes.load(path, None, [recipes.override("run_name", value)])
    assert recipe.values["run_name"] == value
    if isinstance(value, str):
        place = Path("runs") / f"a #1: {value}"
        recipe = recipes.load(path, None, [recipes.override("run_name", place)])
        assert recipe.values["run_name"] == str(place)


@given(KEYS, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_override_is_read_as_llamafactory_reads_it(tmp_path_factory, key, text):
    from llamafactory.hparams import read_args

    path = written(tmp_path_factory.getbasetemp(), learning_rate=1e-4)
    arguments = [f"{key}={text}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["llamafactory-cli", str(path), *arguments])
        try:
            theirs = read_args()
        except Exception:
            with pytest.raises(UserError):
                recipes.load(path, None, arguments)
            return
    assert recipes.load(path, None, arguments).values == theirs


def test_the_home_folder_is_spelled_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    told = ["output_dir=~/runs/x", "ref_model=~/model", "adapter_name_or_path='~/a,b,~/c'"]
    values = recipes.load("quickstart", overrides=told).values
    assert values["output_dir"] == str(tmp_path / "runs/x")
    assert values["ref_model"] == str(tmp_path / "model")
    assert values["adapter_name_or_path"] == f"{tmp_path}/a,b,{tmp_path}/c"


def test_data_is_found_beside_the_recipe_and_before_that_from_here(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "data").mkdir(parents=True)
    path = written(there, dataset_dir="data")
    monkeypatch.chdir(here)
    assert recipes.load(path).values["dataset_dir"] == "data"
    (there / "data/dataset_info.json").write_text("{}")
    assert recipes.load(path).values["dataset_dir"] == str(there / "data")
    assert recipes.load("../there/recipe.yaml").values["dataset_dir"] == str(here / "../there/data")
    (here / "data/dataset_info.json").write_text("{}")
    assert recipes.load(path).values["dataset_dir"] == "data"
    assert recipes.load(path, None, ["dataset_dir=ONLINE"]).values["dataset_dir"] == "ONLINE"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", b"a: 1\nb: [1, 2\nc: 3\n", ["a.yaml, line 3, column 2"]),
        ("a.yaml", b"a: 1\na: 2\n", ["line 2, column 1", "duplicate key a"]),
        ("a.yaml", b"seed: ${\n", ["a.yaml", "seed"]),
        ("a.yaml", b"\xff\xfe\x00", ["a.yaml", "not a text file"]),
        ("a.yaml", b"", ["a.yaml", "empty"]),
        ("a.yaml", b"- a\n", ["a.yaml", "list"]),
        ("a.yaml", b"5\n", ["a.yaml"]),
        ("a.json", b'{"a": 1,\n "b": }', ["a.json, line 2, column 7"]),
        ("a.json", b"[1]", ["a.json", "list"]),
        ("a.json", b"5", ["a.json"]),
        ("a.txt", b"a: 1", ["a.txt", ".yaml"]),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_sentence(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refusal:
        recipes.load(tmp_path / name)
    assert all(words in str(refusal.value) for words in said)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["llama2-7b-metamat"], "llama2-7b-metamat; did you mean llama2-7b-metamath?"),
        (["elsewhere/llama2-7b-magicodr.yaml"], "did you mean llama2-7b-magicoder?"),
        (
            ["xyz"],
            "no recipe xyz; give the path of a file, or a name that `losia recipes`",
        ),
        (["llama2-7b-metamath", "lorra"], "no method lorra; did you mean lora?"),
        (["llama2-7b-metamath", "synchronous"], "did you mean ablations/synchronous?"),
        (["llama2-7b-metamath", "?"], "give one of dora, full, full-8bit, galore, lora, losia,"),
        (["llama2-7b-metamath", None, ["seed"]], "'seed': write key=value"),
        (["llama2-7b-metamath", None, ["--seed=1"]], "'--seed=1': write key=value, without dashes"),
        (["llama2-7b-metamath", None, ["=1"]], "'=1': write key=value"),
        (["llama2-7b-metamath", None, ["lora_target=[a"]], "'lora_target=[a'"),
        (["llama2-7b-metamath", None, ["template=${"]], "'template=${'"),
    ],
)
def test_what_cannot_be_found_or_read_is_named_with_what_to_write(arguments, said):
    with pytest.raises(UserError, match=r".") as refusal:
        recipes.load(*arguments)
    assert said in str(refusal.value)


# --- faults


def test_the_minimal_recipe_has_no_fault():
    assert faults_of() == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("losia_rank_factor", 0, "(0, 1]"),
        ("losia_rank_factor", 1.5, "(0, 1]"),
        ("losia_rank_factor", float("nan"), "(0, 1]"),
        ("losia_output_factor", -0.1, "[0, 1]"),
        ("losia_output_factor", "0.5", "leave out the quotes"),
        ("losia_period", 0, ">= 1"),
        ("losia_period", 2.5, "whole number"),
        ("losia_period", "atuo", "did you mean auto?"),
        ("losia_ema", [0.9], "a list of 2 numbers"),
        ("losia_ema", [0.9, 1.0], "[0, 1)"),
        ("losia_ema", 0.9, "a list of 2 numbers"),
        ("losia_pro", "yes", "true or false"),
        ("losia_schedule", "asynch", "did you mean async?"),
        ("losia_localization", None, "one of greedy, random, not null"),
        ("losia_rank", 0.1, "did you mean losia_rank_factor?"),
        ("rank_factor", 0.1, "did you mean losia_rank_factor?"),
        ("eval_suites", ["gsm8k-5shots"], "did you mean gsm8k-5shot?"),
        ("eval_suites", ["mbpp"], "eval_allow_code: true"),
        ("eval_suites", "mbpp", "a list"),
        ("eval_allow_code", "maybe", "true or false"),
        ("cutof_len", 1, "did you mean cutoff_len?"),
        ("compute_dtype", "float32", "no such key"),
        ("learning_rate", "1e-4", "learning_rate: 1e-4"),
        ("learning_rate", None, "a number, not null"),
        ("learning_rate", True, "a number, not True"),
        ("learning_rate", "nan", "a number, not 'nan'"),
        ("learning_rate", float("nan"), "a finite number"),
        ("learning_rate", 1e400, "a finite number"),
        ("learning_rate", -1e-4, "above 0"),
        ("weight_decay", -1, "at least 0"),
        ("per_device_train_batch_size", 0, "at least 1"),
        ("gradient_accumulation_steps", 0, "at least 1"),
        ("num_train_epochs", 0, "above 0"),
        ("adam_beta1", 1, "below 1"),
        ("warmup_steps", -1, "at least 0"),
        ("max_steps", 0, "-1 for num_train_epochs"),
        ("eval_limit", 0, "at least 1"),
        ("eval_limit", "ten", 'a share such as "10%"'),
        ("eval_limit", "200%", 'a share such as "10%"'),
        ("eval_limit", "0", "a whole number"),
        ("template", "lama2", "did you mean llama2?"),
        ("preprocessing_num_workers", -1, "at least 1"),
        ("eval_temperature", 0, "above 0"),
        ("eval_top_p", 1.5, "at most 1"),
        ("max_steps", 100.0, "max_steps: 100"),
        ("max_steps", [1], "a whole number"),
        ("bf16", "yes", "true or false"),
        ("bf16", 2, "true or false"),
        ("run_name", 7, 'run_name: "7"'),
        ("label_names", "labels", "label_names: [labels]"),
        ("label_names", [1], "a list"),
        ("lr_scheduler_kwargs", [1], "a mapping"),
        ("lr_scheduler_type", "cosin", "did you mean cosine?"),
        ("optim", "adamw_torh", "did you mean adamw_torch?"),
        ("flash_attn", "fa9", "did you mean fa2 or fa3?"),
        ("stage", "stf", "did you mean sft?"),
        ("eval_strategy", False, 'eval_strategy: "no"'),
        ("output_dir", None, "output_dir: missing"),
        ("model_name_or_path", None, "model_name_or_path: missing"),
        ("dataset", None, "dataset: missing"),
        ("do_train", False, "do_train: missing"),
    ],
)
def test_a_wrong_key_or_value_is_one_fault_that_says_what_to_write(key, value, said):
    (fault,) = faults_of(**{key: value})
    assert said in fault
    assert key in fault


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1, "num_train_epochs": 3, "warmup_ratio": 0.1, "save_steps": 0.5},
        {"dataset": ["a", "b"], "losia_target": "q_proj,v_proj"},
        {"finetuning_type": "lora", "lora_target": ["q_proj"]},
        {"losia_target": ["q_proj"], "resume_from_checkpoint": True, "report_to": ["none"]},
        {"lr_scheduler_kwargs": '{"min_lr": 1e-6}', "neftune_noise_alpha": 5, "packing": None},
        {"resume_from_checkpoint": None, "eval_strategy": "no", "optim": "adamw_torch"},
        {"bf16": 1, "rope_scaling": "linear", "include_num_input_tokens_seen": "all"},
        {"ddp_timeout": 180000000, "overwrite_output_dir": True, "save_strategy": "best"},
        {
            "learning_rate": 1e-12,
            "max_steps": -1,
            "adam_beta1": 0.0,
            "max_grad_norm": 0,
            "seed": -1,
        },
        {"eval_limit": "7"},
        {"num_train_epochs": 0.01, "eval_limit": "10%", "eval_temperature": 0.2, "eval_top_p": 1},
    ],
)
def test_what_llamafactory_takes_is_no_fault(values):
    assert faults_of(**values) == []


NAME_LISTS = [
    "dataset",
    "eval_dataset",
    "freeze_trainable_modules",
    "freeze_extra_modules",
    "lora_target",
    "oft_target",
    "additional_target",
    "galore_target",
    "apollo_target",
]


@pytest.mark.parametrize("key", NAME_LISTS)
def test_lists_are_allowed_where_llamafactory_reads_them_as_names_between_commas(key, tmp_path):
    from llamafactory.hparams import get_train_args

    assert faults_of(finetuning_type="full", **{key: ["a", "b"]}) == []
    base = MINIMAL | {"finetuning_type": "full", "output_dir": str(tmp_path), "use_cpu": True}
    listed, comma = (get_train_args(base | {key: names}) for names in (["a", "b"], "a,b"))
    (theirs,) = (getattr(part, key) for part in listed if hasattr(part, key))
    assert theirs == ["a", "b"]
    assert [theirs] == [getattr(part, key) for part in comma if hasattr(part, key)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_bit", 4),
        ("deepspeed", "ds.json"),
        ("fsdp", "full_shard"),
        ("use_unsloth", True),
        ("use_galore", True),
        ("use_apollo", True),
        ("use_badam", True),
        ("use_adam_mini", True),
        ("use_muon", True),
        ("use_llama_pro", True),
        ("use_kt", True),
        ("use_mca", True),
        ("use_hyper_parallel", True),
        ("fp8", True),
        ("mixture_of_depths", "convert"),
        ("shift_attn", True),
        ("adapter_name_or_path", "adapter"),
        ("use_dora", True),
        ("use_rslora", True),
        ("pissa_init", True),
        ("loraplus_lr_ratio", 16.0),
        ("stage", "ppo"),
        ("optim", "galore_adamw"),
        ("optim", "lomo"),
        ("optim", "schedule_free_adamw"),
        ("auto_find_batch_size", True),
    ],
)
def test_what_losia_cannot_work_with_is_refused_and_left_alone_elsewhere(key, value):
    (fault,) = faults_of(**{key: value})
    assert fault.startswith(f"{key} (r.yaml): ")
    assert "LoSiA" in fault
    elsewhere = faults_of(finetuning_type="full", **{key: value})
    assert not any("LoSiA" in fault for fault in elsewhere)
    if key != "stage":
        off = None if key in ("quantization_bit", "loraplus_lr_ratio") else False
        assert not any("LoSiA" in fault for fault in faults_of(**{key: off}))


@pytest.mark.parametrize(
    "name",
    ["USE_MCA", "USE_KT", "USE_RAY", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"],
)
def test_an_environment_that_losia_cannot_work_with_is_refused(name, monkeypatch):
    faults_of()  # LLaMA-Factory itself reads some of these when it is first imported
    monkeypatch.setenv(name, "1")
    (fault,) = faults_of()
    assert name in fault
    assert faults_of(finetuning_type="full") == []
    monkeypatch.setenv(name, "0")
    assert faults_of() == []


def test_losia_keys_elsewhere_are_faults():
    (fault,) = faults_of(finetuning_type="full", losia_period=5)
    assert "losia_period" in fault
    assert "finetuning_type: full" in fault
    values = {key: value for key, value in MINIMAL.items() if key != "finetuning_type"}
    values["losia_period"] = 5
    (fault,) = recipes.faults(Recipe(Path("r.yaml"), values, dict.fromkeys(values, "r"), {}))
    assert "default" in fault


def test_a_package_that_is_not_there_is_a_fault_that_says_how_to_get_it():
    (fault,) = faults_of(finetuning_type="full", use_badam=True)
    assert "pip install badam" in fault


def test_check_reports_every_fault_at_once_with_its_source(tmp_path):
    path = written(tmp_path, losia_periode=5, losia_rank_factor=2, output_dir=None, deepspeed="d")
    recipe = recipes.load(path, None, ["learning_rate=fast"])
    with pytest.raises(UserError) as refusal:
        recipes.check(recipe)
    first, *lines = str(refusal.value).splitlines()
    assert first == "5 faults in the recipe recipe.yaml:"
    assert [line.strip() for line in lines] == recipes.faults(recipe)
    for words in (
        "output_dir: missing",
        f"deepspeed ({path})",
        f"losia_periode ({path}): there is no such key; did you mean losia_period?",
        f"losia_rank_factor ({path}): is 2",
        "learning_rate (command line): must be a number, not 'fast'",
    ):
        assert any(line.strip().startswith(words) for line in lines)
    recipes.check(recipes.load(written(tmp_path)))


def known_keys() -> list[str]:
    from losia_cli.recipes.faults import _known_keys

    return sorted(_known_keys())


@settings(max_examples=60)
@given(st.data())
def test_a_known_key_with_one_letter_changed_is_suggested_back(data):
    known = known_keys()
    key = data.draw(st.sampled_from(known))
    place = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_0123456789"))
    typo = key[:place] + letter + key[place + 1 :]
    if typo in known:
        return
    (fault,) = faults_of(**{typo: 1})
    assert key in fault.partition("did you mean ")[2].rstrip("?").split(" or ")


# --- for the eye


def test_describe_shows_values_sources_what_was_set_aside_and_what_is_needed(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"rows": {"file_name": "none.json"}}')
    path = written(tmp_path, losia_period=7, dataset_dir=str(tmp_path), bf16=True, use_badam=True)
    path.write_text("# What it is for [INST]\n" + path.read_text())
    recipe = recipes.load(path, "lora", ["seed=11", "use_badam=true", "default_system=[/b]"])
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(recipes.describe(recipe))
    lines = [line.split("│") for line in console.export_text().splitlines()]
    cells = [tuple(cell.strip() for cell in line if cell.strip()) for line in lines]
    assert ("What it is for [INST]",) in cells
    assert ("seed", "11", "command line") in cells
    assert ("lora_rank", "64", "recipes/methods/lora.yaml") in cells
    assert ("bf16", "true", str(path)) in cells
    assert ("losia_period", "set aside", "means nothing to --method lora") in cells
    assert ("needs", "data rows", str(tmp_path / "none.json")) in cells
    assert ("needs", "package badam", "pip install badam") in cells
    assert any(cell[0] == "needs" and "some/model" in cell for cell in cells if cell)


def test_a_broken_register_of_data_is_named(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{,}")
    recipe = recipes.load(written(tmp_path, dataset_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"dataset_info\.json, line 1, column 2"):
        recipes.describe(recipe)


def test_reading_a_recipe_loads_neither_torch_nor_llamafactory():
    code = (
        "import sys; from losia_cli import recipes; recipes.load('llama2-7b-metamath', 'lora');"
        "sys.exit(bool({'torch', 'llamafactory', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
