"""Programs that try to harm this machine or to pass without being right; each bounds itself.

Run as a script it tries them all in every kind of sandbox that works, and prints the verdicts: so
the same attacks are made by another user, with another interpreter.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from string import Template

from losia_cli.evaluation.sandbox import _KINDS, Limits, Program, Sandbox, Verdict, diagnose

SECRET = "a secret of this machine"
LIMITS = Limits(
    cpu_seconds=5, wall_seconds=60, memory_bytes=1 << 28, processes=8, file_bytes=1 << 22
)
BRIEF = replace(LIMITS, wall_seconds=0.7)
PASSED, WRONG, ERROR, TIMEOUT, MEMORY, _ = Verdict


@dataclass(frozen=True)
class Attack:
    """Code and a test that holds if it succeeds, and the verdicts that say it did not."""

    code: str
    test: str
    expected: set[Verdict]
    limits: Limits = LIMITS

    def run(self, sandbox: Sandbox, target: dict[str, str]) -> Verdict:
        code, test = (Template(text).substitute(target) for text in (self.code, self.test))
        return sandbox.run(Program(code, (test,)), self.limits)


# Each passes where nothing is in the way, as a test shows.
ESCAPES = {
    "read a file": Attack("s = open('$file').read()", "assert s == '$secret'", {ERROR}),
    "read the project": Attack("s = open('$project').read()", "assert 'Sandbox' in s", {ERROR}),
    "list the home folder": Attack(
        "import os; s = os.listdir('$home')", "assert 'file' in s", {ERROR}
    ),
    "see that a file is there": Attack(
        "import os; s = os.path.exists('$file')", "assert s", {WRONG}
    ),
    "change a file": Attack("open('$file', 'a').write('x')", "assert True", {ERROR}),
    "make a file": Attack("open('$home/made', 'w').write('x')", "assert True", {ERROR}),
    "remove a file": Attack("import os; os.remove('$spare')", "assert True", {ERROR}),
    "read an environment": Attack(
        "s = open('/proc/$victim/environ').read()", "assert '$secret' in s", {ERROR}
    ),
    "connect": Attack(
        "import socket; s = socket.create_connection(('127.0.0.1', $port), 2)",
        "assert s",
        {ERROR},
    ),
    "connect to a local socket": Attack(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\x00$local')",
        "assert s",
        {ERROR},
    ),
    "connect to a socket in a folder": Attack(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('$home/socket')",
        "assert s",
        {ERROR},
    ),
    "see a process": Attack("import os", "assert os.kill($victim, 0) is None", {ERROR}),
    "list processes": Attack("import os; s = os.listdir('/proc')", "assert '1' in s", {ERROR}),
    "kill a process": Attack("import os; os.kill($victim, 9)", "assert True", {ERROR}),
}

BAD = "def f(): return 0\n"
FALSE_SUCCESS = {
    "exit": Attack(BAD + "import sys; sys.exit(0)", "assert f() == 1", {ERROR}),
    "exit at once": Attack(BAD + "import os; os._exit(0)", "assert f() == 1", {ERROR}),
    "exit in a test": Attack("import os\ndef f(): os._exit(0)", "assert f() == 1", {ERROR}),
    "raise SystemExit in a test": Attack(
        "def f(): raise SystemExit(0)", "assert f() == 1", {ERROR}
    ),
    "say so": Attack(
        BAD + "print('passed'); import sys; sys.stdout.flush(); sys.exit(0)",
        "assert f() == 1",
        {ERROR},
    ),
    "say so at the end": Attack(
        BAD + "import atexit; atexit.register(print, 'passed')", "assert f() == 1", {WRONG}
    ),
    "exit at the end": Attack(
        BAD + "import atexit, os; atexit.register(os._exit, 0); raise SystemExit",
        "assert f() == 1",
        {ERROR},
    ),
    "exit from a thread": Attack(
        "import os, threading, time\nthreading.Timer(0.1, os._exit, [0]).start()\n"
        "def f(): time.sleep(5)",
        "assert f() == 1",
        {ERROR},
    ),
    "exit by a signal": Attack(
        "import os, signal, time\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)\ndef f(): time.sleep(5)",
        "assert f() == 1",
        {ERROR},
    ),
    "become another program": Attack(
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(\"passed\")'])",
        "assert False",
        {ERROR},
    ),
    "let a copy go on": Attack(
        "import os\nif os.fork(): os._exit(0)\ndef f(): return 1", "assert f() == 1", {ERROR}
    ),
    "kill itself": Attack(
        BAD + "import os; os.kill(os.getpid(), 9)", "assert f() == 1", {ERROR, WRONG}
    ),
    "kill its parent": Attack(
        BAD + "import os\nif os.getppid() > 0: os.kill(os.getppid(), 9)",
        "assert f() == 1",
        {ERROR, WRONG},
    ),
    "close everything": Attack(
        BAD + "import os; os.closerange(0, 256)", "assert f() == 1", {ERROR}
    ),
    "replace the builtins": Attack(
        BAD + "import builtins\nbuiltins.AssertionError = builtins.MemoryError = OSError\n"
        "builtins.exec = builtins.compile = builtins.BaseException = lambda *_: None",
        "assert f() == 1",
        {WRONG},
    ),
    "replace the system calls": Attack(
        BAD + "import os, posix\nfor m in (os, posix):\n"
        "    m.read = m.write = m._exit = m.getpid = lambda *_: b'passed'",
        "assert f() == 1",
        {WRONG},
    ),
    "have no builtins": Attack(BAD + "__builtins__ = {}", "assert f() == 1", {WRONG}),
    "exit while traced": Attack(
        BAD + "import os, sys\nsys.setprofile(lambda frame, *_: frame.f_code.co_name == 'f'"
        " and os._exit(0))",
        "assert f() == 1",
        {ERROR},
    ),
    "send what it finds": Attack(
        """
import gc, os, sys
def f():
    found, frame = {b"done", b"passed", b"ready", bytes(32), os.urandom(32)}, sys._getframe()
    pools = [*gc.get_objects(), *sys.modules.values()]
    while frame:
        pools += [frame.f_locals, frame.f_globals, frame.f_builtins]
        frame = frame.f_back
    for pool in pools:
        try:
            values = list(pool.values() if isinstance(pool, dict) else pool)
        except Exception:
            continue
        found |= {v for v in values if type(v) is bytes and 4 <= len(v) <= 64}
    for descriptor in range(3, 20):
        for value in found:
            try:
                os.write(descriptor, value)
            except OSError:
                pass
    os._exit(0)
""",
        "assert f() == 1",
        {ERROR, WRONG},
    ),
}

RESOURCES = {
    "loop": Attack("while True: pass", "assert True", {TIMEOUT}, replace(LIMITS, cpu_seconds=1)),
    "loop on after the signal": Attack(
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "assert True",
        {TIMEOUT},
        replace(LIMITS, cpu_seconds=1),
    ),
    "sleep": Attack("import time; time.sleep(30)", "assert True", {TIMEOUT}, BRIEF),
    "sleep in a test": Attack("import time", "assert time.sleep(30)", {TIMEOUT}, BRIEF),
    "wait for input": Attack("input()", "assert True", {ERROR}),
    "take memory": Attack("s = bytearray(1 << 29)", "assert True", {MEMORY}),
    "take memory bit by bit": Attack(
        "s = [[n] for n in range(8_000_000)]", "assert True", {MEMORY}
    ),
    "recurse": Attack("def f(): return f()", "assert f()", {ERROR}),
    "recurse deeply": Attack(
        "import sys; sys.setrecursionlimit(10**9)\nclass A:\n"
        "    def __getattr__(self, name): return getattr(self, name)",
        "assert A().x",
        {ERROR, MEMORY},
        replace(LIMITS, cpu_seconds=60),  # a crash after that would count as one of time
    ),
    "fork": Attack(
        "import os, time\nfor n in range(32):\n    if os.fork() == 0:\n"
        "        time.sleep(20); os._exit(0)",
        "assert True",
        {ERROR},
    ),
    "fork in forks": Attack(
        "import os, time\nfor n in range(5):\n    os.fork()\ntime.sleep(0.2)",
        "assert True",
        {ERROR, PASSED},  # by which of them the limit is met
    ),
    "start threads": Attack(
        "import threading, time\nfor n in range(32):\n"
        "    threading.Thread(target=time.sleep, args=[20], daemon=True).start()",
        "assert True",
        {ERROR},
    ),
    "print on and on": Attack("while True: print('x' * 65536)", "assert True", {TIMEOUT}, BRIEF),
    "write everywhere": Attack(
        """
import os
while True:
    for descriptor in range(20):
        try:
            os.set_blocking(descriptor, False)
            os.write(descriptor, b"x" * 65536)
        except OSError:
            pass
""",
        "assert True",
        {ERROR, TIMEOUT},
        BRIEF,
    ),
    "fill the folder": Attack(
        "for n in range(16): open(str(n), 'wb').write(bytes(1 << 20))", "assert True", {ERROR}
    ),
    "make a large file": Attack("open('x', 'wb').truncate(1 << 30)", "assert True", {ERROR}),
}

# Leaves a process behind that has its own session and group and outlasts the program.
_DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)"
        os.execv(sys.executable, [sys.executable, "-S", "-c", sleep, "$mark"])
    os._exit(0)
os.wait()
import time
time.sleep(0.1)
open("$mark", "w").write("x")
"""
LEFTOVERS = {
    "leave a process": Attack(_DAEMON, "assert True", {PASSED}),
    "leave a process when killed": Attack(
        _DAEMON + "time.sleep(30)", "assert True", {TIMEOUT}, BRIEF
    ),
}
ATTACKS = {**ESCAPES, **FALSE_SUCCESS, **RESOURCES, **LEFTOVERS}


@contextmanager
def target() -> Iterator[dict[str, str]]:
    """What the attacks reach for: files, sockets, a variable and a process that are really here."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as home,  # a socket's path must be short
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as named,
        subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(300)"], env={"SECRET": SECRET}
        ) as victim,
    ):
        for name in ("file", "spare"):
            Path(home, name).write_text(SECRET)
            Path(home, name).chmod(0o666)
        Path(home).chmod(0o777)
        local.bind("")
        local.listen()
        named.bind(f"{home}/socket")
        named.listen()
        try:
            yield {
                "home": home,
                "file": f"{home}/file",
                "spare": f"{home}/spare",
                "secret": SECRET,
                "project": sys.modules[Sandbox.__module__].__file__ or "",
                "port": str(server.getsockname()[1]),
                "local": local.getsockname()[1:].decode(),
                "victim": str(victim.pid),
                "mark": f"losia-mark-{os.getpid()}",
            }
        finally:
            victim.kill()


def damage(target: dict[str, str]) -> list[str]:
    """What the attacks have changed here, in words."""
    home, found = Path(target["home"]), []
    if sorted(path.name for path in home.iterdir()) != ["file", "socket", "spare"]:
        found.append("files were made or removed")
    elif Path(target["file"]).read_text() != SECRET:
        found.append("a file was changed")
    if Path(f"/proc/{target['victim']}/stat").read_text().split()[2] == "Z":
        found.append("a process was killed")
    if running(target["mark"]):
        found.append("a process was left running")
    if Path("/tmp", target["mark"]).exists():
        found.append("a file was left")
    return found


def running(mark: str) -> list[int]:
    """The processes of this machine whose command line has that mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def main() -> None:
    kinds = [kind for kind, works, _ in diagnose() if works]
    print("diagnosis", json.dumps(diagnose()))
    for sandbox in _KINDS:
        if sandbox.kind in kinds:
            with target() as reached, ThreadPoolExecutor(4) as pool:
                tried = pool.map(Attack.run, ATTACKS.values(), repeat(sandbox), repeat(reached))
                verdicts = dict(zip(ATTACKS, tried, strict=True))
                print(sandbox.kind, json.dumps([verdicts, damage(reached)]))


if __name__ == "__main__":
    main()
