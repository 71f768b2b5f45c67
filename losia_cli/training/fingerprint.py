"""What a training set is, in one word: equal words, equal samples in equal order."""

import hashlib
from typing import Any

import numpy as np

_COLUMNS = ("input_ids", "labels")
_ROWS_AT_ONCE = 2048


def fingerprint(dataset: Any) -> str:
    """The rows and a hash over the token ids of a tokenized dataset; `streamed` for a stream."""
    if not hasattr(dataset, "__len__"):
        return "streamed"
    columns = [name for name in dataset.column_names if name.endswith(_COLUMNS)]
    digest = hashlib.sha256(",".join(columns).encode())
    for batch in dataset.select_columns(columns).iter(_ROWS_AT_ONCE):
        for name in columns:
            digest.update(np.array([len(row) for row in batch[name]], np.int64).tobytes())
            digest.update(np.concatenate([np.asarray(r, np.int64) for r in batch[name]]).tobytes())
    return f"{len(dataset)} rows, {digest.hexdigest()[:16]}"
