"""A process of ours that runs another one: a wish to stop reaches both, in order."""

import os
import signal
import subprocess
from contextlib import suppress

import psutil

EXIT_INTERRUPTED = 130  # as a shell has it for Ctrl-C


class Stopped(Exception):
    """The user asked to stop; what was running has saved what it could."""


def wishes_to_stop() -> list[signal.Signals]:
    """The signals that ask for it.

    A terminal that goes away wishes so too, unless that is to be ignored (nohup): what is left
    running would hold its GPU beside the next command's.
    """
    hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *[signal.SIGHUP] * hung_up]


class StopTogether:
    """While a process runs, a wish to stop is passed on to it, and raised when it has ended.

    Args:
        process: leads a session of its own, or Ctrl-C would reach it twice.
        past: whether those that it has started are asked in its place, if there are any: torchrun
            kills its workers half a minute after it was asked, be they saving or not.
    """

    def __init__(self, process: subprocess.Popen[bytes], past: bool = False) -> None:
        self._process, self._past = process, past
        self._asked = 0

    def __enter__(self) -> None:
        self._before = {wish: signal.signal(wish, self._ask) for wish in wishes_to_stop()}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._asked:
            raise Stopped

    def _ask(self, wish: int, _: object) -> None:
        """The first time it may save a checkpoint; the second time it may not.

        Who has asked and then leaves the terminal is in no hurry.
        """
        if wish == signal.SIGHUP and self._asked:
            return
        self._asked += 1
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has just ended
            asked = psutil.Process(self._process.pid)
            if self._asked == 1:
                workers = asked.children() if self._past else []
                _send(signal.SIGINT, workers or [asked])
            else:
                started = asked.children(recursive=True)  # also in sessions of their own
                os.killpg(asked.pid, signal.SIGKILL)
                _send(signal.SIGKILL, started)


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)
