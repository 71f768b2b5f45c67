import pytest

from losia_cli import recipes
from losia_cli.reproduction.peft_suite import experiments, recipe, settings

TEST_PROBLEMS = 1319
LAYERS = 28
SHAPES = {  # Llama-3.2-3B: out, in
    "q_proj": (3072, 3072),
    "k_proj": (1024, 3072),
    "v_proj": (1024, 3072),
    "o_proj": (3072, 3072),
    "gate_proj": (8192, 3072),
    "up_proj": (8192, 3072),
    "down_proj": (3072, 8192),
}
VOCABULARY, HIDDEN = 128256, 3072
OURS = [each for each in experiments() if each.method]


def of(name):
    return next(each for each in experiments() if each.name.endswith(name))


def resolved(experiment):
    return recipes.load(recipe(), experiment.method, experiment.overrides)


def trained(values):
    """Trainable parameters of a resolved recipe on Llama-3.2-3B."""
    if values["finetuning_type"] == "full":
        layer = sum(rows * columns for rows, columns in SHAPES.values()) + 2 * HIDDEN
        return VOCABULARY * HIDDEN + LAYERS * layer + HIDDEN  # the output layer is tied
    shapes = [SHAPES[name] for name in values["lora_target"].split(",")]
    low_rank = sum(values["lora_rank"] * (rows + columns) for rows, columns in shapes)
    magnitudes = sum(rows for rows, _ in shapes) if values.get("use_dora") else 0
    return LAYERS * (low_rank + magnitudes)


def test_experiments_are_told_apart_by_name_and_file():
    assert len(experiments()) == 10
    assert len({each.name for each in experiments()}) == 10
    assert of("rank32").source == (
        "huggingface/peft/method_comparison/MetaMathQA/results/lora--llama-3.2-3B-rank32.json"
        "@52903c83d95bb68cf7f3217b9b6cd528799b24fc"
    )


@pytest.mark.parametrize("experiment", experiments(), ids=lambda each: each.name)
def test_accuracies_are_counts_of_right_answers(experiment):
    accuracy = experiment.values["accuracy"]
    right = round(accuracy * TEST_PROBLEMS / 100)
    assert round(100 * right / TEST_PROBLEMS, 2) == accuracy


@pytest.mark.parametrize("experiment", experiments(), ids=lambda each: each.name)
def test_memory_and_seconds_hold_what_they_must(experiment):
    values = experiment.values
    model = trained({"finetuning_type": "full"})
    states = 2 * values["trainable"]  # Adam's, in the dtype of what is trained
    assert 2 * (model + states) < values["memory"] < 48e9  # bfloat16 at the least, one L40S
    assert values["step seconds"] < values["seconds"]


@pytest.mark.parametrize("experiment", OURS, ids=lambda each: each.name)
def test_an_experiment_trains_as_many_parameters_here(experiment):
    assert trained(resolved(experiment).values) == experiment.values["trainable"]


@pytest.mark.parametrize("experiment", OURS, ids=lambda each: each.name)
def test_an_experiment_is_a_recipe_with_the_settings_they_share(experiment):
    run = resolved(experiment)
    recipes.check(run)
    theirs = settings()
    full = experiment.method == "full"  # names its rate, and AdamW's own decay follows from that
    expected = {
        "model_name_or_path": theirs["model"],
        "per_device_train_batch_size": theirs["batch_size"],
        "gradient_accumulation_steps": 1,
        "max_steps": theirs["max_steps"],
        "max_samples": theirs["max_steps"] * theirs["batch_size"],
        "cutoff_len": theirs["max_seq_length"],
        "learning_rate": 1e-5 if full else theirs["learning_rate"],
        "weight_decay": 0.01 if full else theirs["weight_decay"],
        "lr_scheduler_type": theirs["lr_scheduler"],
        "warmup_steps": theirs["warmup_ratio"],
        "max_grad_norm": theirs["grad_norm_clip"],
        "seed": theirs["seed"],
        "bf16": theirs["dtype"] == "bfloat16",
        "train_on_prompt": True,
        "disable_gradient_checkpointing": True,
    }
    assert {key: run.values.get(key) for key in expected} == expected


def test_the_variants_are_what_their_names_say():
    values = {each.name.split("3B-")[1]: resolved(each).values for each in OURS}
    assert values["lr_0.00001"]["pure_bf16"] is True
    assert values["rank32"]["lora_alpha"] == 64 and values["rank64"]["lora_alpha"] == 128
    assert values["rank64-rslora"]["use_rslora"] is True
    assert values["rank32-dora"]["use_dora"] is True
    assert not any(values["rank32"].get(key) for key in ("use_rslora", "use_dora"))


@pytest.mark.parametrize("method", ["losia", "losia-pro"])
def test_losia_runs_by_its_method_alone(method):
    run = recipes.load(recipe(), method)
    recipes.check(run)
    assert run.values["finetuning_type"] == "losia"
