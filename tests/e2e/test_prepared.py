"""A prepared set of the paper, trained on; and one that was edited, refused."""

import json
import shutil

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from losia_cli import recipes
from losia_cli.data.prepare import Request, prepare
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError
from losia_cli.training.command import run


@pytest.fixture
def path(recipe, tmp_path):
    rows = [{"query": f"What is {i} plus 1?", "response": f"It is {i + 1}."} for i in range(40)]
    source = tmp_path / "copy.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "prepared"
    prepare(Request(SETS["metamathqa"], source, rows=24), folder, Console(quiet=True))
    changes = {"dataset": "metamathqa", "dataset_dir": str(folder), "template": "losia_metamath"}
    return recipe(**changes, max_steps=3, output_dir=str(tmp_path / "out"))


def test_a_prepared_set_is_trained_on_in_the_papers_prompt(path, tmp_path):
    with (tmp_path / "said").open("w") as file:
        console = Console(file=file, width=300)
        assert run(recipes.load(path), [], console) == 0
    said = (tmp_path / "said").read_text()
    assert "<s>[INST][/INST] Question: What is" in said
    assert "⟦Answer: It is" in said
    assert "24 samples" in said
    record = json.loads((tmp_path / "out/losia_run.json").read_text())
    assert record["steps"] == 3
    assert record["begins_with_bos"]


def test_what_is_saved_asks_as_it_was_taught(path, tmp_path, model):
    """Also where the model has a chat template of its own."""
    base = tmp_path / "chats"
    shutil.copytree(model, base)
    (base / "chat_template.jinja").write_text("{% for m in messages %}<|{{ m.role }}|>{% endfor %}")
    changes = [f"model_name_or_path={json.dumps(str(base))}"]
    assert run(recipes.load(path, None, changes), [], Console(quiet=True)) == 0
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = saved.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<s>[INST][/INST] Question: Why?\n"


def test_an_edited_set_is_not_trained_on(path, tmp_path):
    file = tmp_path / "prepared/metamathqa.jsonl"
    file.write_text(file.read_text().replace("It is", "It was"))
    with pytest.raises(UserError, match=r"metamathqa\.jsonl is not as it was prepared"):
        run(recipes.load(path), [], Console(quiet=True))
    assert not (tmp_path / "out").exists()
