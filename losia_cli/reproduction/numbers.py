"""The numbers of a plan: ours by row and column, beside the paper's."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from losia_cli import paper
from losia_cli.analysis.continual import metrics
from losia_cli.evaluation.results import left_out
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.place import Place
from losia_cli.reproduction.plan import Plan
from losia_cli.reproduction.tables import ALONE, places, published

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
        note: what ours is of, where that is not the whole: documents, seeds, sets; or a rate.
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
Choice = tuple[str, frozenset[Row]]
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
    trained_on: dict[Row, set[str]] = defaultdict(set)  # in the whole table
    for place in places(plan.table):
        if place.cell.method != BASE:
            trained_on[place.row].add(place.cell.dataset)
    grouped: dict[Row, dict[str, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for place in plan.places:
        grouped[place.row][place.column].append(place)
    rows: Numbers = {}
    for row, columns in grouped.items():
        printed = _printed(beside, row)
        means = {name: _means(found, find) for name, found in columns.items()}
        best = _best(columns, means)
        scores = {
            name: _chosen(found, means[name], best.get(_choice(found)), printed.get(name))
            for name, found in columns.items()
        }
        if AVERAGE in beside.columns and AVERAGE not in scores:
            scores[AVERAGE] = _average(scores, beside, printed.get(AVERAGE))
        costs = _costs(columns, trained_on[row], best, beside, printed, find)
        whole = {**costs, **scores}
        ours = [name for name in whole if name not in beside.columns]
        rows[row] = {name: whole[name] for name in [*beside.columns, *ours] if name in whole}
    return rows


def _sequences(numbers: Numbers) -> Numbers:
    """Table 5 from the numbers of Table 12, whose columns are the task that was trained last."""
    summed: Numbers = {}
    for method in dict.fromkeys(method for method, _ in numbers):
        tasks = [task for other, task in numbers if other == method]
        parts = {
            column: [
                number
                for task in tasks
                if (number := numbers[method, task].get(column)) and number.ours is not None
            ]
            for column in (*tasks, ALONE)
        }
        whole = all(len(found) == len(tasks) for found in parts.values())
        ours = {name: _values(found) for name, found in parts.items()}
        found = metrics([ours[last] for last in tasks], ours[ALONE]) if whole else {}
        printed = {name: paper.value(5, name, method=method) for name in paper.table(5).columns}
        of = [part for found in parts.values() for part in found]
        summed[(method,)] = {
            name: _of_numbers(found.get(name), of, value) for name, value in printed.items()
        }
    return summed


def _printed(beside: paper.Table, row: Row) -> Mapping[str, float | None]:
    """The paper's row; the base model's is in none of its tables."""
    wanted = {name: text for name, text in zip(beside.fields, row, strict=True) if text}
    found = (line.values for line in beside.rows if dict(line.fields) == wanted)
    return next(found, {})


def _best(
    columns: Mapping[str, Sequence[Place]], means: Mapping[str, Mapping[Row, Number]]
) -> dict[Choice, Row]:
    """Of what there was to choose among, what is best in the first column that is measured.

    All else is read at it: what a model forgot is not another one's than what it learned.
    """
    best: dict[Choice, Row] = {}
    for name, found in columns.items():
        if tried := means[name]:
            chosen = max(tried, key=lambda setting: tried[setting].ours or 0.0)
            best.setdefault(_choice(found), chosen)
    return best


def _choice(places: Sequence[Place]) -> Choice:
    """What a column's setting is chosen among: the training set's, those that it tries."""
    return places[0].cell.dataset, frozenset(_setting(place.cell) for place in places)


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
    settings = Counter(_setting(place.cell) for place in places)  # -> its seeds
    if chosen is None or chosen not in means:
        return Number(None, paper=printed)
    found = means[chosen]
    of = _of_settings(chosen, means, settings), _of_seeds(found.seeds, settings[chosen])
    note = "; ".join(filter(None, (found.note, *of)))
    return Number(found.ours, found.error, found.seeds, printed, note)


def _setting(cell: Cell) -> Row:
    return tuple(text for text in cell.overrides if not text.startswith("seed="))


def _read(place: Place, result: Result | None) -> Number | None:
    """A place's number in the result of its cell; None where it is not there."""
    scored = (result or {}).get("scores", {}).get(place.reading.suite)
    if scored is None:
        return None
    part = [f"{scored['documents']} of {scored['of']} documents"] if scored["partial"] else []
    note = ", ".join([*part, *left_out(scored)])
    found = scored
    if place.reading.domain:
        found = scored["domains"][place.reading.domain]
    elif place.reading.also:
        found = scored["also"][place.reading.also]
    error = found["stderr"]
    return Number(100 * found["score"], None if error is None else 100 * error, 1, note=note)


def _mean(ones: Sequence[Number]) -> Number:
    values = _values(ones)
    error = stdev(values) if len(values) > 1 else ones[0].error
    notes = dict.fromkeys(one.note for one in ones if one.note)
    return Number(fmean(values), error, len(values), note="; ".join(notes))


def _average(scores: Mapping[str, Number], beside: paper.Table, printed: float | None) -> Number:
    """Of all the paper's columns of scores, or of none."""
    found = [scores.get(name) for name in _scored(beside)]
    ones = [one for one in found if one is not None and one.ours is not None]
    whole = len(ones) == len(found)
    return _of_numbers(fmean(_values(ones)) if whole else None, ones, printed)


def _values(ones: Sequence[Number]) -> list[float]:
    return [one.ours for one in ones if one.ours is not None]


def _of_numbers(value: float | None, ones: Sequence[Number], printed: float | None) -> Number:
    """A number made of others, which says so where one of them is not of the whole."""
    if value is None:
        return Number(None, paper=printed)
    note = "of starred numbers" if any(one.note for one in ones) else ""
    return Number(value, None, min(one.seeds for one in ones), printed, note)


def _scored(beside: paper.Table) -> list[str]:
    """The paper's columns of scores."""
    return [name for name in beside.columns if name not in (*COSTS, AVERAGE)]


def _costs(
    columns: Mapping[str, Sequence[Place]],
    trained_on: Collection[str],
    best: Mapping[Choice, Row],
    beside: paper.Table,
    printed: Mapping[str, float | None],
    find: Find,
) -> dict[str, Number]:
    """The longest training and the largest memory of a row's cells, as the paper's Table 1 has it,
    and for tables where the paper has neither.

    A note names the training sets that they are of, where the whole table's row has more. Table 2's
    hours are of all trainings together.
    """
    cells = list(dict.fromkeys(place.cell for found in columns.values() for place in found))
    trained = [cell for cell in cells if cell.method != BASE]
    if not trained:
        return {}
    runs = _runs(trained, find)
    seeds = Counter(map(_setting, trained))
    fresh = {cell: run for cell, run in runs.items() if not run["resumed_from"]}
    memory = [run["peak_memory_bytes"] for run in runs.values()]
    largest = max(memory) / 1e9 if memory else None
    note = _of_sets(runs, trained_on)
    found = {MEMORY: Number(largest, paper=printed.get(MEMORY), note=note)}
    if KEPT in beside.columns:
        kept = [run["kept_for_backward_bytes"] for run in fresh.values()]
        known = [one for one in kept if one is not None]  # of the first batch
        found[KEPT] = Number(max(known) / 1e9 if known else None)
    if LOSS in beside.columns and (losses := _losses(runs, seeds)):
        found[LOSS] = min(losses, key=lambda loss: loss.ours or 0.0)
    # the first part of a resumed training was not counted
    longest = max(map(_seconds, fresh.values()), default=None)
    if SECONDS in beside.columns:
        return found | {SECONDS: Number(longest, paper=printed.get(SECONDS))}
    column, note = HOURS, _of_sets(fresh, trained_on)
    if HOURS_TOGETHER in beside.columns:
        column, note, longest = HOURS_TOGETHER, "", _together(columns, best, beside, find)
    hours = None if longest is None else longest / 3600
    if column in beside.columns:
        found[column] = Number(None, paper=printed.get(column))
    apart = trained[0].method == "losia-pro" and column in beside.columns
    measured = column + PRO * apart
    return found | {measured: Number(hours, paper=printed.get(measured), note=note)}


def _losses(runs: Mapping[Cell, Result], seeds: Mapping[Row, int]) -> list[Number]:
    """On held-out rows, of each setting: the mean over its seeds."""
    found: dict[Row, list[float]] = defaultdict(list)
    for cell, run in runs.items():
        if run.get("held_out_loss") is not None:
            found[_setting(cell)].append(run["held_out_loss"])
    means = []
    for setting, losses in found.items():
        chosen = _of_settings(setting, found, seeds)
        note = "; ".join(filter(None, (chosen, _of_seeds(len(losses), seeds[setting]))))
        means.append(Number(fmean(losses), None, len(losses), note=note, digits=3))
    return means


def _of_settings(chosen: Row, measured: Collection[Row], tried: Collection[Row]) -> str:
    """Which setting a number is of, where there are several."""
    if len(tried) == 1:
        return ""
    return f"{', '.join(chosen)}, of {len(measured)} of {len(tried)} tried"


def _of_seeds(measured: int, wanted: int) -> str:
    return f"{measured} of {wanted} seeds" if measured < wanted else ""


def _of_sets(cells: Collection[Cell], trained_on: Collection[str]) -> str:
    """The training sets of these cells, where there are more."""
    sets = sorted({cell.dataset for cell in cells})
    return f"of {', '.join(sets)} alone" if sets and len(sets) < len(trained_on) else ""


def _together(
    columns: Mapping[str, Sequence[Place]],
    best: Mapping[Choice, Row],
    beside: paper.Table,
    find: Find,
) -> float | None:
    """Seconds of the trainings behind all of the paper's columns; None unless all are known."""
    taken = []
    for name in _scored(beside):
        found = columns.get(name, ())
        chosen = best.get(_choice(found)) if found else None
        shown = [place.cell for place in found if _setting(place.cell) == chosen]
        runs = _runs(shown, find).values()
        seconds = [_seconds(run) for run in runs if not run["resumed_from"]]
        if not seconds:
            return None
        taken.append(fmean(seconds))
    return sum(taken)


def _runs(cells: Sequence[Cell], find: Find) -> dict[Cell, Result]:
    """What the trainings that are done took."""
    return {cell: run for cell in cells if (run := (find(cell) or {}).get("training"))}


def _seconds(run: Result) -> float:
    """Of training: a method that saves less is not a faster one."""
    return run["seconds"] - run.get("saving_seconds", 0.0)
