"""The miniature: tiny models, rows and documents of our own, for the same plans without a GPU."""

from losia_cli.reproduction.miniature.recipe import overrides
from losia_cli.reproduction.miniature.world import World, at, make

__all__ = ["World", "at", "make", "overrides"]
