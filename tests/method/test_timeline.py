"""The timeline against tables written by hand (Figure 4) and its promises over all settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.method.timeline import Timeline, automatic_period

# Figure 4, five layers, T = 2, no output layer; one line per slot: scored, rewarming.
FIGURE_4 = [(0, None), (1, 0), (2, 1), (3, 2), (4, 3), (0, 4), (1, 0), (2, 1)]


def test_five_layers_follow_figure_4():
    timeline = Timeline(groups=5, period=2, total_steps=100)
    for step in range(2 * len(FIGURE_4)):
        scored, rewarming = FIGURE_4[step // 2]
        assert timeline.scored(step) == (scored,)
        # at step 0 of its slot a group rewarms from rate 0, at step 1 it has half the rate
        for group in range(5):
            expected = (0.0, 0.5)[step % 2] if group == rewarming else 1.0
            assert timeline.rate_factor(step, group) == expected
        assert timeline.reselected_after(step) == ((scored,) if step % 2 == 1 else ())


def test_output_layer_takes_the_first_of_six_turns():
    timeline = Timeline(groups=6, period=10, total_steps=1000)  # 0 is the output layer
    turns = [timeline.scored(10 * slot) for slot in range(8)]
    assert turns == [(0,), (1,), (2,), (3,), (4,), (5,), (0,), (1,)]


def test_global_warmup_rules_until_it_is_over():
    timeline = Timeline(groups=5, period=4, total_steps=100, warmup_steps=6)
    factors = [timeline.rate_factor(step, 0) for step in range(4, 9)]
    # slot 1 rewarms group 0; Eq. 8 asks for t > T_w = 6
    assert factors == [1.0, 1.0, 1.0, 0.75, 1.0]


def test_last_slot_is_not_scored():
    timeline = Timeline(groups=2, period=5, total_steps=15)
    assert [timeline.scored(step) for step in (0, 5, 10, 14)] == [(0,), (1,), (), ()]
    assert Timeline(groups=2, period=5, total_steps=16).scored(10) == (0,)


def test_sync_scores_all_at_once_and_rewarms_them_in_the_next_slot():
    timeline = Timeline(groups=3, period=2, total_steps=100, schedule="sync")
    scored = [timeline.scored(2 * slot) for slot in range(5)]
    assert scored == [(0, 1, 2), (), (), (0, 1, 2), ()]
    assert timeline.rewarming(3) == (0, 1, 2)
    assert timeline.rewarming(5) == ()


def test_static_and_no_rewarming():
    static = Timeline(groups=3, period=2, total_steps=100, schedule="static")
    assert all(static.scored(step) == () == static.rewarming(step) for step in range(100))
    plain = Timeline(groups=3, period=2, total_steps=100, rewarm=False)
    assert all(plain.rate_factor(step, group) == 1 for step in range(100) for group in range(3))


def test_short_runs_name_the_groups_that_never_get_their_turn():
    # ARC-C with the paper's T = 50: 210 steps (1,119 rows, batch 16, 3 epochs) reach 4 of 32
    assert len(Timeline(groups=32, period=50, total_steps=210).never_reselected()) == 28


@pytest.mark.parametrize(
    ("steps", "groups", "period"), [(210, 32, 10), (37500, 33, 95), (10**6, 4, 150)]
)
def test_automatic_period(steps, groups, period):
    assert automatic_period(steps, groups) == period


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 200), st.integers(0, 50))
def test_one_scored_one_rewarming_and_each_reselection_is_rewarmed(groups, period, total, warmup):
    timeline = Timeline(groups, period, total, warmup)
    for step in range(total):
        assert len(timeline.scored(step)) <= 1
        assert len(timeline.rewarming(step)) <= 1
        for group in timeline.reselected_after(step):
            assert step + 1 < total, "a new subnet that never trains"
            rising = [timeline.rate_factor(t, group) for t in range(step + 1, step + 1 + period)]
            expected = [(i / period if step + 1 + i > warmup else 1.0) for i in range(period)]
            assert rising == pytest.approx(expected)
