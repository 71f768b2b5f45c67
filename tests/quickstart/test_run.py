import json
import re

import pytest
from rich.console import Console

from losia_cli.errors import UserError
from losia_cli.quickstart import compare, report, run
from losia_cli.quickstart.table import next_commands, show
from tests.e2e.conftest import losia
from tests.quickstart.conftest import untouched


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """The real command on the tiny model, with problems and steps enough to pass through."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LOSIA_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr(run, "TRAIN_PROBLEMS", 48)
    patch.setattr(run, "HELDOUT_PROBLEMS", 6)
    plain = run.train

    def train(base, paths, overrides, options=()):
        plain(base, paths, ["max_steps=3", "use_cpu=true", *overrides], options)

    patch.setattr(run, "train", train)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def finished(short, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "quick start"
    console = Console(record=True, width=120)
    result = run.quickstart(output, str(tiny_model), 7, False, console)
    return output, result, console.export_text()


@pytest.mark.slow
def test_the_result_holds_both_measurements_and_the_runs_own_record(finished):
    output, result, _ = finished
    assert result == json.loads((output / run.RESULT).read_text())
    record = json.loads((output / "model" / "losia_run.json").read_text())
    assert result["training"]["steps"] == record["steps"] == 3
    assert result["training"]["trainable_parameters"] == record["trainable_parameters"]
    for when in ("before", "after"):
        assert result[when]["skill"]["count"] == 6
        documents = json.loads((output / f"lm_eval_{when}.json").read_text())["samples"]
        assert {len(d) for d in documents.values()} == {12, result[when]["known"]["count"]}
    assert record["recipe"]["seed"] == result["seed"] == 7


@pytest.mark.slow
def test_the_table_shows_what_was_measured(finished):
    output, result, _ = finished
    console = Console(record=True, width=200)
    show(result, output / "model", "losia", console)
    text = console.export_text()
    trainable = f"{result['training']['trainable_parameters']:,}"
    for shown in ("6 problems", trainable, "3 steps", result["example"]["question"]):
        assert shown in text
    for when in ("before", "after"):
        assert f"{100 * result[when]['known']['value']:.1f} ±" in text
    for command, _ in next_commands(output / "model", "losia"):
        assert command in text


@pytest.mark.slow
def test_a_second_run_shows_the_first_and_another_one_is_refused(finished, tiny_model):
    output, result, _ = finished
    trained = untouched(output / "model" / "model.safetensors")
    console = Console(record=True, width=400)
    assert run.quickstart(output, str(tiny_model), 7, False, console) == result
    assert "--again" in console.export_text()
    with pytest.raises(UserError, match="another model or seed"):
        run.quickstart(output, str(tiny_model), 8, False, console)
    with pytest.raises(UserError, match="another model or seed"):
        run.quickstart(output, None, 7, False, console)
    assert untouched(output / "model" / "model.safetensors") == trained


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scores_and_the_base_is_not_measured_twice(
    finished, tiny_model, tmp_path
):
    _, result, said = finished
    assert "measured before" not in said
    console = Console(record=True, width=400)
    again = run.quickstart(tmp_path / "again", str(tiny_model), 7, False, console)
    assert "measured before" in console.export_text()
    assert [again[key] for key in ("before", "after", "example")] == [
        result[key] for key in ("before", "after", "example")
    ]


def test_a_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    console = Console(quiet=True)
    with pytest.raises(UserError, match=r"file cannot be written into.*--output DIR"):
        run.quickstart(tmp_path / "file", None, 42, False, console)
    with pytest.raises(UserError, match=r"file cannot be written into.*--output DIR"):
        compare.compare([], "base", tmp_path / "file", 42, console)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="--output DIR"):
        run.quickstart(tmp_path, None, 42, True, Console(quiet=True))
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    done = losia("quickstart", "--model", tmp_path / "none", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "none") in done.stderr.replace("\n", "")


@pytest.mark.slow
def test_a_comparison_measures_each_cell_once_and_reports_it(short, tiny_model, tmp_path):
    base, console = str(tiny_model), Console(record=True, width=200)
    rank = compare.lora_rank(base)
    cells = [
        compare.Cell(compare.Method("full", "full", (1e-4,)), 1e-4),
        compare.Cell(compare.Method("LoRA", "lora", (1e-3,), (f"lora_rank={rank}",)), 1e-3),
        compare.Cell(compare.Method("LoSiA-Pro", "losia-pro", (1e-3,)), 1e-3),
    ]
    results = compare.compare(cells[:2], base, tmp_path, 7, console)
    assert "kept from before" not in console.export_text()
    more = compare.compare(cells, base, tmp_path, 7, console)
    assert console.export_text().count("kept from before") == 2
    assert more[:3] == results
    assert len({result["training"]["trainable_parameters"] for result in more[1:]}) == 3
    files = report.write_report(more, 7, tmp_path / "docs")
    assert all(file.stat().st_size for file in files)
    page = files[0].read_text()
    assert len(re.findall(r"^\| LoSiA-Pro \| 0.001 \|", page, re.MULTILINE)) == 2


@pytest.mark.slow
def test_lora_gets_as_many_parameters_as_the_subnets_have(base_model):
    # By hand: q and o are 576 x 576, k and v 576 x 192, gate, up and down 576 x 1536; 30 layers.
    subnets = 30 * (2 * 72 * 72 + 2 * 72 * 24 + 3 * 72 * 192)
    one_rank = 30 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    rank = compare.lora_rank(str(base_model))
    assert abs(rank * one_rank - subnets) <= one_rank / 2


def test_the_best_rate_of_each_method_is_the_one_with_the_highest_score():
    def result(method, rate, value):
        return {"method": method, "rate": rate, "skill": {"value": value}}

    base = result("base model", None, 0.9)
    cells = [result("a", 1, 0.2), result("a", 2, 0.4), result("b", 1, 0.3), result("b", 2, 0.1)]
    assert report.best([base, *cells]) == [cells[1], cells[2]]
