"""Greedy localization against brute force, planted rectangles and Algorithm 1's own words."""

from itertools import combinations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losia_cli.method.localization import (
    best_rows,
    captured,
    column_to_row,
    greedy,
    random_subnet,
    row_to_column,
)
from losia_cli.method.subnet import Subnet


def optimum(scores, rows, columns):
    """The largest sum over all rows x columns rectangles, by trying every set of rows."""
    best = 0.0
    for chosen in combinations(range(scores.shape[0]), rows):
        sums = scores[list(chosen)].sum(0)
        best = max(best, sums.topk(columns).values.sum().item())
    return best


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 8), st.data())
def test_greedy_lies_between_each_strategy_and_the_optimum(seed, n, m, data):
    rows, columns = data.draw(st.integers(1, n)), data.draw(st.integers(1, m))
    scores = torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = captured(scores, greedy(scores, rows, columns))
    for strategy in (row_to_column, column_to_row):
        assert found >= captured(scores, strategy(scores, rows, columns)) - 1e-12
    assert found <= optimum(scores, rows, columns) + 1e-9


def test_greedy_comes_close_to_the_optimum():
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(200):  # heavy tails, as scores have
        scores = torch.randn(8, 8, generator=generator).double().pow(4)
        ratios.append(captured(scores, greedy(scores, 2, 2)) / optimum(scores, 2, 2))
    mean = sum(ratios) / len(ratios)
    print(f"greedy / optimum on 200 heavy-tailed 8 x 8: mean {mean:.3f}, worst {min(ratios):.3f}")
    assert mean > 0.9


@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(2, 20), st.data())
def test_a_planted_rectangle_is_found(seed, n, m, data):
    rows = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    columns = sorted(data.draw(st.sets(st.integers(0, m - 1), min_size=1)))
    scores = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) * 1e-3
    scores[torch.tensor(rows)[:, None], torch.tensor(columns)] += 1
    found = greedy(scores, len(rows), len(columns))
    assert found.rows.tolist() == rows
    assert found.columns.tolist() == columns


def test_row2column_and_column2row_by_hand():
    scores = torch.tensor([[9.0, 0.0, 0.0], [4.0, 4.0, 4.0], [5.0, 0.0, 1.0]])
    first_rows = row_to_column(scores, 1, 1)  # row sums 9, 12, 6
    assert (first_rows.rows.item(), first_rows.columns.item()) == (1, 0)
    first_columns = column_to_row(scores, 1, 1)  # column sums 18, 4, 5
    assert (first_columns.rows.item(), first_columns.columns.item()) == (0, 0)
    assert captured(scores, greedy(scores, 1, 1)) == 9


def test_output_layer_takes_the_rows_with_the_largest_sums():
    scores = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    subnet = best_rows(scores, 2)
    assert subnet.rows.tolist() == [1, 3]
    assert subnet.columns is None


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99), st.data())
def test_random_subnets_are_sorted_distinct_and_seeded(n, m, seed, data):
    rows, columns = data.draw(st.integers(1, n)), data.draw(st.integers(1, m))
    draw = [
        random_subnet(torch.empty(n, m), rows, columns, torch.Generator().manual_seed(seed))
        for _ in range(2)
    ]
    for subnet in draw:
        for indices, size, count in ((subnet.rows, n, rows), (subnet.columns, m, columns)):
            assert indices.tolist() == sorted(set(indices.tolist()))
            assert len(indices) == count
            assert indices.max() < size
    assert torch.equal(draw[0].rows, draw[1].rows)


def test_captured_is_the_sum_inside():
    scores = torch.arange(12.0).reshape(3, 4)
    assert captured(scores, Subnet(torch.tensor([0, 2]), torch.tensor([1, 3]))) == 1 + 3 + 9 + 11
