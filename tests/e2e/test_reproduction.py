"""A reproduction's cells, run for real: kept, failed, taken, killed, and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from losia_cli.evaluation.sandbox import diagnose
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.run import run_cells
from losia_cli.reproduction.store import DONE, FAILED, RUNNING, WAITING, Store
from tests.e2e.conftest import losia
from tests.e2e.test_evaluated import documents

SUITES = ("arc-e",)


def a_cell(path, method, *overrides, after=None):
    return Cell(str(path), "tiny", "sums", method, overrides, SUITES, after)


def quietly(*_):
    pass


@pytest.fixture
def scored(recipe, tmp_path):
    """Writes a recipe whose models can be scored."""

    def write(**changes):
        data = documents(tmp_path / "my documents")
        return recipe(eval_data=str(data), eval_limit=3, learning_rate=1e-3, **changes)

    return write


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "kept here", {"miniature": False})
    made.open()
    return made


def test_what_is_done_is_kept_and_a_failure_stops_no_other(scored, store):
    path = scored(max_steps=2)
    first = a_cell(path, "losia-pro")
    cells = [
        a_cell(path, BASE),
        a_cell(path, "lora", "dataset=nowhere"),
        first,
        a_cell(path, "losia-pro", "learning_rate=1e-4", after=first),
    ]
    run_cells(cells, store, False, quietly)
    assert [store.state(cell) for cell in cells] == [DONE, FAILED, DONE, DONE]
    assert any("nowhere" in line for line in store.result(cells[1])["log"])
    assert store.result(cells[1])["exit_code"] == 2
    for cell in (cells[0], *cells[2:]):
        result = store.result(cell)
        assert result["scores"]["arc-e"]["documents"] == 3
        assert (result["training"] is None) == (cell.method == BASE)
        assert not list(store.trained(cell).glob("*.safetensors"))
    went_on = store.result(cells[3])["training"]["recipe"]["model_name_or_path"]
    assert went_on == str(store.trained(first))
    before = {cell: (store.folder(cell) / "cell.json").stat().st_mtime_ns for cell in cells}
    run_cells(cells, store, False, quietly)
    tried = [
        cell
        for cell in cells
        if (store.folder(cell) / "cell.json").stat().st_mtime_ns != before[cell]
    ]
    assert tried == [cells[1]]


def test_a_cell_that_another_process_holds_is_left_alone(scored, store):
    cell = a_cell(scored(), "losia-pro")
    assert store.state(cell) == WAITING
    with store.take(cell) as lock:
        assert lock is not None
        assert store.state(cell) == RUNNING
        run_cells([cell], store, False, quietly)
        with store.take(cell) as again:
            assert again is None
    assert store.result(cell) is None
    assert not store.trained(cell).exists()


RUNNER = """
import sys
from pathlib import Path
from losia_cli.reproduction.cell import Cell
from losia_cli.reproduction.run import run_cells
from losia_cli.reproduction.store import Store
cell = Cell(sys.argv[1], "tiny", "sums", "losia-pro", (), ("arc-e",))
run_cells([cell], Store(Path(sys.argv[2]), {"miniature": False}), True, lambda *_: None)
"""


@pytest.mark.slow
def test_an_adapter_is_merged_before_the_next_task(scored, store):
    path = scored(max_steps=2)
    first = a_cell(path, "lora")
    second = a_cell(path, "lora", "learning_rate=1e-4", after=first)
    run_cells([first], store, True, quietly)
    tuned = load_file(store.trained(first) / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in tuned.items() if "lora_B" in name)
    run_cells([first, second], store, True, quietly)
    assert [store.state(cell) for cell in (first, second)] == [DONE, DONE]
    start = store.result(second)["training"]["recipe"]["model_name_or_path"]
    assert start == str(store.merged(second))
    merged = load_file(store.merged(second) / "model.safetensors")
    base = load_file(Path(first.resolved.values["model_name_or_path"]) / "model.safetensors")
    changed = {name for name, tensor in base.items() if not (tensor == merged[name]).all()}
    assert changed
    assert all("proj" in name for name in changed)
    for cell in (first, second):
        store.drop_model(cell)
        assert not list(store.folder(cell).rglob("*.safetensors"))
        assert store.state(cell) == DONE


@pytest.mark.slow
def test_killed_a_cell_goes_on_from_its_checkpoint(scored, store, recipe, tmp_path):
    steps = {"max_steps": 60, "save_steps": 2, "save_total_limit": 1, "losia_period": 3}
    path = scored(**steps)
    cell = a_cell(path, "losia-pro")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", RUNNER, str(path), str(store.root)]
    runner = subprocess.Popen(arguments, env=environment, start_new_session=True)
    end = time.monotonic() + 120
    while not list(store.trained(cell).glob("checkpoint-*/losia_checkpoint.json")):
        assert runner.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    runner.kill()
    runner.wait()
    assert store.state(cell) == RUNNING  # its training outlives it, and holds the cell
    for process in children(str(store.trained(cell))):
        os.kill(process, signal.SIGKILL)
    while store.state(cell) == RUNNING:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert store.state(cell) == WAITING
    run_cells([cell], store, True, quietly)
    assert store.state(cell) == DONE
    assert "resuming from" in store.log(cell).read_text()
    whole = losia("train", path, "--method", "losia-pro", f"output_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    found = load_file(store.trained(cell) / "model.safetensors")
    assert all((found[name] == tensor).all() for name, tensor in expected.items())


def children(output):
    """The processes whose command names this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if output in (process / "cmdline").read_text():
                found.append(int(process.name))
    return found


def test_ctrl_c_ends_the_cell_and_says_how_to_go_on(scored, store, tmp_path):
    path = scored(max_steps=400, save_steps=1000)
    cell = a_cell(path, "losia-pro")
    script = RUNNER + "\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(store.root)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not (store.trained(cell) / "trainer_log.jsonl").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=1800)
    assert "Stopped" in errors
    assert store.state(cell) == WAITING
    assert list(store.trained(cell).glob("checkpoint-*/losia_checkpoint.json"))


def test_an_edited_result_is_refused(scored, store):
    cell = a_cell(scored(), BASE)
    with store.take(cell):
        store.save(cell, {"state": DONE, "scores": {"arc-e": {"score": 0.25}}})
    assert store.state(cell) == DONE
    path = store.folder(cell) / "cell.json"
    edited = json.loads(path.read_text())
    edited["scores"]["arc-e"]["score"] = 0.99
    path.write_text(json.dumps(edited))
    with pytest.raises(Exception, match="not as it was written"):
        store.state(cell)


@pytest.mark.slow
def test_a_table_in_miniature_from_end_to_end(tmp_path):
    part = ["--model", "gemma-2b", "--dataset", "magicoder", "--method", "losia"]
    command = ["reproduce", "table1", "--miniature", *part, "--output", tmp_path / "kept here"]
    refused = losia(*command)
    assert refused.returncode == 2
    assert "--allow-code" in refused.stderr
    works = any(well for _, well, _ in diagnose())
    command.append("--allow-code" if works else "--allow-code=unsandboxed")
    done = losia(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("table1.md", "table1.csv"):
        text = (tmp_path / "kept here" / name).read_text()
        assert "gemma-2b" in text
        assert "MBPP Pass@10" in text
        assert "43" in text  # the paper's number, beside ours
        assert "llama2-13b" in text  # the whole table, whatever part of it was asked for
    assert "llama2-13b" not in done.stdout
    again = losia(*command)
    assert again.returncode == 0
    assert "▶" not in again.stdout  # nothing is done twice
    other = losia(*command, "max_steps=3")
    assert other.returncode == 2
    assert "another plan" in other.stderr
