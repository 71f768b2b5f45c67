"""What this machine and this environment can do, found by trying."""

import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from losia_cli.errors import first_line
from losia_cli.files import free_disk

_ROOM = 20  # GB that a 7B model's checkpoint and its cache take


class Finding(NamedTuple):
    """One thing looked at: what, whether it is well (None: it need not be), what was found."""

    what: str
    well: bool | None
    found: str


def findings() -> Iterator[Finding]:
    """Everything that is looked at, as it is found."""
    well = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding("Python", well, platform.python_version())
    yield from _packages()
    yield from _accelerator()
    yield from _disk()
    yield from _sandboxes()


def _packages() -> Iterator[Finding]:
    """Each package against what the project was tested with."""
    from packaging.requirements import Requirement

    for line in requires("losia") or ():
        requirement = Requirement(line)
        if requirement.marker is not None:
            continue  # of an extra
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, False, f"not installed; pip install '{requirement}'")
            continue
        well = requirement.specifier.contains(found)
        advice = "" if well else f"; tested with {requirement.specifier}: pip install '{line}'"
        yield Finding(requirement.name, well, f"{found}{advice}")


def _accelerator() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield _no_gpu(torch.cuda.init, torch.version.cuda)
        return
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30  # as vendors count
        yield Finding("GPU", True, f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB")


def _no_gpu(start: Callable[[], None], cuda: str | None) -> Finding:
    """Why torch sees none, as its own start of CUDA tells."""
    try:
        start()
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        if "driver" in str(error) and "too old" in str(error):
            advice = f"update it, or install a torch for a CUDA older than {cuda}"
            return Finding("GPU", False, f"{first_line(error)}; {advice}")
    return Finding("GPU", None, "none: small models train on the processor, others need one")


def _disk() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for what, path in (("disk here", Path()), ("disk of the hub's cache", Path(HF_HUB_CACHE))):
        place, free = free_disk(path)
        yield Finding(what, True if free > _ROOM else None, f"{free:.0f} GB free ({place})")


def _sandboxes() -> Iterator[Finding]:
    """Where programs that a model writes (MBPP) can run; one kind is enough."""
    from losia_cli.evaluation.sandbox import diagnose

    for kind, works, said in diagnose():
        yield Finding(f"sandbox: {kind}", True if works else None, said)
