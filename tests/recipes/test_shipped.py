"""The recipes, methods and ablations that come with the project, against the paper's tables."""

import re
import shlex

import pytest

from losia_cli import paper, recipes
from losia_cli.evaluation.suites import GROUPS
from losia_cli.integrations import llamafactory
from losia_cli.recipes.needs import needs_gpu, packages
from losia_cli.recipes.shipped import files
from losia_cli.reproduction import tables
from losia_cli.reproduction.cell import BASE

MODELS = ("gemma-2b", "llama2-7b", "llama2-13b")
DOMAINS = {"metamath": "metamathqa", "magicoder": "magicoder", "alpaca-gpt4": "alpaca_gpt4"}
COMMONSENSE = GROUPS["table2"]
DOMAIN_RECIPES = [f"{model}-{dataset}" for model in MODELS for dataset in DOMAINS]
COMMONSENSE_RECIPES = [f"llama2-7b-{dataset}" for dataset in COMMONSENSE]
PAPERS = [*DOMAIN_RECIPES, *COMMONSENSE_RECIPES]

METHODS = ["dora", "full", "full-8bit", "galore", "lora", "losia", "losia-pro", "pissa"]
# An ablation -> the one key it changes and its value.
ABLATIONS = {
    "synchronous": ("losia_schedule", "sync"),
    "gradient": ("losia_importance", "gradient"),
    "no-rewarm": ("losia_rewarm", False),
    "full-head": ("losia_output_factor", 1),
    **{f"rank-factor-{n}": ("losia_rank_factor", 1 / n) for n in (16, 4, 2)},
    **{f"period-{n}": ("losia_period", n) for n in (25, 50, 75, 125, 150)},
    "random-localization": ("losia_localization", "random"),
    "scored-first-subnet": ("losia_initial_subnet", "scored"),
    "reset-fresh": ("losia_reset", "fresh"),
    "reset-keep": ("losia_reset", "keep"),
}
EVERY_RUN = [(name, method) for name in recipes.shipped() for method in [None, *METHODS]]
EVERY_RUN += [("llama2-7b-metamath", f"ablations/{name}") for name in ABLATIONS]

# The paper's settings -> how a recipe says them. Table 6 and 9 name the same columns.
SHARED = {
    "epochs": "num_train_epochs",
    "batch size": "per_device_train_batch_size",
    "cutoff length": "cutoff_len",
    "warm-up ratio": "warmup_steps",
}
LORA = {"finetuning_type": "lora", "lora_target": "all", "optim": "adamw_torch_fused"}
LOSIA = {
    "finetuning_type": "losia",
    "losia_initial_subnet": "random",
    "losia_ema": [0.85, 0.85],
    "optim": "adamw_torch_fused",
}
SWITCHES = {
    "lora": LORA,
    "dora": LORA | {"use_dora": True},
    "pissa": LORA | {"pissa_init": True},
    "galore": {
        "finetuning_type": "full",
        "use_galore": True,
        "galore_target": "all",
        "galore_proj_type": "full",
        "optim": "adamw_torch",
    },
    "losia": LOSIA | {"losia_pro": False},
    "losia-pro": LOSIA | {"losia_pro": True},
}
KEYS = {
    "lora": {"r": "lora_rank", "alpha": "lora_alpha"},
    "galore": {"r": "galore_rank", "alpha": "galore_scale", "T": "galore_update_interval"},
    "losia": {"p": "losia_rank_factor", "T": "losia_period"},
}
KEYS |= {"dora": KEYS["lora"], "pissa": KEYS["lora"], "losia-pro": KEYS["losia"]}


def row(method):
    return "losia" if method == "losia-pro" else method


def overlay(name):
    return f"ablations/{name}" if name in ABLATIONS else name


def holds(values, expected):
    return values | expected == values


# --- all that there is


def test_the_papers_recipes_methods_and_ablations_are_there_and_nothing_unknown_is():
    assert {n for n in recipes.shipped() if "/" not in n} == {*PAPERS, "quickstart"}
    assert len(PAPERS) == 3 * 3 + 8
    assert recipes.methods() == METHODS
    assert {*recipes.ablations()} == {f"ablations/{name}" for name in ABLATIONS}
    bases = {name for name in files() if name.startswith("bases/")}
    on_disk = list(recipes.project_recipes().rglob("*.yaml"))
    assert len(on_disk) == len(recipes.shipped()) + len(METHODS) + len(ABLATIONS) + len(bases)


@pytest.mark.parametrize(("name", "method"), EVERY_RUN)
def test_every_recipe_under_every_overlay_is_one_that_llamafactory_takes(name, method, tmp_path):
    from transformers.utils import is_torch_bf16_gpu_available

    recipe = recipes.load(name, method, [f"output_dir={tmp_path}"])
    absent = [need.what for need in packages(recipe.values) if need.missing]
    if absent:
        pytest.skip(f"not installed: {absent}")
    assert recipes.faults(recipe) == []
    assert "base" not in recipe.values
    assert recipe.values.keys() == recipe.sources.keys()

    arguments = recipe.llamafactory_arguments()
    if not is_torch_bf16_gpu_available():
        # The two checks of the hardware in its parser: bf16 asks for use_cpu, pure_bf16 for a GPU.
        arguments |= {"use_cpu": True, "pure_bf16": False}
    losia = recipe.values["finetuning_type"] == "losia"
    model, data, training, tuning, _ = llamafactory.parse(arguments, losia)
    assert (model.model_name_or_path, training.learning_rate, tuning.finetuning_type) == tuple(
        recipe.values[key] for key in ("model_name_or_path", "learning_rate", "finetuning_type")
    )
    assert data.dataset and training.do_train and tuning.stage == "sft"


# --- the paper's settings


@pytest.mark.parametrize("method", KEYS)
@pytest.mark.parametrize("name", PAPERS)
def test_settings_are_those_of_tables_6_and_9(name, method):
    number = 6 if name in DOMAIN_RECIPES else 9
    values = recipes.load(name, method).values
    assert holds(values, SWITCHES[method])
    for column, key in (SHARED | KEYS[method]).items():
        if key == "losia_period" and number == 6:
            continue  # by data set: Table 7
        assert values[key] == paper.value(number, column, method=row(method)), key
    assert values["gradient_accumulation_steps"] == 1
    assert values["lr_scheduler_type"] == "cosine"
    assert values["bf16"] is True


@pytest.mark.parametrize("method", KEYS)
def test_rates_of_the_baselines_are_table_6s_and_can_be_table_9s(method):
    if not method.startswith("losia"):
        for name in DOMAIN_RECIPES:
            rate = recipes.load(name, method).values["learning_rate"]
            assert rate == paper.value(6, "LR", method=method)
    for which in ("LR, lower", "LR, higher"):
        rate = paper.value(9, which, method=row(method))
        for name in COMMONSENSE_RECIPES:
            values = recipes.load(name, method, [f"learning_rate={rate:g}"]).values
            assert values["learning_rate"] == rate


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dataset", DOMAINS)
def test_losias_settings_by_set_and_by_model_are_table_7s(model, dataset):
    values = recipes.load(f"{model}-{dataset}").values
    of_set = {"LR": "learning_rate", "T": "losia_period", "p": "losia_rank_factor"}
    for column, key in of_set.items():
        assert values[key] == paper.value(7, column, dataset=DOMAINS[dataset])
    assert values["losia_output_factor"] == paper.value(7, "p_o", model=model)
    assert values["dataset"] == DOMAINS[dataset]
    assert paper.row_of(values) == {"model": model, "method": "losia"}


@pytest.mark.parametrize("dataset", COMMONSENSE)
def test_losias_settings_on_common_sense_are_table_9s(dataset):
    values = recipes.load(f"llama2-7b-{dataset}").values
    rate = "LR, higher" if dataset == "boolq" else "LR, lower"  # by the authors' script
    columns = {rate: "learning_rate", "T": "losia_period", "p_o": "losia_output_factor"}
    for column, key in columns.items():
        assert values[key] == paper.value(9, column, method="losia")
    assert values["dataset"] == dataset.replace("-", "_")
    assert values["eval_suites"] == [dataset]
    assert paper.row_of(values) == {"model": "llama2-7b", "method": "losia"}


def test_the_rates_of_losia_are_the_recipes_own_under_both_of_its_methods():
    for name in PAPERS:
        alone, pro, plain = (recipes.load(name, m).values for m in (None, "losia-pro", "losia"))
        assert alone == pro
        assert pro | {"losia_pro": False} == plain


@pytest.mark.parametrize("name", ["gemma-2b-metamath", "llama2-13b-alpaca-gpt4", "llama2-7b-piqa"])
def test_what_the_paper_does_not_say_is_the_authors_code_or_llama_factorys(name):
    """Full fine-tuning's rate; clipping, for which updates within backward leave no time."""
    methods = ("full", "full-8bit", "lora", "pissa", "dora", "galore", "losia", "losia-pro")
    values = {method: recipes.load(name, method).values for method in methods}
    assert values["full"]["learning_rate"] == values["full-8bit"]["learning_rate"] == 2e-5
    unclipped = {method for method in methods if values[method]["max_grad_norm"] == 0}
    assert unclipped == {"galore", "losia", "losia-pro"}
    clipped = {values[method]["max_grad_norm"] for method in set(methods) - unclipped}
    assert clipped == {1.0}


def test_the_loss_is_on_the_whole_text_where_the_authors_have_it_so():
    whole = {
        name for name in PAPERS if recipes.load(name).values.get("train_on_prompt")
    }  # their tasks without an input to mask
    assert whole == {f"llama2-7b-{dataset}" for dataset in "arc-c arc-e piqa siqa boolq".split()}


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("recipe", ["llama2-7b-metamath", "gemma-2b-metamath", "llama2-7b-siqa"])
def test_an_ablation_changes_one_key_of_any_recipe(recipe, name):
    key, value = ABLATIONS[name]
    plain = recipes.load(recipe).values
    assert recipes.load(recipe, f"ablations/{name}").values == plain | {key: value}
    assert plain.get(key) != value or recipe == "llama2-7b-siqa"  # its T and p_o are other ones


def test_no_recipe_says_again_what_it_builds_on_says():
    """Near copies: a shipped recipe has a handful of keys of its own."""
    for name in PAPERS:
        recipe = recipes.load(name)
        own = [key for key, source in recipe.sources.items() if source == f"recipes/{name}.yaml"]
        assert len(own) <= 4 + (name == "llama2-7b-boolq")  # whose rate is its own
        assert recipe.values["output_dir"] == f"runs/{name}"


def test_every_cell_of_every_table_is_a_recipe_and_an_overlay_that_are_there():
    cells = {place.cell for name in tables.names() for place in tables.places(name)}
    assert len(cells) > 100
    assert {*PAPERS} <= {cell.recipe for cell in cells} <= {*recipes.shipped()}
    laid = {cell.method for cell in cells} - {BASE}
    not_the_papers = "random-localization scored-first-subnet reset-fresh reset-keep".split()
    papers = {*METHODS, *map(overlay, ABLATIONS)} - {*map(overlay, not_the_papers)}
    assert papers - laid == {"losia"}  # LoSiA-Pro stands for it
    assert laid <= {*recipes.methods(), *recipes.ablations()}


# --- the headers


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipes_header_has_commands_that_work_and_the_papers_figures(name):
    text = (recipes.project_recipes() / f"{name}.yaml").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^#   (losia .*)", text, re.MULTILINE)]
    assert {words[1] for words in commands} == {"data", "train", "reproduce"}
    for words in commands:
        verb = words[1]
        if verb == "train":
            method = words.pop(words.index("--method") + 1) if "--method" in words else None
            overrides = [word for word in words[3:] if word != "--method"]
            assert recipes.load(words[2], method, overrides).path.stem == name
        elif verb == "reproduce":
            dataset = words[words.index("--dataset") + 1]
            assert name.endswith(dataset)
            assert {name} & {place.cell.recipe for place in tables.places(words[2])}
        else:
            assert words[3] == recipes.load(name).values["dataset"]

    text = text.replace("\n# ", " ")
    fields = paper.row_of(recipes.load(name).values)
    number = 1 if name in DOMAIN_RECIPES else 2
    hours = "Time(h), Pro" if number == 1 else "Time(h), 8 sets"
    assert f"{paper.value(number, 'Mem(GB)', **fields)} GB and" in text
    assert f"{paper.value(number, hours, **fields)} h" in text
    if number == 1:
        lora = paper.value(1, "Time(h)", model=fields["model"], method="lora")
        assert f"(LoSiA {paper.value(1, 'Time(h)', **fields)} h, LoRA {lora} h)" in text
    else:
        rows = {"".join(filter(str.isalnum, r.fields["dataset"])).lower(): r for r in
                paper.table(8).rows}  # fmt: skip
        train = rows[recipes.load(name).values["dataset"].replace("_", "")].values["train"]
        assert f"the {train:,.0f} rows" in text


@pytest.mark.parametrize("name", recipes.methods())
def test_a_methods_header_has_a_command_that_works_and_the_papers_figures(name):
    text = (recipes.project_recipes() / f"methods/{name}.yaml").read_text()
    (command,) = re.findall(r"^#   (losia .*)", text, re.MULTILINE)
    _, _, recipe, _, method, *overrides = shlex.split(command)
    assert method == name
    model = recipes.load(recipe, method, overrides).path.stem.partition("-metamath")[0]
    row = {"model": model, "method": name.removesuffix("-pro")}
    hours = "Time(h), Pro" if name == "losia-pro" else "Time(h)"
    assert f"{paper.value(1, 'Mem(GB)', **row)} GB" in text
    assert f"{paper.value(1, hours, **row)} h (Table 1)" in text


@pytest.mark.parametrize("name", [*map(overlay, ABLATIONS)])
def test_an_ablations_header_names_the_tables_that_use_it(name):
    header = (recipes.project_recipes() / f"{name}.yaml").read_text().partition("\nbase:")[0]
    used = {
        table for table in ("3", "4", "10", "11")
        if name in {place.cell.method for place in tables.places(f"table{table}")}
    }  # fmt: skip
    if used:
        assert used == {*re.findall(r"\d+", re.search(r"Tables? [\d ,and]+", header)[0])}
    else:
        assert "Not in the paper" in header


def test_the_guide_names_every_base_method_and_ablation_with_its_key():
    guide = (recipes.project_recipes().parent / "docs/recipes.md").read_text()
    for name in [*METHODS, *(n for n in files() if n.startswith("bases/") and "compare" not in n)]:
        assert f"`{name.removeprefix('bases/')}`" in guide
    rows = [line for line in guide.splitlines() if line.startswith("| `ablations/")]
    for name, (key, _) in ABLATIONS.items():
        (row_of_it,) = [line for line in rows if f"{name}`" in line]
        assert key in row_of_it


def test_bfloat16_asks_for_a_gpu_unless_the_cpu_is_asked_for():
    asked = recipes.load("llama2-7b-metamath", "full").values
    assert needs_gpu(asked)
    assert not needs_gpu(recipes.load("llama2-7b-metamath", "full", ["use_cpu=true"]).values)
    assert not needs_gpu(recipes.load("compare/smollm2-135m-arc-e", "full").values)
