"""One training run: checks first, then LLaMA-Factory's workflow, then proof and record."""

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from losia_cli.data import preview
from losia_cli.data.check import dropped_rows
from losia_cli.errors import TRACEBACK, UserError, first_line
from losia_cli.integrations import llamafactory
from losia_cli.integrations.callback import LoSiACallback
from losia_cli.method import LoSiAController, LoSiAError, Selection
from losia_cli.recipes import Recipe
from losia_cli.run_folder import PREFIX, versions, write_record
from losia_cli.training import checkpoints
from losia_cli.training.fingerprint import fingerprint
from losia_cli.training.guards import FiniteGradients, StopOnInterrupt
from losia_cli.training.kept import KeptForBackward
from losia_cli.training.model import settings_of
from losia_cli.training.output import ExpectSpace, Overwriting, left_behind
from losia_cli.training.progress import RunProgress, peak_memory
from losia_cli.training.proof import verify_saved
from losia_cli.training.selections import RecordSelections
from losia_cli.training.trainer import (
    let_cpu_ranks_load,
    log_overlap,
    loss_of,
    save_safely,
    stop_at_the_end,
)


def train(recipe: Recipe, resume: Path | None, console: Console) -> None:
    """Train what `recipe` says, whose checks have passed.

    Args:
        recipe: resolved and checked.
        resume: the checkpoint to go on from.
        console: where everything is shown.

    Raises:
        UserError: what can only be found out now is wrong: a sample, a checkpoint, the disk.
        Interrupted: Ctrl-C, after a checkpoint was saved.
    """
    run = _Run(recipe, resume, console)
    let_cpu_ranks_load()
    try:
        llamafactory.run(run.plan)
    except UserError:
        raise
    except Exception as error:
        plainly = _plainly(error, run)
        if plainly is None:
            raise
        raise UserError(plainly) from error
    finally:
        run.interrupts.release()
        run.progress.bar.stop()
    run.finish()


def _plainly(error: Exception, run: "_Run") -> str | None:
    """The sentence for an error that a user can do something about, None for any other."""
    if isinstance(error, LoSiAError):
        return str(error)
    if isinstance(error, RuntimeError) and "Cannot find" in str(error):
        return (
            f"no sample of {run.recipe.values.get('dataset')} is left after LLaMA-Factory's "
            "processing: are its prompts and responses empty, or longer than cutoff_len?"
        )
    if _unwritten(error, run.output):
        why = f"could not write into {run.output} ({first_line(error)})"
        return f"{why}: free some space and {_go_on(run)}"
    if not run.progress.begun:
        return (
            f"the training could not begin ({type(error).__name__}: {first_line(error)}): change"
            f" what the recipe says of it; {TRACEBACK}=1 in the environment shows where it arose"
        )
    if isinstance(error, torch.OutOfMemoryError):
        step = run.trainer.state.global_step + 1
        return (
            f"memory ran out at step {step} ({first_line(error)}): with more of it free,"
            f" {_go_on(run)}; or start anew with a lower cutoff_len, or a smaller"
            " per_device_train_batch_size and as much more gradient_accumulation_steps"
        )
    return None


def _go_on(run: "_Run") -> str:
    """What can be done after a run has died."""
    another = left_behind(run.recipe.values, run.resume)
    found = (path.parent for path in run.output.glob(f"{PREFIX}*/{checkpoints.MANIFEST}"))
    if any(path not in another for path in found):
        return "go on with resume_from_checkpoint=true"
    return "start again: no checkpoint was saved (save_steps)"


def _unwritten(error: Exception, output: Path) -> bool:
    """Whether the output folder, or its disk, would not take what was written."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return full or str(error.filename).startswith(str(output))
    return checkpoints.is_write_error(error)


@dataclass
class _Run:
    recipe: Recipe
    resume: Path | None
    console: Console
    plan: llamafactory.Plan = field(init=False)
    progress: RunProgress = field(init=False)
    trainer: Trainer = field(init=False)
    kept: KeptForBackward = field(default_factory=KeptForBackward)
    interrupts: StopOnInterrupt = field(default_factory=StopOnInterrupt)
    selections: int = 0
    overlaps: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output = Path(self.recipe.values["output_dir"])
        arguments = self.recipe.llamafactory_arguments()
        arguments.pop("resume_from_checkpoint", None)
        if self.resume is not None:
            arguments["resume_from_checkpoint"] = str(self.resume)
        # Settled by `settle_output`; where it says yes, LLaMA-Factory removes the run's log.
        trains = bool(self.recipe.values.get("do_train"))
        arguments["overwrite_output_dir"] = trains and self.resume is None
        # the mask of neat packing is no count of tokens: there, padding counts too
        counted = "all" if self.recipe.values.get("neat_packing") else "non_padding"
        arguments.setdefault("include_num_input_tokens_seen", counted)
        config = settings_of(self.recipe)
        if config is not None:
            arguments.setdefault("ddp_find_unused_parameters", False)
        self.plan = llamafactory.Plan(arguments, config, self.prepare)
        self.progress = RunProgress(self.console)

    # ------------------------------------------------------------------ before the first step

    def prepare(self, trainer: Trainer, controller: LoSiAController | None) -> None:
        """Everything is loaded and nothing trained: check, show, and take the Trainer's reins."""
        self.trainer, self.progress.controller = trainer, controller
        plan = checkpoints.recipe_plan(self.recipe.values)
        plan["(data)"] = fingerprint(trainer.train_dataset)
        plan["(number of processes)"] = trainer.args.world_size
        if self.resume is not None:
            checkpoints.refuse_other_plan(self.resume, plan)
            llamafactory.keep_first_pissa(trainer)
        overwritten = left_behind(self.recipe.values, self.resume)
        if trainer.is_world_process_zero():
            self._show(trainer, controller)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        watchers = (
            ExpectSpace(self.output, overwritten),
            FiniteGradients(),
            Overwriting(overwritten),
            self.interrupts,
            self.progress,
            self.kept,
        )
        for callback in watchers:
            trainer.add_callback(callback)
        if controller is not None:
            trainer.add_callback(LoSiACallback(controller, loss_of(trainer)))
            trainer.add_callback(RecordSelections(controller, self.output, self.resume))
            controller.on_selection.append(self._note)
            log_overlap(trainer, self.overlaps)
        self.saving = save_safely(trainer, self.output, plan)
        stop_at_the_end(trainer)

    def _note(self, selection: Selection) -> None:
        if selection.step >= 0:
            self.selections += 1
            self.overlaps.append(selection.overlap)

    def _show(self, trainer: Trainer, controller: LoSiAController | None) -> None:
        show, values = self.console.print, self.recipe.values
        stage, tokenizer = values.get("stage", "sft"), trainer.processing_class
        if self.plan.cast is not None:
            source, target = (str(dtype).removeprefix("torch.") for dtype in self.plan.cast)
            show(f"base weights: cast from {source} to {target}, the dtype of computation")
        data = trainer.train_dataset
        if hasattr(data, "__len__"):
            show(preview.preview(data[0], tokenizer, stage))
            lengths = preview.lengths(data, values.get("cutoff_len", 2048))
            show(str(lengths), style="dim")
            packed = values.get("packing") or values.get("neat_packing") or stage == "pt"
            if self.plan.rows and not packed:
                show(preview.dropped(*self.plan.rows[0], dropped_rows(values)), style="dim")
            for warning in preview.sample_warnings(data, tokenizer, stage):
                show(f"warning: {warning}", style="yellow")
        if stage == "sft" and values.get("packing") and not values.get("neat_packing"):
            what = "samples in one row see each other; neat_packing: true keeps them apart"
            show(f"warning: {what}", style="yellow")
        trainable, total = _parameters(trainer)
        share = 100 * trainable / total
        show(f"trainable parameters: {trainable:,} of {total:,} ({share:.2f} %)")
        if controller is not None:
            if values.get("resize_vocab") and not values.get("losia_train_embeddings"):
                show("warning: only losia_train_embeddings trains added tokens", style="yellow")
            show(f"groups: {len(controller.groups)}, {len(controller.layers)} linears")
        if self.resume is not None:
            show(f"resuming from {self.resume}")

    # ------------------------------------------------------------------ after the last step

    def finish(self) -> None:
        """Reload and compare what was saved, and write `losia_run.json`."""
        values = self.recipe.values
        if not values.get("do_train") or not self.trainer.is_world_process_zero():
            return
        trainer, peak = self.trainer, peak_memory()
        begun, before_steps, before_tokens = self.progress.start  # the rest: of what was resumed
        seconds = self.progress.end - begun
        whole = values.get("finetuning_type", "lora") in (llamafactory.LOSIA, "full", "freeze")
        reloads = whole and values.get("stage", "sft") != "rm"
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if reloads:
            verify_saved(trained, self.output)
        trainable, total = _parameters(trainer)
        write_record(
            self.output,
            {
                "recipe": values | _found_from_anywhere(values),
                "sources": self.recipe.sources,
                "versions": versions(),
                "seed": trainer.args.seed,
                "device": _device(trainer.args.device),
                "timeline": _timeline(self.plan.controller),
                "selections": self.selections,
                "resumed_from": self.resume,
                "steps": trainer.state.global_step,
                "seconds": round(seconds, 2),
                "saving_seconds": round(sum(self.saving), 2),
                "tokens": int(trainer.state.num_input_tokens_seen) - before_tokens,
                "peak_memory_bytes": peak,
                "kept_for_backward_bytes": self.kept.nbytes,
                "held_out_loss": _held_out_loss(trainer),
                "loss_in_chunks": getattr(trained, "loss_in_chunks", False),
                "trainable_parameters": trainable,
                "total_parameters": total,
                "begins_with_bos": self._begins_with_bos(),
                "reload_verified": reloads,
            },
        )
        self.console.print(
            f"done: {trainer.state.global_step - before_steps} steps in {seconds:.0f} s, "
            f"peak memory {peak / 1e9:.2f} GB; the model is in {self.output}"
            + (", reloaded and compared" if reloads else "")
        )

    def _begins_with_bos(self) -> bool | None:
        data = self.trainer.train_dataset
        if not hasattr(data, "__len__"):
            return None
        stage = self.recipe.values.get("stage", "sft")
        return preview.begins_with_bos(data[0], self.trainer.processing_class, stage)


def _found_from_anywhere(values: Mapping[str, Any]) -> dict[str, str]:
    """Folders that `losia eval` and `losia chat` will look for, from wherever they are called."""
    named = {
        key: Path(str(values[key]))
        for key in ("model_name_or_path", "eval_data")
        if values.get(key)
    }
    return {key: str(path.absolute()) for key, path in named.items() if path.is_dir()}


def _timeline(controller: LoSiAController | None) -> dict[str, Any] | None:
    """The timeline of a LoSiA run, as settled when it started."""
    if controller is None or controller.timeline is None:
        return None
    timeline = controller.timeline
    return {
        **asdict(timeline),
        "never_reselected": list(timeline.never_reselected()),
    }


def _held_out_loss(trainer: Trainer) -> float | None:
    """The last evaluation's loss; None where nothing was held out, or each set has its own."""
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return losses[-1] if losses else None


def _parameters(trainer: Trainer) -> tuple[int, int]:
    """Trainable parameters and the model's own (without the copies that subnets are)."""
    named = list(trainer.model.named_parameters())
    trainable = sum(p.numel() for _, p in named if p.requires_grad)
    return trainable, sum(p.numel() for name, p in named if not name.endswith(".subnet"))


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"
