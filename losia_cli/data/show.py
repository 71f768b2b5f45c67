"""A prepared set as the model will see it: rows with their masked part, and how long they are."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losia_cli import recipes
from losia_cli.data import hub, manifest, preview
from losia_cli.data.check import dataset_faults
from losia_cli.data.prepare import registered
from losia_cli.data.training_sets import SETS, TrainingSet
from losia_cli.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PADDED_TO = 8  # LLaMA-Factory's collator: a multiple of this many tokens
_ORDERS = 5  # over which padding is averaged
_TAKEN_OVER = ("template", "cutoff_len", "train_on_prompt")


def padding(lengths: Sequence[int], batch: int) -> float:
    """The share of all tokens that LLaMA-Factory adds to fill every batch up to its longest row.

    Args:
        lengths: each row's tokens.
        batch: rows in each batch.

    Returns:
        0 to 1; the mean over some random orders of the rows.
    """
    filled = 0
    for seed in range(_ORDERS):
        order = random.Random(seed).sample(lengths, len(lengths))
        batches = (order[start : start + batch] for start in range(0, len(order), batch))
        filled += sum(len(rows) * -(-max(rows) // _PADDED_TO) * _PADDED_TO for rows in batches)
    return 1 - _ORDERS * sum(lengths) / filled


def show(
    wanted: TrainingSet, folder: Path, model: str | None, rows: int, console: "Console"
) -> None:
    """Print the first rows of a prepared set and the lengths of all, as its recipe trains on them.

    Args:
        wanted: the set.
        folder: where it was prepared.
        model: whose tokenizer to use, a folder or the hub's name; None: the recipe's.
        rows: how many to print.
        console: where to.

    Raises:
        UserError: the set is not prepared, or was edited, or there is no such tokenizer.
    """
    arguments = _arguments(wanted, folder, model)
    from losia_cli.integrations import llamafactory

    cut = f"cut at {arguments['cutoff_len']:,} tokens"
    console.print(f"{wanted.name} as {wanted.recipe} trains on it: {wanted.template}, {cut}")
    samples, tokenizer = llamafactory.tokenize(arguments)
    for number, sample in enumerate(samples.select(range(min(rows, len(samples)))), 1):
        console.print(preview.preview(sample, tokenizer, "sft", f"row {number}"))
    console.print(str(preview.lengths(samples, arguments["cutoff_len"])), style="dim")
    batch = recipes.load(wanted.recipe).values["per_device_train_batch_size"]
    share = padding([len(ids) for ids in samples["input_ids"]], batch)
    console.print(f"padding: {share:.0%} of all tokens in random batches of {batch}", style="dim")


def listing(folder: Path) -> "Table":
    """The sets to read, and what of them is prepared in a folder."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("set", "source", "rows drawn", f"in {folder}"):
        table.add_column(column, overflow="fold")
    records = manifest.read(folder)
    for each in SETS.values():
        source = each.repository + (f", {each.subset}" if each.subset else "")
        rows = f"{each.rows or each.published:,} of {each.published:,}"
        record = records.get(each.name)
        made = f"{record['rows']:,} rows" if record else ""
        table.add_row(each.name, source, rows, made)
    return table


def _arguments(wanted: TrainingSet, folder: Path, model: str | None) -> dict[str, Any]:
    """What of the set's recipe concerns its tokens, for this set."""
    if not registered(wanted.name, folder):
        raise UserError(
            f"{wanted.name} is not in {folder}: make it with `losia data prepare {wanted.name}`, or"
            " name the folder that has it with --output DIR"
        )
    values = recipes.load(wanted.recipe).values
    found = {key: values[key] for key in _TAKEN_OVER if key in values}
    found |= {"dataset": wanted.name, "dataset_dir": str(folder)}
    if faults := dataset_faults(found):
        raise UserError(faults[0])
    found["model_name_or_path"] = str(hub.tokenizer(model or values["model_name_or_path"]))
    return found
