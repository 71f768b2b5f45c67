"""The world, made once."""

import pytest
from rich.console import Console

from losia_cli.reproduction import miniature


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return miniature.make(tmp_path_factory.mktemp("a world") / "of ours", Console(quiet=True))
