"""A process of ours that runs another one: a wish to stop reaches both, in order."""

import os
import signal
import subprocess

EXIT_INTERRUPTED = 130  # as a shell has it for Ctrl-C


class Stopped(Exception):
    """The user asked to stop; what was running has saved what it could."""


class StopTogether:
    """While a process runs, a wish to stop is passed on to it, and raised when it has ended.

    The process must lead a session of its own, or Ctrl-C would reach it twice.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._asked = 0

    def __enter__(self) -> None:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._asked:
            raise Stopped

    def _ask(self, *_: object) -> None:
        """The first time it may save a checkpoint; the second time it may not."""
        self._asked += 1
        if self._asked == 1:
            self._process.send_signal(signal.SIGINT)
        else:
            os.killpg(self._process.pid, signal.SIGKILL)  # with what it started in its group
