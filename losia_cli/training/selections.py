"""What a LoSiA run trained, and when: every subnet as it is chosen, in the run's folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losia_cli.files import write_atomically
from losia_cli.method import LoSiAController, Selection
from losia_cli.method.subnet import Subnet
from losia_cli.run_folder import SELECTIONS


class RecordSelections(TrainerCallback):
    """Writes `losia_selections.jsonl`, a line for each linear and each subnet that it gets.

    Nothing is written before the first step is taken: until then an earlier run's stays.

    Args:
        controller: of the run.
        output: the run's folder.
        resume: the checkpoint that is gone on from; what its run chose until then is taken over.
    """

    def __init__(self, controller: LoSiAController, output: Path, resume: Path | None) -> None:
        self._controller, self._resume = controller, resume
        self._path, self._begun = output / SELECTIONS, False
        self._lines: list[str] = []
        controller.on_selection.append(self._note)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The first subnets are there, however they were chosen."""
        before = (
            [] if self._resume is None else list(_until(state.global_step, self._resume.parent))
        )
        groups = self._controller.groups.values()
        self._lines = before or [
            self._line(state.global_step, name, self._controller.layers[name].selected)
            for names in groups
            for name in names
        ]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write what was chosen at the end of this step."""
        if self._lines and state.is_world_process_zero:
            text = "".join(f"{line}\n" for line in self._lines)
            if self._begun:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)
            else:
                write_atomically(self._path, text)
        self._begun, self._lines = True, []

    def on_train_end(self, *given: Any, **named: Any) -> None:
        """Likewise where no step was left to be taken."""
        self.on_step_end(*given, **named)

    def _note(self, selection: Selection) -> None:
        if selection.step >= 0:
            self._lines.append(self._line(selection.step + 1, selection.name, selection.subnet))

    def _line(self, steps: int, name: str, subnet: Subnet) -> str:
        rows, columns = (
            None if chosen is None else chosen.tolist() for chosen in (subnet.rows, subnet.columns)
        )
        shape = list(self._controller.layers[name].weight.shape)
        return json.dumps(
            {"steps": steps, "linear": name, "shape": shape, "rows": rows, "columns": columns}
        )


def _until(steps: int, folder: Path) -> Iterator[str]:
    """The lines of a folder's record that were chosen by then."""
    path = folder / SELECTIONS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            if json.loads(line)["steps"] <= steps:
                yield line
        except ValueError:  # the last one of a run that was killed as it wrote
            return
