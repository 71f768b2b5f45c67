"""What ranks must agree on when several train together: the scores and the choice."""

import torch
from torch import Tensor, distributed

from losia_cli.method.subnet import Subnet


def average_over_ranks(gradient: Tensor) -> None:
    """Average `gradient` over all ranks, in place."""
    if _world_size() > 1:
        distributed.all_reduce(gradient)
        gradient /= _world_size()


def from_first_rank(subnet: Subnet) -> Subnet:
    """Rank 0's subnet, on every rank."""
    for indices in (subnet.rows, subnet.columns):
        if indices is not None and _world_size() > 1:
            distributed.broadcast(indices, src=0)
    return subnet


def smallest(number: int, device: torch.device) -> int:
    """The smallest of all ranks' numbers."""
    if _world_size() == 1:
        return number
    found = torch.tensor(number, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return int(found)


def _world_size() -> int:
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1
