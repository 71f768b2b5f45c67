"""Training that goes on to evaluate what it saved, as the recipe says."""

import json
import shlex

import pytest
from rich.console import Console

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.training.checkpoints import recipe_plan
from losia_cli.training.command import look_over
from tests.e2e.conftest import losia


def documents(folder):
    """Our own questions in ARC's columns."""
    rows = [
        {
            "question": f"What is {n} plus one?",
            "choices": {"text": [str(n + 1), str(n + 2), "none"], "label": ["A", "B", "C"]},
            "answerKey": "A",
        }
        for n in range(6)
    ]
    place = folder / "arc_easy"
    place.mkdir(parents=True)
    for split in ("train", "test"):
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_recipe_with_suites_is_evaluated_after_training(recipe, tmp_path):
    data = documents(tmp_path / "my documents")
    path = recipe(
        max_steps=2,
        eval_suites=["arc-e"],
        eval_data=str(data),
        eval_limit=5,
        eval_dtype="bfloat16",
    )
    done = losia("train", path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "out"
    found = json.loads((run / "eval/eval_results.json").read_text())
    suite = found["suites"]["arc-e"]
    assert (suite["documents"], suite["of"], suite["partial"]) == (5, 6, True)
    record = json.loads((run / "losia_run.json").read_text())
    assert found["model"]["recipe"]["eval_suites"] == ["arc-e"]
    assert record["begins_with_bos"] is False  # LLaMA-Factory's template `default` has none
    assert "trained without BOS and is evaluated with" in " ".join(done.stdout.split())
    again = losia("eval", run, "--no-bos")
    assert f"what was gained: losia eval {shlex.quote(str(run))} --base" in again.stdout
    assert again.returncode == 0, again.stdout + again.stderr
    assert "warning" not in again.stdout
    assert "5 of 6" in again.stdout
    base = losia("eval", run, "--base", "--no-bos")
    assert base.returncode == 0, base.stdout + base.stderr
    results = json.loads((run / "eval-base/eval_results.json").read_text())
    assert results["model"]["identity"] != found["model"]["identity"]
    assert results["suites"]["arc-e"]["documents"] == 5
    assert "what was gained" not in base.stdout
    both = losia("eval", run, "--no-bos")
    assert f"losia eval --compare {shlex.quote(str(run / 'eval-base'))} " in both.stdout
    dtypes = {one["suites"]["arc-e"]["settings"]["dtype"] for one in (found, results)}
    assert dtypes == {"bfloat16"}  # though the weights are in float32
    assert results["suites"]["arc-e"]["paper"] is None
    # trained anew, with other weights and another limit: scored anew
    other = losia("train", path, "seed=7", "overwrite_output_dir=true", "eval_limit=4")
    assert other.returncode == 0, other.stdout + other.stderr
    anew = json.loads((run / "eval/eval_results.json").read_text())
    assert anew["suites"]["arc-e"]["documents"] == 4
    assert anew["model"]["identity"] != found["model"]["identity"]


def test_what_evaluation_would_refuse_is_refused_before_training(recipe, tmp_path):
    done = losia("train", recipe(eval_suites=["arc-ee", "mbpp"]))
    assert done.returncode == 2
    assert "did you mean arc-e?" in done.stderr
    assert not (tmp_path / "out").exists()


def test_documents_that_are_missing_are_told_before_training(recipe, tmp_path):
    data = documents(tmp_path / "documents")
    told = {"eval_data": str(data), "eval_suites": ["arc-e"], "eval_limit": 7}
    with pytest.raises(UserError, match=r"eval_suites: eval_limit: 7 is past the end"):
        look_over(recipes.load(recipe(**told)), Console(quiet=True))
    look_over(recipes.load(recipe(**{**told, "eval_limit": 6})), Console(quiet=True))
    (data / "arc_easy" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"no .*arc_easy/test with an ending of"):
        look_over(recipes.load(recipe(**told)), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_what_is_evaluated_may_change_when_a_training_goes_on():
    plain = {"learning_rate": 1e-3}
    assert recipe_plan(plain | {"eval_suites": ["arc-e"], "eval_limit": 3}) == recipe_plan(plain)
