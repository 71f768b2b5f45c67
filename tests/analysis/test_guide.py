"""docs/continual-learning.md: its numbers are computed, its code runs, its commands are known."""

import json
import re
from pathlib import Path

from losia_cli.analysis.continual import TASKS, metrics
from losia_cli.evaluation import results
from losia_cli.paper import value
from tests.analysis.test_continual import METHODS, alone, matrix

GUIDE = (Path(__file__).parents[2] / "docs/continual-learning.md").read_text()


def row(method):
    return " | ".join(f"{value:.3f}" for value in metrics(matrix(method), alone(method)).values())


def test_its_table_is_computed():
    for method, name in zip(METHODS, ["Seq-LoRA", "Seq-LoSiA"], strict=True):
        printed = " | ".join(
            f"{value(5, name, method=method):.2f}" for name in ("AP", "FWT", "BWT")
        )
        assert f"| {name}, computed | {row(method)} |" in GUIDE
        assert f"| {name}, Table 5 | {printed} |" in GUIDE


def test_its_other_numbers():
    transposed = [[sum(rows) / 5 for rows in zip(*matrix(m), strict=True)][-1] for m in METHODS]
    for method, mean in zip(["LoRA", "LoSiA"], transposed, strict=True):
        assert f"{mean:.2f} for {method}" in GUIDE


def test_its_code_gives_the_metrics_of_results_on_disk(tmp_path, capsys):
    for i, task in enumerate(TASKS):
        alone = {"alone-losia": 0.5} if i else {}  # the first task's is the sequence's own
        for kind, score in {"sequence-losia": 0.01 * i, **alone}.items():
            folder = tmp_path / kind / task / "eval"
            folder.mkdir(parents=True)
            suites = {each: {"score": score} for each in TASKS}
            content = {"schema": results.SCHEMA, "suites": suites}
            (folder / results.FILE).write_text(json.dumps(content))
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names = {"root": tmp_path}
    exec(code, names)
    assert [round(sum(scored) / 5) for scored in names["P"]] == [0, 1, 2, 3, 4]
    assert names["alone"] == [0, *[50] * 4]
    assert "AP" in capsys.readouterr().out


def test_its_loops_are_the_papers_tasks_in_order():
    assert GUIDE.count(f"for task in {' '.join(TASKS)}; do") == 2
    for task in TASKS:
        assert GUIDE.count(f"--suite {task}") == 2
