"""Continual learning: what a sequence of tasks leaves of each (the paper's A.3.4, Tables 5, 12).

`P[i][j]` below is the score on task j after training on tasks 0 to i in turn, an N x N matrix;
`alone[j]` is the score on task j of a model that was trained on it alone (the paper's P_{0,j} and
Table 12's column ST). Table 12 prints the transpose: a row is a task that is scored, a column the
task that was trained last. The paper's formulas carry no numbers.
"""

from collections.abc import Sequence
from statistics import fmean

Matrix = Sequence[Sequence[float]]

TASKS = ("hellaswag", "piqa", "boolq", "siqa", "winogrande")
"""The paper's tasks in its order, as training sets and as evaluation suites are called."""


def metrics(scores: Matrix, alone: Sequence[float]) -> dict[str, float]:
    """AP, FWT and BWT, the columns of Table 5, in the unit of the scores.

    Args:
        scores: P, (N, N), N at least 2.
        alone: single-task scores, (N,).

    Raises:
        ValueError: other shapes.
    """
    return {
        "AP": average_performance(scores),
        "FWT": forward_transfer(scores, alone),
        "BWT": backward_transfer(scores),
    }


def average_performance(scores: Matrix) -> float:
    """AP = 1/N sum_j P[N-1][j]: what is left of all tasks after the last one.

    Raises:
        ValueError: `scores` is not square, or of fewer than two tasks.
    """
    _expect_square(scores)
    return fmean(scores[-1])


def forward_transfer(scores: Matrix, alone: Sequence[float]) -> float:
    """FWT = 1/N sum_i (P[i][i] - alone[i]): what earlier tasks did for a task just learned.

    Raises:
        ValueError: `scores` is not square or of fewer than two tasks, or `alone` is of another
            length.
    """
    _expect_square(scores)
    if len(alone) != len(scores):
        raise ValueError(f"{len(scores)} tasks, but {len(alone)} single-task scores")
    return fmean([scores[i][i] - single for i, single in enumerate(alone)])


def backward_transfer(scores: Matrix) -> float:
    """BWT = 1/(N-1) sum_{i<N-1} (P[N-1][i] - P[i][i]): what later tasks did to those before.

    Negative where tasks are forgotten. The last task counts for nothing: none follows it.

    Raises:
        ValueError: `scores` is not square, or of fewer than two tasks.
    """
    _expect_square(scores)
    return fmean([scores[-1][i] - scores[i][i] for i in range(len(scores) - 1)])


def _expect_square(scores: Matrix) -> None:
    widths = [len(row) for row in scores]
    if len(scores) < 2 or set(widths) != {len(scores)}:
        raise ValueError(
            f"P is square, with a row for each of at least two tasks; its {len(scores)} rows hold"
            f" {widths} scores"
        )
