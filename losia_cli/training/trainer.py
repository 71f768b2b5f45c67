"""The Trainer as it is here: how it saves, logs and stops, and the loss it is asked for."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from losia_cli.run_folder import PREFIX
from losia_cli.training import checkpoints


@cache
def let_cpu_ranks_load() -> None:
    """Ranks on the CPU have the devices cpu:0, cpu:1, ..., to which torch.load cannot restore."""
    torch.serialization.register_package(
        9,  # its own: torch compares entries of equal priority, and cannot
        lambda _: None,
        lambda storage, location: storage if location.startswith("cpu:") else None,
    )


def loss_of(trainer: Trainer) -> Callable[[Any], Tensor]:
    """The stage's own loss of one collated batch."""

    def loss(batch: Any) -> Tensor:
        inputs = trainer._prepare_inputs(batch)
        with trainer.compute_loss_context_manager():
            return trainer.compute_loss(trainer.model, inputs)  # ranks average the scores alone

    return loss


def log_overlap(trainer: Trainer, overlaps: list[float]) -> None:
    """Add to every log the mean overlap of the latest re-selections with what they replaced."""
    plain = trainer.log

    def log(logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if overlaps and "loss" in logs:
            logs = {**logs, "losia_overlap": sum(overlaps) / len(overlaps)}
            overlaps.clear()
        plain(logs, *args, **kwargs)

    trainer.log = log


def stop_at_the_end(trainer: Trainer) -> None:
    """Train no step more where a resumed checkpoint is the last: the Trainer stops after a step."""
    plain = trainer._run_epoch

    def run_epoch(**given: Any) -> None:
        if trainer.state.global_step < trainer.state.max_steps:
            plain(**given)
        else:
            trainer.control.should_training_stop = True

    trainer._run_epoch = run_epoch


def save_safely(trainer: Trainer, output: Path, plan: dict[str, Any]) -> list[float]:
    """Seal every checkpoint before an older one is deleted; the seconds that each took."""
    write, took = trainer._save_checkpoint, []

    def save(model: Any, trial: Any) -> None:
        begun = time.monotonic()
        args, folder = trainer.args, output / f"{PREFIX}{trainer.state.global_step}"
        limit, args.save_total_limit = args.save_total_limit, None
        output.mkdir(parents=True, exist_ok=True)

        def write_all() -> None:
            write(model, trial)
            trainer.accelerator.wait_for_everyone()

        first = trainer.is_world_process_zero()
        try:
            checkpoints.save_safely(folder, write_all, plan, _checkpoint_bytes(trainer), first)
        finally:
            args.save_total_limit = limit
        if first:
            best = trainer.state.best_model_checkpoint
            rotate_checkpoints(str(output), limit, best, use_mtime=True)
        trainer.accelerator.wait_for_everyone()
        took.append(time.monotonic() - begun)

    trainer._save_checkpoint = save
    return took


def _checkpoint_bytes(trainer: Trainer) -> int:
    """About what a checkpoint takes: the saved weights, and three copies of what trains."""
    return saved_bytes(trainer.model) + 3 * _bytes(trainer.model, trainable=True)


def saved_bytes(model: nn.Module) -> int:
    """What the weights take when they are saved: an adapter's alone, or all."""
    return _bytes(model, trainable=hasattr(model, "peft_config"))


def _bytes(model: nn.Module, trainable: bool) -> int:
    counted = (p for p in model.parameters() if p.requires_grad or not trainable)
    return sum(p.numel() * p.element_size() for p in counted)
