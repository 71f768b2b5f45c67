"""A plan before it runs: its cells, and what they will take."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from losia_cli.reproduction import costs, render
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.live import clock, remaining
from losia_cli.reproduction.plan import Plan
from losia_cli.reproduction.store import DONE, Store


def table(plan: Plan, store: Store) -> Table:
    """Every cell with its state, and the hours and the memory that are published."""
    view = Table(title=Text(render.title(plan.table)), title_justify="left")
    for name in ("model", "method", "training set", "scored on", "state", "hours", "GB"):
        numbers = name in ("hours", "GB")
        view.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for cell in plan.cells:
        hours, memory = costs.hours(cell), costs.memory(cell)
        view.add_row(
            cell.model,
            cell.method,
            ", ".join([cell.dataset or "–", *cell.particular]),
            ", ".join(cell.suites),
            store.state(cell),
            "–" if hours is None else f"{hours:.1f}",
            "–" if memory is None else f"{memory:.4g}",
        )
    return view


def lines(plan: Plan, left: Sequence[Cell], store: Store) -> Iterator[str]:
    """How many cells are to do, for how long, and on how much disk, as far as that is known."""
    done = [cell for cell in plan.cells if store.state(cell) == DONE]
    trained = sum(cell.method != BASE for cell in plan.cells)
    yield f"{len(plan.cells)} cells, {trained} of them trained; {len(left)} to go"
    seconds = remaining(left, done, store)
    if seconds is not None:
        paper = any(costs.hours(cell) for cell in left)
        by = "until measured by published hours, the paper's being of rows filled to the cutoff"
        yield f"training: {clock(seconds)}" + (f"; {by}" if paper else "")
    kept, dropped = (costs.disk(left, keep) for keep in (True, False))
    if kept:
        yield (
            f"disk: {dropped:.0f} GB at the most, models dropped after scoring; {kept:.0f} GB with"
            " --keep"
        )
