"""The quickstart's result on the terminal: one table, one example, what to try next."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any], trained: Path, command: str, console: Console) -> None:
    """Print the result; `command` is how the reader calls `losia`."""
    console.print()
    console.print(_table(result))
    example = result["example"]
    console.print("\nA held-out problem", style="bold")
    for title, text in (
        ("question", example["question"]),
        ("before", example["before"]),
        ("after", example["after"]),
    ):
        console.print(title, style="bold")
        console.print(text.strip(), style="dim")
    console.print("\nTry next", style="bold")
    for line, why in next_commands(trained, command):
        console.print(f"  {line}", style="cyan", soft_wrap=True)
        console.print(f"      {why}", style="dim")


def next_commands(trained: Path, command: str) -> list[tuple[str, str]]:
    """Three commands that work now, each with what it does."""
    return [
        (f"{command} chat {shlex.quote(str(trained))}", "talk to the taught model"),
        (f"{command} quickstart --compare", "the same by five methods, at up to three rates"),
        (f"{command} train llama2-7b-metamath --dry-run", "a run of the paper, and what it needs"),
    ]


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="What LoSiA-Pro taught the model", title_justify="left")
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    skill, known = ("new skill ({} problems)", "old skill ({} questions)")
    for key, name in (("skill", skill), ("known", known)):
        before, after = result["before"][key], result["after"][key]
        change = 100 * (after["value"] - before["value"])
        table.add_row(
            name.format(after["count"]), percent(before), percent(after), f"{change:+.1f}"
        )
    training = result["training"]
    trainable, total = training["trainable_parameters"], training["total_parameters"]
    table.add_section()
    for name, value in (
        ("trainable parameters", f"{trainable:,} ({100 * trainable / total:.1f} %)"),
        ("training", f"{training['steps']} steps, {training['seconds']:.0f} s"),
        ("all of it", f"{result['seconds']:.0f} s"),
        ("peak memory", f"{training['peak_memory_bytes'] / 1e9:.2f} GB"),
    ):
        table.add_row(name, "", value, "")
    return table


def percent(score: dict[str, Any]) -> str:
    """A score as `61.5 ± 5.0 %`."""
    return f"{100 * score['value']:.1f} ± {100 * score['stderr']:.1f} %"
