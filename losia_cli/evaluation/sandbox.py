"""Runs a program that a model wrote, and its tests, where it can do no harm; tells how they ended.

What counts as a pass is that the last assertion has run, not how the process ended: the judge
sends a random token only after that and wants it back. So `sys.exit(0)`, `os._exit(0)`, a printed
"passed", an `atexit` hook, a forked copy and a search of frames, globals and descriptors for a
secret all fail. Two things are not excluded, since program and assertions share one interpreter: a
program that returns objects equal to everything, and one written against this very protocol,
which can act the driver's part. All that either gains is a pass.

A program's output is thrown away; its files are gone and its processes dead when the verdict is in.
"""

import marshal
import os
import resource
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from pathlib import Path

from losia_cli.errors import UserError
from losia_cli.evaluation import enclosure, probe

PROGRAM_BYTES = 1 << 16  # code and tests together: one message of a socket holds them
START_SECONDS = 60  # for the interpreter to start, on a machine that is busy
_Process = subprocess.Popen[bytes]


class Verdict(StrEnum):
    """How a program ended."""

    PASSED = "passed"
    WRONG = "wrong"  # an assertion of the tests failed
    ERROR = "error"  # any other exception, or an end before the last assertion
    TIMEOUT = "timeout"
    MEMORY = "memory"
    REFUSED = "refused"  # too large, null bytes or no tests: not tried


@dataclass(frozen=True)
class Limits:
    """What a program may use; processor time and memory are counted for each of its processes."""

    cpu_seconds: int = 10
    wall_seconds: float = 20
    memory_bytes: int = 1 << 30
    processes: int = 16
    file_bytes: int = 1 << 24  # of all its files together


DEFAULT = Limits()


@dataclass(frozen=True)
class Program:
    """Code, and the assertions that run after it, in order."""

    code: str
    tests: tuple[str, ...]


def _tmp() -> AbstractContextManager[str]:
    return nullcontext(enclosure.HOME)


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs.

    Attributes:
        kind: `bubblewrap`, `namespaces` or `none`.
        command: source that an interpreter is to run, bytes of files -> what to start.
        home: makes the folder that a program runs in, and removes it.
        prefix: where the interpreter is installed, as the program sees it.
    """

    kind: str
    command: Callable[[str, int], list[str]]
    home: Callable[[], AbstractContextManager[str]] = _tmp
    prefix: str = enclosure.PREFIX

    def run(self, program: Program, limits: Limits = DEFAULT) -> Verdict:
        """Run a program and its tests; may be called by several threads at once.

        Raises:
            UserError: no interpreter can be started here, whatever the program.
        """
        message = marshal.dumps((program.code, program.tests))
        if len(message) > PROGRAM_BYTES or "\0" in program.code or not program.tests:
            return Verdict.REFUSED
        with self.home() as home, self._interpreter(home, limits) as (process, channel):
            return _verdict(process, channel, message, limits)

    @contextmanager
    def _interpreter(self, home: str, limits: Limits) -> Iterator[tuple[_Process, socket.socket]]:
        """An interpreter that waits for a program; it and all it started are dead afterwards."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = self._start(theirs, home, limits)
            kill = process.kill if self.kind != NONE else partial(_kill_group, process.pid)
            with process:
                try:
                    if not _is_ready(ours):
                        kill()
                        raise UserError(f"cannot start an interpreter ({_said(process)})")
                    if self.kind != NONE:
                        kill = partial(_kill_enclosure, _first_child(process.pid))
                    yield process, ours
                finally:
                    kill()

    def _start(self, channel: socket.socket, home: str, limits: Limits) -> _Process:
        driver = f"{_driver()}\nmain({_rlimits(limits)})\n"
        try:
            return subprocess.Popen(
                self.command(driver, limits.file_bytes),
                stdin=channel.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=enclosure.environment(home, self.prefix),
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"cannot start a program ({error})") from error


NONE = "none"
_KINDS = (
    Sandbox("bubblewrap", enclosure.bubblewrap),
    Sandbox("namespaces", enclosure.namespaces),
)


def find_sandbox(otherwise: str = "--allow-code=unsandboxed") -> Sandbox:
    """The best kind of sandbox that nothing gets out of on this machine.

    Args:
        otherwise: how to do without one, for the error.

    Raises:
        UserError: there is none; says why, and what to do.
    """
    faults = []
    for sandbox in _KINDS:
        fault = _fault(sandbox)
        if fault is None:
            return sandbox
        faults.append(f"{sandbox.kind} {fault}")
    raise UserError(
        f"no sandbox for model-written code works here: {'; '.join(faults)}. {_remedy()}, or allow "
        f"it unsandboxed with {otherwise}"
    )


def unsandboxed() -> Sandbox:
    """Limits alone: a program can read, write and send whatever its user can.

    Root is bound by no limit on processes, and what leaves its process group stays alive.
    """
    home = partial(tempfile.TemporaryDirectory, prefix="losia-", ignore_cleanup_errors=True)
    return Sandbox(NONE, lambda source, _: enclosure.bare(source), home, sys.base_prefix)


def diagnose() -> list[tuple[str, bool, str]]:
    """Each kind of sandbox, whether it works here, and a sentence that says so."""
    found = []
    for sandbox in _KINDS:
        fault = _fault(sandbox)
        said = "nothing gets out of it" if fault is None else f"{fault}. {_remedy()}"
        found.append((sandbox.kind, fault is None, said))
    return found


def _verdict(process: _Process, channel: socket.socket, message: bytes, limits: Limits) -> Verdict:
    started = time.monotonic()
    deadline = started + limits.wall_seconds
    try:
        outcome = _ask(channel, deadline, message)
        if outcome == b"done":
            token = secrets.token_bytes(32)
            passed = _ask(channel, deadline, token) == token
            return Verdict.PASSED if passed else Verdict.ERROR
        if outcome in (b"wrong", b"error", b"memory"):
            return Verdict(outcome.decode())
        ended = process.wait(deadline - time.monotonic())
    except (TimeoutError, subprocess.TimeoutExpired):
        return Verdict.TIMEOUT
    # Killed by the limit's own signal, as seen from here or through bubblewrap, or by the harder
    # one that follows where that is ignored.
    spent = ended in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
    late = time.monotonic() - started >= limits.cpu_seconds
    return Verdict.TIMEOUT if spent or late else Verdict.ERROR


def _ask(channel: socket.socket, deadline: float, message: bytes = b"") -> bytes:
    """The other end's next message, after ours if there is one; empty if it is gone.

    Raises:
        TimeoutError: there is none by then.
    """
    channel.settimeout(max(deadline - time.monotonic(), 1e-3))
    try:
        if message:
            channel.send(message)
        return channel.recv(64)
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _rlimits(limits: Limits) -> list[tuple[int, tuple[int, int]]]:
    """What the interpreter is to set: which limit, (soft, hard); none above what holds here."""
    wanted = {
        resource.RLIMIT_CPU: (limits.cpu_seconds, limits.cpu_seconds + 1),
        resource.RLIMIT_AS: (limits.memory_bytes,) * 2,
        resource.RLIMIT_NPROC: (limits.processes,) * 2,
        resource.RLIMIT_FSIZE: (limits.file_bytes,) * 2,
        resource.RLIMIT_NOFILE: (256, 256),
        resource.RLIMIT_CORE: (0, 0),
    }
    found = []
    for kind, (soft, hard) in wanted.items():
        top = resource.getrlimit(kind)[1]
        top = hard if top == resource.RLIM_INFINITY else min(top, hard)
        found.append((kind, (min(soft, top), top)))
    return found


def _is_ready(channel: socket.socket) -> bool:
    with suppress(TimeoutError):
        return _ask(channel, time.monotonic() + START_SECONDS) == b"ready"
    return False


def _said(process: _Process) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode(errors="replace").strip() or "for no stated reason"


def _first_child(pid: int) -> int:
    """A descriptor of the first child of a process.

    Raises:
        UserError: it has none, or this kernel cannot tell.
    """
    try:
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return os.pidfd_open(int(child))
    except (OSError, IndexError) as error:
        raise UserError(f"cannot follow a process ({error})") from error


def _kill_enclosure(first: int) -> None:
    """Kill the first process of an enclosure; the kernel ends it after all the others."""
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(first, signal.SIGKILL)
        ended = select.poll()
        ended.register(first, select.POLLIN)
        ended.poll()
    finally:
        os.close(first)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@cache
def _driver() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


def _fault(sandbox: Sandbox) -> str | None:
    """Why a sandbox must not be used here; None if nothing got out of it."""
    if sys.platform != "linux":
        return "needs Linux"
    limits = Limits(
        memory_bytes=probe.MEMORY_BYTES, processes=probe.PROCESSES, file_bytes=probe.FILE_BYTES
    )
    leaks = []
    try:
        if sandbox.run(Program("", ("assert False",)), limits) is not Verdict.WRONG:
            return "does not notice a failed assertion"
        with probe.attempts(set(enclosure.environment(enclosure.HOME))) as attempts:
            for shown, assertion in attempts.items():
                verdict = sandbox.run(Program(probe.TOOLS, (assertion,)), limits)
                if verdict is not Verdict.PASSED:
                    leaks.append(f"{shown} ({verdict})")
    except UserError as error:
        return str(error)
    return f"does not keep a program from {', '.join(leaks)}" if leaks else None


def _remedy() -> str:
    """What makes a sandbox work here, as far as the kernel's settings tell."""
    for setting, bad, good in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "15000"),
    ):
        path = Path("/proc/sys") / setting
        if path.exists() and path.read_text().strip() == bad:
            return f"Install bubblewrap and run `sudo sysctl {setting.replace('/', '.')}={good}`"
    if "Seccomp:\t2" in Path("/proc/self/status").read_text():
        return (
            "Install bubblewrap and start the container with `--security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --cap-add SYS_ADMIN`"
        )
    return "Install bubblewrap 0.8 or newer"
