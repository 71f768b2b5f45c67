"""The numbers of a plan: ours by row and column, beside the paper's."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from losia_cli import paper
from losia_cli.analysis.continual import metrics
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.place import Place
from losia_cli.reproduction.plan import Plan
from losia_cli.reproduction.tables import ALONE, published

HOURS = "Time(h)"  # of the longest training of a row
HOURS_TOGETHER = "Time(h), 8 sets"
PRO = ", Pro"  # after either: LoSiA-Pro's, which trains what is printed as LoSiA
MEMORY = "Mem(GB)"
KEPT = "Kept(GB)"
SECONDS = "Seconds"
LOSS = "Loss"
_HOURS = [hours + which for hours in (HOURS, HOURS_TOGETHER) for which in ("", PRO)]
COSTS = (MEMORY, KEPT, *_HOURS, SECONDS, LOSS)  # columns where less is better
AVERAGE = "Avg."

Result = dict[str, Any]
Find = Callable[[Cell], Result | None]


@dataclass(frozen=True)
class Number:
    """One number of a table; scores are in percent, costs in the unit of their column.

    Attributes:
        ours: the mean over seeds; None where it is not measured yet.
        error: the deviation between seeds or, of a single one, the harness's standard error.
        seeds: how many were measured.
        paper: the paper's; None where it prints none.
        note: what ours is of, where that is not the whole: a part of the documents, a rate.
        digits: how many are shown after the point.
    """

    ours: float | None
    error: float | None = None
    seeds: int = 0
    paper: float | None = None
    note: str = ""
    digits: int = 1

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        if self.ours is None or self.paper is None:
            return None
        return self.ours - self.paper


Row = tuple[str, ...]
Numbers = dict[Row, dict[str, Number]]


def collect(plan: Plan, find: Find) -> Numbers:
    """The table's rows, each with the columns that the plan has numbers for, in the paper's order.

    Args:
        plan: what was asked for.
        find: the result of a cell, None where it has none.
    """
    if plan.table == "table5":
        return _sequences(collect(replace(plan, table="table12"), find))
    beside = published(plan.table)
    grouped: dict[Row, dict[str, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for place in plan.places:
        grouped[place.row][place.column].append(place)
    rows: Numbers = {}
    for row, columns in grouped.items():
        printed = _printed(beside, row)
        means = {name: _means(places, find) for name, places in columns.items()}
        best = _best(columns, means)
        scores = {
            name: _chosen(places, means[name], best.get(places[0].cell.dataset), printed.get(name))
            for name, places in columns.items()
        }
        if AVERAGE in beside.columns and AVERAGE not in scores:
            scores[AVERAGE] = _average(scores, beside, printed.get(AVERAGE))
        found = {**_costs(columns, best, beside, printed, find), **scores}
        ours = [name for name in found if name not in beside.columns]
        rows[row] = {name: found[name] for name in [*beside.columns, *ours] if name in found}
    return rows


def _sequences(numbers: Numbers) -> Numbers:
    """Table 5 from the numbers of Table 12, whose columns are the task that was trained last."""
    summed: Numbers = {}
    for method in dict.fromkeys(method for method, _ in numbers):
        tasks = [task for other, task in numbers if other == method]
        ours = {
            column: [
                number.ours
                for task in tasks
                if (number := numbers[method, task].get(column)) and number.ours is not None
            ]
            for column in (*tasks, ALONE)
        }
        whole = all(len(scores) == len(tasks) for scores in ours.values())
        found = metrics([ours[last] for last in tasks], ours[ALONE]) if whole else {}
        printed = {name: paper.value(5, name, method=method) for name in paper.table(5).columns}
        summed[(method,)] = {
            name: Number(found.get(name), seeds=int(whole), paper=value)
            for name, value in printed.items()
        }
    return summed


def _printed(beside: paper.Table, row: Row) -> Mapping[str, float | None]:
    """The paper's row; the base model's is in none of its tables."""
    wanted = {name: text for name, text in zip(beside.fields, row, strict=True) if text}
    found = (line.values for line in beside.rows if dict(line.fields) == wanted)
    return next(found, {})


def _best(
    columns: Mapping[str, Sequence[Place]], means: Mapping[str, Mapping[Row, Number]]
) -> dict[str, Row]:
    """By training set, the setting that is best in the first of its columns that is measured.

    All else is read at it: what a model forgot is not another one's than what it learned.
    """
    best: dict[str, Row] = {}
    for name, places in columns.items():
        if tried := means[name]:
            chosen = max(tried, key=lambda setting: tried[setting].ours or 0.0)
            best.setdefault(places[0].cell.dataset, chosen)
    return best


def _means(places: Sequence[Place], find: Find) -> dict[Row, Number]:
    """The mean over seeds, by the setting."""
    tried: dict[Row, list[Number]] = defaultdict(list)
    for place in places:
        one = _read(place, find(place.cell))
        if one is not None:
            tried[_setting(place.cell)].append(one)
    return {setting: _mean(ones) for setting, ones in tried.items()}


def _chosen(
    places: Sequence[Place], means: Mapping[Row, Number], chosen: Row | None, printed: float | None
) -> Number:
    """The number at the chosen setting, with a note of what was chosen among."""
    if chosen is None or chosen not in means:
        return Number(None, paper=printed)
    settings = {_setting(place.cell) for place in places}
    among = f"{', '.join(chosen)}, of {len(means)} of {len(settings)} tried"
    found = means[chosen]
    note = "; ".join(text for text in (found.note, among if len(settings) > 1 else "") if text)
    return Number(found.ours, found.error, found.seeds, printed, note)


def _setting(cell: Cell) -> Row:
    return tuple(text for text in cell.overrides if not text.startswith("seed="))


def _read(place: Place, result: Result | None) -> Number | None:
    """A place's number in the result of its cell; None where it is not there."""
    scored = (result or {}).get("scores", {}).get(place.reading.suite)
    if scored is None:
        return None
    note = f"{scored['documents']} of {scored['of']} documents" if scored["partial"] else ""
    if place.reading.domain:
        return Number(100 * scored["domains"][place.reading.domain], None, 1, note=note)
    found = scored["also"][place.reading.also] if place.reading.also else scored
    error = found["stderr"]
    return Number(100 * found["score"], None if error is None else 100 * error, 1, note=note)


def _mean(ones: Sequence[Number]) -> Number:
    values = [one.ours for one in ones if one.ours is not None]
    error = stdev(values) if len(values) > 1 else ones[0].error
    return Number(fmean(values), error, len(values), note=ones[0].note)


def _average(scores: Mapping[str, Number], beside: paper.Table, printed: float | None) -> Number:
    """Of all the paper's columns of scores, or of none."""
    found = [scores.get(name) for name in _scored(beside)]
    values = [one.ours for one in found if one is not None and one.ours is not None]
    whole = len(values) == len(found)
    return Number(fmean(values) if whole else None, seeds=int(whole), paper=printed)


def _scored(beside: paper.Table) -> list[str]:
    """The paper's columns of scores."""
    return [name for name in beside.columns if name not in (*COSTS, AVERAGE)]


def _costs(
    columns: Mapping[str, Sequence[Place]],
    best: Mapping[str, Row],
    beside: paper.Table,
    printed: Mapping[str, float | None],
    find: Find,
) -> dict[str, Number]:
    """The longest training and the largest memory of a row's cells, as the paper's Table 1 has it.

    Table 2's hours are of all trainings together. The loss on held-out rows is the lowest, so that
    of the rate that is best by it.
    """
    cells = [place.cell for found in columns.values() for place in found]
    if MEMORY not in beside.columns or cells[0].method == BASE:
        return {}
    runs = _runs(cells, find)
    seconds = _seconds(runs)
    memory = [run["peak_memory_bytes"] for run in runs]
    largest = max(memory) / 1e9 if memory else None
    found = {MEMORY: Number(largest, paper=printed.get(MEMORY))}
    if KEPT in beside.columns:
        fresh = (run["kept_for_backward_bytes"] for run in runs if not run["resumed_from"])
        kept = [one for one in fresh if one is not None]  # of the first batch
        found[KEPT] = Number(max(kept) / 1e9 if kept else None)
    losses = [run["held_out_loss"] for run in runs if run.get("held_out_loss") is not None]
    if LOSS in beside.columns and losses:
        found[LOSS] = Number(min(losses), digits=3)
    longest = max(seconds) if seconds else None
    if SECONDS in beside.columns:
        return found | {SECONDS: Number(longest, paper=printed.get(SECONDS))}
    column = HOURS
    if HOURS_TOGETHER in beside.columns:
        column, longest = HOURS_TOGETHER, _together(columns, best, beside, find)
    hours = None if longest is None else longest / 3600
    found[column] = Number(None, paper=printed.get(column))
    measured = column + PRO * (cells[0].method == "losia-pro")
    return found | {measured: Number(hours, paper=printed.get(measured))}


def _together(
    columns: Mapping[str, Sequence[Place]],
    best: Mapping[str, Row],
    beside: paper.Table,
    find: Find,
) -> float | None:
    """Seconds of the trainings behind all of the paper's columns; None unless all are known."""
    taken = []
    for name in _scored(beside):
        cells = [place.cell for place in columns.get(name, ())]
        shown = [cell for cell in cells if _setting(cell) == best.get(cell.dataset)]
        seconds = _seconds(_runs(shown, find))
        if not seconds:
            return None
        taken.append(fmean(seconds))
    return sum(taken)


def _runs(cells: Sequence[Cell], find: Find) -> list[Result]:
    """What the trainings that are done took."""
    return [run for cell in cells if (run := (find(cell) or {}).get("training"))]


def _seconds(runs: Sequence[Result]) -> list[float]:
    """Of the runs that were not resumed: the first part of those was not counted."""
    return [run["seconds"] for run in runs if not run["resumed_from"]]
