"""From the scores of a weight's entries to its core subnet (Algorithm 1)."""

import torch
from torch import Tensor

from losia_cli.method.subnet import Subnet


def row_to_column(scores: Tensor, rows: int, columns: int) -> Subnet:
    """Row2Column: the rows with the largest sums, then the best columns within them.

    Args:
        scores: `(N, M)`, non-negative.
        rows: how many rows to take, at most N.
        columns: how many columns to take, at most M.
    """
    best_rows = _largest(scores.sum(1), rows)
    best_columns = _largest(scores.index_select(0, best_rows).sum(0), columns)
    return Subnet(best_rows, best_columns)


def column_to_row(scores: Tensor, rows: int, columns: int) -> Subnet:
    """Column2Row: the columns with the largest sums, then the best rows within them."""
    best_columns = _largest(scores.sum(0), columns)
    best_rows = _largest(scores.index_select(1, best_columns).sum(1), rows)
    return Subnet(best_rows, best_columns)


def greedy(scores: Tensor, rows: int, columns: int) -> Subnet:
    """The better of `row_to_column` and `column_to_row`."""
    candidates = (row_to_column(scores, rows, columns), column_to_row(scores, rows, columns))
    return max(candidates, key=lambda subnet: captured(scores, subnet))


def best_rows(scores: Tensor, rows: int) -> Subnet:
    """The rows with the largest sums, with all columns: the output layer's subnet."""
    return Subnet(_largest(scores.sum(1), rows), None)


def random_subnet(
    weight: Tensor, rows: int, columns: int | None, generator: torch.Generator
) -> Subnet:
    """`rows` and `columns` (`None`: all) of `weight` `(N, M)`, drawn uniformly."""

    def draw(size: int, count: int) -> Tensor:
        drawn = torch.randperm(size, generator=generator)[:count].sort().values
        return drawn.to(weight.device)

    chosen = draw(weight.shape[0], rows)
    return Subnet(chosen, None if columns is None else draw(weight.shape[1], columns))


def captured(scores: Tensor, subnet: Subnet) -> float:
    """s(S) of Eq. 7: the sum of the scores inside the subnet."""
    return subnet.gather(scores).sum().item()


def _largest(sums: Tensor, count: int) -> Tensor:
    return sums.topk(count, sorted=False).indices.sort().values
