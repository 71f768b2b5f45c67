"""What a training set is, in one word: equal words, equal samples in equal order."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

_COLUMNS = ("input_ids", "labels", "kto_tags")
_ROWS_AT_ONCE = 2048


def fingerprint(dataset: Any) -> str:
    """The rows and a hash over a tokenized dataset's ids and votes; `streamed` for a stream."""
    if not hasattr(dataset, "__len__"):
        return "streamed"
    columns = [name for name in dataset.column_names if name.endswith(_COLUMNS)]
    digest = hashlib.sha256(",".join(columns).encode())
    for batch in dataset.select_columns(columns).with_format("arrow").iter(_ROWS_AT_ONCE):
        for name in columns:
            for numbers in _lengths_and_values(batch[name]):
                digest.update(numbers.to_numpy().astype(np.int64).tobytes())
    return f"{len(dataset)} rows, {digest.hexdigest()[:16]}"


def _lengths_and_values(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Of rows that are lists, or a number each."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.list_value_length(column), pc.list_flatten(column)
    return pa.chunked_array([np.ones(len(column), np.int64)]), column
