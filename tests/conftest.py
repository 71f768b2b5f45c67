"""Quiet libraries, one thread and an environment of our own: what tests of tiny models need."""

import os

import pytest
from hypothesis import HealthCheck, settings

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LLAMAFACTORY_VERBOSITY": "WARN",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "NO_PROXY": "127.0.0.1",  # for the hubs that tests serve
}
for name in (
    "COLUMNS",
    "FORCE_COLOR",
    "TTY_COMPATIBLE",
    "LOSIA_TRACEBACK",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_CACHE",  # it and the next would go before the HF_HOME that tests set
    "HF_DATASETS_CACHE",
):
    os.environ.pop(name, None)

# Speed is no test's business: a machine may be busy with something else.
settings.register_profile("losia", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("losia")


@pytest.fixture
def other_programs(tmp_path, monkeypatch):
    """Puts other programs before those of this machine."""
    from losia_cli.evaluation import enclosure

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    enclosure._program.cache_clear()

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    yield write
    monkeypatch.undo()
    enclosure._program.cache_clear()
