import ast
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from losia_cli.errors import UserError
from losia_cli.evaluation import enclosure
from losia_cli.evaluation import sandbox as module
from losia_cli.evaluation.judge import judge
from losia_cli.evaluation.sandbox import (
    _KINDS,
    PROGRAM_BYTES,
    Limits,
    Program,
    Sandbox,
    Verdict,
    diagnose,
    find_sandbox,
    unsandboxed,
)
from tests.evaluation import attacks
from tests.evaluation.attacks import ATTACKS, ERROR, ESCAPES, LIMITS, PASSED, TIMEOUT, WRONG

REPOSITORY = Path(__file__).parents[2]
MBPP = REPOSITORY.parent / "shared" / "data" / "mbpp"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env")


@cache
def diagnosis() -> dict[str, tuple[bool, str]]:
    return {kind: (works, said) for kind, works, said in diagnose()}


@pytest.fixture(scope="module", params=_KINDS, ids=lambda sandbox: sandbox.kind)
def sandbox(request) -> Sandbox:
    works, said = diagnosis()[request.param.kind]
    if not works:
        pytest.skip(f"{request.param.kind} {said}")
    return request.param


@pytest.fixture(scope="module")
def best() -> Sandbox:
    try:
        return find_sandbox()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def target():
    with attacks.target() as found:
        yield found


def run(sandbox: Sandbox, code: str, *tests: str, **limits) -> Verdict:
    return sandbox.run(Program(code, tests), replace(LIMITS, **limits))


ALLOWED = {
    "bubblewrap": ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net"],
    "namespaces": ["unshare", "--mount", "--pid", "--fork", "--net"],
}
AS_USER = {
    "bubblewrap": ["--unshare-user", "--disable-userns"],
    "namespaces": ["--user", "--map-root-user"],
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_this_machine_allows_is_used(kind):
    """So that a sandbox that we broke is not skipped as one that cannot be had."""
    command = [*ALLOWED[kind], *(AS_USER[kind] if os.geteuid() else []), "true"]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(tried.stderr)
    assert diagnosis()[kind] == (True, "nothing gets out of it")


def _peak_memory(anew: bool = False) -> int:
    """KiB of this process, of all its time or, asked anew, from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails_and_leaves_nothing(sandbox, target, name, capfd):
    before = _peak_memory(anew=True)
    started = time.monotonic()
    verdict = ATTACKS[name].run(sandbox, target)
    assert attacks.damage(target) == []
    assert verdict in ATTACKS[name].expected
    assert time.monotonic() - started < ATTACKS[name].limits.wall_seconds + 30
    assert _peak_memory() - before < 50_000
    assert capfd.readouterr() == ("", "")


def test_the_escapes_succeed_where_nothing_is_in_the_way():
    with attacks.target() as target:
        for name, attack in ESCAPES.items():
            assert attack.run(unsandboxed(), target) is PASSED, name
        done = ["files were made or removed", "a process was killed"]
        assert _within(5, lambda: attacks.damage(target) == done)


@pytest.mark.slow
def test_the_attacks_fail_when_a_plain_user_runs_them():
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, by setpriv")
    environment = {
        "HOME": "/nonexistent",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    said = subprocess.run(
        [*NOBODY, _python_of_anyone(environment), "-m", attacks.__name__],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {kind: json.loads(rest) for kind, _, rest in map(_split, said.splitlines())}
    faults = {kind: said for kind, works, said in found.pop("diagnosis") if not works}
    if not found:
        pytest.skip(f"no sandbox works for a plain user: {faults}")
    for kind, (verdicts, damage) in found.items():
        assert verdicts.keys() == ATTACKS.keys()
        got_through = {n: v for n, v in verdicts.items() if v not in ATTACKS[n].expected}
        assert (kind, damage, got_through) == (kind, [], {})


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(" ")


def _python_of_anyone(environment: dict[str, str]) -> str:
    for python in (f"{sys.base_prefix}/bin/python3", *map(str, Path("/usr/bin").glob("python3*"))):
        tried = [*NOBODY, python, "-c", "import losia_cli.evaluation.sandbox"]
        if subprocess.run(tried, env=environment, cwd="/", capture_output=True).returncode == 0:
            return python
    pytest.skip("no Python here that other users can run is new enough for the project")


@pytest.mark.parametrize(
    ("code", "tests", "expected"),
    [
        ("def f(x): return x + 1", ("assert f(1) == 2", "assert f(2) == 3"), PASSED),
        ("def f(x): return 2", ("assert f(1) == 2", "assert f(2) == 3"), WRONG),
        ("def f(x): return 3", ("assert f(1) == 2", "assert f(2) == 3"), WRONG),
        ("def f(x): return 1 / 0", ("assert f(1) == 2",), ERROR),
        ("def f(x): return", ("assert g(1) == 2",), ERROR),
        ("def f(x)", ("assert f(1) == 2",), ERROR),
        ("assert False", ("assert True",), ERROR),
        ("def f(): assert False", ("assert f()",), WRONG),
        ("x = []", ("assert x.append(1) is None", "assert x == [1]"), PASSED),
        ("if __name__ == '__main__':\n    input()", ("assert True",), PASSED),
        ("def f(): return __name__\r\n", ("assert f() == 'program'",), PASSED),
        ("from __future__ import annotations\nx: y = 1", ("assert x == 1",), PASSED),
        ("def f(): return 'é🙂'", ("assert f() == 'é🙂'",), PASSED),
        ("print('é')", ("assert True",), PASSED),
    ],
)
def test_verdicts(best, code, tests, expected):
    assert run(best, code, *tests) is expected


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("x = '\0'", ("assert True",)),
        ("#" * PROGRAM_BYTES, ("assert True",)),
        ("", (f"assert {'1 + ' * (PROGRAM_BYTES // 4)} 1",)),
        ("", ()),
    ],
)
def test_what_cannot_be_tried_is_refused(code, tests):
    nothing_runs = Sandbox("x", lambda *_: pytest.fail("it was tried"))
    assert nothing_runs.run(Program(code, tests)) is Verdict.REFUSED


def test_the_largest_program_is_tried(best):
    assert run(best, "#" * (PROGRAM_BYTES - 1000), "assert True") is PASSED


def test_the_standard_library_is_there_and_nothing_else(sandbox):
    code = (
        "import collections, ctypes, datetime, decimal, heapq, itertools, json, math, os, re, sys\n"
        "import importlib.util, tempfile, threading, typing\n"
        "found = [p for p in ('pytest', 'torch', 'losia_cli') if importlib.util.find_spec(p)]\n"
        "folder = os.path.dirname(json.__file__) + '/../site-packages'\n"
        "installed = os.listdir(folder) if os.path.exists(folder) else []\n"
    )
    assert run(sandbox, code, "assert found == installed == []") is PASSED


def test_ordinary_use_of_files_threads_and_processes(sandbox):
    code = (
        "import concurrent.futures, os, tempfile\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        "    squares = list(pool.map(lambda x: x * x, range(9)))\n"
        "with tempfile.NamedTemporaryFile('w+') as file:\n"
        "    file.write('text'); file.seek(0); text = file.read()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(3)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
    )
    tests = ("assert squares[8] == 64", "assert text == 'text'", "assert status == 3")
    assert run(sandbox, code, *tests) is PASSED


def test_nothing_is_inherited(sandbox):
    """No variable but our own, no descriptor but the socket to the judge and /dev/null."""
    code = (
        "import os, stat\n"
        "open_ones = []\n"
        "for number in range(256):\n"
        "    try: status = os.fstat(number)\n"
        "    except OSError: continue\n"
        "    open_ones.append(stat.S_ISSOCK(status.st_mode) or status.st_rdev)\n"
        "null = os.stat('/dev/null').st_rdev\n"
        "known = {'HOME', 'TMPDIR', 'LANG', 'LD_LIBRARY_PATH', 'PYTHONHASHSEED', 'LC_CTYPE',\n"
        "    'PWD', 'OLDPWD', 'SHLVL', '_'}\n"
        "home = os.environ['HOME'], os.getcwd(), os.listdir()\n"
    )
    tests = (
        "assert open_ones.count(True) == 1 and set(open_ones) == {True, null}",
        "assert os.environ.keys() <= known",
        "assert home == ('/tmp', '/tmp', [])",
    )
    with Path(__file__).open() as file:  # one that could be inherited
        os.set_inheritable(file.fileno(), True)
        assert run(sandbox, code, *tests) is PASSED


def test_a_verdict_does_not_depend_on_the_run(best):
    code = "import sys; order = list({'one', 'two', 'three', 'four', 'five'})"
    python = [sys.executable, "-c", code + "; print(order)"]
    said = subprocess.check_output(python, env={"PYTHONHASHSEED": "0"}, text=True).strip()
    assert run(best, code, f"assert order == {said}") is PASSED


def test_a_program_dies_with_the_process_that_judges_it(sandbox):
    mark = f"losia-orphan-{os.getpid()}"
    code = LEFT_BEHIND.replace("$mark", mark)
    judging = (
        "import sys\n"
        "from losia_cli.evaluation.sandbox import _KINDS, Program\n"
        f"[sandbox] = [s for s in _KINDS if s.kind == {sandbox.kind!r}]\n"
        f"sandbox.run(Program({code!r}, ('assert True',)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", judging], cwd=REPOSITORY) as process:
        assert _within(10, lambda: attacks.running(mark))
        process.send_signal(signal.SIGKILL)
    assert _within(5, lambda: not attacks.running(mark))


LEFT_BEHIND = ATTACKS["leave a process"].code + "time.sleep(30)"


def _within(seconds: float, holds) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_without_a_sandbox_the_group_is_killed_and_the_folder_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark = f"losia-group-{os.getpid()}"
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        f"    sleep = ['-c', 'import time; time.sleep(20)', {mark!r}]\n"
        "    os.execv(sys.executable, [sys.executable, *sleep])\n"
        "open('x', 'w').write('x')\n"
        "time.sleep(0.2)\n"
    )
    there = f"assert os.getcwd().startswith({f'{tmp_path}/losia-'!r})"
    # all that this user runs counts as its processes
    assert run(unsandboxed(), code, there, processes=1 << 20) is PASSED
    assert _within(2, lambda: not attacks.running(mark))
    assert not list(tmp_path.iterdir())
    assert run(unsandboxed(), "while True: pass", "assert True", wall_seconds=0.5) is TIMEOUT


def test_where_namespaces_are_forbidden_the_error_names_why_and_what_to_do(other_programs):
    other_programs("bwrap", "echo bwrap: No permissions to create new namespace >&2; exit 1")
    other_programs("unshare", "echo unshare: unshare failed: Operation not permitted >&2; exit 1")
    with pytest.raises(UserError) as raised:
        find_sandbox()
    said = str(raised.value)
    assert "bubblewrap cannot start an interpreter (bwrap: No permissions to create" in said
    assert "namespaces cannot start an interpreter (unshare: unshare failed: Operation" in said
    assert "Install bubblewrap" in said
    assert said.endswith("or allow it unsandboxed with --allow-code=unsandboxed")
    assert [(kind, works) for kind, works, _ in diagnose()] == [
        ("bubblewrap", False),
        ("namespaces", False),
    ]


def test_a_sandbox_that_confines_nothing_is_not_used(other_programs):
    """A `bwrap` that runs the program as it is: all that the probe reaches for is there."""
    other_programs(
        "bwrap",
        'while [ "${1##*/python3*}" = "$1" ] || [ "${1%/*}" != /python/bin ]; do shift; done\n'
        f'shift; {shlex.quote(enclosure.bare("")[0])} "$@"; exit $?',
    )
    other_programs("unshare", "exit 1")
    with pytest.raises(UserError, match="bubblewrap does not keep a program from") as raised:
        find_sandbox()
    for reached in (
        "files of this machine",
        "the network",
        "local sockets",
        "other processes",
        "folders to write to",
        "room for any amount of files",
    ):
        assert f"{reached} (wrong)" in str(raised.value)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    enclosure._program.cache_clear()
    with pytest.raises(UserError, match=r"bubblewrap bwrap is not installed \(package bubblewrap"):
        find_sandbox()


def test_a_sandbox_that_stops_working_is_no_verdict(best, monkeypatch):
    monkeypatch.setattr(module, "_driver", lambda: "raise SystemExit('out of order')")
    with pytest.raises(UserError, match="out of order"):
        run(best, "", "assert True")


def _rows() -> list[dict]:
    if not MBPP.is_dir():
        pytest.skip(f"no real data slices in {MBPP}")
    files = sorted(MBPP.glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _program(row: dict, code: str) -> Program:
    return Program(f"{code}\n{row['test_setup_code']}", tuple(row["test_list"]))


@pytest.mark.shared
@pytest.mark.slow
def test_every_reference_solution_passes(best):
    rows = _rows()
    verdicts = judge([_program(row, row["code"]) for row in rows], best)
    failed = [(r["task_id"], v) for r, v in zip(rows, verdicts, strict=True) if v is not PASSED]
    assert (len(rows), failed) == (774, [])


class _InList(ast.NodeTransformer):
    """Every function returns a list of what it should return."""

    def visit_Return(self, node):
        return ast.Return(ast.List([node.value or ast.Constant(None)], ast.Load()))


@pytest.mark.shared
@pytest.mark.slow
def test_mutated_solutions_fail(best):
    rows = _rows()[::3]
    trees = [_InList().visit(ast.parse(row["code"])) for row in rows]
    codes = [ast.unparse(ast.fix_missing_locations(tree)) for tree in trees]
    programs = [_program(row, code) for row, code in zip(rows, codes, strict=True)]
    verdicts = judge(programs, best, Limits(cpu_seconds=4))
    assert set(verdicts) <= {WRONG, ERROR}
    assert verdicts.count(WRONG) > 0.9 * len(rows)  # they still run


@pytest.mark.shared
def test_the_last_assertion_counts(best):
    for row in _rows()[:20]:
        tests = (*row["test_list"], "assert False")
        assert best.run(replace(_program(row, row["code"]), tests=tests)) is WRONG
