"""A run's output folder before it begins: free, to be gone on with, or finished already."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError
from losia_cli.integrations import llamafactory
from losia_cli.recipes import Recipe
from losia_cli.recipes.recipe import MODELS
from losia_cli.run_folder import PREFIX, RECORD, holds_model
from losia_cli.training import checkpoints


def settle_output(recipe: Recipe, warn: Callable[[str], None]) -> Path | None:
    """Which checkpoint to resume from; None for a new run, whose folder is then free.

    Raises:
        UserError: the folder holds another run, or the checkpoint is missing or damaged.
    """
    output = Path(recipe.values["output_dir"])
    why = checkpoints.never_resumed(recipe.values)
    if recipe.values.get("resume_from_checkpoint") and why is not None:
        raise UserError(f"resume_from_checkpoint: {why}; start anew")
    checkpoint = checkpoints.asked(recipe.values, warn)
    own = checkpoint is not None and checkpoint.absolute().parent.resolve() == output.resolve()
    if checkpoint is not None and recipe.values.get("pissa_convert"):
        _expect_first_pissa(checkpoint, output if own else None)
    if own:
        return checkpoint
    if output.exists() and not output.is_dir():
        raise UserError(f"output_dir: {output} is a file; name a folder")
    trains = recipe.values.get("do_train")  # what only evaluates leaves all that is there
    if not trains or not output.exists() or not any(output.iterdir()):
        return checkpoint
    if not recipe.values.get("overwrite_output_dir"):
        raise UserError(
            f"the output folder {output} is not empty: choose another output_dir, go on with its "
            "run by resume_from_checkpoint=true, or replace it by overwrite_output_dir=true"
        )
    _clear(output, [*_models(recipe.values), *([checkpoint.resolve()] if checkpoint else [])])
    return checkpoint


def finished(checkpoint: Path, values: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is the last of this very run, its model is there, and no more is asked.

    What was found out while it ran (the plan's entries in brackets) is not compared.
    """
    plan = checkpoints.read_manifest(checkpoint)["plan"]
    ours = json.loads(json.dumps(checkpoints.recipe_plan(values)))
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    last = state["global_step"] >= state["max_steps"] > 0
    same = ours == {key: value for key, value in plan.items() if not key.startswith("(")}
    more = values.get("do_eval") or values.get("do_predict")
    return last and same and not more and holds_model(Path(values["output_dir"]))


def _expect_first_pissa(checkpoint: Path, output: Path | None) -> None:
    """The adapter that PiSSA began with is taken off at the end: it must be in the output folder.

    Raises:
        UserError: it is not, or that folder is not the checkpoint's, so that none can be there.
    """
    if output is None or not (output / llamafactory.PISSA_FIRST).is_dir():
        raise UserError(
            f"resume_from_checkpoint: {output or 'output_dir'} does not hold"
            f" {llamafactory.PISSA_FIRST}, the adapter that PiSSA began with, which its conversion"
            f" takes off: go on in the folder of {checkpoint} if that does, or start anew"
        )


def _clear(output: Path, needed: Collection[Path]) -> None:
    """Remove what an earlier run left that the new one, which needs some models, would not replace.

    Raises:
        UserError: one of those models would go.
    """
    # an adapter's model card makes the Trainer take the next model for an adapter
    of_adapters = () if output.resolve() in needed else ("adapter_*", "pissa_*", "README.md")
    patterns = (f"{PREFIX}*", "eval", "eval-base", RECORD, *of_adapters)
    left = [path for pattern in patterns for path in output.glob(pattern)]
    for model in needed:
        if any(model.is_relative_to(path.resolve()) for path in left):
            raise UserError(
                f"overwrite_output_dir would remove {model}, which the run needs: choose another"
                " output_dir"
            )
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _models(values: Mapping[str, Any]) -> list[Path]:
    """Where the models and adapters that a run starts from, or compares with, would be."""
    given = (str(values[key]) for key in MODELS if values.get(key))
    return [Path(name).resolve() for names in given for name in names.split(",")]
