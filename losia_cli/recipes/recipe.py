"""A recipe: LLaMA-Factory's YAML or JSON file, a method laid over it, `key=value` on top."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losia_cli.errors import UserError
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.recipes.layers import BROKEN_REFERENCE, Layer, header, layers, merged, sources
from losia_cli.recipes.needs import needs
from losia_cli.recipes.shipped import ablations, file, methods, overlay, shipped
from losia_cli.spelling import did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

COMMAND_LINE = "command line"

# Keys of LLaMA-Factory that choose a method: another one laid over the recipe sets them aside.
METHOD_SWITCHES = (
    "use_dora",
    "pissa_init",
    "use_rslora",
    "loraplus_lr_ratio",
    "use_galore",
    "use_apollo",
    "use_badam",
    "use_adam_mini",
    "use_muon",
    "use_llama_pro",
)

# What the keys of LLaMA-Factory's own methods begin with: none of them means anything to LoSiA.
OTHERS_KEYS = (
    "lora_",
    "loraplus_",
    "pissa_",
    "oft_",
    "freeze_trainable_",
    "freeze_extra_",
    "galore_",
    "apollo_",
    "badam_",
    "additional_target",
    "create_new_adapter",
)

# Keys that name models and adapters, several of them with commas between.
MODELS = (
    "model_name_or_path",
    "adapter_name_or_path",
    "ref_model",
    "ref_model_adapters",
    "reward_model",
    "reward_model_adapters",
)
# Keys that may name a folder, whose "~" libraries read in different ways.
PATHS = (
    *MODELS,
    "output_dir",
    "dataset_dir",
    "tokenized_path",
    "resume_from_checkpoint",
    "eval_data",
)


def override(key: str, value: Any) -> str:
    """`key=value` as the command line takes it, whatever characters the value has."""
    plain = str(value) if isinstance(value, Path) else value
    return f"{key}={json.dumps(plain, ensure_ascii=False)}"


def ablated(method: str) -> set[str]:
    """The keys that an ablation changes of the method that it is one of; none of a method's own."""
    return set(layers(overlay(method))[-1].values) if method in ablations() else set()


def method_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `losia_*` keys of a resolved recipe as `LoSiAConfig`'s keyword arguments."""
    return {
        key.removeprefix("losia_"): tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key.startswith("losia_")
    }


@dataclass(frozen=True)
class Recipe:
    """What a run is made of.

    Attributes:
        path: the recipe's file.
        values: key -> value, under LLaMA-Factory's names and ours (`losia_*`).
        sources: key -> where its value comes from: the recipe, an overlay, or the command line.
        dropped: keys of the recipe's file that the overlay made meaningless -> why.
    """

    path: Path
    values: dict[str, Any]
    sources: dict[str, str]
    dropped: dict[str, str]

    def llamafactory_arguments(self) -> dict[str, Any]:
        """What LLaMA-Factory parses: everything but our keys; `finetuning_type` stays."""
        return {
            key: value
            for key, value in self.values.items()
            if not key.startswith("losia_") and key not in EVALUATION_KEYS
        }


def load(
    path_or_name: str | Path, method: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe and its bases, lay a method or an ablation over them, then `key=value`.

    Values are read as LLaMA-Factory reads them (OmegaConf: `1e-4` is a number, `no` is false). `~/`
    of a path is spelled out, and a `dataset_dir` that is not found from here but beside the recipe,
    or beside one that it builds on, becomes that absolute path.

    Raises:
        UserError: a file that is missing or no recipe, an unknown method, a malformed override.
            What the values say is not looked at here: see `check`.
    """
    from omegaconf import OmegaConf

    path = _find_recipe(path_or_name)
    given, typed = layers(path), _read_overrides(overrides)
    laid = layers(_find_method(method)) if method is not None else []
    over = merged(laid)
    dropped = _set_aside(merged(given), over, method) if method is not None else {}

    kept = {key: value for key, value in merged(given).items() if key not in dropped}
    whole = OmegaConf.merge(kept, over, typed)
    values = OmegaConf.to_container(whole)
    # LLaMA-Factory leaves "${...}" in a recipe as it is; only our overlays refer to other keys.
    values |= {key: whole[key] for key in over if OmegaConf.is_interpolation(whole, key)}
    for key in PATHS:
        if isinstance(values.get(key), str):
            values[key] = ",".join(map(_spelled_out, values[key].split(",")))
    _find_data(values, given)

    come_from = {key: source for key, source in sources(given).items() if key in kept}
    come_from |= sources(laid) | dict.fromkeys(typed, COMMAND_LINE)
    return Recipe(path.absolute(), values, come_from, dropped)


def describe(recipe: Recipe) -> "Table":
    """The resolved recipe to read: its header, each value with its source, what the run needs."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(header(recipe.path), style=""), title_justify="left")
    for column in ("key", "value", "from"):
        table.add_column(column, overflow="fold")
    for key, value in recipe.values.items():
        table.add_row(key, Text(_written(value)), Text(recipe.sources[key]))
    table.add_section()
    for key, why in recipe.dropped.items():
        table.add_row(key, Text("set aside"), Text(why), style="dim")
    table.add_section()
    for need in needs(recipe.values):
        style = "red" if need.missing else ""
        table.add_row(Text("needs", style="bold"), Text(need.what), Text(need.where), style=style)
    return table


def _spelled_out(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~/") else path


def _find_recipe(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    if str(path_or_name) in shipped():
        return file(str(path_or_name))
    advice = did_you_mean(path.stem, shipped())
    else_give = "; give the path of a file, or a name that `losia recipes` lists"
    raise UserError(f"there is no recipe {path_or_name}{advice or else_give}")


def _find_method(name: str) -> Path:
    known = [*methods(), *ablations()]
    if name in known:
        return overlay(name)
    else_one_of = f"; give one of {', '.join(methods())}, or an ablation that `losia recipes` lists"
    raise UserError(f"there is no method {name}{did_you_mean(name, known) or else_one_of}")


def _read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for text in overrides:
        key, equals, _ = text.partition("=")
        if not equals or not key.strip() or key.startswith("-"):
            raise UserError(f"cannot read the override {text!r}: write key=value, without dashes")
        try:
            OmegaConf.from_dotlist([text])
        except YAMLError as error:
            advice = f"""put text with special characters in quotes, '{key}="..."'"""
            raise UserError(f"cannot read the override {text!r}: {advice}") from error
        except OmegaConfBaseException as error:
            raise UserError(f"the override {text!r} {BROKEN_REFERENCE}") from error
    return OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))


def _set_aside(given: dict[str, Any], overlay: dict[str, Any], method: str) -> dict[str, str]:
    dropped = {}
    for key, value in given.items():
        if key.startswith("losia_") and overlay["finetuning_type"] != "losia":
            dropped[key] = f"means nothing to --method {method}"
        elif key in METHOD_SWITCHES and value and key not in overlay:
            dropped[key] = f"chooses another method than --method {method}"
        elif key.startswith(OTHERS_KEYS) and overlay["finetuning_type"] == "losia":
            dropped[key] = f"means nothing to --method {method}"
    return dropped


def _find_data(values: dict[str, Any], given: Sequence[Layer]) -> None:
    folder = values.get("dataset_dir")
    if isinstance(folder, str) and not Path(folder, "dataset_info.json").is_file():
        for layer in reversed(given):
            beside = layer.path.absolute().parent / folder
            if (beside / "dataset_info.json").is_file():
                values["dataset_dir"] = str(beside)
                return


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
