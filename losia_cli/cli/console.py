"""The console that every command prints to."""

from rich.console import Console


def plain(stderr: bool = False) -> Console:
    """A console that takes text as it is: `[/INST]` in an answer or a path is no markup."""
    return Console(highlight=False, markup=False, stderr=stderr)
