"""`python -m losia_cli.bench step [KEY=VALUE ...]`, `sizes [...]` or `memory [...]`.

The keys are `losia bench`'s options: `model=llama2-7b checkpointing=true json=FILE`. This needs no
package beyond torch, transformers and peft.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from losia_cli.attention import put_cudnn_last
from losia_cli.bench import command
from losia_cli.bench.settings import SIZE_DEFAULTS, StepSettings
from losia_cli.errors import UserError
from losia_cli.spelling import did_you_mean


def main(words: Sequence[str]) -> int:
    """Run the benchmark that `words` name; the exit code."""
    put_cudnn_last()
    try:
        _run(words)
    except UserError as error:
        print(f"losia: {error}", file=sys.stderr)
        return 2
    return 0


def _run(words: Sequence[str]) -> None:
    benchmark, *pairs = words or [""]
    if benchmark in _STEPS:
        values = _read(pairs, _STEP | _JSON)
        json_file = values.pop("json", None)
        run, defaults = _STEPS[benchmark]
        run(replace(defaults, **values), json_file, print, _progress)
    elif benchmark == "memory":
        values = _read(pairs, _MEMORY | _JSON)
        command.memory(values.get("methods", ()), values.get("json"), print, _progress)
    else:
        raise UserError(
            f"unknown benchmark {benchmark!r}: name step, sizes or memory, then KEY=VALUE"
        )


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _read(pairs: Sequence[str], readers: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in readers:
            hint = did_you_mean(key, readers)
            raise UserError(f"unknown setting {pair!r}{hint} (KEY=VALUE of {', '.join(readers)})")
        try:
            values[key] = readers[key](value)
        except (ValueError, KeyError) as error:
            raise UserError(f"{key} cannot be {value!r}") from error
    return values


def _names(value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


def _truth(value: str) -> bool:
    return {"true": True, "false": False}[value.lower()]


_STEPS = {"step": (command.step, StepSettings()), "sizes": (command.sizes, SIZE_DEFAULTS)}
_JSON: dict[str, Callable[[str], Any]] = {"json": Path}
_MEMORY: dict[str, Callable[[str], Any]] = {"methods": _names}
_STEP: dict[str, Callable[[str], Any]] = {
    "model": str,
    "methods": _names,
    "batch": int,
    "tokens": int,
    "repeats": int,
    "dtype": str,
    "checkpointing": _truth,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
