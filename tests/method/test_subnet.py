"""Gathering, scattering and carrying over, against plain indexing."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.method.subnet import Subnet, carry_over_, overlap

indices = st.one_of(st.none(), st.sets(st.integers(0, 5), min_size=2, max_size=4))
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])


def subnet(rows, columns):
    as_tensor = [None if i is None else torch.tensor(sorted(i)) for i in (rows, columns)]
    return Subnet(*as_tensor)


@given(indices, indices, dtypes)
def test_scatter_writes_the_rectangle_and_nothing_else(rows, columns, dtype):
    weight = torch.randn(6, 6).to(dtype)
    before, chosen = weight.clone(), subnet(rows, columns)
    values = chosen.gather(weight).float() + 1
    chosen.scatter_(weight, values)
    inside = torch.zeros(6, 6, dtype=torch.bool)
    for row in range(6) if rows is None else rows:
        for column in range(6) if columns is None else columns:
            inside[row, column] = True
    assert torch.equal(weight[~inside], before[~inside])
    assert torch.equal(chosen.gather(weight), values.to(dtype))


@given(indices, indices)
def test_gather_is_a_copy(rows, columns):
    weight = torch.randn(6, 6)
    before = weight.clone()
    subnet(rows, columns).gather(weight).zero_()
    assert torch.equal(weight, before)


@given(st.data())
def test_carry_over_keeps_exactly_what_both_select(data):
    draw = st.sets(st.integers(0, 5), min_size=3, max_size=3)
    old, new = (subnet(data.draw(draw), data.draw(draw)) for _ in range(2))
    old_values, new_values = torch.rand(3, 3) + 1, torch.zeros(3, 3)
    carry_over_(new_values, new, old_values, old)
    full = torch.zeros(6, 6)
    old.scatter_(full, old_values)
    assert torch.equal(new_values, new.gather(full))
    assert overlap(new, old) * 9 == torch.count_nonzero(new_values)
