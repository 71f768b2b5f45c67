"""The quickstart by five methods, each at its rates: every cell once, one table and one plot.

Full fine-tuning, LoRA with as many trainable parameters, random subnets drawn anew, LoSiA and
LoSiA-Pro learn the same problems from the same base model; seconds and accuracy are laid side by
side. Each is tried at three rates, but LoSiA at one: its update is LoSiA-Pro's, and only its time
is asked. A cell is kept under a name made of all that decides it, so that a stopped comparison
goes on where it was, and a changed recipe is measured anew.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from losia_cli import recipes
from losia_cli.files import sha256, sha256_of, writing_into
from losia_cli.quickstart import run
from losia_cli.quickstart.model import prepare_base_model

SUBNET_RATES = (5e-4, 1e-3, 2e-3)
RANDOM_RATES = (2e-3, 4e-3, 8e-3)  # where random subnets move as far as chosen ones


@dataclass(frozen=True)
class Method:
    """One line of the comparison: an overlay, what is laid over it, and the rates to try."""

    name: str
    overlay: str
    rates: tuple[float, ...]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One method at one rate."""

    method: Method
    rate: float

    def overrides(self, seed: int) -> list[str]:
        """What `losia train` is told beyond the quickstart's recipe and the overlay."""
        return [f"learning_rate={self.rate}", f"seed={seed}", *self.method.overrides]


def plan(base: str) -> list[Cell]:
    """The cells for a base model."""
    rank = lora_rank(base)
    random = ("losia_localization=random", "losia_initial_subnet=random")
    methods = (
        Method("full fine-tuning", "full", (1e-5, 3e-5, 1e-4)),
        Method(
            f"LoRA, rank {rank}",
            "lora",
            (5e-4, 1e-3, 3e-3),
            (f"lora_rank={rank}", f"lora_alpha={2 * rank}"),
        ),
        Method("random subnets", "losia-pro", RANDOM_RATES, random),
        Method("LoSiA", "losia", SUBNET_RATES[1:2]),
        Method("LoSiA-Pro", "losia-pro", SUBNET_RATES),
    )
    return [Cell(method, rate) for method in methods for rate in method.rates]


def lora_rank(base: str) -> int:
    """The rank at which LoRA trains about as many parameters as the quickstart's recipe does."""
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    values = recipes.load(run.RECIPE).values
    p, p_o = values["losia_rank_factor"], values["losia_output_factor"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    head = model.get_output_embeddings()
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    subnets = sum(int(m.out_features * p) * int(m.in_features * p) for m in linears)
    trained = subnets + int(head.out_features * p_o) * head.in_features
    return max(1, round(trained / sum(m.in_features + m.out_features for m in linears)))


def compare(
    cells: Sequence[Cell], base: str, output: Path, seed: int, console: Console
) -> list[dict[str, Any]]:
    """Measure the base model and every cell that `output` does not hold yet; all results.

    Raises:
        UserError: a training failed; the finished cells are kept.
    """
    paths = run.Paths(output)
    with writing_into(output, "--output"):
        output.mkdir(parents=True, exist_ok=True)
    run.write_problems(paths.data, seed, console)
    before = run.measure_base(base, paths.heldout, console)
    results = [{"method": "base model", "rate": None, **run.summary(before)}]
    for number, cell in enumerate(cells, 1):
        kept = output / "cells" / f"{_identity(cell, base, paths, seed)}.json"
        title = f"{number}/{len(cells)} {cell.method.name}, rate {cell.rate:g}"
        console.rule(f"{title} (kept from before)" if kept.exists() else title, align="left")
        if not kept.exists():
            run.save(kept, _measure(cell, base, paths, seed))
        results.append(json.loads(kept.read_text()))
    return results


def compare_all(output: Path, model: str | None, seed: int, report: Path, console: Console) -> None:
    """The whole comparison on `model` (the packaged one if None), reported into `report`."""
    from losia_cli.quickstart.report import write_report

    base = model or str(prepare_base_model())
    results = compare(plan(base), base, output, seed, console)
    for path in write_report(results, seed, report):
        console.print("written:", path)


def _measure(cell: Cell, base: str, paths: run.Paths, seed: int) -> dict[str, Any]:
    run.train(base, paths, cell.overrides(seed), ["--method", cell.method.overlay])
    after = run.measure(str(paths.trained), paths.heldout)
    training = run.training_record(paths.trained)
    shutil.rmtree(paths.trained)  # only its measurement is wanted
    return {
        "method": cell.method.name,
        "rate": cell.rate,
        "overrides": cell.overrides(seed),
        **run.summary(after),
        "training": training,
    }


def _identity(cell: Cell, base: str, paths: run.Paths, seed: int) -> str:
    """A readable name, and a hash over everything that decides the cell's result."""
    recipe = recipes.load(run.RECIPE, cell.method.overlay, cell.overrides(seed)).values
    data = sha256(paths.data / run.problems.TRAIN_FILE)
    digest = sha256_of([run.fingerprint(base, paths.heldout), data, recipe])
    return f"{cell.method.overlay}-{cell.rate:g}-{digest[:10]}"
