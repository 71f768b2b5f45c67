"""Commands that start a bare Python interpreter, each in an enclosure of its own or in none.

An enclosure has its own processes, network and IPC, and a root folder that holds the interpreter
with its standard library (`/python`), the system's shared libraries, three devices and an empty
`/tmp`: read-only but `/tmp`, which is small. The interpreter has no capability there and can make
no namespace. Run by root it becomes a user that does not exist: no limit on processes binds root.
"""

import os
import secrets
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from losia_cli.errors import UserError

HOME, PREFIX = "/tmp", "/python"
_PYTHON = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
_OPTIONS = ("-P", "-s", "-S", "-B", "-X", "utf8", "-c")
_SYSTEM = tuple(d for d in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if Path(d).is_dir())
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def environment(home: str, prefix: str = PREFIX) -> dict[str, str]:
    """All variables of an interpreter installed in `prefix`; hashes do not vary between runs."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"{prefix}/lib",
        "PYTHONHASHSEED": "0",
    }


def bare(source: str, prefix: str = sys.base_prefix) -> list[str]:
    """The command that runs `source` by the interpreter installed in `prefix`, in no enclosure."""
    return [f"{prefix}/{_PYTHON}", *_OPTIONS, source]


def bubblewrap(source: str, tmp_bytes: int) -> list[str]:
    """The command that runs `source` in bubblewrap, with so much room in `/tmp`.

    Raises:
        UserError: a program that it needs is missing.
    """
    options = [_program("bwrap", "bubblewrap"), "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    options += ["--die-with-parent", "--cap-drop", "ALL"]
    if os.geteuid():
        options += ["--unshare-user", "--disable-userns", *_filled("", tmp_bytes)]
        return [*options, "--remount-ro", "/", *bare(source, PREFIX)]
    # Root needs no user namespace to get here, and from a chroot nobody can make one.
    for capability in ("SETUID", "SETGID", "SYS_CHROOT"):
        options += ["--cap-add", f"CAP_{capability}"]
    chroot = _program("chroot", "coreutils")
    for path, target in [*zip(_SYSTEM, _SYSTEM, strict=True), (chroot, "/chroot")]:
        options += ["--ro-bind", path, target]
    options += [*_filled("/jail", tmp_bytes), "--remount-ro", "/"]
    user = _stranger()  # with the user id all capabilities go, and none can come back
    become = ["/chroot", f"--userspec=+{user}:+{user}", "--groups=", "/jail"]
    return [*options, *become, *bare(source, PREFIX)]


def namespaces(source: str, tmp_bytes: int) -> list[str]:
    """The command that runs `source` behind `unshare` and `chroot`, with so much room in `/tmp`.

    Raises:
        UserError: a program that it needs is missing.
    """
    unshare, setpriv = _program("unshare", "util-linux"), _program("setpriv", "util-linux")
    chroot, shell = _program("chroot", "coreutils"), _program("sh", "dash")
    root = "/sys"  # a folder that is everywhere and from which nothing is shown
    options = ["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc"]
    drop = ["/setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if os.geteuid():
        options += ["--user", "--map-root-user"]
    else:
        user = _stranger()
        drop += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    die_with_parent = "--pdeathsig=KILL"  # said twice: a change of user id forgets it
    inner = [chroot, root, *drop, die_with_parent, *bare(source, PREFIX)]
    steps = [*_mounts(root, tmp_bytes), f"exec {shlex.join(inner)}"]
    return [setpriv, die_with_parent, unshare, *options, shell, "-c", " && ".join(steps)]


@cache
def _mounts(root: str, tmp_bytes: int) -> list[str]:
    """The shell's commands that fill the folder `root`, which only the enclosure sees."""
    mount, setpriv = _program("mount", "mount"), _program("setpriv", "util-linux")
    steps = ["umask 022", f"{mount} -t tmpfs -o mode=755 none {root}"]
    for path, target in [*_shown(), (setpriv, "/setpriv")]:
        parent, outer = shlex.quote(str(Path(root + target).parent)), shlex.quote(path)
        inner = shlex.quote(root + target)
        steps += [
            f"mkdir -p {parent}",
            f"{'mkdir' if Path(path).is_dir() else 'touch'} {inner}",
            f"{mount} --bind {outer} {inner}",
        ]
        if path not in _DEVICES:
            steps += [f"{mount} -o remount,bind,ro,nosuid,nodev {inner}"]
    steps += [f"{mount} -t tmpfs -o ro none {shlex.quote(root + path)}" for path in _packages()]
    return [
        *steps,
        f"mkdir {root}{HOME}",
        f"{mount} -t tmpfs -o mode=1777,size={tmp_bytes},nosuid,nodev none {root}{HOME}",
        f"{mount} -o remount,bind,ro {root}",
    ]


def _stranger() -> int:
    """A user id that can be had here and that no one is likely to have.

    It is another one each time: the limit on processes counts all those of a user.
    """
    first, _, count = Path("/proc/self/uid_map").read_text().splitlines()[-1].split()
    end = min(int(first) + int(count), 0x7FFE0000)  # what is above belongs to systemd
    return end - 2 - secrets.randbelow(20_000)


@cache
def _filled(root: str, tmp_bytes: int) -> list[str]:
    """Bubblewrap's options that fill the folder `root` of the enclosure."""
    options = []
    # Folders that are not named are made for root alone.
    targets = [Path(root + target) for _, target in _shown()]
    for folder in sorted({parent for target in targets for parent in target.parents}):
        options += ["--dir", str(folder)]
    for path, target in _shown():
        options += ["--dev-bind" if path in _DEVICES else "--ro-bind", path, root + target]
    for path in _packages():
        options += ["--tmpfs", root + path, "--remount-ro", root + path]
    return [*options, "--perms", "1777", "--size", str(tmp_bytes), "--tmpfs", root + HOME]


@cache
def _shown() -> list[tuple[str, str]]:
    """Each file or folder that an enclosure shows: its path outside, its path inside."""
    prefix = sys.base_prefix
    libraries = [lib for lib in ("lib", "lib64") if Path(prefix, lib).is_dir()]
    return [
        *((path, path) for path in (*_SYSTEM, *_DEVICES)),
        *((f"{prefix}/{path}", f"{PREFIX}/{path}") for path in (*libraries, _PYTHON)),
    ]


@cache
def _packages() -> list[str]:
    """The folders of installed packages, as paths inside, where they are covered."""
    prefix = Path(sys.base_prefix)
    found = prefix.glob("lib*/python3*/*-packages")
    return [f"{PREFIX}/{path.relative_to(prefix)}" for path in found]


@cache
def _program(name: str, package: str) -> str:
    """The path of an executable, looked for where root's are too.

    Raises:
        UserError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise UserError(f"{name} is not installed (package {package})")
    return found
