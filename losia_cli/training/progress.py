"""A run on the terminal: a bar where there is one, plain lines elsewhere."""

import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losia_cli.method import LoSiAController


def peak_memory() -> int:
    """Bytes: the most the GPU held allocated, else the most this process had resident."""
    if torch.cuda.is_initialized() and (allocated := torch.cuda.max_memory_allocated()):
        return allocated  # nothing, where it trains on the processor beside a GPU
    # not getrusage's ru_maxrss, which starts at the parent process's own peak
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class RunProgress(TrainerCallback):
    """Loss, rate, tokens per second, memory, time left, and whose turn it is in the timeline.

    Attributes:
        begun: whether the first step has begun.
        start: the time, and the steps and tokens that an earlier part of the run had done.
        end: the time after the last step.
    """

    begun = False
    end = 0.0

    def __init__(self, console: Console) -> None:
        self.console = console
        self.controller: LoSiAController | None = None
        self.bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._latest: dict[str, Any] = {}
        self.start = (0.0, 0, 0)
        self._task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar on the first rank."""
        if state.is_world_process_zero:
            self.start = (time.monotonic(), state.global_step, state.num_input_tokens_seen)
            self._task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Remember that it was reached."""
        self.begun = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the bar."""
        if self._task is not None:
            text = self._line(state)
            self.bar.update(self._task, completed=state.global_step, description=text)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Remember the figures, and print a line where no bar can be shown."""
        self._latest |= logs
        if self._task is None:
            return
        if "eval_loss" in logs:
            self.bar.console.print(f"step {state.global_step}  eval loss {logs['eval_loss']:.4f}")
        elif "loss" in logs and not self.console.is_terminal:
            line = f"step {state.global_step}/{state.max_steps}  {self._line(state)}"
            self.console.print(f"{line}  {self._time_left(state)} left", soft_wrap=True)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Take the bar down."""
        self.end = time.monotonic()
        self.bar.stop()

    def _line(self, state: TrainerState) -> str:
        seconds = time.monotonic() - self.start[0]
        speed = (state.num_input_tokens_seen - self.start[2]) / seconds
        parts = [
            f"{label} {self._latest[key]:{form}}"
            for label, key, form in (
                ("loss", "loss", ".4f"),
                ("rate", "learning_rate", ".2e"),
                ("grad", "grad_norm", ".3g"),
            )
            if isinstance(self._latest.get(key), float)
        ]
        parts += [f"{speed:,.0f} tok/s", f"{peak_memory() / 1e9:.2f} GB"]
        return "  ".join(parts + self._turns())

    def _turns(self) -> list[str]:
        controller = self.controller
        if controller is None or controller.timeline is None:
            return []
        step = controller.step
        turns = (
            ("scoring", controller.timeline.scored(step)),
            ("rewarming", controller.timeline.rewarming(step)),
        )
        return [f"{what} {_groups(groups)}" for what, groups in turns if groups]

    def _time_left(self, state: TrainerState) -> str:
        done = state.global_step - self.start[1]
        left = (time.monotonic() - self.start[0]) / done * (state.max_steps - state.global_step)
        return f"{int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}"


def _groups(groups: tuple[int, ...]) -> str:
    return f"group {groups[0]}" if len(groups) == 1 else f"{len(groups)} groups"
