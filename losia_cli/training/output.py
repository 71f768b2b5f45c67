"""A run's output folder before it begins: free, to be gone on with, or finished already."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from losia_cli.errors import UserError
from losia_cli.files import expect_writable, free_disk
from losia_cli.integrations import llamafactory
from losia_cli.recipes import Recipe
from losia_cli.recipes.recipe import MODELS
from losia_cli.run_folder import PREFIX, RECORD, SELECTIONS, WEIGHTS, holds_model
from losia_cli.training import checkpoints
from losia_cli.training.trainer import saved_bytes


def settle_output(recipe: Recipe, warn: Callable[[str], None]) -> Path | None:
    """Which checkpoint to resume from; None for a new run. Nothing is touched.

    Raises:
        UserError: the folder holds another run, or the checkpoint is missing or damaged.
    """
    output = Path(recipe.values["output_dir"])
    why = checkpoints.never_resumed(recipe.values)
    if recipe.values.get("resume_from_checkpoint") and why is not None:
        raise UserError(f"resume_from_checkpoint: {why}; start anew")
    checkpoint = checkpoints.asked(recipe.values, warn)
    own = _own(checkpoint, output)
    if checkpoint is not None and recipe.values.get("pissa_convert"):
        _expect_first_pissa(checkpoint, output if own else None)
    if own:
        return checkpoint
    if output.exists() and not output.is_dir():
        raise UserError(f"output_dir: {output} is a file; name a folder")
    expect_writable(output)
    trains = recipe.values.get("do_train")  # what only evaluates leaves all that is there
    if not trains or not output.exists() or not any(output.iterdir()):
        return checkpoint
    if not recipe.values.get("overwrite_output_dir"):
        raise UserError(
            f"the output folder {output} is not empty: choose another output_dir, go on with its "
            "run by resume_from_checkpoint=true, or replace it by overwrite_output_dir=true"
        )
    needed = [*_models(recipe.values), *([checkpoint.resolve()] if checkpoint else [])]
    left = left_behind(recipe.values, checkpoint)
    for model in needed:
        if any(model.is_relative_to(path.resolve()) for path in left):
            raise UserError(
                f"overwrite_output_dir would remove {model}, which the run needs: choose another"
                " output_dir"
            )
    return checkpoint


def left_behind(values: Mapping[str, Any], checkpoint: Path | None) -> list[Path]:
    """What an earlier run left that the new one, which is to overwrite it, would not replace.

    Args:
        values: of the new run's recipe.
        checkpoint: which it goes on from, if it does.
    """
    output = Path(values["output_dir"])
    overwrites = values.get("do_train") and values.get("overwrite_output_dir")
    if not overwrites or _own(checkpoint, output):
        return []
    # an adapter's model card makes the Trainer take the next model for an adapter
    patterns = [f"{PREFIX}*", "eval", "eval-base", RECORD, SELECTIONS]
    if output.resolve() not in _models(values):
        patterns += ["adapter_*", "README.md", "pissa_[!i]*"]
        patterns += [] if values.get("pissa_init") else ["pissa_init"]  # written before a step is
    return [path for pattern in patterns for path in output.glob(pattern)]


class ExpectSpace(TrainerCallback):
    """Refuses a run whose model and checkpoints the disk can surely not take.

    Args:
        output: the run's folder.
        overwritten: files and folders that will be gone by then.
    """

    def __init__(self, output: Path, overwritten: Collection[Path]) -> None:
        self._output, self._overwritten = output, overwritten

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: Any,
    ) -> None:
        """Raise a `UserError` if there is too little space."""
        saved = saved_bytes(model)
        kept = [path for path in self._output.glob(f"{PREFIX}*") if path not in self._overwritten]
        room = max(0, (args.save_total_limit or sys.maxsize) - len(kept))
        count = min(self._planned(args, state), room)
        replaced = (path for pattern in WEIGHTS for path in self._output.glob(pattern))
        inside = (path for path in self._overwritten if not path.is_symlink())
        gone = {file for path in inside for file in (path, *path.rglob("*"))}
        freed = sum(file.stat().st_size for file in gone.union(replaced) if file.is_file())
        # What optimizers keep differs too much to be counted.
        needed = ((1 + count) * saved - freed) / 1e9
        place, free = free_disk(self._output)
        if state.is_world_process_zero and free < needed:
            raise UserError(
                f"{place} has {free:.3g} GB free, and the run needs {needed:.3g} at least, for the"
                f" model and {count} checkpoints: free some space, keep fewer (save_total_limit,"
                " save_steps), or choose another output_dir"
            )

    def _planned(self, args: TrainingArguments, state: TrainerState) -> int:
        """How many checkpoints are yet to be saved."""
        left = {
            SaveStrategy.STEPS: (state.max_steps - state.global_step) / max(1, state.save_steps),
            SaveStrategy.EPOCH: state.num_train_epochs - (state.epoch or 0),
        }
        return math.ceil(left.get(args.save_strategy, 0))


class Overwriting(TrainerCallback):
    """Removes what an earlier run left once a step is taken: until then, much can still go wrong.

    Args:
        paths: files and folders.
    """

    def __init__(self, paths: Collection[Path]) -> None:
        self._paths = paths

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *__: Any, **___: Any) -> None:
        """Remove them, on the first rank."""
        for path in self._paths if state.is_world_process_zero else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._paths = ()

    def on_train_end(self, *given: Any, **named: Any) -> None:
        """Likewise where no step was left to be taken."""
        self.on_step_end(*given, **named)


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
    output = Path(values["output_dir"])
    return last and same and not more and _own(checkpoint, output) and holds_model(output)


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


def _own(checkpoint: Path | None, output: Path) -> bool:
    return checkpoint is not None and checkpoint.absolute().parent.resolve() == output.resolve()


def _models(values: Mapping[str, Any]) -> list[Path]:
    """Where the models and adapters that a run starts from, or compares with, would be."""
    given = (str(values[key]) for key in MODELS if values.get(key))
    return [Path(name).resolve() for names in given for name in names.split(",")]
