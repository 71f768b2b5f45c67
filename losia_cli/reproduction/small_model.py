"""The comparison on a small real model: two sets taught by every method at three rates each."""

from collections.abc import Iterator

from losia_cli import paper
from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction.cell import BASE, Cell, untrained
from losia_cli.reproduction.place import Place, Reading

# Of the comparison: what is taught -> the suite that asks for it; what should not be forgotten.
_TAUGHT = {"arc-e": "arc-e", "gsm8k": "gsm8k-train-prompt"}
REMEMBERED = ("piqa", "hellaswag")
_FULL, _LOW_RANK, _SUBNET = (1e-5, 3e-5, 1e-4), (5e-4, 1e-3, 3e-3), (5e-4, 1e-3, 2e-3)
_PROJECTED = (1e-4, 3e-4, 1e-3)  # full fine-tuning's own hardly move GaLore in 100 steps
_RANDOM = (2e-3, 4e-3, 8e-3)  # at 2e-3 random subnets are where chosen ones are at 5e-4
_REDRAWN = ("losia_localization=random", "losia_initial_subnet=random")
# A row -> its method, its rates, and what is laid over. A rank of 5 trains about as many
# parameters as p = 1/8.
_COMPARED: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "full fine-tuning": ("full", _FULL, ()),
    "LoRA r=5": ("lora", _LOW_RANK, ("lora_rank=5", "lora_alpha=10")),
    "LoRA r=64": ("lora", _LOW_RANK, ()),
    "PiSSA r=5": ("pissa", _LOW_RANK, ("lora_rank=5", "lora_alpha=10")),
    "DoRA r=5": ("dora", _LOW_RANK, ("lora_rank=5", "lora_alpha=10")),
    "GaLore r=128": ("galore", _PROJECTED, ("galore_rank=128", "galore_update_interval=50")),
    "LoSiA-Pro p=1/8": ("losia-pro", _SUBNET, ()),
    "LoSiA-Pro p=1/4": ("losia-pro", _SUBNET, ("losia_rank_factor=0.25",)),
    "random subnets 1/8": ("losia-pro", _RANDOM, _REDRAWN),
    "static scored 1/8": ("losia-pro", _SUBNET, ("losia_schedule=static",)),
}


def places() -> Iterator[Place]:
    """What was taught, and what should not be forgotten, of every method at every rate."""
    for dataset, skill in _TAUGHT.items():
        recipe, suites = f"compare/smollm2-135m-{dataset}", (skill, *REMEMBERED)
        as_it_is = untrained("smollm2-135m", recipe, suites)
        columns = [(SUITES[suite].column or "GSM8K", suite) for suite in suites]
        for column, suite in columns:
            yield Place((dataset, BASE), column, as_it_is, Reading(suite))
        for name, (method, tried, overrides) in _COMPARED.items():
            for rate in tried:
                given = (*overrides, f"learning_rate={rate:g}")
                trained = Cell(recipe, "smollm2-135m", dataset, method, given, suites)
                for column, suite in columns:
                    yield Place((dataset, name), column, trained, Reading(suite))


def published() -> paper.Table:
    """No numbers to lay ours beside: the columns alone."""
    remembered = (SUITES[suite].column for suite in REMEMBERED)
    columns = ("ARC-E", "GSM8K", *remembered, "Loss", "Mem(GB)", "Kept(GB)", "Seconds")
    title = "SmolLM2-135M taught two sets by every method, each at the best of three rates"
    return paper.Table(title, ("taught", "method"), columns, ())
