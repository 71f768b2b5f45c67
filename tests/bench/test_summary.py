"""The clock and the statistics, on numbers worked out by hand."""

import time

import pytest
import torch

from losia_cli.bench.clock import Spread, spread, time_phases
from losia_cli.bench.methods import Row
from losia_cli.bench.step import FULL_GRADIENT, Turn, summarize, take_turns

CPU = torch.device("cpu")


def test_each_phase_gets_its_own_seconds():
    start = time.perf_counter()
    laps = time_phases([lambda: time.sleep(0.02), lambda: None, lambda: time.sleep(0.04)], CPU)
    assert len(laps) == 3
    assert laps[0] >= 0.02 and laps[2] >= 0.04
    assert sum(laps) <= time.perf_counter() - start


def test_spread_is_the_median_and_the_quartiles():
    assert spread([4, 1, 3, 2]) == Spread(2.5, 1.75, 3.25)
    assert spread([7]) == Spread(7, 7, 7)


def rounds(*steps):
    """One turn a round, of one step each."""
    return [Turn([step]) for step in steps]


def test_ratios_are_taken_within_a_round():
    """A machine that is ten times slower in the second round changes no ratio."""
    turns = {
        "floor": rounds((1.0, 1.0, 0.0), (10.0, 10.0, 0.0)),
        "lora": rounds((1.5, 1.0, 0.5), (15.0, 10.0, 5.0)),
        "losia-pro": rounds((1.0, 1.1, 0.1), (10.0, 11.0, 1.0)),
    }
    entry = summarize([Row("floor"), Row("lora"), Row("losia-pro")], turns)["losia-pro"]
    same = {"median": 1.1, "low": 1.1, "high": 1.1}
    assert entry["of_floor"] == pytest.approx(same)
    assert entry["passes_of_floor"] == pytest.approx(dict.fromkeys(same, 1.05))
    assert entry["of_lora"] == pytest.approx(dict.fromkeys(same, 2.2 / 3))
    assert entry["optimizer_share"] == pytest.approx(dict.fromkeys(same, 0.1 / 2.2))
    assert entry["seconds"]["forward"]["median"] == pytest.approx(5.5)
    assert entry["seconds"]["step"]["median"] == pytest.approx(12.1)
    assert entry["peak_bytes"] is None


def test_a_turn_counts_with_its_median_step():
    turns = {
        "floor": [Turn([(1.0, 1.0, 0.0)] * 3)],
        "full": [Turn([(1.0, 2.0, 1.0), (1.0, 1.0, 1.0), (90.0, 1.0, 1.0)], peak_bytes=5)],
    }
    entry = summarize([Row("floor"), Row("full")], turns)["full"]
    assert entry["of_floor"]["median"] == 2.0
    assert entry["of_lora"] is None
    assert entry["peak_bytes"] == 5


def test_scored_steps_are_compared_with_floor_and_full_gradient_together():
    turns = {
        "floor": rounds((1.0, 1.0, 0.0)),
        "losia-pro-scored": rounds((1.0, 1.4, 0.1)),
        FULL_GRADIENT: rounds((0.5,)),
    }
    summary = summarize([Row("floor"), Row("losia-pro", scored=True)], turns)
    assert summary["losia-pro-scored"]["of_floor"]["median"] == pytest.approx(1.0)
    assert summary["losia-pro-scored"]["passes_of_floor"]["median"] == pytest.approx(0.96)
    assert summary[FULL_GRADIENT]["seconds"]["step"]["median"] == 0.5


def test_a_row_that_runs_out_of_memory_is_dropped_and_the_others_go_on():
    tried = []

    def failing():
        tried.append(len(tried))
        if len(tried) == 2:
            raise torch.OutOfMemoryError
        return [lambda: None] * 3

    prepared = {"floor": lambda: [lambda: None] * 3, "lora": failing, "full": lambda: [list] * 3}
    turns = take_turns(prepared, 3, CPU, lambda line: None)
    assert tried == [0, 1]
    assert [len(turns[name]) for name in ("floor", "lora", "full")] == [3, 0, 3]
    summary = summarize([Row("floor"), Row("lora"), Row("full")], turns)
    assert summary["lora"] == {"out_of_memory": True}
    assert summary["full"]["of_lora"] is None
    assert summary["full"]["of_floor"]["median"] > 0
