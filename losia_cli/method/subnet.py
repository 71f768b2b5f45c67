"""A core subnet: the rows and columns of a weight that are trained."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subnet:
    """Rows `Y_S` and columns `X_S` of a weight `(N, M)`, as sorted int64 indices.

    `None` stands for all rows or all columns.
    """

    rows: Tensor | None
    columns: Tensor | None

    def gather(self, weight: Tensor) -> Tensor:
        """`weight[rows][:, columns]`: `(N, M) -> (len(rows), len(columns))`, a copy."""
        chosen = weight if self.rows is None else weight.index_select(0, self.rows)
        chosen = chosen if self.columns is None else chosen.index_select(1, self.columns)
        return chosen.clone() if chosen is weight else chosen

    def scatter_(self, weight: Tensor, values: Tensor) -> None:
        """Write `values` `(len(rows), len(columns))` into `weight` `(N, M)`, in its dtype."""
        values = values.to(weight.dtype)
        if self.rows is not None and self.columns is not None:
            weight[self.rows[:, None], self.columns] = values
        elif self.rows is not None:
            weight.index_copy_(0, self.rows, values)
        elif self.columns is not None:
            weight.index_copy_(1, self.columns, values)
        else:
            weight.copy_(values)


def carry_over_(new: Tensor, new_subnet: Subnet, old: Tensor, old_subnet: Subnet) -> None:
    """Copy into `new` the entries of `old` that both subnets select."""
    everything = [torch.arange(size, device=new.device) for size in new.shape]
    rows, old_rows = _shared(new_subnet.rows, old_subnet.rows, everything[0])
    columns, old_columns = _shared(new_subnet.columns, old_subnet.columns, everything[1])
    new[rows[:, None], columns] = old[old_rows[:, None], old_columns]


def overlap(new: Subnet, old: Subnet) -> float:
    """The share of the entries of `new` that `old` selects too."""
    share = 1.0
    for ours, theirs in ((new.rows, old.rows), (new.columns, old.columns)):
        if ours is not None and theirs is not None:
            share *= torch.isin(ours, theirs).double().mean().item()
    return share


def _shared(new: Tensor | None, old: Tensor | None, everything: Tensor) -> tuple[Tensor, Tensor]:
    """Where the indices that `new` and `old` have in common stand in each."""
    if new is None or old is None:
        return everything, everything
    return torch.isin(new, old).nonzero().flatten(), torch.isin(old, new).nonzero().flatten()
