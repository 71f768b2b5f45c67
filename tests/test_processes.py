"""A wish to stop reaches a process and what it started, also in sessions of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from losia_cli.processes import Stopped, StopTogether

WORKER = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])

def save(*_):
    (folder / "saved").touch()
    sys.exit(130)

signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[2] == "hangs" else save)
(folder / "worker").touch()
time.sleep(600)
"""
# As torchrun does: workers in sessions of their own; asked itself, it kills them.
LAUNCHER = """
import signal, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
signal.signal(signal.SIGINT, lambda *_: worker.kill())
worker.wait()
"""


def wait_until(what) -> None:
    end = time.monotonic() + 300
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def launched(tmp_path):
    """A launcher whose worker is up, and the worker; neither outlives the test."""
    found = []

    def launch(kind: str) -> tuple[subprocess.Popen, psutil.Process]:
        command = [sys.executable, "-c", LAUNCHER, WORKER, str(tmp_path), kind]
        process = subprocess.Popen(command, start_new_session=True)
        found.append(psutil.Process(process.pid))
        wait_until((tmp_path / "worker").exists)
        found.extend(found[0].children(recursive=True))
        return process, found[-1]

    yield launch
    for each in found:
        if each.is_running():
            each.kill()


@pytest.mark.parametrize("past", [True, False])
def test_the_first_wish_goes_past_the_launcher_if_it_is_told_so(launched, tmp_path, past):
    process, _ = launched("saves")
    with pytest.raises(Stopped), StopTogether(process, past):
        os.kill(os.getpid(), signal.SIGINT)
        process.wait(300)
    assert (tmp_path / "saved").exists() is past


@pytest.fixture
def hang_up():
    """What SIGHUP does, whatever started the tests (nohup)."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_goes_away_is_a_wish(launched, tmp_path, hang_up):
    hang_up(signal.SIG_DFL)
    process, _ = launched("saves")
    with pytest.raises(Stopped), StopTogether(process, past=True):
        os.kill(os.getpid(), signal.SIGHUP)
        process.wait(300)
    assert (tmp_path / "saved").exists()


def test_a_terminal_that_goes_away_is_none_where_that_is_to_be_ignored(launched, hang_up):
    hang_up(signal.SIG_IGN)
    process, worker = launched("saves")
    with StopTogether(process):
        os.kill(os.getpid(), signal.SIGHUP)
    assert process.poll() is None and worker.is_running()


def test_who_leaves_the_terminal_after_asking_lets_it_save(tmp_path, hang_up):
    """A second wish would end it at once."""
    hang_up(signal.SIG_DFL)
    saves = WORKER.replace("def save(*_):", "def save(*_):\n    time.sleep(1)")
    command = [sys.executable, "-c", saves, str(tmp_path), "saves"]
    process = subprocess.Popen(command, start_new_session=True)
    wait_until((tmp_path / "worker").exists)
    with pytest.raises(Stopped), StopTogether(process):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        process.wait(300)
    assert (tmp_path / "saved").exists()


def test_the_second_wish_ends_all_it_started(launched, tmp_path: Path):
    process, worker = launched("hangs")
    with pytest.raises(Stopped), StopTogether(process, past=True):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        process.wait(300)
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    assert not (tmp_path / "saved").exists()


def test_one_that_has_just_ended_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait(300)
    with pytest.raises(Stopped), StopTogether(process):
        os.kill(os.getpid(), signal.SIGINT)
