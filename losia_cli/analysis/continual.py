"""Continual learning: what a sequence of tasks leaves of each (the paper's A.3.4, Tables 5, 12).

`P[i][j]` below is the score on task j after training on tasks 0 to i in turn, an N x N matrix;
`alone[j]` is the score on task j of a model that was trained on it alone (the paper's P_{0,j} and
Table 12's column ST). Table 12 prints the transpose: a row is a task that is scored, a column the
task that was trained last. The paper's formulas carry no numbers.
"""

from collections.abc import Sequence
from operator import sub
from statistics import fmean

Matrix = Sequence[Sequence[float]]

TASKS = ("hellaswag", "piqa", "boolq", "siqa", "winogrande")
"""The paper's tasks in its order, as training sets and as evaluation suites are called."""


def metrics(scores: Matrix, alone: Sequence[float]) -> dict[str, float]:
    """AP, FWT and BWT, the columns of Table 5, in the unit of the scores.

    AP = 1/N sum_j P[N-1][j] is what is left of all tasks after the last one;
    FWT = 1/N sum_i (P[i][i] - alone[i]) what earlier tasks did for a task just learned;
    BWT = 1/(N-1) sum_{i<N-1} (P[N-1][i] - P[i][i]) what later tasks did to those before, negative
    where they are forgotten. The last task counts for nothing there: none follows it.

    Args:
        scores: P, (N, N), N at least 2.
        alone: single-task scores, (N,).

    Raises:
        ValueError: other shapes.
    """
    widths = [len(row) for row in scores]
    if len(scores) < 2 or set(widths) != {len(scores)}:
        raise ValueError(
            f"P is square, with a row for each of at least two tasks; its {len(scores)} rows hold"
            f" {widths} scores"
        )
    if len(alone) != len(scores):
        raise ValueError(f"{len(scores)} tasks, but {len(alone)} single-task scores")
    last, learned = scores[-1], [row[i] for i, row in enumerate(scores)]
    return {
        "AP": fmean(last),
        "FWT": fmean(map(sub, learned, alone)),
        "BWT": fmean(map(sub, last[:-1], learned[:-1])),
    }
