"""What a recipe's run needs beside the package itself: a model, data, a machine, more packages."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from losia_cli.data import info
from losia_cli.data.check import dataset_dir
from losia_cli.data.info import names_in
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError

HUB = "the Hugging Face hub, unless already in its cache"

# Keys that, when set, make LLaMA-Factory or transformers import a package we do not install.
_PACKAGES = {
    "use_galore": ["galore-torch"],
    "use_apollo": ["apollo-torch"],
    "use_badam": ["badam"],
    "use_adam_mini": ["adam-mini"],
    "use_swanlab": ["swanlab"],
    "use_unsloth": ["unsloth"],
    "enable_liger_kernel": ["liger-kernel"],
    "use_liger_kernel": ["liger-kernel"],
    "deepspeed": ["deepspeed"],
    "predict_with_generate": ["jieba", "nltk", "rouge-chinese"],
}
_TRACKERS = {"mlflow", "swanlab", "tensorboard", "trackio", "wandb"}
_BITSANDBYTES = ("8bit", "ademamix", "bnb", "lion", "paged")


@dataclass(frozen=True)
class Need:
    """One thing a run needs.

    Attributes:
        key: the recipe's key that asks for it.
        what: the thing.
        where: where it is, or how to get it.
        missing: whether it is known not to be there.
    """

    key: str
    what: str
    where: str
    missing: bool = False


def needs(values: dict[str, Any]) -> Iterator[Need]:
    """All that a run with these values needs; `UserError` for a broken dataset_info.json."""
    model = values.get("model_name_or_path")
    if isinstance(model, str):
        yield Need("model_name_or_path", model, "a folder here" if Path(model).is_dir() else HUB)
    yield from _data(values)
    if needs_gpu(values):
        yield Need("bf16", "a GPU that computes in bfloat16", "not looked for here")
    yield from packages(values)


def needs_gpu(values: dict[str, Any]) -> bool:
    """Whether LLaMA-Factory refuses to train this without a GPU."""
    return bool((values.get("bf16") or values.get("pure_bf16")) and not values.get("use_cpu"))


def packages(values: dict[str, Any]) -> Iterator[Need]:
    """The packages, beside those we install, that a run with these values imports."""
    for key, name in _asked_for(values):
        missing = find_spec(name.replace("-", "_")) is None
        yield Need(key, f"package {name}", f"pip install {name}" if missing else "here", missing)


def _asked_for(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, names in _PACKAGES.items():
        if values.get(key):
            yield from ((key, name) for name in names)
    optim = str(values.get("optim", ""))
    if any(part in optim for part in _BITSANDBYTES) and "torch" not in optim:
        yield "optim", "bitsandbytes"
    for tracker in sorted(_TRACKERS & set(names_in(values.get("report_to")))):
        yield "report_to", tracker


def _data(values: dict[str, Any]) -> Iterator[Need]:
    folder = dataset_dir(values)
    elsewhere = folder == "ONLINE" or folder.startswith("REMOTE:")
    there = not elsewhere and Path(folder, "dataset_info.json").is_file()
    registered = info.read(folder) if there else {}
    for key in ("dataset", "eval_dataset"):
        for name in names_in(values.get(key)):
            if elsewhere:
                yield Need(key, f"data {name}", HUB)
            elif name in SETS and name not in registered:
                what = f"data {name}, of {SETS[name].repository}"
                yield Need(key, what, f"will be prepared from {HUB}")
            else:
                yield _registered(key, name, registered, folder)


def _registered(key: str, name: str, entries: dict[str, Any], folder: str) -> Need:
    try:
        entry = info.look_up(name, entries, folder)
    except UserError as error:
        return Need(key, f"data {name}", str(error), missing=True)
    if entry is not None:
        return Need(key, f"data {name}", str(entry.path), missing=not entry.path.exists())
    on_hub = entries[name].get("hf_hub_url")
    return Need(key, f"data {on_hub or name}", HUB if on_hub else "not in a local file")
