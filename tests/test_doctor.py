"""`losia doctor` on this machine, and on an environment whose packages have moved."""

import subprocess
import sys

import pytest
import torch

from losia_cli import doctor


@pytest.fixture
def packages(monkeypatch):
    """Says what is required and what is installed."""

    def pretend(required, installed):
        monkeypatch.setattr(doctor, "requires", lambda _: required)
        monkeypatch.setattr(doctor, "version", lambda name: installed[name])
        return {finding.what: finding for finding in doctor._packages()}

    return pretend


def test_the_environment_of_the_tests_is_well():
    done = subprocess.run(
        [sys.executable, "-m", "losia_cli", "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("Python", "torch", "transformers", "GPU", "disk", "sandbox: bubblewrap"):
        assert what in done.stdout


def test_a_version_that_was_not_tested_is_wrong_and_the_remedy_named(packages):
    found = packages(["transformers==5.5.4"], {"transformers": "5.6.0"})["transformers"]
    assert found.well is False
    assert "5.6.0" in found.found and "pip install 'transformers==5.5.4'" in found.found


def test_a_driver_that_is_too_old_is_no_missing_gpu():
    def too_old():
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 12040). Please update\nit"
        )

    old = doctor._no_gpu(too_old, "13.0")
    assert old.well is False
    assert "found version 12040" in old.found and "older than 13.0" in old.found
    if not torch.cuda.is_available():
        assert doctor._no_gpu(torch.cuda.init, torch.version.cuda).well is None


def test_the_extras_are_nobodys_fault(packages):
    assert packages(["galore-torch==1.0; extra == 'baselines'"], {}) == {}


def test_what_is_missing_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: ["no-such-package>=1"])
    (finding,) = doctor._packages()
    assert finding.well is False
    assert "not installed" in finding.found
