"""A recipe's file, and the files that its `base` lays it over."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError, first_line
from losia_cli.recipes.shipped import file, files, shown
from losia_cli.spelling import did_you_mean

BASE = "base"
BROKEN_REFERENCE = "holds a ${...} that is no reference to another key; take it out"
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Layer:
    """What one file says itself, its `base` apart."""

    path: Path
    values: dict[str, Any]


def layers(path: Path) -> list[Layer]:
    """The file and all below it, lowest first; one that is named twice lies at its lowest place.

    Raises:
        UserError: a file that is missing or no recipe, or that builds on itself.
    """
    found: dict[Path, Layer] = {}
    _lay(path, (), found)
    return list(found.values())


def merged(found: Iterable[Layer]) -> dict[str, Any]:
    """The values of all layers: the last to name a key decides, mappings key by key."""
    values: dict[str, Any] = {}
    for layer in found:
        values = _over(values, layer.values)
    return values


def sources(found: Iterable[Layer]) -> dict[str, str]:
    """Key -> the file that its value comes from."""
    return {key: shown(layer.path) for layer in found for key in layer.values}


def header(path: Path) -> str:
    """The comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment)


def _lay(path: Path, above: tuple[Path, ...], found: dict[Path, Layer]) -> None:
    """Add the layers below `path`, then its own, to `found`; `above` are those that led here."""
    led = [each.resolve() for each in above]
    if path.resolve() in led:
        circle = [*above[led.index(path.resolve()) :], path]
        steps = ", which names ".join(shown(each) for each in circle[1:])
        raise UserError(f"{shown(circle[0])} builds on itself: its base names {steps}")
    if path.resolve() in found:
        return
    values = read(path)
    for name in _names(path, values.pop(BASE, [])):
        _lay(_find(name, path), (*above, path), found)
    found[path.resolve()] = Layer(path, values)


def _names(path: Path, base: Any) -> list[str]:
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{shown(path)}: {BASE} is {json.dumps(base)}; write the name of one recipe,"
            " or a list of names"
        )
    return names


def _find(name: str, above: Path) -> Path:
    beside = above.parent / name
    if beside.is_file():
        return beside
    if name in files():
        return file(name)
    advice = did_you_mean(name, files())
    else_give = f"; give a file's path from {above.parent}, or the name of a shipped recipe"
    raise UserError(f"{shown(above)}: there is no recipe {name} to build on{advice or else_give}")


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = below.get(key)
        mappings = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _over(below[key], value) if mappings else value
    return result


def read(path: Path) -> dict[str, Any]:
    """What a file holds, as LLaMA-Factory reads it.

    Raises:
        UserError: it is no recipe.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    where = shown(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{where} is no recipe: a recipe's name ends in .yaml, .yml or .json")
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
        raise UserError(f"{where} is not a text file: {first_line(error)}") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {key} {BROKEN_REFERENCE}") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{where} holds a list; a recipe is made of `key: value` lines")
    if not config:
        raise UserError(f"{where} is empty; a recipe is made of `key: value` lines")
    return {str(key): value for key, value in OmegaConf.to_container(config).items()}
