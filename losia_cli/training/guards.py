"""What watches a run: gradients that are not finite, or none at all, and a wish to stop."""

import signal
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losia_cli.errors import UserError
from losia_cli.processes import wishes_to_stop

_STEPS_WITHOUT = 3  # a gradient, from the first on: of one step, its samples may be the reason


class FiniteGradients(TrainerCallback):
    """Stops a run before a gradient that is not finite touches a weight, or where none arrives."""

    def __init__(self) -> None:
        self._arrived, self._silent = False, 0

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: Any,
    ) -> None:
        """Raise a `UserError` naming the step and, unless it is all, the first parameter."""
        named = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
        if args.fp16 or not named:  # a loss scaler skips such a step; a per-layer optimizer is done
            return
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in named]))
        if not self._arrived:
            self._arrived = bool(norms.any())
            self._silent += not self._arrived
        if self._silent == _STEPS_WITHOUT:
            raise UserError(
                "no gradient arrives at anything that trains: the loss does not depend on it, or is"
                " of no token (look at the first sample, and at what is supervised in it)"
            )
        if not torch.isfinite(norms).all():
            broken = (~torch.isfinite(norms)).nonzero()
            # clipping, which came before, spreads one over all
            where = "" if len(broken) == len(named) > 1 else f" of {named[int(broken[0])][0]}"
            clip = "" if args.max_grad_norm else "set max_grad_norm, "
            raise UserError(
                f"the gradient{where} is not finite at step {state.global_step + 1}: stopped "
                "before the weights were touched; the last checkpoint is good (lower "
                f"learning_rate, {clip}or look for a broken sample)"
            )


class Interrupted(Exception):
    """Ctrl-C was pressed, and a checkpoint was saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted at step {step}")
        self.step = step


class StopOnInterrupt(TrainerCallback):
    """Ctrl-C saves a checkpoint at the step's end and stops; a second one stops at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Listen, while training, for a wish to stop; a training may begin again, smaller."""
        if self._before is None:
            self._before = {wish: signal.signal(wish, self._ask) for wish in wishes_to_stop()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask the Trainer to save, on every rank at the same step."""
        if self._asked_anywhere(args):
            control.should_save = control.should_training_stop = True
            self._asked = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Raise `Interrupted` once the checkpoint is there."""
        if self._asked and control.should_training_stop:
            raise Interrupted(state.global_step)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Give the signals back."""
        self.release()

    def release(self) -> None:
        """Give the signals back, also where training ends in an error."""
        for number, handler in (self._before or {}).items():
            signal.signal(number, handler)
        self._before = None

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self._asked and number == signal.SIGHUP:  # who has asked and leaves is in no hurry
            return
        if self._asked:
            self.release()
            raise KeyboardInterrupt
        self._asked = True

    def _asked_anywhere(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self._asked
        flag = torch.tensor(int(self._asked), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)
