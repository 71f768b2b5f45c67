"""What of a cell decides, what is counted, and what is left to do."""

import json
from dataclasses import replace

import pytest

from losia_cli.data import manifest
from losia_cli.reproduction import costs
from losia_cli.reproduction import run as runner
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.numbers import HOURS, collect
from losia_cli.reproduction.plan import make
from losia_cli.reproduction.run import commands
from losia_cli.reproduction.store import FAILED, failure
from losia_cli.reproduction.tables import cell
from losia_cli.run_folder import RECORD
from tests.reproduction.test_numbers import result, run
from tests.reproduction.test_run import finish, in_sequence


def test_a_sequence_that_is_half_done_is_left_open():
    def found(c):
        return result(c) if c.method != BASE and c.dataset == "hellaswag" else None

    for row in collect(make("table5"), found).values():
        assert all((n.ours, n.seeds) == (None, 0) for n in row.values())
        assert all(n.paper is not None for n in row.values())


def test_the_longest_training_counts_wherever_it_stands():
    took = {"metamath": 3600.0, "magicoder": 7200.0, "alpaca-gpt4": 1800.0}

    def found(c):
        return result(c) if c.method == BASE else result(c, seconds=took[c.dataset])

    plan = make("table1", models=["llama2-7b"], methods=["lora"])
    assert collect(plan, found)["llama2-7b", "lora"][HOURS].ours == 2.0


def test_what_was_kept_is_of_fresh_trainings_that_were_watched():
    kept = {"0.0005": (4e9, None), "0.001": (None, None), "0.003": (4e11, "checkpoint")}

    def found(c):
        if c.method == BASE:
            return result(c)
        size, resumed = kept[c.overrides[-1].partition("=")[2]]
        return {**result(c), "training": run(resumed=resumed) | {"kept_for_backward_bytes": size}}

    plan = make("compare", methods=["lora"], datasets=["arc-e"])
    ours = collect(plan, found)["arc-e", "LoRA r=5"]
    assert ours["Kept(GB)"].ours == pytest.approx(4)


def test_the_settings_that_were_tried_are_counted():
    def found(c):
        return result(c) if "learning_rate=0.001" in c.overrides else None

    plan = make("compare", methods=["lora"], datasets=["arc-e"])
    ours = collect(plan, found)["arc-e", "LoRA r=5"]
    assert "of 1 of 3 tried" in ours["ARC-E"].note


def test_a_seed_is_that_of_the_whole_sequence():
    _, second = in_sequence()
    seeded = second.with_seed(7)
    assert "seed=7" in seeded.after.overrides
    assert seeded.identity != second.identity


def test_what_the_whole_plan_has_in_common_wins():
    own, common = ("learning_rate=1e-4",), ("learning_rate=1e-5",)
    one = Cell("llama2-7b-metamath", "llama2-7b", "metamath", "lora", own, common=common)
    assert one.resolved.values["learning_rate"] == 1e-5


def test_leave_to_run_code_decides_no_score():
    one = Cell("llama2-7b-magicoder", "llama2-7b", "magicoder", "lora")
    assert replace(one, common=("eval_allow_code=unsandboxed",)).identity == one.identity


def test_disk_by_hand():
    size = 6.74 * 2
    parts = {
        "lora": (0.03, 3 * 0.03),
        "full": (1, 3),
        "galore": (1, 3 * 0.2),
        "losia-pro": (1, 3 * 0.03),
    }
    for method, (model, trains) in parts.items():
        one = cell("llama2-7b", "metamath", method)
        expected = 2 * (model + trains) * size + model * size
        assert costs.disk([one], keep=False) == pytest.approx(expected), method


def test_a_base_model_takes_no_hours():
    base = next(c for c in make("table1", models=["gemma-2b"]).cells if c.method == BASE)
    assert costs.hours(base) == 0


def test_a_failed_cell_is_said_to_be(store):
    one = cell("llama2-7b", "piqa", "lora")
    with store.take(one):
        store.save(one, failure(one, 2, ["why"]))
    assert store.state(one) == FAILED


def test_a_set_that_is_new_is_no_other_set(store, tmp_path):
    one = replace(cell("llama2-7b", "piqa", "lora"), common=(f"dataset_dir={tmp_path}",))
    name = one.resolved.values["dataset"]
    with store.take(one):
        store.save(one, {"state": FAILED, "data": {"another": "x"}})
    (store.trained(one) / "checkpoint-5").mkdir(parents=True)
    manifest.write(tmp_path, {name: {"sha256": "a"}})
    store.expect_same_data([one], [one])


def test_a_merged_start_and_all_kinds_of_weights_are_dropped(store):
    one = cell("llama2-7b", "piqa", "lora")
    folder = store.trained(one)
    kinds = (folder / "pytorch_model-1.bin", folder / "adapter_model.bin")
    for path in (*kinds, store.merged(one) / "model.safetensors"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    store.drop_model(one)
    assert not [p for p in store.folder(one).rglob("*") if p.is_file()]


def test_an_adapter_is_merged_once(store):
    first, second = (replace(c, method="lora") for c in in_sequence())
    second = replace(second, after=first)
    store.trained(first).mkdir(parents=True)
    (store.trained(first) / "adapter_config.json").touch()
    merge, train = commands(second, store)
    assert merge == ["merge", str(store.trained(first)), str(store.merged(second))]
    assert any(str(store.merged(second)) in word for word in train)
    store.merged(second).mkdir(parents=True)
    (again,) = commands(second, store)
    assert again == train


def test_only_suites_that_are_missing_are_asked(store):
    one = replace(cell("llama2-7b", "piqa", "lora"), suites=("piqa", "arc-e"))
    folder = store.trained(one)
    (folder / "eval").mkdir(parents=True)
    (folder / "adapter_model.bin").touch()
    (folder / RECORD).write_text("{}")
    (folder / "eval/eval_results.json").write_text(json.dumps({"suites": {"piqa": {}}}))
    (told,) = commands(one, store)
    assert told == ["eval", str(folder), "--suite", "arc-e"]


def test_a_failure_keeps_the_numbers_that_were_measured(store, monkeypatch):
    first, second = in_sequence()
    finish(first, store)
    monkeypatch.setattr(runner, "_process", lambda c, told, s, *_: s.log(c).touch() or 1)
    runner.run_cells([first, second], store, False, lambda *_: None)
    found = store.result(first)
    assert found["scores"]
    assert found["training"]["seconds"] == 60.0
