"""Singular vectors before and after: what is known of matrices that are built for it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.analysis.spectrum import INTRUDER, Spectrum, effective_rank, similarities


def orthogonal(size, seed):
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q


def built(values, rows, columns, seed=0):
    """A weight (rows, columns) with these singular values, and its left vectors."""
    left, right = orthogonal(rows, seed), orthogonal(columns, seed + 1)
    count = len(values)
    return left[:, :count] * torch.tensor(values).double() @ right[:, :count].T, left


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 9))
def test_what_is_not_changed_is_wholly_alike(rows, columns, seed):
    weight, _ = built([float(9 - i) for i in range(min(rows, columns))], rows, columns, seed)
    found = similarities(weight, 3 * weight, top=100)
    assert found.shape == (min(rows, columns),)
    torch.testing.assert_close(found, torch.ones_like(found))


@given(st.floats(0, math.pi / 2))
def test_a_vector_turned_out_of_the_old_ones_is_as_alike_as_its_cosine(angle):
    values = torch.tensor([4.0, 3.0, 2.0]).double()
    left, right = orthogonal(8, 0), orthogonal(3, 1)
    turned = left[:, :3].clone()
    turned[:, 0] = math.cos(angle) * left[:, 0] + math.sin(angle) * left[:, 7]
    before, after = (each * values @ right.T for each in (left[:, :3], turned))
    expected = torch.tensor([math.cos(angle), 1, 1]).double()
    torch.testing.assert_close(similarities(before, after, top=3), expected)


def test_a_large_new_direction_is_an_intruder():
    weight, left = built([1.0, 0.9, 0.8], 8, 3)
    new = left[:, 7:] @ torch.ones(1, 3).double()
    found = similarities(weight, weight + 5 * new, top=3)
    assert found[0] < INTRUDER
    assert Spectrum("w", found, 1.0, 1.0).intruders == int((found < INTRUDER).sum()) >= 1


@given(st.integers(1, 5))
def test_equal_singular_values_count_each_as_one(count):
    assert effective_rank(built([2.0] * count, 7, 6)[0]) == pytest.approx(count)


def test_the_rank_of_nothing_and_of_what_is_uneven():
    assert effective_rank(torch.zeros(3, 4)) == 0
    shares = [0.7, 0.2, 0.1]
    entropy = -sum(share * math.log(share) for share in shares)
    assert effective_rank(built(shares, 5, 4)[0]) == pytest.approx(math.exp(entropy))
