"""Attempts to break out of a sandbox, each an assertion that holds where the attempt failed.

They are run in the sandbox as any program is. What they reach for is really there: files and
variables of this process, a socket that listens, this process itself.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

PROCESSES, MEMORY_BYTES, FILE_BYTES = 8, 1 << 28, 1 << 20  # limits to run the attempts with
_SHELL = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}  # set anew by what starts a program
TOOLS = f"""
import os, socket, tempfile, time
try:
    import ctypes
    libc = ctypes.CDLL(None)
except ImportError:
    libc = None

def fails(action, *arguments):
    try:
        action(*arguments)
    except (OSError, MemoryError):
        return True

def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False

def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(1)
        client.connect(address)

def capabilities():
    found = (ctypes.c_uint32 * 6)()
    assert libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), found) == 0
    effective, permitted = found[0::3], found[1::3]
    return any(effective + permitted)

def fork():
    for _ in range({PROCESSES}):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)

def fill():
    files = [tempfile.TemporaryFile() for _ in range(3)]
    for file in files:
        file.write(bytes({FILE_BYTES // 2}))
        file.flush()

def write_in(folder):
    tempfile.TemporaryFile(dir=folder)

def folders():
    return ["/", *("/" + name for name in os.listdir("/") if name != "tmp"), *os.sys.path]
"""


@contextmanager
def attempts(known: set[str]) -> Iterator[dict[str, str]]:
    """What each attempt shows where it succeeds -> its assertion, for a program of `TOOLS`.

    Args:
        known: the environment variables that the sandbox sets.
    """
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("")  # an address that the kernel chooses, in no folder
        local.listen()
        port, name, me = server.getsockname()[1], local.getsockname(), os.getpid()
        variables = os.environ.keys() - known - _SHELL
        yield {
            "files of this machine": f"assert not any(map(os.path.exists, {_paths()!r}))",
            "environment variables": f"assert not {variables!r} & os.environ.keys()",
            "the network": f"assert fails(connect, socket.AF_INET, ('127.0.0.1', {port}))",
            "local sockets": f"assert fails(connect, socket.AF_UNIX, {name!r})",
            # In its own numbering it is the first process or the second.
            "other processes": "assert os.getpid() <= 2 and not os.path.exists('/proc/self')"
            f" and ({me} <= 2 or gone({me}))",
            "folders to write to": "assert all(fails(write_in, d) for d in folders())",
            "room for any amount of files": "assert fails(fill)",
            "any number of processes": "assert fails(fork)",
            "any amount of memory": f"assert fails(bytearray, {MEMORY_BYTES})",
            "capabilities": "assert libc is None or not capabilities()",
            "a change of root folder": "assert fails(os.chroot, '/tmp')",
            "new namespaces": "assert libc is None or "
            "all(libc.unshare(flag) for flag in (0x10000000, 0x20000, 0x40000000))",
        }


def _paths() -> list[str]:
    """Real paths of the project, the working folder and the home folder."""
    entries = [path for place in (Path.cwd(), Path.home()) for path in islice(_list(place), 20)]
    shown = ("/lib", "/usr/lib", "/tmp", "/dev", "/usr")  # a sandbox has folders of these names
    paths = [__file__, *map(str, entries)]
    return [path for path in paths if not path.startswith(shown[:2]) and path not in shown]


def _list(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if os.access(folder, os.R_OK | os.X_OK) else iter(())
