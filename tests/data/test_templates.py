"""The prompts, as LLaMA-Factory's own processing turns them into tokens and labels."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from losia_cli import recipes
from losia_cli.data.prompts import ALPACA_HEADER, TEMPLATES
from losia_cli.data.training_sets import SETS
from losia_cli.integrations import llamafactory
from tests.data.originals import ROWS
from tests.data.test_prepare import copy, made
from tests.llamafactory_data import byte_tokenizer, write

SHARED = Path(__file__).parents[3] / "shared" / "models" / "llama2_tokenizer"
IGNORED = -100
ENTRY = {"columns": {"prompt": "instruction", "response": "output"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save_pretrained(folder)
    return folder


def tokens(folder, dataset, template, model, **changes):
    """The first sample's tokens, and those of them with a loss; the rest are None."""
    arguments = {"dataset": dataset, "dataset_dir": str(folder), "template": template}
    arguments |= {"model_name_or_path": str(model), "cutoff_len": 2048}
    samples, tokenizer = llamafactory.tokenize(arguments | changes)
    ids, labels = samples[0]["input_ids"], samples[0]["labels"]
    assert all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
    found = tokenizer.convert_ids_to_tokens(ids)
    return found, [t if y != IGNORED else None for t, y in zip(found, labels, strict=True)]


# In bytes: Ġ is a space, Ċ a new line.
BY_HAND = {
    "losia_metamath": (["<s>", *"[INST][/INST]ĠQuestion:ĠQĊ"], [*"Answer:ĠRĊ", "</s>"]),
    "losia_magicoder": (["<s>", *"[INST]ĊQuestion:ĠQĊAnswer:Ġ[/INST]"], ["R", "</s>"]),
    "losia_alpaca": (
        ["<s>", *ALPACA_HEADER.replace(" ", "Ġ"), *"ĊĊ###ĠInstruction:ĊQĊĊ###ĠResponse:Ċ"],
        ["R", "</s>"],
    ),
    "losia_plain": (["<s>", "Q"], ["R", "</s>"]),
    "losia_peft_suite": (
        ["<s>", *"Question:ĠQĠThinkĠstepĠbyĠstep.ĊAnswer:"],
        ["R", "</s>"],
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_and_labels_are_those_written_by_hand(tmp_path, name, model):
    write(tmp_path, [{"instruction": "Q", "output": "R"}], ENTRY)
    prompt, answer = BY_HAND[name]
    found, supervised = tokens(tmp_path, "rows", name, model)
    assert found == prompt + answer
    assert supervised == [None] * len(prompt) + answer
    assert tokens(tmp_path, "rows", name, model, train_on_prompt=True)[1] == prompt + answer


@pytest.mark.shared
def test_with_the_tokenizer_of_llama_2(tmp_path):
    if not SHARED.is_dir():
        pytest.skip(f"no real tokenizer in {SHARED}")
    write(tmp_path, [{"instruction": "Q", "output": "R"}], ENTRY)
    prompt = "<s> [ INST ][ / INST ] ▁Question : ▁Q <0x0A>".split()
    answer = "Answer : ▁R <0x0A> </s>".split()
    found, supervised = tokens(tmp_path, "rows", "losia_metamath", SHARED)
    assert found == prompt + answer
    assert supervised == [None] * len(prompt) + answer
    ids = [1, 29961, 25580, 3816, 29914, 25580, 29962, 894, 29901, 660, 13]
    assert AutoTokenizer.from_pretrained(SHARED).convert_tokens_to_ids(prompt) == ids


@pytest.mark.parametrize("name", SETS)
def test_a_prepared_row_is_the_text_that_the_authors_train_on(tmp_path, name, model):
    row, prompt, answer = ROWS[name]
    made(tmp_path / "data", name, copy(tmp_path / "copy.jsonl", [row]))
    found, supervised = tokens(tmp_path / "data", name, SETS[name].template, model)
    tokenizer = byte_tokenizer()
    text = tokenizer.convert_tokens_to_string
    assert text(found) == f"<s>{prompt}{answer}</s>"
    assert text([token for token in supervised if token]) == f"{answer}</s>"


def test_alpaca_without_an_input(tmp_path, model):
    row = ROWS["alpaca_gpt4"][0] | {"input": ""}
    made(tmp_path / "data", "alpaca_gpt4", copy(tmp_path / "copy.jsonl", [row]))
    found, _ = tokens(tmp_path / "data", "alpaca_gpt4", "losia_alpaca", model)
    header = f"{ALPACA_HEADER}\n\n### Instruction:\nSort.\n\n### Response:\n"
    assert byte_tokenizer().convert_tokens_to_string(found) == f"<s>{header}a b</s>"


@pytest.mark.parametrize("name", SETS)
def test_the_recipe_of_a_set_trains_on_it_in_its_prompt(name):
    values = recipes.load(SETS[name].recipe).values
    assert values["template"] == SETS[name].template
    assert values["dataset"] == name.partition("_30k")[0].partition("_70k")[0]
    assert values["dataset_dir"] == "data"


def test_a_chat_asks_in_the_same_prompt(tmp_path, model):
    """What LLaMA-Factory leaves in a saved tokenizer, for whoever asks through it."""
    write(tmp_path, [{"instruction": "Q", "output": "R"}], ENTRY)
    arguments = {"dataset": "rows", "dataset_dir": str(tmp_path), "template": "losia_alpaca"}
    _, tokenizer = llamafactory.tokenize(arguments | {"model_name_or_path": str(model)})
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False)
    assert asked == f"<s>{ALPACA_HEADER}\n\n### Instruction:\nQ\n\n### Response:\n"
