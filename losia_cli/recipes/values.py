"""Whether a value read from YAML fits a dataclass field's type, and how to say that it does not."""

import math
from collections.abc import Iterator, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from losia_cli.spelling import did_you_mean

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    NoneType: "null",
}


def misfit(key: str, value: Any, hint: Any) -> str | None:
    """What `value` must be to fit the type `hint`, and what to write; None where it fits."""
    options = list(_options(hint))
    if any(_fits(value, option) for option in options):
        return None
    choices = [choice for option in options for choice in _choices(option)]
    kinds = [kind for kind in map(_kind, options) if kind]
    if choices:
        kinds.insert(0, f"one of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0]))
    written = "null" if value is None else repr(value)
    return f"must be {' or '.join(kinds)}, not {written}{_advice(key, value, options, choices)}"


def _options(hint: Any) -> Iterator[Any]:
    """The members of a union; text is none where an enumeration beside it says which text."""
    if get_origin(hint) not in (Union, UnionType):
        yield hint
        return
    members = list(get_args(hint))
    if any(isinstance(member, type) and issubclass(member, Enum) for member in members):
        members = [member for member in members if member is not str]
    for member in members:
        yield from _options(member)


def _choices(option: Any) -> list[str]:
    if get_origin(option) is Literal:
        return [str(choice) for choice in get_args(option)]
    if isinstance(option, type) and issubclass(option, Enum):
        return [str(member.value) for member in option]
    return []


def _fits(value: Any, option: Any) -> bool:
    origin, inside = get_origin(option) or option, get_args(option)
    if option is Any:
        return True
    if choices := _choices(option):
        return isinstance(value, str) and value in choices
    if option is bool:
        return isinstance(value, bool) or value in (0, 1)
    if option in (int, float):
        return isinstance(value, (int, option)) and not isinstance(value, bool)
    if origin is tuple:
        items = isinstance(value, list) and len(value) == len(inside)
        return items and all(map(_fits, value, inside))
    if origin in (list, Sequence):
        return isinstance(value, list) and all(_fits(item, inside[0]) for item in value)
    return origin in (str, dict, NoneType) and isinstance(value, origin)


def _kind(option: Any) -> str:
    origin, inside = get_origin(option) or option, get_args(option)
    if origin is tuple:
        return f"a list of {len(inside)} numbers"
    if origin in (list, Sequence):
        return "a list"
    return _KINDS.get(origin, "")


def _advice(key: str, value: Any, options: list[Any], choices: list[str]) -> str:
    """How to write what was probably meant."""
    if isinstance(value, str):
        if choices and (meant := did_you_mean(value, choices)):
            return meant
        if _is_number(value) and (int in options or float in options):
            return f"; leave out the quotes, {key}: {value}"
        if any(_kind(option) == "a list" for option in options):
            return f"; write {key}: [{value}]"
    elif value is False and "no" in choices:
        typed = f"on a command line '{key}=\"no\"'"
        return f'; YAML reads a bare no as false, so quote it, {key}: "no" ({typed})'
    elif isinstance(value, float) and value.is_integer() and int in options:
        return f"; write {key}: {int(value)}"
    elif isinstance(value, (int, float)) and str in options:
        return f'; put it in quotes, {key}: "{value}"'
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
