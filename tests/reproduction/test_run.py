"""What is to do of a plan, and how long it will take, by what its folder holds."""

import fcntl
import io
import subprocess
import time
from dataclasses import replace

import pytest
from rich.console import Console

from losia_cli import paper, recipes
from losia_cli.data import manifest
from losia_cli.errors import UserError
from losia_cli.reproduction import costs
from losia_cli.reproduction.cell import untrained
from losia_cli.reproduction.inputs import few_rows, make, packaged_model
from losia_cli.reproduction.live import LivePlan, remaining
from losia_cli.reproduction.miniature import World
from losia_cli.reproduction.reproduce import Request, _whole, plan_of, reproduce, store_of
from losia_cli.reproduction.run import commands, one_gpu, to_do
from losia_cli.reproduction.store import DONE, WAITING, Store, failure
from losia_cli.reproduction.tables import cell
from losia_cli.run_folder import RECORD
from losia_cli.training.checkpoints import MANIFEST

COMPARED = Request("compare", datasets=["arc-e"])


def finish(one, store, seconds=60.0):
    scores = {suite: {"score": 0.5} for suite in one.suites}
    training = {"seconds": seconds, "resumed_from": None}
    with store.take(one):
        store.save(one, {"state": DONE, "scores": scores, "training": training})


def in_sequence():
    first = cell("llama2-7b", "hellaswag", "losia-pro")
    second = replace(cell("llama2-7b", "piqa", "losia-pro"), after=first)
    return first, second


def test_weights_that_are_gone_are_trained_again_for_a_cell_that_starts_from_them(store):
    first, second = in_sequence()
    assert to_do([first, second], store) == [first, second]
    finish(first, store)
    assert to_do([first], store) == []
    assert to_do([first, second], store) == [first, second]
    store.trained(first).mkdir()
    (store.trained(first) / "model-00001-of-00003.safetensors").touch()
    assert to_do([first, second], store) == [first, second], "no record: it never was finished"
    (store.trained(first) / RECORD).touch()
    assert to_do([first, second], store) == [second]
    (store.trained(first) / "training_args.bin").touch()  # which the Trainer writes beside them
    store.drop_model(first)
    assert to_do([first, second], store) == [first, second]
    finish(second, store)
    assert to_do([first, second], store) == []


def test_a_folder_of_any_name_reaches_the_recipe_whole(store):
    first, second = in_sequence()
    ((_, recipe, _, method, *overrides),) = commands(second, store)
    values = recipes.load(recipe, method, overrides).values
    assert values["output_dir"] == str(store.trained(second))
    assert values["model_name_or_path"] == str(store.trained(first))


@pytest.mark.parametrize(
    ("method", "told"),
    [("lora", "resume_from_checkpoint=true"), ("galore", "overwrite_output_dir=true")],
)
def test_a_training_that_was_cut_off_goes_on_if_it_can(store, method, told):
    """Layerwise GaLore leaves its moments in no checkpoint: it starts anew."""
    one = cell("llama2-7b", "piqa", method)
    assert told not in commands(one, store)[0]
    checkpoint = store.trained(one) / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / MANIFEST).touch()
    assert told in commands(one, store)[0]


def test_rows_that_changed_under_a_cell_are_refused(store, tmp_path):
    prepared = tmp_path / "data"
    prepared.mkdir()
    one = replace(cell("llama2-7b", "piqa", "lora"), common=(f"dataset_dir={prepared}",))
    name = one.resolved.values["dataset"]
    store.expect_same_data([one], [one])
    manifest.write(prepared, {name: {"sha256": "a"}})
    with store.take(one):
        store.begin(one)
    assert store.state(one) == WAITING
    store.expect_same_data([one], [one])
    manifest.write(prepared, {name: {"sha256": "b"}})
    store.expect_same_data([one], [one])  # it has learned nothing from the others
    with store.take(one):
        store.begin(one)
    (store.trained(one) / "checkpoint-5").mkdir(parents=True)
    store.expect_same_data([one], [one])
    manifest.write(prepared, {name: {"sha256": "a"}})
    with store.take(one):
        store.begin(one)
    with pytest.raises(UserError, match=f"trained on other rows than {name} has now"):
        store.expect_same_data([one], [one])
    manifest.write(prepared, {})
    store.expect_same_data([one], [one])


def test_fewer_rows_than_the_papers_are_told(tmp_path):
    one = replace(cell("llama2-7b", "metamath", "lora"), common=(f"dataset_dir={tmp_path}",))
    name = one.resolved.values["dataset"]
    manifest.write(tmp_path, {name: {"sha256": "a", "rows": 1000}})
    (said,) = few_rows([one, one])
    assert "has 1,000 rows, and the table's 50,000" in said
    manifest.write(tmp_path, {name: {"sha256": "a", "rows": 50_000}})
    assert list(few_rows([one])) == []


def test_a_set_that_the_miniature_lacks_is_named_with_those_it_has(tmp_path):
    one = replace(cell("llama2-7b", "metamath", "lora"), common=("dataset=mine",))
    world = World({}, {"metamathqa": tmp_path, "magicoder": tmp_path}, tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"no data set mine; it has metamathqa, magicoder"):
        make([one], world, Console(quiet=True))


def test_the_small_model_may_be_in_a_folder_of_any_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSIA_CACHE", str(tmp_path / "my cache #1: x"))
    models = {each.resolved.values["model_name_or_path"] for each in plan_of(COMPARED).cells}
    assert models == {packaged_model()}


def test_what_stays_of_a_cell_are_its_records(store):
    one = cell("llama2-7b", "piqa", "pissa")
    folder = store.trained(one)
    weights = (
        "adapter_model.safetensors",
        "pissa_init/adapter_model.safetensors",
        "pissa_converted/adapter_model.safetensors",
        "checkpoint-5/model.safetensors",
    )
    records = ("training_args.bin", "losia_run.json", "eval/eval_results.json")
    for name in (*weights, *records):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    store.drop_model(one)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == set(records)


def test_a_look_at_a_cell_keeps_nobody_from_taking_it(store, monkeypatch):
    one = cell("llama2-7b", "piqa", "lora")
    with store.take(one):
        pass
    with (store.folder(one) / "lock").open("a") as file, monkeypatch.context() as changed:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert store.state(one) == WAITING, "two may look"
        changed.setattr(time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        with store.take(one) as lock:
            assert lock is not None
    with store.take(one) as lock, store.take(one) as second:
        assert (lock is None, second) == (False, None)


def test_a_gpu_that_a_cell_is_at_work_on_is_not_given_to_another(store):
    """Not even if the process that began the cell was killed: what it started holds the lock."""
    one = cell("llama2-7b", "piqa", "lora")
    with store.take(one, "1") as lock:
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),))
    store.expect_idle("0")
    with pytest.raises(UserError, match=r"GPU 1 is at work on .*llama2-7b-piqa-lora"):
        store.expect_idle("1")
    orphan.kill()
    orphan.wait()
    store.expect_idle("1")


def test_a_sequence_takes_the_disk_of_what_it_starts_from():
    """An adapter's successor starts from a merged base of 13.5 GB, which --keep keeps."""
    first = cell("llama2-7b", "hellaswag", "lora")
    after = replace(cell("llama2-7b", "piqa", "lora"), after=first)
    assert costs.disk([first, after], keep=False) == pytest.approx(
        costs.disk([first], keep=False) + 2 * 6.74
    )
    kept = costs.disk([first, after], keep=True) - costs.disk([first, after], keep=False)
    assert kept == pytest.approx(2 * 6.74 * (1 + 2 * 0.03))


def test_cells_of_one_task_alone_and_after_another_have_other_names(store):
    _, second = in_sequence()
    assert second.title == f"{replace(second, after=None).title}, after hellaswag"


def test_a_packaged_model_is_the_same_in_another_home(tmp_path):
    one = cell("llama2-7b", "piqa", "lora")
    here, there = (
        replace(one, common=(f"model_name_or_path={tmp_path / home}/smollm2",)) for home in "ab"
    )
    assert here.identity == there.identity != one.identity


def test_a_base_model_is_asked_as_its_recipe_says(store):
    asked = ("eval_limit=10%", "eval_dtype=float32", "eval_temperature=0.8", "eval_top_p=0.9")
    base = replace(untrained("llama2-7b", "llama2-7b-magicoder", ("mbpp",)), common=asked)
    ((verb, _, _, _, *options),) = commands(base, store)
    assert verb == "eval"
    assert options == [
        *("--limit", "10%", "--dtype", "float32", "--temperature", "0.8", "--top-p", "0.9"),
        *("--suite", "mbpp", "--allow-code=sandboxed"),
    ]


def local(path):
    return f"model_name_or_path={path}"


def test_a_model_from_a_folder_stands_in_its_own_rows(tmp_path):
    """Of a table of three models, each from a folder, put together in one folder of results."""
    with pytest.raises(UserError, match=r"table1 gives it values of its own.*--model$"):
        plan_of(Request("table1", overrides=[local("/models/Llama-2-7b-hf")]))
    asked = Request("table1", ["llama2-7b"], overrides=[local("/models/mine")])
    plan = plan_of(asked)
    whole = _whole(asked, plan)
    models = {c.model: c.resolved.values["model_name_or_path"] for c in whole.cells}
    assert models["llama2-7b"] == "/models/mine"
    assert models["gemma-2b"] == "google/gemma-2b"
    assert {c.identity for c in plan.cells} <= {c.identity for c in whole.cells}
    named = plan_of(replace(asked, overrides=[local("/models/Llama-2-7b-hf")]))
    of_the_hub = plan_of(replace(asked, overrides=[]))
    assert [c.identity for c in named.cells] == [c.identity for c in of_the_hub.cells]
    other = replace(asked, models=["gemma-2b"], overrides=[local("/models/gemma-2b")])
    store_of(replace(asked, output=tmp_path)).open()
    finish(plan.cells[1], store_of(replace(asked, output=tmp_path)))
    store_of(replace(other, output=tmp_path)).open()


def test_a_start_that_failed_leaves_its_folder_free(store):
    """No cell was begun, so that nothing could be mixed."""
    Store(store.root, {"miniature": True, "overrides": ["max_steps=3"]}).open()
    Store(store.root, {"miniature": False}).open()
    finish(cell("llama2-7b", "piqa", "lora"), store)
    with pytest.raises(UserError, match="another plan"):
        Store(store.root, {"miniature": True})


def test_questions_that_are_missing_are_told_before_anything_is_trained(tmp_path):
    asked = Request("table11", data=tmp_path / "empty", output=tmp_path / "out", miniature=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds none of"):
        reproduce(asked, Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_what_a_failed_cell_printed_is_no_markup(store):
    one = cell("llama2-7b", "piqa", "lora")
    told = io.StringIO()
    following = LivePlan([one], store, Console(file=told, width=200, markup=False))
    following.watch(one, 1.0)
    with store.take(one):
        store.save(one, failure(one, 1, ["it ends with [/INST]"]))
    following.watch(None, 0.0)
    assert "it ends with [/INST] (its log:" in told.getvalue()


def test_a_cell_sees_one_gpu():
    allocator = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert one_gpu({"HOME": "/h", "FORCE_TORCHRUN": "1"}) == {
        "HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "0",
        **allocator,
    }
    assert one_gpu({"CUDA_VISIBLE_DEVICES": "3,4"}) == {"CUDA_VISIBLE_DEVICES": "3", **allocator}
    assert one_gpu({"CUDA_VISIBLE_DEVICES": ""}) == {"CUDA_VISIBLE_DEVICES": "", **allocator}
    own = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64", "CUDA_VISIBLE_DEVICES": "0"}
    assert one_gpu(own) == own


def test_what_is_left_is_the_papers_hours_in_the_proportion_measured(store):
    small, large = (cell("llama2-7b", name, "lora") for name in ("arc-c", "hellaswag"))
    other = cell("llama2-7b", "hellaswag", "dora")
    a_row = 3600 / sum(row.values["train"] for row in paper.table(8).rows)  # of an hour, in seconds
    assert remaining([large], [], store) == pytest.approx(10.0 * 39905 * a_row)
    finish(small, store, seconds=10.0 * 1119 * a_row / 2)  # twice as fast as the paper
    assert remaining([large], [small], store) == pytest.approx(5.0 * 39905 * a_row)
    assert remaining([large, other], [small], store) == pytest.approx(30.6 * 39905 * a_row)


def test_where_the_paper_says_nothing_the_measured_time_counts(store):
    few = ("max_steps=20",)  # none of the paper's trainings
    small, large, other = (
        replace(cell("llama2-7b", name, method), common=few)
        for name, method in (("arc-c", "lora"), ("hellaswag", "lora"), ("hellaswag", "dora"))
    )
    assert remaining([large], [], store) is None
    finish(small, store, seconds=90.0)
    assert remaining([large], [small], store) == pytest.approx(90.0)
    assert remaining([other], [small], store) == pytest.approx(90.0), "as others on the average"
    assert remaining([large, other], [small], store) == pytest.approx(180.0)
