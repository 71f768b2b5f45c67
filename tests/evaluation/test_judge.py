import os
import random
from dataclasses import replace

import pytest

from losia_cli.errors import UserError
from losia_cli.evaluation.judge import count, judge
from losia_cli.evaluation.sandbox import Limits, Program, Sandbox, Verdict, unsandboxed

RIGHT = Program("def f(): return 1", ("assert f() == 1",))
WRONG = Program("def f(): return 2", ("assert f() == 1",))
BROKEN = Program("def f(: return 2", ("assert f() == 1",))
EXPECTED = {RIGHT: Verdict.PASSED, WRONG: Verdict.WRONG, BROKEN: Verdict.ERROR}


@pytest.fixture
def started(tmp_path):
    """The real thing without confinement, and how many interpreters it has started."""
    plain, commands = unsandboxed(), []

    def command(*given):
        commands.append(given)
        return plain.command(*given)

    return replace(plain, command=command), commands


def test_verdicts_come_in_order_and_each_distinct_program_runs_once(started):
    sandbox, commands = started
    programs = random.Random(0).choices([RIGHT, WRONG, BROKEN], k=20)
    copy = Program("def f(): return 1", ("assert f() == 1",))
    verdicts = judge([*programs, copy], sandbox)
    assert verdicts == [EXPECTED[program] for program in [*programs, RIGHT]]
    assert len(commands) == 3


def test_the_same_code_with_other_tests_is_another_program(started):
    sandbox, commands = started
    other = replace(RIGHT, tests=("assert f() == 2",))
    assert judge([RIGHT, other], sandbox) == [Verdict.PASSED, Verdict.WRONG]
    assert len(commands) == 2


def test_programs_run_at_the_same_time(tmp_path, monkeypatch):
    """Each waits until both are there, on a machine of whatever size."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    code = (
        "import os, time\n"
        f"open({str(tmp_path)!r} + '/$n', 'w').close()\n"
        f"while len(os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.01)\n"
    )
    programs = [Program(code.replace("$n", str(n)), ("assert True",)) for n in range(2)]
    limits = Limits(wall_seconds=60)
    assert judge(programs, unsandboxed(), limits) == [Verdict.PASSED] * 2


def test_limits_hold_for_each():
    sleeping = Program("import time; time.sleep(9)", ("assert True",))
    verdicts = judge([sleeping, RIGHT], unsandboxed(), Limits(wall_seconds=1))
    assert verdicts == [Verdict.TIMEOUT, Verdict.PASSED]


def test_nothing_to_judge():
    assert judge([], unsandboxed()) == []


def test_a_sandbox_that_cannot_start_is_an_error_and_no_verdict():
    missing = Sandbox("bubblewrap", lambda *_: ["/nonexistent/bwrap"])
    with pytest.raises(UserError, match="/nonexistent/bwrap"):
        judge([RIGHT, WRONG], missing)


def test_counts_name_every_verdict():
    counts = count([Verdict.PASSED, Verdict.WRONG, Verdict.PASSED])
    assert counts == {
        "passed": 2,
        "wrong": 1,
        "error": 0,
        "timeout": 0,
        "memory": 0,
        "refused": 0,
    }
