"""A cell of a table: one model, trained as a recipe says and scored, known by what decides it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from losia_cli import recipes
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.files import sha256_of
from losia_cli.recipes import Recipe
from losia_cli.training.checkpoints import recipe_plan

BASE = "base"  # the method of a cell that trains nothing
_NO_SCORE = ("eval_suites", "eval_allow_code")  # which suites are asked moves no score


@dataclass(frozen=True)
class Cell:
    """One training and its scores; cells of one identity are the same model.

    Attributes:
        recipe: a shipped recipe's name, or the path of one.
        model: what the paper calls the model.
        dataset: what the recipe's name calls the training set; "" where nothing is trained.
        method: the overlay, `recipes/methods/METHOD.yaml`, or `BASE`.
        overrides: `key=value`, laid over it: what is particular to the cell.
        suites: what the model is scored on.
        after: the cell whose trained model this one starts from; None for the recipe's model.
        common: `key=value`, laid over that: what the whole plan has in common.
    """

    recipe: str
    model: str
    dataset: str
    method: str
    overrides: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    after: "Cell | None" = None
    common: tuple[str, ...] = ()

    def with_seed(self, seed: int) -> "Cell":
        """The cell, and those it starts from, trained by another seed."""
        if self.method == BASE:
            return self
        after = self.after and self.after.with_seed(seed)
        return replace(self, overrides=(*self.overrides, f"seed={seed}"), after=after)

    @property
    def own_keys(self) -> set[str]:
        """The keys that tell the cell from others of its table: its overrides', an ablation's."""
        keys = {text.partition("=")[0] for text in self.overrides}
        return keys | recipes.ablated(self.method)

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Everything that is laid over the recipe and the method, in turn."""
        return (*self.overrides, *self.common)

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe, with the overlay and the overrides."""
        method = None if self.method == BASE else self.method
        return recipes.load(self.recipe, method, self.all_overrides)

    @cached_property
    def identity(self) -> str:
        """A hash over all of the recipe that decides the scores; `agreement` looks at the rest."""
        values = self.resolved.values
        decides: dict[str, Any] = {
            key: values[key] for key in EVALUATION_KEYS if key in values and key not in _NO_SCORE
        }
        if self.method != BASE:
            decides |= recipe_plan(values)
        decides["model_name_or_path"] = self._starts_from()
        return sha256_of({"base": self.method == BASE, **decides})

    def _starts_from(self) -> str:
        """The model by the last part of its name: the hub's is the same in a folder called so."""
        if self.after is not None:
            return self.after.identity
        return PurePath(self.resolved.values["model_name_or_path"]).name

    @property
    def name(self) -> str:
        """A folder's name: readable, and one for each identity."""
        words = [self.model, self.dataset, self.method.replace("/", "-")]
        return "-".join([word for word in words if word] + [self.identity[:10]])

    @property
    def title(self) -> str:
        """For people: the method, the model, the training set, and what is particular."""
        what = f"{self.method}, {self.model}" + (f", {self.dataset}" if self.dataset else "")
        return ", ".join([what, *self.particular])

    @property
    def particular(self) -> list[str]:
        """What tells the cell from others of its model, method and training set."""
        after = [f"after {self.after.dataset}"] if self.after is not None else []
        return [*self.overrides, *after]


def untrained(model: str, recipe: str, suites: tuple[str, ...]) -> Cell:
    """The cell of a model as it is, the one that a recipe trains."""
    return Cell(recipe, model, "", BASE, (), suites)
