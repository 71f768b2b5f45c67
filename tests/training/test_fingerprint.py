"""What a training set is, in one word: by arrow, against plain lists."""

import hashlib
from itertools import chain

import numpy as np
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.training import fingerprint as module
from losia_cli.training.fingerprint import fingerprint

rows = st.lists(
    st.tuples(
        st.lists(st.integers(-100, 300_000), min_size=1, max_size=5),
        st.lists(st.integers(-100, 300_000), max_size=5),
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)
COLUMNS = ("input_ids", "chosen_labels", "kto_tags")


def plainly(found, at_once):
    digest = hashlib.sha256(",".join(COLUMNS).encode())
    for start in range(0, len(found), at_once):
        for column in zip(*found[start : start + at_once], strict=True):
            lists = [row if isinstance(row, list) else [int(row)] for row in column]
            digest.update(np.array([len(row) for row in lists], np.int64).tobytes())
            digest.update(np.array([*chain(*lists)], np.int64).tobytes())
    return f"{len(found)} rows, {digest.hexdigest()[:16]}"


@given(rows, st.integers(1, 4))
def test_a_hash_over_lengths_and_values_column_by_column(found, at_once):
    columns = dict(zip(COLUMNS, map(list, zip(*found, strict=True)), strict=True))
    dataset = Dataset.from_dict({**columns, "images": [None] * len(found)})
    before, module._ROWS_AT_ONCE = module._ROWS_AT_ONCE, at_once
    try:
        assert fingerprint(dataset) == plainly(found, at_once)
    finally:
        module._ROWS_AT_ONCE = before


def test_rows_in_another_order_are_another_set():
    dataset = Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3]]})
    assert fingerprint(dataset) != fingerprint(dataset.select([1, 0]))
