"""The record of a run's selections, and what is read from it."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.analysis.selections import History, by_chance, frequency, likeness, side


def sets_of(draw, subnets, neurons, count):
    one = st.sets(st.integers(0, neurons - 1), min_size=count, max_size=count)
    return draw(st.lists(one, min_size=subnets, max_size=subnets))


@st.composite
def chosen(draw):
    """Subnets as sets of neurons, and how many neurons there are."""
    neurons = draw(st.integers(1, 12))
    count = draw(st.integers(1, neurons))
    return sets_of(draw, draw(st.integers(1, 5)), neurons, count), neurons


def mask(sets, neurons):
    found = torch.zeros(len(sets), neurons).bool()
    for place, one in enumerate(sets):
        found[place, list(one)] = True
    return found


@given(chosen())
def test_figures_are_those_counted_by_hand(drawn):
    sets, neurons = drawn
    found = side(mask(sets, neurons))
    assert found.share == pytest.approx(len(sets[0]) / neurons)
    assert found.ever == pytest.approx(len(set.union(*sets)) / neurons)
    again = [len(b & a) / len(b) for a, b in pairwise(sets)]
    assert found.kept == (pytest.approx(sum(again) / len(again)) if again else None)
    counted = [sum(neuron in one for one in sets) / len(sets) for neuron in range(neurons)]
    assert frequency(mask(sets, neurons)).tolist() == pytest.approx(counted)


def test_chance_is_what_many_random_subnets_do():
    torch.manual_seed(0)
    ever, kept = [], []
    for _ in range(400):
        found = side(mask([torch.randperm(24)[:6].tolist() for _ in range(4)], 24))
        ever.append(found.ever)
        kept.append(found.kept)
    expected = by_chance(found, 4)
    assert sum(ever) / 400 == pytest.approx(expected.ever, abs=0.02)
    assert sum(kept) / 400 == pytest.approx(expected.kept, abs=0.02)
    assert by_chance(found, 1).kept is None


def test_runs_are_alike_where_they_often_select_the_same_neurons():
    def history(sets, name="a.v_proj"):
        return [History(name, (0, 1), mask(sets, 6), mask(sets, 6))]

    ours = history([{0, 1}, {0, 2}])
    assert likeness(ours, ours, "rows") == pytest.approx(1)
    assert likeness(ours, history([{3, 4}, {3, 5}]), "rows") < 0
    assert likeness(ours, history([{0, 1}, {0, 2}], "another"), "rows") is None
