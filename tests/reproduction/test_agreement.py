"""What is laid side by side was measured alike, or it is said."""

import copy
from dataclasses import replace

import pytest
from rich.console import Console

from losia_cli.data import manifest
from losia_cli.errors import UserError
from losia_cli.reproduction import run as runner
from losia_cli.reproduction.agreement import disagreements, shortened
from losia_cli.reproduction.reproduce import Request, dry_run, plan_of, reproduce, store_of
from losia_cli.reproduction.run import run_cells, to_do
from losia_cli.reproduction.store import DONE, gather
from losia_cli.reproduction.tables import cell
from losia_cli.run_folder import RECORD
from tests.reproduction.test_run import finish, in_sequence

ALIKE = {
    "title": "lora",
    "method": "lora",
    "training": {"versions": {"torch": "2.11.0", "peft": "0.18.1"}},
    "evaluation": {"versions": {"torch": "2.11.0", "lm-eval": "0.4.13"}},
    "scores": {
        "piqa": {
            "shots": 0,
            "hashes": {"prompt": "a"},
            "datasets": {"local files": {"piqa/test.jsonl": "b"}},
        }
    },
}


def changed(title, *path, to):
    result = copy.deepcopy(ALIKE)
    result["title"] = title
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return result


def test_cells_that_were_measured_alike_need_no_word():
    assert list(disagreements([ALIKE, None, {"state": "failed"}, ALIKE])) == []
    base = changed("base", "training", to=None)  # which has other packages to name
    assert list(disagreements([ALIKE, base])) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            changed("losia", "evaluation", "versions", "lm-eval", to="0.4.14"),
            "cells were measured with different versions of lm-eval: 0.4.13 (2), 0.4.14 (1)",
        ),
        (
            changed("losia", "scores", "piqa", "datasets", "local files", to={}),
            "piqa was asked with other documents of losia",
        ),
        (
            changed("losia", "scores", "piqa", "shots", to=5),
            "piqa was asked with other examples in the prompt of losia",
        ),
    ],
)
def test_what_differs_is_said_with_whose_it_is(other, said):
    assert list(disagreements([ALIKE, changed("dora", "title", to="dora"), other])) == [said]


def test_a_method_that_was_trained_by_two_losses_is_named():
    chunked = changed("new", "training", "loss_in_chunks", to=True)
    (said,) = disagreements([ALIKE, chunked])
    assert said.startswith("lora was trained with the logits of whole batches and without")
    assert list(disagreements([chunked, changed("base", "training", to=None)])) == []


def test_every_group_that_was_asked_otherwise_is_named():
    asked = [changed(str(n), "scores", "piqa", "shots", to=n) for n in (0, 0, 1, 2, 2)]
    for number, result in enumerate(asked):
        result["title"] = "abcde"[number]
    assert list(disagreements(asked)) == [
        "piqa was asked with other examples in the prompt of c",
        "piqa was asked with other examples in the prompt of d and 1 more",
    ]


@pytest.fixture
def prepared(tmp_path):
    """A cell, and a way to prepare its set of other rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    one = replace(cell("llama2-7b", "piqa", "lora"), common=(f"dataset_dir={folder}",))
    name = one.resolved.values["dataset"]
    return one, lambda rows: manifest.write(folder, {name: {"sha256": rows}})


def test_rows_that_come_while_a_cell_is_trained_are_not_recorded_as_its_own(store, prepared):
    one, prepare = prepared
    prepare("first")
    with store.take(one):
        store.begin(one)
    prepare("second")
    (store.trained(one) / "eval").mkdir(parents=True)
    (store.trained(one) / "eval/eval_results.json").write_text('{"suites": {"piqa": {}}}')
    (store.trained(one) / RECORD).write_text("{}")
    result = gather(one, store)
    assert result["data"] == {"piqa": "first"}
    with store.take(one):
        store.save(one, result)
    with pytest.raises(UserError, match="trained on other rows than piqa has now"):
        store.expect_same_data([one], [one])


def test_no_cell_begins_on_other_rows_than_one_beside_it(store, prepared, monkeypatch):
    one, prepare = prepared
    prepare("first")
    second = replace(one, method="pissa")

    def trained(run, *_):
        store.save(run, {**store.result(run), "scores": {"piqa": {}}})
        store.log(run).touch()
        prepare("second")
        return 1

    monkeypatch.setattr(runner, "_process", trained)
    with pytest.raises(UserError, match="trained on other rows"):
        run_cells([one, second], store, True, lambda *_: None)
    assert store.result(second) is None, "it was not begun"


def test_a_part_of_a_table_is_not_trained_on_other_rows_than_the_rest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    manifest.write(tmp_path / "data", {"piqa": {"sha256": "first"}})
    request = Request("table2", methods=["lora"], datasets=["piqa"], output=tmp_path / "out")
    store = store_of(request)
    done = next(one for one in plan_of(request).cells if one.method == "lora")
    with store.take(done):
        store.begin(done)
        begun = store.result(done)
        store.save(done, {**begun, "scores": {"piqa": {}}, "state": DONE})
    manifest.write(tmp_path / "data", {"piqa": {"sha256": "second"}})
    other = replace(request, methods=["losia"])
    with pytest.raises(UserError, match="trained on other rows than piqa has now"):
        dry_run(other, Console(quiet=True))


def test_weights_stay_while_another_process_scores_them(store, monkeypatch):
    first, second = in_sequence()
    for one in (first, second):
        finish(one, store)
        store.trained(one).mkdir(exist_ok=True)
        (store.trained(one) / "model.safetensors").touch()
        (store.trained(one) / RECORD).touch()
    with store.take(first) as held:
        assert held is not None
        runner._drop_unneeded(second, [first, second], store)
        assert (store.trained(first) / "model.safetensors").exists()
        assert not (store.trained(second) / "model.safetensors").exists()
    runner._drop_unneeded(second, [first, second], store)
    assert not (store.trained(first) / "model.safetensors").exists()
    assert to_do([first, second], store) == []


def test_rows_that_nothing_is_to_be_trained_on_are_not_asked_about(store, prepared):
    one, prepare = prepared
    prepare("first")
    with store.take(one):
        store.begin(one)
        store.save(one, {**store.result(one), "scores": {"piqa": {}}})
    prepare("second")
    other = replace(cell("llama2-7b", "boolq", "lora"), common=one.common)
    store.expect_same_data([one, other], [other])
    store.expect_same_data([one, other], [])
    with pytest.raises(UserError, match="trained on other rows"):
        store.expect_same_data([one, other], [replace(one, method="pissa")])


def test_a_sandbox_that_is_needed_is_tried_before_any_cell(tmp_path, other_programs):
    other_programs("bwrap", "exit 1")
    other_programs("unshare", "exit 1")
    request = Request("table1", datasets=["magicoder"], output=tmp_path / "out", miniature=True)
    with pytest.raises(UserError, match="no sandbox for model-written code works"):
        reproduce(replace(request, allow_code="sandboxed"), Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("table2", "learning_rate=1e-5"),
        ("table4", "losia_period=50"),
        ("table4", "dataset=mine"),
        ("table2", "dataset=mine"),
        ("table1", "finetuning_type=full"),
        ("table10", "losia_rank_factor=0.5"),
    ],
)
def test_what_a_table_tries_itself_is_not_laid_over_all_of_it(table, text):
    with pytest.raises(UserError, match=rf"{text.partition('=')[0]}: {table} gives it values"):
        plan_of(Request(table, overrides=[text]))


def test_what_no_number_is_named_by_can_be_laid_over(tmp_path):
    for table, text in (("table1", "learning_rate=1e-5"), ("table4", "max_steps=20")):
        assert plan_of(Request(table, overrides=[text])).cells
    with pytest.raises(UserError, match="seed: table10 gives it values of its own"):
        plan_of(Request("table10", seeds=[1, 2], overrides=["seed=3"]))


def test_a_suite_of_which_less_is_there_is_named_once():
    whole, part = (
        {"scores": {"piqa": {"of": documents}, "boolq": {"of": 3270}}} for documents in (1838, 300)
    )
    assert list(shortened([None, whole, whole])) == []
    assert list(shortened([whole, part, part])) == ["piqa was asked of 300 of its 1,838 documents"]
