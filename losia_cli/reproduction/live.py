"""A plan while it runs: which cells are done, running, waiting or failed, and for how long."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from losia_cli.reproduction import costs
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.store import DONE, FAILED, RUNNING, WAITING, Store
from losia_cli.run_folder import RECORD

_STYLES = {DONE: "green", FAILED: "red", RUNNING: "bold yellow", WAITING: "dim"}
_SIGNS = {DONE: "✓", FAILED: "✗", RUNNING: "▶", WAITING: "·"}


class LivePlan:
    """A table that follows the cells in a terminal; elsewhere a line when one begins or ends."""

    def __init__(self, cells: Sequence[Cell], store: Store, console: Console) -> None:
        self._cells, self._store, self._console = cells, store, console
        self._states = {cell.identity: store.state(cell) for cell in cells}
        self._begun: Cell | None = None
        self._elapsed = 0.0
        self._started = time.monotonic()
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def watch(self, cell: Cell | None, seconds: float) -> None:
        """Told by the runner: this cell has run for so many seconds; None: one has ended."""
        if cell is not None and self._begun is not cell:
            self._begun = cell
            self._say(f"▶ {cell.title}")
        ended = self._begun if cell is None else None
        self._elapsed = seconds
        if ended is not None:
            self._begun = None
            self._states[ended.identity] = self._store.state(ended)
            self._say(_ended(ended, self._store))
        if self._console.is_terminal:
            self.live.update(self._view(), refresh=True)

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True)

    def _state(self, cell: Cell) -> str:
        return RUNNING if cell is self._begun else self._states[cell.identity]

    def _view(self) -> RenderableType:
        columns = list(dict.fromkeys(cell.dataset for cell in self._cells))
        rows: dict[str, dict[str, Cell]] = {}
        for cell in self._cells:
            row = " ".join([cell.model, cell.method, *cell.particular])
            rows.setdefault(row, {})[cell.dataset] = cell
        view = Table(box=None, pad_edge=False)
        view.add_column("")
        for name in columns:
            view.add_column(name, justify="right", overflow="fold")
        for name, found in rows.items():
            view.add_row(name, *(self._cell(found.get(column)) for column in columns))
        return Group(Text(self._summary()), view)  # where a short window does not cut it off

    def _cell(self, cell: Cell | None) -> Text:
        if cell is None:
            return Text("")
        state = self._state(cell)
        more = f" {progress(self._store.trained(cell))}" if state == RUNNING else ""
        return Text(_SIGNS[state] + more, style=_STYLES[state])

    def _summary(self) -> str:
        counted = Counter(self._state(cell) for cell in self._cells)
        states = ", ".join(f"{counted[state]} {state}" for state in _STYLES if counted[state])
        whole = time.monotonic() - self._started
        times = f"{clock(whole)} elapsed"
        left = remaining(
            [cell for cell in self._cells if self._state(cell) in (WAITING, RUNNING)],
            [cell for cell in self._cells if self._state(cell) == DONE],
            self._store,
        )
        if left is not None:
            times += f", about {clock(max(left - self._elapsed, 0.0))} of training to go"
        return f"{states}; {times}"


def remaining(waiting: Sequence[Cell], done: Sequence[Cell], store: Store) -> float | None:
    """Seconds of training that cells will take; None where nothing tells.

    As published, in the proportion measured on done cells of the same model and method; where
    nothing is published, as long as those took; where there are none, as others on the average.
    """

    def reported(cell: Cell) -> float | None:
        hours = costs.hours(cell)
        return None if hours is None else 3600 * hours

    took: list[float] = []
    measured: dict[tuple[str, str], list[float]] = {}
    for cell in done:
        run = (store.result(cell) or {}).get("training")
        if run and not run["resumed_from"]:
            took.append(run["seconds"])
            ratio = run["seconds"] / (reported(cell) or 1.0)
            measured.setdefault((cell.model, cell.method), []).append(ratio)
    expected: list[float] = []
    trained = [cell for cell in waiting if cell.method != BASE]
    for cell in trained:
        known, published = measured.get((cell.model, cell.method)), reported(cell)
        if known is not None or published is not None:
            expected.append((fmean(known) if known else 1.0) * (published or 1.0))
    unknown = len(trained) - len(expected)
    if unknown and not (took or expected):
        return None
    return sum(expected) + (unknown * fmean(took or expected) if unknown else 0.0)


def progress(folder: Path) -> str:
    """How far a running cell is: `45 %` of its steps, or that it is being scored."""
    if (folder / RECORD).is_file():
        return "scoring"
    log = folder / "trainer_log.jsonl"
    if not log.is_file():
        return "starting"
    lines = log.read_text(encoding="utf-8").splitlines()
    try:
        return f"{json.loads(lines[-1])['percentage']:.0f} %"
    except (IndexError, KeyError, ValueError):  # nothing yet, or a line half written
        return "training"


def clock(seconds: float) -> str:
    """`1 d 02:03` or `02:03:04`."""
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{days} d {hours:02}:{minutes:02}" if days else f"{hours:02}:{minutes:02}:{rest:02}"


def _ended(cell: Cell, store: Store) -> str:
    result = store.result(cell)
    if result is None or result["state"] == FAILED:
        last = next((line for line in reversed((result or {}).get("log", [])) if line.strip()), "")
        return f"✗ {cell.title}: {last.strip()} (its log: {store.log(cell)})"
    scores = (f"{name} {100 * one['score']:.1f}" for name, one in result["scores"].items())
    return f"✓ {cell.title}: {', '.join(scores)}"
