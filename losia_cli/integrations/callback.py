"""LoSiA under the Transformers Trainer: one callback that starts what `attach` made."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losia_cli.method import LoSiAController, LoSiAError

SCORED_BATCHES = 4
SCORED_SHARE = 0.01  # of a run's steps, spent for a lower peak of memory before the first of them


class LoSiACallback(TrainerCallback):
    """Scores the first subnets and starts the timeline when training begins.

    Use it with an optimizer made from `controller.parameter_groups()` and driven by `controller`.

    Args:
        controller: what `losia_cli.method.attach` returned.
        loss: from a batch of the collator to a scalar; by default `model(**batch).loss`.
    """

    def __init__(
        self, controller: LoSiAController, loss: Callable[[Any], Tensor] | None = None
    ) -> None:
        self.controller, self.loss = controller, loss

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise a `LoSiAError` for an optimizer that is not driven, or is at another step."""
        controller, optimizer = self.controller, kwargs.get("optimizer")
        if optimizer is not None and not controller.drives(
            getattr(optimizer, "optimizer", optimizer)  # of accelerate's
        ):
            raise LoSiAError(
                "the Trainer's optimizer is not the one that the controller drives: make it from"
                " controller.parameter_groups(), give it to controller.drive, and to the Trainer"
                " with optimizers=(optimizer, None)"
            )
        scaler = getattr(optimizer, "scaler", None)  # accelerate's, in float16
        if scaler is not None:
            controller.loss_scale = scaler.get_scale
        if controller.step != state.global_step:
            raise LoSiAError(
                f"the checkpoint is at step {state.global_step}, but its LoSiA state at step "
                f"{controller.step}: one saved with save_only_model, or without LoSiA, cannot be "
                "resumed"
            )
        if controller.needs_first_subnets:
            model, loader = kwargs["model"], kwargs["train_dataloader"]
            batches = sampled_batches(loader, args.per_device_train_batch_size, args)
            loss = self.loss or (lambda batch: model(**_on(args.device, batch)).loss)
            with torch.random.fork_rng(devices=_cuda_devices(args.device)):
                rounds = max(1, int(SCORED_SHARE * state.max_steps / len(batches)))
                controller.score_first_subnets(batches, loss, rounds=rounds)
            model.zero_grad()  # also of what is not the controller's: a value head
        controller.start(state.max_steps, args.get_warmup_steps(state.max_steps))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Follow the Trainer over a step that a loss scaler skipped, which it counts too."""
        if self.controller.step < state.global_step:
            self.controller.skip_step()


def sampled_batches(loader: DataLoader, size: int, args: TrainingArguments) -> list[Any]:
    """A few batches of the training set for scoring; the loader's own order is left alone."""
    count = SCORED_BATCHES * size
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        rows = list(itertools.islice(dataset, count))
    else:
        draw = random.Random(args.seed + args.process_index)
        rows = [dataset[i] for i in draw.sample(range(len(dataset)), min(count, len(dataset)))]
    return [loader.collate_fn(rows[i : i + size]) for i in range(0, len(rows), size)]


def _on(device: torch.device, batch: Any) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
