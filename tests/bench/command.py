"""`losia bench` in this process."""

import sys
from unittest import mock

import pytest

from losia_cli.cli import main


def bench(*words: str) -> int:
    """Run it with these words; the exit code."""
    argv = ["losia", "bench", *words]
    with mock.patch.object(sys, "argv", argv), pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
