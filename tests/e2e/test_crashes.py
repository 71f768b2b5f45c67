"""Kills, Ctrl-C and a full disk at any moment: what was saved stays usable."""

import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from losia_cli.errors import UserError
from losia_cli.training import checkpoints
from tests.e2e.conftest import final_weights, losia
from tests.e2e.test_train import same


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "losia_cli", "train", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, process, seconds=1800):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, f"no {path.name} within {seconds} s"
        time.sleep(0.005)


def wait_for_checkpoint(folder, step, process):
    """Until there is one of this step or, of a process that was looked at too late, a later one."""
    while not any(int(path.name[11:]) >= step for path in folder.glob("checkpoint-*[0-9]")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)


LONG = {"max_steps": 60, "save_steps": 2, "save_total_limit": 1, "losia_period": 3}


@pytest.mark.slow
def test_killed_anywhere_a_run_goes_on_as_if_it_never_was(recipe, train, tmp_path):
    whole = train("whole", **LONG)
    path, out = recipe(**LONG), tmp_path / "out"
    generator = random.Random(0)
    for step in (4, 22):
        process = start(path, *(["resume_from_checkpoint=true"] if step > 4 else []))
        wait_for_checkpoint(out, step, process)  # being written at this moment
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.wait()
        assert checkpoints.newest(out, print)
    assert same(train("out", **LONG, resume_from_checkpoint=True), whole)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(recipe, train, tmp_path):
    longer = {**LONG, "save_steps": 1000, "max_steps": 200}
    whole = train("whole", **longer)
    path, out = recipe(**longer), tmp_path / "out"
    process = start(path)
    wait_for(out / "trainer_log.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 130, output
    assert "resume_from_checkpoint=true" in output
    assert "Traceback" not in output
    saved = checkpoints.newest(out, print)
    assert 0 < int(saved.name.removeprefix("checkpoint-")) < 200
    assert same(train("out", **longer, resume_from_checkpoint=True), whole)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(recipe, tmp_path):
    """A limit on file sizes, in the child alone, stands for the full disk."""
    path = recipe(max_steps=4, save_steps=2)
    assert losia("train", path).returncode == 0
    out = tmp_path / "out"
    largest = max(f.stat().st_size for f in (out / "checkpoint-2").iterdir())
    limited = subprocess.run(
        [sys.executable, "-m", "losia_cli", "train", str(recipe(max_steps=4, save_steps=4)),
         f"resume_from_checkpoint={out / 'checkpoint-2'}", f"output_dir={tmp_path / 'full'}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1800,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1)),
    )  # fmt: skip
    assert limited.returncode == 2, limited.stdout + limited.stderr
    assert "could not write" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not (tmp_path / "full/checkpoint-4").exists()
    assert checkpoints.damage(out / "checkpoint-2") is None


def test_a_disk_that_fills_up_at_the_very_end_is_one_sentence(recipe, tmp_path):
    limited = subprocess.run(
        [sys.executable, "-m", "losia_cli", "train", str(recipe(max_steps=1, save_strategy="no"))],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1800,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert limited.returncode == 2, limited.stdout + limited.stderr
    assert f"could not write into {tmp_path / 'out'}" in limited.stderr
    assert "Traceback" not in limited.stderr


def test_too_little_room_is_seen_before_anything_is_written(tmp_path):
    written = []
    with pytest.raises(UserError, match=r"GB free, but a checkpoint takes about .* GB"):
        checkpoints.save_safely(
            tmp_path / "checkpoint-1", lambda: written.append(1), {}, needed=10**18, first=True
        )
    assert written == []


@pytest.mark.parametrize("files", range(4))
def test_interrupted_at_any_file_it_does_not_count(tmp_path, files):
    whole = tmp_path / "checkpoint-1"
    folder = tmp_path / "checkpoint-2"

    def write(target, stop_after=3):
        target.mkdir()
        for number in range(stop_after):
            (target / f"{number}.bin").write_bytes(b"x" * 100)

    def dies():
        write(folder, files)
        raise KeyboardInterrupt

    checkpoints.save_safely(whole, lambda: write(whole), {"a": 1}, 0, first=True)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save_safely(folder, dies, {"a": 1}, 0, first=True)
    assert checkpoints.newest(tmp_path, print) == whole


def test_no_whole_checkpoint_is_one_clear_sentence(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        checkpoints.newest(tmp_path, print)


def test_weights_of_the_interrupted_run_were_never_touched(recipe, model, tmp_path):
    before = (model / "model.safetensors").read_bytes()
    assert losia("train", recipe(max_steps=2)).returncode == 0
    assert (model / "model.safetensors").read_bytes() == before
    assert not same(final_weights(tmp_path / "out"), final_weights(model))
