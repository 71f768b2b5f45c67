"""How far an evaluation is: a bar in a terminal, now and then a line elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SILENCE = 30.0  # seconds between two lines where no bar can be shown


class SuiteProgress:
    """The progress of one suite after another; a `Watcher` of the model's."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._suite = ""
        self._task = self.bar.add_task("", total=None, speed="")
        self._tokens = self._done = self._total = 0
        self._started = self._said = time.monotonic()

    def suite(self, name: str) -> None:
        """The next suite begins."""
        self._suite = name
        self.bar.update(self._task, description=name, total=None, speed="")

    def begin(self, requests: int) -> None:
        """So many requests are now to be answered."""
        self._tokens = self._done = 0
        self._total, self._started = requests, time.monotonic()
        self.bar.reset(self._task, description=self._suite, total=requests, speed="")

    def advance(self, requests: int, tokens: int) -> None:
        """So many more are answered, by computing so many tokens."""
        self._done += requests
        self._tokens += tokens
        now = time.monotonic()
        speed = f"{self._tokens / max(now - self._started, 1e-9):,.0f} tok/s"
        self.bar.update(self._task, advance=requests, speed=speed)
        if not self.console.is_terminal and now - self._said > _SILENCE:
            self._said = now
            self.console.print(f"{self._suite}  {self._done:,}/{self._total:,}  {speed}")
