"""Judges many programs at once, each distinct one a single time."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from losia_cli.evaluation.sandbox import DEFAULT, Limits, Program, Sandbox, Verdict


def judge(programs: Sequence[Program], sandbox: Sandbox, limits: Limits = DEFAULT) -> list[Verdict]:
    """The verdict on each program, in their order; as many run at a time as there are cores.

    Raises:
        UserError: the sandbox stopped working.
    """
    distinct = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(partial(sandbox.run, limits=limits), distinct)
        verdicts = dict(zip(distinct, found, strict=True))
    return [verdicts[program] for program in programs]


def count(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How often each verdict was given, those that were not included."""
    found = Counter(verdicts)
    return {verdict.value: found[verdict] for verdict in Verdict}
