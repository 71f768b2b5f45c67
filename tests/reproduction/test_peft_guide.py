"""docs/peft-suite.md: its table and its commands are those of the data file."""

import shlex
from pathlib import Path

import pytest

from losia_cli.recipes import load
from losia_cli.reproduction.peft_suite import experiments, recipe, settings
from tests.reproduction.test_peft_suite import HIDDEN, LAYERS, OURS, SHAPES, VOCABULARY

GUIDE = (Path(__file__).parents[2] / "docs/peft-suite.md").read_text()


@pytest.mark.parametrize("experiment", experiments(), ids=lambda each: each.name)
def test_its_table_is_the_data_files(experiment):
    values = experiment.values
    cells = [
        experiment.name,
        f"{values['trainable']:,}",
        f"{values['accuracy']:.2f}",
        f"{values['memory'] / 1e9:.1f}",
        f"{values['step seconds']:,.0f}",
        f"{values['seconds']:,.0f}",
        f"{values['forgetting']:.3f}",
    ]
    assert f"| {' | '.join(cells)} |" in GUIDE


def test_its_commands_are_the_experiments():
    lines = GUIDE.replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line) for line in lines if line.startswith(f"losia train {recipe()} --m")
    ]
    given = [(words[4], tuple(words[5:-1])) for words in commands]
    assert given == [(each.method, each.overrides) for each in OURS]
    assert len({words[-1] for words in commands}) == len(commands)  # a folder for each


def test_its_prompt_and_its_count_of_losias_parameters():
    template = settings()["query_template"].replace("query", "question").replace("\n", "\\n")
    assert f"`{template}`" in GUIDE
    values = load(recipe()).values
    p, p_o = values["losia_rank_factor"], values["losia_output_factor"]
    layer = sum(int(rows * p) * int(columns * p) for rows, columns in SHAPES.values())
    assert f"{LAYERS * layer + int(VOCABULARY * p_o) * HIDDEN:,} parameters" in GUIDE
