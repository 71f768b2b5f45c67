"""`losia recipes`: everything that is there, found by what a user would type."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from losia_cli import paper, recipes
from losia_cli.errors import UserError
from losia_cli.reproduction.catalogue import entries, listing


def names(*words):
    return [entry.name for entry in entries(words)]


def test_it_lists_all_that_losia_train_takes():
    assert names() == [*recipes.shipped(), *recipes.methods(), *recipes.ablations()]
    for entry in entries():
        if entry.kind == "recipe":
            recipes.load(entry.name)
        else:
            recipes.load("quickstart", entry.name)
        assert entry.about.endswith(".")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["table1", "gemma"], "gemma-2b-alpaca-gpt4 gemma-2b-magicoder gemma-2b-metamath".split()),
        (["arc_c"], ["llama2-7b-arc-c"]),
        (["GSM8K", "13B"], ["llama2-13b-metamath"]),
        (["table11", "recipe"], ["llama2-7b-alpaca-gpt4"]),
        (["table10", "recipe"], ["gemma-2b-metamath", "llama2-7b-metamath"]),
        (["table11", "ablation"], ["ablations/gradient"]),
        (["method", "pissa"], ["pissa"]),
    ],
)
def test_filters_leave_what_has_every_word(words, found):
    assert names(*words) == found


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 10, 11, 12])
def test_every_table_has_a_recipe(number):
    assert "recipe" in {entry.kind for entry in entries([f"table{number}"])}


def test_memory_and_hours_are_the_papers():
    for entry in entries(["recipe", "llama2-7b"]):
        if "table1" in entry.tables:
            column, number = "Time(h), Pro", 1
        else:
            column, number = "Time(h), 8 sets", 2
        row = {"model": "llama2-7b", "method": "losia"}
        assert entry.memory == paper.value(number, "Mem(GB)", **row)
        assert entry.hours == paper.value(number, column, **row)
    assert entries(["quickstart"])[0].hours is None


def test_what_nothing_has_is_refused():
    with pytest.raises(UserError, match="has table1 and 70b; `losia recipes` lists all"):
        entries(["table1", "70b"])


def test_names_are_whole_at_eighty_columns():
    console = Console(width=80, file=io.StringIO())
    for table in listing(entries()):
        console.print(table)
    text = console.file.getvalue()
    assert all(f"{name} " in text for name in names())


def test_the_command_prints_json_and_loads_no_torch():
    code = (
        "import sys; sys.argv = ['losia', 'recipes', 'table2', 'recipe', '--json']\n"
        "from losia_cli.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers', 'datasets'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 8
