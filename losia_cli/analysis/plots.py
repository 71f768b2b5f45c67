"""Pictures of what `losia analyze` finds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from losia_cli.analysis.selections import SIDES, History, frequency
from losia_cli.analysis.spectrum import Spectrum
from losia_cli.errors import UserError
from losia_cli.files import refuse_unwritable


def expect_drawable(path: Path | None) -> None:
    """Refuse a picture that cannot be written, before there is anything to draw.

    Raises:
        UserError: its type is none that is drawn, or its folder is not there.
    """
    if path is None:
        return
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UserError(f"--plot: {path} ends in none of {', '.join(sorted(known))}")
    refuse_unwritable(path)


def selections(drawn: Mapping[str, History], path: Path) -> None:
    """Write, for each run, when a neuron was selected (as Figure 3) and how often (as Figure 7).

    Args:
        drawn: a run's name -> one of its linears.
        path: of the picture.
    """
    figure = Figure(figsize=(14, 0.6 + 2.6 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), 4, squeeze=False)
    for line, (run, history) in zip(panels, drawn.items(), strict=True):
        for number, name in enumerate(SIDES):
            selected = getattr(history, name)
            over_time, often = line[number], line[2 + number]
            over_time.imshow(~selected, cmap="gray", aspect="auto", interpolation="nearest")
            over_time.set(xlabel=f"{name} of the weight", ylabel="subnet")
            shares = frequency(selected)
            often.bar(range(len(shares)), shares, width=1.0, color="C0")
            often.plot(shares.sort(descending=True).values, color="black", linewidth=1)
            often.set(xlabel=f"{name}; sorted in black", ylabel="share of subnets", ylim=(0, 1.05))
        line[0].set_title(f"{run}: {history.linear}", loc="left", fontsize="small")
    figure.savefig(path, dpi=120)


def spectra(found: Mapping[str, Sequence[Spectrum]], path: Path) -> None:
    """Write how alike singular vectors are to those of before, largest first, a line for a run.

    Args:
        found: a run's name -> its weights; a line is their mean, as far as all of them reach.
        path: of the picture.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for run, weights in found.items():
        reach = min(len(one.similarities) for one in weights)
        alike = torch.stack([one.similarities[:reach] for one in weights]).mean(0)
        axes.plot(range(1, reach + 1), alike, label=run, linewidth=1)
    axes.set(xlabel="singular vector after training", ylabel="largest cosine with one of before")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
