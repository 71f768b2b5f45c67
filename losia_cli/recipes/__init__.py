"""Recipes: LLaMA-Factory's files, a method laid over them, `key=value` on top; checked at once."""

from losia_cli.recipes.faults import check, faults
from losia_cli.recipes.recipe import Recipe, ablated, describe, load, override
from losia_cli.recipes.shipped import ablations, methods, project_recipes, shipped

__all__ = [
    "Recipe", "ablated", "ablations", "check", "describe", "faults", "load", "methods",
    "override", "project_recipes", "shipped",
]  # fmt: skip
