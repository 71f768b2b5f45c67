"""A recipe: LLaMA-Factory's YAML or JSON file, a method laid over it, `key=value` on top."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from losia_cli.errors import UserError
from losia_cli.recipes.needs import needs
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

# What is evaluated after training, and how: `losia eval` reads them from the run's record.
EVALUATION_KEYS: dict[str, Any] = {
    "eval_suites": list[str],
    "eval_data": str,
    "eval_limit": int | str,
    "eval_allow_code": bool | Literal["unsandboxed"],
    "eval_temperature": float,
    "eval_top_p": float,
}

_BROKEN_REFERENCE = "holds a ${...} that is no reference to another key; take it out"


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

    def method_settings(self) -> dict[str, Any]:
        """The `losia_*` keys as `LoSiAConfig`'s keyword arguments, lists as tuples."""
        return {
            key.removeprefix("losia_"): tuple(value) if isinstance(value, list) else value
            for key, value in self.values.items()
            if key.startswith("losia_")
        }

    def llamafactory_arguments(self) -> dict[str, Any]:
        """What LLaMA-Factory parses: everything but our keys; `finetuning_type` stays."""
        return {
            key: value
            for key, value in self.values.items()
            if not key.startswith("losia_") and key not in EVALUATION_KEYS
        }


def project_recipes() -> Path:
    """The folder of the recipes that come with the project."""
    package = Path(__file__).parent.parent
    in_wheel = package / "_recipes"
    return in_wheel if in_wheel.is_dir() else package.parent / "recipes"


def shipped() -> list[str]:
    """The recipes that `load` finds by name alone, such as `quickstart`."""
    root = project_recipes()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("methods/"))


def methods() -> list[str]:
    """The methods that can be laid over a recipe."""
    return sorted(path.stem for path in (project_recipes() / "methods").glob("*.yaml"))


def load(
    path_or_name: str | Path, method: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe, lay `recipes/methods/METHOD.yaml` over it, then `key=value` overrides.

    Values are read as LLaMA-Factory reads them (OmegaConf: `1e-4` is a number, `no` is false). A
    `dataset_dir` that is not found from here but beside the recipe becomes that absolute path.

    Raises:
        UserError: a file that is missing or no recipe, an unknown method, a malformed override.
            What the values say is not looked at here: see `check`.
    """
    from omegaconf import OmegaConf

    path = _find_recipe(path_or_name)
    given, typed = _read(path), _read_overrides(overrides)
    overlay: dict[str, Any] = {}
    dropped: dict[str, str] = {}
    if method is not None:
        overlay = _read(_find_method(method))
        dropped = _set_aside(given, overlay, method)

    kept = {key: value for key, value in given.items() if key not in dropped}
    merged = OmegaConf.merge(kept, overlay, typed)
    values = OmegaConf.to_container(merged)
    # LLaMA-Factory leaves "${...}" in a recipe as it is; only our overlays refer to other keys.
    values |= {key: merged[key] for key in overlay if OmegaConf.is_interpolation(merged, key)}
    _find_data(values, path)

    sources = dict.fromkeys(kept, _shown(path))
    sources |= dict.fromkeys(overlay, f"recipes/methods/{method}.yaml")
    sources |= dict.fromkeys(typed, COMMAND_LINE)
    return Recipe(path.absolute(), values, sources, dropped)


def describe(recipe: Recipe) -> "Table":
    """The resolved recipe to read: its header, each value with its source, what the run needs."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_header(recipe.path), style=""), title_justify="left")
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


def _find_recipe(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        if path.suffix not in (".yaml", ".yml", ".json"):
            raise UserError(f"{path} is no recipe: a recipe's name ends in .yaml, .yml or .json")
        return path
    if str(path_or_name) in shipped():
        return project_recipes() / f"{path_or_name}.yaml"
    else_one_of = f"; give the path of a file, or one of {', '.join(shipped())}"
    advice = did_you_mean(path.stem, shipped()) or else_one_of
    raise UserError(f"there is no recipe {path_or_name}{advice}")


def _find_method(name: str) -> Path:
    if name in methods():
        return project_recipes() / "methods" / f"{name}.yaml"
    advice = did_you_mean(name, methods()) or f"; give one of {', '.join(methods())}"
    raise UserError(f"there is no method {name}{advice}")


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    where = _shown(path)
    try:
        if path.suffix == ".json":
            config = OmegaConf.create(json.loads(path.read_text(encoding="utf-8")))
        else:
            config = OmegaConf.load(path)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}, {place} is not valid JSON: {error.msg}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}{place} is not valid YAML: {error.problem}") from error
    except (UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{where} is not a text file: {str(error).splitlines()[0]}") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {key} {_BROKEN_REFERENCE}") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{where} holds a list; a recipe is made of `key: value` lines")
    if not config:
        raise UserError(f"{where} is empty; a recipe is made of `key: value` lines")
    return {str(key): value for key, value in OmegaConf.to_container(config).items()}


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
            raise UserError(f"the override {text!r} {_BROKEN_REFERENCE}") from error
    return OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))


def _set_aside(given: dict[str, Any], overlay: dict[str, Any], method: str) -> dict[str, str]:
    dropped = {}
    for key, value in given.items():
        if key.startswith("losia_") and overlay["finetuning_type"] != "losia":
            dropped[key] = f"means nothing to --method {method}"
        elif key in METHOD_SWITCHES and value and key not in overlay:
            dropped[key] = f"chooses another method than --method {method}"
    return dropped


def _find_data(values: dict[str, Any], recipe: Path) -> None:
    folder = values.get("dataset_dir")
    if isinstance(folder, str) and not Path(folder, "dataset_info.json").is_file():
        beside = recipe.absolute().parent / folder
        if (beside / "dataset_info.json").is_file():
            values["dataset_dir"] = str(beside)


def _shown(path: Path) -> str:
    """The path as the user knows it: a shipped recipe's is recipes/NAME.yaml, wherever it lies."""
    root = project_recipes()
    inside = path.absolute().is_relative_to(root)
    return str(Path("recipes") / path.absolute().relative_to(root)) if inside else str(path)


def _header(path: Path) -> str:
    """The comment a recipe begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
