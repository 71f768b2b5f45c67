"""The cells of a plan, one after another: what is done is kept, a failure stops no other.

Each cell is a process of its own, `losia train` and, in the same process, `losia eval`; a cell that
was cut off goes on from its newest checkpoint or its stored responses.
"""

import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from losia_cli.processes import StopTogether
from losia_cli.recipes import override
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.store import DONE, Store, failure, gather
from losia_cli.reproduction.store import missing_suites as missing
from losia_cli.run_folder import PREFIX, holds_model
from losia_cli.training.checkpoints import MANIFEST, never_resumed

_LOG_LINES = 15  # of a failed cell's, kept in its result
# A base model has no run's record to read these from: option of `losia eval` -> the recipe's key.
_EVALUATION = {
    "--data": "eval_data",
    "--limit": "eval_limit",
    "--dtype": "eval_dtype",
    "--temperature": "eval_temperature",
    "--top-p": "eval_top_p",
}
_MEASURED = ("scores", "evaluation", "training", "data")  # keys of a result
_LOOK = 1.0  # seconds between two looks at a running cell

Watch = Callable[[Cell | None, float], None]


def run_cells(
    cells: Sequence[Cell], store: Store, keep: bool, watch: Watch, beside: Sequence[Cell] = ()
) -> None:
    """Run every cell that is to do; failed ones are tried once more.

    Args:
        cells: each after the one that it starts from.
        store: where they are kept.
        keep: whether weights stay after scoring.
        watch: told, while a cell runs, which and for how many seconds; None between cells.
        beside: all cells of the table, whose training sets hold the same rows.

    Raises:
        Stopped: a signal asked for it, and the running cell's process has ended.
        UserError: a training set was prepared anew, of other rows, since the last cell began.
    """
    for cell in to_do(cells, store):
        if not _ready(cell, store):
            continue
        with store.take(cell, visible_gpu(os.environ)) as lock:
            if lock is None or cell not in to_do(cells, store):  # another process has it, or had
                continue
            store.expect_same_data(beside or cells, [cell])
            _run_cell(cell, store, lock.fileno(), watch)
            if not keep:
                _drop_unneeded(cell, cells, store)
        watch(None, 0.0)


def to_do(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """The cells that are not done, and those whose weights one of them needs and that are gone."""
    found = set()
    for cell in reversed(cells):
        if cell.identity in found or store.state(cell) != DONE:
            found.add(cell.identity)
            if cell.after is not None and not _ready(cell, store):
                found.add(cell.after.identity)
    return [cell for cell in cells if cell.identity in found]


def commands(cell: Cell, store: Store) -> list[list[str]]:
    """What `losia` is told, in turn, to bring a cell to its end from where it is."""
    merged = store.merged(cell)
    if cell.after is None or not store.adapter(cell.after) or merged.is_dir():
        return [_command(cell, store)]
    return [["merge", str(store.trained(cell.after)), str(merged)], _command(cell, store)]


def _command(cell: Cell, store: Store) -> list[str]:
    folder = store.trained(cell)
    values = cell.resolved.values
    if cell.method == BASE:
        asked = ["eval", values["model_name_or_path"], "--out", str(folder / "eval")]
        for option, key in _EVALUATION.items():
            if values.get(key) is not None:
                asked += [option, str(values[key])]
        return [*asked, *_suites(cell.suites), *_allowed(values)]
    if holds_model(folder):
        return ["eval", str(folder), *_suites(_unscored(cell, store)), *_allowed(values)]
    overrides = [
        *cell.all_overrides,
        override("output_dir", folder),
        f"eval_suites=[{','.join(cell.suites)}]",
    ]
    if cell.after is not None:
        adapter = store.adapter(cell.after)
        start = store.merged(cell) if adapter else store.trained(cell.after)
        overrides.append(override("model_name_or_path", start))
    saved = any((path / MANIFEST).is_file() for path in folder.glob(f"{PREFIX}*"))
    if saved and never_resumed(values) is None:
        overrides.append("resume_from_checkpoint=true")
    elif folder.is_dir():
        overrides.append("overwrite_output_dir=true")
    return ["train", cell.recipe, "--method", cell.method, *overrides]


def _run_cell(cell: Cell, store: Store, lock: int, watch: Watch) -> None:
    store.begin(cell)
    for arguments in commands(cell, store):
        code = _process(cell, arguments, store, lock, watch)
        if code != 0:
            break
    else:
        result = gather(cell, store)
        if not missing(cell, result):
            store.save(cell, result)
            return
    earlier = store.result(cell) or {}  # of weights that were dropped: its numbers stay true
    measured = {key: earlier[key] for key in _MEASURED if key in earlier}
    store.save(cell, {**failure(cell, code, _tail(store.log(cell))), **measured})


def visible_gpu(environment: Mapping[str, str]) -> str:
    """The GPU that cells run on, by the name that CUDA_VISIBLE_DEVICES has for it."""
    return environment.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def one_gpu(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a cell sees one GPU: the batches of a table are those of one.

    Its memory does not break up over batches of many lengths: the largest cells fill it.
    """
    kept = {key: value for key, value in environment.items() if key != "FORCE_TORCHRUN"}
    if not kept.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        kept["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    return {**kept, "CUDA_VISIBLE_DEVICES": visible_gpu(environment)}


def _process(cell: Cell, told: list[str], store: Store, lock: int, watch: Watch) -> int:
    """Run a command to its end, all it prints going to the cell's log."""
    arguments = [sys.executable, "-m", "losia_cli", *told]
    environment = {**one_gpu(os.environ), "COLUMNS": "120", "TQDM_DISABLE": "1"}
    with store.log(cell).open("a", encoding="utf-8") as log:
        log.write(f"$ losia {shlex.join(told)}\n")
        log.flush()
        started = time.monotonic()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches it once, from us
        )
        with StopTogether(process):
            while process.poll() is None:
                watch(cell, time.monotonic() - started)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK)
    return process.returncode


def _ready(cell: Cell, store: Store) -> bool:
    return cell.after is None or holds_model(store.trained(cell.after))


def _drop_unneeded(ran: Cell, cells: Sequence[Cell], store: Store) -> None:
    """Remove the weights of the cell that ran, which is held, and of what it started from.

    Those that a cell needs stay, and those that another process holds.
    """
    started_from = {
        cell.after.identity
        for cell in cells
        if cell.after is not None and store.state(cell) != DONE
    }
    cell: Cell | None = ran
    while cell is not None:
        with nullcontext(True) if cell is ran else store.take(cell) as held:
            if held and store.state(cell) == DONE and cell.identity not in started_from:
                store.drop_model(cell)
        cell = cell.after


def _unscored(cell: Cell, store: Store) -> Sequence[str]:
    """The suites that a trained model's own results lack."""
    held = store.trained(cell) / "eval" / "eval_results.json"
    return missing(cell, gather(cell, store)) if held.is_file() else cell.suites


def _suites(names: Sequence[str]) -> list[str]:
    return [text for name in names for text in ("--suite", name)]


def _allowed(values: Mapping[str, Any]) -> list[str]:
    """`losia eval`'s permission to run code, as the recipe's key has it."""
    given = values.get("eval_allow_code")
    return [f"--allow-code={'sandboxed' if given is True else given}"] if given else []


def _tail(log: Path) -> list[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, _LOG_LINES)]
