"""Two gloo ranks on the CPU are one process with the joint batch."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from losia_cli.training import checkpoints
from tests.e2e.conftest import final_weights, losia
from tests.e2e.test_crashes import wait_for

TWO = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}

AT_THE_LAST = """
import atexit, glob, os

def note():
    threads = [open(name).read().strip() for name in glob.glob("/proc/self/task/*/comm")]
    with open(os.path.join(os.path.dirname(__file__), "rank" + os.environ["RANK"]), "w") as file:
        file.write("\\n".join(threads))

if "RANK" in os.environ:
    atexit.register(note)  # the first to be registered is the last to be called
"""


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
def test_two_ranks_are_the_joint_batch(recipe, train, tmp_path, checkpointing):
    changes = {
        "losia_initial_subnet": "random",
        "disable_gradient_checkpointing": not checkpointing,
        "gradient_accumulation_steps": 2,
    }
    alone = train("alone", **changes, per_device_train_batch_size=4)
    two = recipe(**changes, ddp_backend="gloo", per_device_train_batch_size=2)
    result = losia("train", two, **TWO)
    assert result.returncode == 0, result.stdout + result.stderr
    together = final_weights(tmp_path / "out")
    for name, value in alone.items():
        torch.testing.assert_close(value, together[name], rtol=1e-3, atol=1e-4)
    records = [
        json.loads((tmp_path / out / "losia_run.json").read_text()) for out in ("alone", "out")
    ]
    assert records[0]["selections"] == records[1]["selections"] > 0
    assert result.stdout.count("trainable parameters") == 1, "only the first rank speaks"


@pytest.mark.slow
def test_ctrl_c_waits_for_both_ranks_checkpoint(recipe, tmp_path):
    path = recipe(ddp_backend="gloo", max_steps=2000, save_steps=5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "losia_cli", "train", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **TWO},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(tmp_path / "out/trainer_log.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 130, output
    assert "resume_from_checkpoint=true" in output
    assert checkpoints.newest(tmp_path / "out", print)


@pytest.mark.slow
def test_two_ranks_agree_on_scored_first_subnets_and_resume(recipe, tmp_path):
    changes = {"ddp_backend": "gloo", "save_steps": 3, "max_steps": 6}
    watcher = tmp_path / "watcher"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(AT_THE_LAST)
    whole = losia("train", recipe(**changes), PYTHONPATH=str(watcher), **TWO)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    for rank in "01":
        left = (watcher / f"rank{rank}").read_text()
        assert "gloo" not in left, "a thread of the group may abort a worker that ends"
    first = final_weights(tmp_path / "out")
    again = losia(
        "train", recipe(**changes), f"output_dir={tmp_path / 'again'}",
        f"resume_from_checkpoint={tmp_path / 'out/checkpoint-3'}", **TWO,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    second = final_weights(tmp_path / "again")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
