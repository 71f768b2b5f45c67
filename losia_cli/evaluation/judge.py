"""Judges many programs at once, each distinct one a single time."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from losia_cli.evaluation.sandbox import DEFAULT, Limits, Program, Sandbox, Verdict


def judge(
    programs: Sequence[Program],
    sandbox: Sandbox,
    limits: Limits = DEFAULT,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """The verdict on each program, in their order.

    Args:
        programs: may repeat; equal ones share a verdict.
        sandbox: where they run, outside this process.
        limits: for each of them.
        workers: how many run at a time; as many as this process has cores if not given.
        progress: is told how many of `programs` have a verdict, whenever that grows.

    Raises:
        UserError: the sandbox stopped working.
    """
    verdicts: dict[Program, Verdict] = {}
    copies, judged = Counter(programs), 0
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        futures = {pool.submit(sandbox.run, program, limits): program for program in copies}
        try:
            for future in as_completed(futures):
                verdicts[futures[future]] = future.result()
                judged += copies[futures[future]]
                if progress:
                    progress(judged)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [verdicts[program] for program in programs]


def count(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How often each verdict was given, those that were not included."""
    found = Counter(verdicts)
    return {verdict.value: found[verdict] for verdict in Verdict}
