"""The files that come with the project: recipes, what they build on, what is laid over them."""

from functools import cache
from pathlib import Path

_PARTS = ("ablations/", "bases/", "methods/")


def project_recipes() -> Path:
    """The folder of the recipes that come with the project."""
    package = Path(__file__).parent.parent
    in_wheel = package / "_recipes"
    return in_wheel if in_wheel.is_dir() else package.parent / "recipes"


@cache
def files() -> tuple[str, ...]:
    """Every file by name, such as `quickstart` and `bases/llama2-7b`."""
    root = project_recipes()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return tuple(sorted(names))


def file(name: str) -> Path:
    """Where the file of this name is, or would be."""
    return project_recipes() / f"{name}.yaml"


def shipped() -> list[str]:
    """The recipes that `load` finds by name alone, such as `quickstart`."""
    return [name for name in files() if not name.startswith(_PARTS)]


def methods() -> list[str]:
    """The methods that can be laid over a recipe."""
    return [name.removeprefix("methods/") for name in files() if name.startswith("methods/")]


def ablations() -> list[str]:
    """LoSiA with one part changed, each laid over a recipe as a method is."""
    return [name for name in files() if name.startswith("ablations/")]


def overlay(method: str) -> Path:
    """The file of a method or an ablation."""
    return file(method if method.startswith("ablations/") else f"methods/{method}")


def shown(path: Path) -> str:
    """The path as the user knows it: a shipped file's is recipes/NAME.yaml, wherever it lies."""
    root = project_recipes()
    inside = path.absolute().is_relative_to(root)
    return str(Path("recipes") / path.absolute().relative_to(root)) if inside else str(path)
