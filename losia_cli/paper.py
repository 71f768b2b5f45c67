"""The paper's numbers: by table and column, and for the recipe that reproduces one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from losia_cli.recipes.recipe import METHOD_SWITCHES, load, method_settings
from losia_cli.recipes.shipped import shipped

if TYPE_CHECKING:
    from losia_cli.method import LoSiAConfig

# A model's name on the hub, or its folder's, in lower case -> the paper's.
MODELS = {"gemma-2b": "gemma-2b", "llama-2-7b-hf": "llama2-7b", "llama-2-13b-hf": "llama2-13b"}

# LLaMA-Factory's `finetuning_type` and the switches that are on -> the method.
METHODS = {
    ("losia", ()): "losia",
    ("lora", ()): "lora",
    ("lora", ("use_dora",)): "dora",
    ("lora", ("pissa_init",)): "pissa",
    ("full", ()): "full",
    ("full", ("use_galore",)): "galore",
}

SAMPLED_ROWS = 50_000  # of each of Table 1's three sets

# A benchmark -> the training set of the models that are scored on it, as `_plain` writes it.
TRAINING_SETS = {"GSM8K": "metamathqa", "MBPP": "magicoder", "MMLU": "alpacagpt4"} | {
    name: name.replace("-", "").lower()
    for name in "ARC-C ARC-E HellaSwag Winogrande PIQA OBQA SIQA BoolQ".split()
}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        fields: what the line is of, such as its model and method.
        values: column -> number as printed; None where nothing is printed.
    """

    fields: Mapping[str, str]
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: what it shows, in our words.
        fields: the names of what a row is of.
        columns: the names of its numbers.
        rows: its lines.
        note: what to know before laying numbers beside it.
    """

    title: str
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@cache
def table(number: int) -> Table:
    """A table by the paper's number of it.

    Raises:
        KeyError: there is none, or none with numbers.
    """
    data = _file()[number]
    fields, columns = data["fields"], data["columns"]
    rows = tuple(_row(fields, columns, cells) for cells in data["rows"])
    return Table(data["title"], tuple(fields), tuple(columns), rows, data.get("note", ""))


def value(number: int, column: str, **fields: str) -> float | None:
    """The number in this column of the row with these fields; None where nothing is printed.

    Raises:
        KeyError: the paper has no such table, column or field.
        ValueError: several rows have these fields.
    """
    found = table(number)
    for name, known in [(column, found.columns), *((field, found.fields) for field in fields)]:
        if name not in known:
            raise KeyError(f"Table {number} has no {name!r} among {', '.join(known)}")
    rows = [row for row in found.rows if fields.items() <= row.fields.items()]
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows of Table {number} are of {fields}")
    return rows[0].values[column] if rows else None


def row_of(recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """The model and method of a resolved recipe under the paper's names; None if not the paper's.

    LoSiA-Pro is in LoSiA's rows: its scores are the same. Rates, ranks and the like are not looked
    at.
    """
    model = MODELS.get(PurePath(str(recipe.get("model_name_or_path"))).name.lower())
    method = _method(recipe)
    return {"model": model, "method": method} if model and method else None


def score(recipe: Mapping[str, Any], column: str) -> float | None:
    """The paper's number for a resolved recipe in a suite's column of Table 1 or 2, in percent.

    None where the paper has no such model and method, and where the recipe trains on another set
    than the models of that column, or LoSiA with other settings than its recipe for the two.
    """
    row = row_of(recipe)
    trained_on = TRAINING_SETS.get(column.partition(" ")[0])
    if row is None or _plain(str(recipe.get("dataset"))) != trained_on:
        return None
    if row["method"] == "losia" and (
        _settings(recipe) != _published_settings(row["model"], trained_on)
    ):
        return None
    return value(1 if column in table(1).columns else 2, column, **row)


def memory(recipe: Mapping[str, Any]) -> float | None:
    """The paper's GPU memory for a resolved recipe, in GB; None where it reports none.

    Of LoSiA in other sizes than Table 1's or 2's it reports LLaMA-2 7B's alone (Table 14).
    """
    row, number = row_of(recipe), _table_of_costs(recipe)
    if row is None or row["method"] != "losia" or _has_usual_size(recipe, row["model"], number):
        return _cost(recipe, "Mem(GB)")
    if row["model"] != "llama2-7b" or number != 1:
        return None
    factors = {"p": "losia_rank_factor", "p_o": "losia_output_factor"}
    size = {name: str(Fraction(recipe[key])) for name, key in factors.items()}
    return value(14, "Mem(GB)", method="losia", **size)


def hours(recipe: Mapping[str, Any]) -> float | None:
    """The paper's hours for a resolved recipe; None where it reports none.

    Those of the longest of Table 1's three trainings, or of Table 2's eight together: for one of
    them Table 2's are too many by Table 15's microseconds per token, even if all rows are filled.
    """
    if _table_of_costs(recipe) == 2:
        return _cost(recipe, "Time(h), 8 sets")
    return _cost(recipe, "Time(h), Pro" if recipe.get("losia_pro") else "Time(h)")


def rows_trained(recipe: Mapping[str, Any]) -> int:
    """The rows that `hours` were spent on."""
    if _table_of_costs(recipe) == 1:
        return SAMPLED_ROWS
    return int(sum(row.values["train"] or 0 for row in table(8).rows))


def _has_usual_size(recipe: Mapping[str, Any], model: str, number: int | None) -> bool:
    output = value(9, "p_o", method="losia") if number == 2 else value(7, "p_o", model=model)
    return (recipe["losia_rank_factor"], recipe["losia_output_factor"]) == (1 / 8, output)


def _cost(recipe: Mapping[str, Any], column: str) -> float | None:
    row, number = row_of(recipe), _table_of_costs(recipe)
    return value(number, column, **row) if row and number else None


def _settings(recipe: Mapping[str, Any]) -> "LoSiAConfig":
    """LoSiA's, defaults included, but for the choice of LoSiA-Pro, whose update is the same."""
    from losia_cli.method import LoSiAConfig  # loads torch

    return LoSiAConfig(**{**method_settings(recipe), "pro": True})


@cache
def _published_settings(model: str, dataset: str) -> "LoSiAConfig | None":
    """LoSiA's settings in the shipped recipe for a model and a training set of the paper."""
    for name in shipped():
        values = load(name).values
        row = row_of(values)
        if row and row["model"] == model and _plain(str(values["dataset"])) == dataset:
            return _settings(values)
    return None


def _table_of_costs(recipe: Mapping[str, Any]) -> int | None:
    """1 or 2, by what the recipe trains on; other draws of Table 1's sets are its sets."""
    dataset = _plain(str(recipe.get("dataset")))
    for column, name in TRAINING_SETS.items():
        if column in table(2).columns and dataset == name:
            return 2
        if column not in table(2).columns and dataset.startswith(name):
            return 1
    return None


def _method(recipe: Mapping[str, Any]) -> str | None:
    switches = tuple(key for key in METHOD_SWITCHES if recipe.get(key))
    method = METHODS.get((recipe.get("finetuning_type", "lora"), switches))
    eight_bit = "8bit" in str(recipe.get("optim"))
    return "full-8bit" if method == "full" and eight_bit else method


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _row(fields: list[str], columns: list[str], cells: list[Any]) -> Row:
    named = dict(zip([*fields, *columns], cells, strict=True))
    return Row(
        {name: str(named[name]) for name in fields if named[name] is not None},
        {name: None if named[name] is None else float(named[name]) for name in columns},
    )


@cache
def _file() -> dict[int, Any]:
    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
