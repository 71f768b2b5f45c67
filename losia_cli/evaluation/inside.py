"""What a sandbox's interpreter runs: it limits itself, runs a program and tests, proves a pass.

The judge reads this file and adds a call of `main`. Standard input is a socket to the judge: it is
told `ready`, sends the code and the tests, and is told one word: `error`, `memory`, `wrong` or
`done`. After `done`, that is after the last assertion, it sends a token; sending that back proves
the pass. So there is no secret in frames, globals or memory while the program's code runs. The
standard library alone is used, and little of it: every import delays every program.
"""

import marshal
import posix
import resource
import sys

MESSAGE = 1 << 20  # bytes, more than the judge sends


def main(limits: tuple[tuple[int, tuple[int, int]], ...]) -> None:
    """Serve one program, then end without running anything it left behind.

    Args:
        limits: each limit of this process, and its soft and hard value.
    """
    # Bound now: the program may replace what it finds in `posix` or `builtins`.
    build, execute, read, write, leave = compile, exec, posix.read, posix.write, posix._exit
    asserted, exhausted, anything = AssertionError, MemoryError, BaseException
    whoami, me = posix.getpid, posix.getpid()

    channel = posix.dup(0)
    nowhere = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(nowhere, 0)
    posix.chdir(posix.environ[b"HOME"])
    for kind, bounds in limits:
        resource.setrlimit(kind, bounds)

    # Not `__main__`, as in lm-eval: what a program guards by that name is not run.
    module = type(sys)("program")
    sys.modules["program"] = module
    posix.dup2(nowhere, 2)
    write(channel, b"ready")
    code, tests = marshal.loads(read(channel, MESSAGE))
    outcome = b"error"
    try:
        checks = tuple(build(test, "<test>", "exec") for test in tests)
        execute(build(code, "<program>", "exec"), module.__dict__)
        outcome = b"wrong"
        for check in checks:
            execute(check, module.__dict__)
        outcome = b"done"
    except exhausted:
        outcome = b"memory"
    except asserted:
        pass  # `wrong`, or `error` where the code itself asserted
    except anything:
        outcome = b"error"
    if whoami() == me:  # a copy that the program forked off proves nothing
        write(channel, outcome)
        if outcome == b"done":
            write(channel, read(channel, MESSAGE))
    leave(0)
