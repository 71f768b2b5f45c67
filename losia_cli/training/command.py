"""`losia train` from a resolved recipe to an exit code: here, or in one worker per GPU."""

import os
import sys
from pathlib import Path

from rich.console import Console

from losia_cli import recipes
from losia_cli.data.check import dataset_faults
from losia_cli.data.info import names_in
from losia_cli.data.prepare import prepare_missing, unprepared
from losia_cli.errors import UserError
from losia_cli.evaluation import suites
from losia_cli.evaluation.sandbox import find_sandbox
from losia_cli.processes import EXIT_INTERRUPTED
from losia_cli.recipes import Recipe
from losia_cli.training import checkpoints, launch
from losia_cli.training.guards import Interrupted
from losia_cli.training.model import check_model, is_local, settings_of
from losia_cli.training.output import finished, settle_output
from losia_cli.training.run import train


def run(recipe: Recipe, arguments: list[str], console: Console) -> int:
    """Check everything that can be checked before the model loads, then train.

    The paper's sets that the recipe's dataset_dir does not have are prepared first.

    Args:
        recipe: resolved.
        arguments: of the `losia` command that resolves to it, for workers to repeat.
        console: where everything is shown.

    Raises:
        UserError: the recipe, its data, model or folder cannot work.
    """
    if launch.first_process():
        resume = look_over(recipe, console)
        _fetch(recipe, console)
    else:  # a worker: the first one, or the process that launched it, has checked
        resume = checkpoints.asked(recipe.values, lambda _: None, checked=True)
    if resume is not None and finished(resume, recipe.values):
        console.print(f"nothing is left to train: {resume} is the last of a finished run")
        return 0
    if launch.wants_torchrun():
        settled = [recipes.override("resume_from_checkpoint", resume)] if resume else []
        return launch.torchrun([*arguments, *settled])
    launch.end_in_order()
    try:
        train(recipe, resume, console)
    except Interrupted as stopped:
        why = checkpoints.never_resumed(recipe.values)
        if recipe.values.get("save_only_model"):
            why = "with save_only_model it holds no optimizer"
        advice = (
            "go on with the same command and resume_from_checkpoint=true"
            if why is None
            else f"it cannot be gone on with, since {why}: start anew"
        )
        console.print(f"stopped at step {stopped.step}, whose checkpoint was saved; {advice}")
        return EXIT_INTERRUPTED
    return 0


def evaluate_after(recipe: Recipe, console: Console) -> None:
    """Become `losia eval` of what was saved, if the recipe names suites: all memory is free.

    Of several machines the first one does.
    """
    if (
        not _is_evaluated(recipe)
        or "LOCAL_RANK" in os.environ
        or os.environ.get("NODE_RANK", "0") != "0"
    ):
        return
    output = recipe.values["output_dir"]
    console.print(f"evaluating; should it fail, the model is saved: losia eval {output}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "losia_cli", "eval", output])


def _is_evaluated(recipe: Recipe) -> bool:
    """Whether suites follow the training."""
    return bool(recipe.values.get("do_train") and recipe.values.get("eval_suites"))


def look_over(recipe: Recipe, console: Console) -> Path | None:
    """Check all that is here: keys, data, model and folder; write and download nothing.

    Args:
        recipe: resolved.
        console: where each damaged checkpoint that is passed over is told.

    Returns:
        The checkpoint to resume from, if one is asked for.

    Raises:
        UserError: every fault, one in a line; where keys are wrong, theirs alone.
    """
    recipes.check(recipe)
    found = [*_data(recipe), *_documents(recipe), *_sandbox(recipe), *_model(recipe)]
    resume = None
    try:
        resume = settle_output(
            recipe, lambda what: console.print(f"warning: {what}", style="yellow")
        )
    except UserError as error:
        found.append(str(error))
    if found:
        count = f"{len(found)} faults in what {recipe.path.name} names:"
        raise UserError("\n  ".join([count, *found]) if len(found) > 1 else found[0])
    return resume


def _data(recipe: Recipe) -> list[str]:
    """Of the sets that are there."""
    values = dict(recipe.values)
    try:
        missing = unprepared(values)
    except UserError as error:
        return [str(error)]
    for key in ("dataset", "eval_dataset"):
        values[key] = [name for name in names_in(values.get(key)) if name not in missing]
    return dataset_faults(values)


def _documents(recipe: Recipe) -> list[str]:
    """Of a folder; the hub is not asked."""
    folder = recipe.values.get("eval_data")
    if not folder or not _is_evaluated(recipe):
        return []
    if not Path(folder).is_dir():
        return [f"eval_data: there is no folder {folder}"]
    try:
        _expect_documents(recipe)
    except UserError as error:
        return [str(error)]
    return []


def _expect_documents(recipe: Recipe) -> None:
    """What the trained model will be asked: it comes hours later."""
    from losia_cli.evaluation.settle import expect_documents

    values = recipe.values
    try:
        expect_documents(values["eval_suites"], values.get("eval_data"), values.get("eval_limit"))
    except UserError as error:
        raise UserError(f"eval_suites: {error}; or train without, eval_suites=[]") from error


def _sandbox(recipe: Recipe) -> list[str]:
    """Where programs of the trained model are to run in one: the evaluation comes hours later."""
    names = recipe.values.get("eval_suites") or []
    code = any(suite.code for suite in suites.find(names)) if names else False
    if not code or recipe.values.get("eval_allow_code") is not True:
        return []
    try:
        find_sandbox("eval_allow_code=unsandboxed")
    except UserError as error:
        return [f"eval_suites: {error}"]
    return []


def _model(recipe: Recipe) -> list[str]:
    """Of one in a folder; the hub is not asked."""
    if not is_local(recipe.values["model_name_or_path"]):
        return []
    try:
        check_model(recipe.values, settings_of(recipe))
    except UserError as error:
        return [str(error)]
    return []


def _fetch(recipe: Recipe, console: Console) -> None:
    """Have what is not here, and check that too."""
    values = recipe.values
    if unprepared(values):
        prepare_missing(values, console)
        if faults := dataset_faults(values):
            raise UserError("\n  ".join(["the data cannot be used:", *faults]))
    if not is_local(values["model_name_or_path"]):
        check_model(values, settings_of(recipe))
    if _is_evaluated(recipe) and not values.get("eval_data"):
        with console.status("looking for what is asked, on the hub"):
            _expect_documents(recipe)
