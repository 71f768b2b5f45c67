"""Pass@k: the chance that one of k samples of a problem is right."""

from math import comb

from losia_cli.errors import UserError


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased estimate from `samples` of which `right` are right (Chen et al. 2021, Eq. 1).

    Raises:
        UserError: fewer samples than k.
    """
    if not 1 <= k <= samples:
        raise UserError(f"pass@{k} needs at least {k} samples of each problem, and has {samples}")
    return 1.0 - comb(samples - right, k) / comb(samples, k)
