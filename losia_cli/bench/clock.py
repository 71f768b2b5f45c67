"""Seconds of the phases of a step, and the spread of many measurements."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

Phase = Callable[[], None]


@dataclass(frozen=True)
class Spread:
    """The median of some measurements and their quartiles."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """The median, the lower and the upper quartile of `values`, of which there is at least one."""
    ordered = list(values)
    if len(ordered) == 1:
        return Spread(*(ordered * 3))
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Spread(median, low, high)


def time_phases(phases: Sequence[Phase], device: torch.device) -> tuple[float, ...]:
    """Run `phases` one after another; the seconds that each took on `device`.

    On a GPU they are measured by events, so that nothing is waited for between two phases.
    """
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for phase in phases:
            phase()
            marks.append(time.perf_counter())
        return tuple(end - start for start, end in pairwise(marks))
    events = [_event()]
    for phase in phases:
        phase()
        events.append(_event())
    torch.cuda.synchronize(device)
    return tuple(start.elapsed_time(end) / 1000 for start, end in pairwise(events))


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
