"""Every knob of the method, validated, with the paper's symbol in its doc line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Importance = Literal["sensitivity", "gradient"]
Schedule = Literal["async", "sync", "static"]
Reset = Literal["moments", "fresh", "keep"]
Localization = Literal["greedy", "random"]
InitialSubnet = Literal["scored", "random"]


class LoSiAError(ValueError):
    """A setting, a model or a checkpoint the method cannot work with; the message says why."""


@dataclass(frozen=True)
class LoSiAConfig:
    """The settings of a LoSiA run.

    Attributes:
        rank_factor: p, the share of rows and of columns of each linear that is trained.
        output_factor: p_o, the share of the output layer's rows; 0 freezes it, 1 trains all of it.
        period: T, optimizer steps per time slot; "auto" derives it from the run's length.
        pro: LoSiA-Pro's backward (Eq. 9); the same update as LoSiA's from less memory and work.
        importance: "sensitivity" (Eq. 3 to 6) or "gradient" (the paper's GL).
        ema: beta_1 and beta_2 of Eq. 4 and 5.
        schedule: "async", one group per slot; "sync", all in one slot (SL); "static", never again.
        rewarm: raise a re-selected group's rate from zero (Eq. 8); False is the paper's w/o WDS.
        reset: optimizer state at a re-selection: "moments" to zero with the step count kept,
            "fresh" with the count cleared too, "keep" the moments of entries that stay selected.
        localization: "greedy" (Algorithm 1) or "random", the control.
        initial_subnet: "scored" on a few of the first batches, or "random" (the authors' code).
        target: last parts of the names of the linears to train, or "all" of the decoder layers'.
        train_norms: train the norms in full as well.
        train_embeddings: train the input embeddings in full as well.
        seed: of the random choices.
    """

    rank_factor: float = 0.125
    output_factor: float = 0.125
    period: int | Literal["auto"] = 100
    pro: bool = True
    importance: Importance = "sensitivity"
    ema: tuple[float, float] = (0.85, 0.85)
    schedule: Schedule = "async"
    rewarm: bool = True
    reset: Reset = "moments"
    localization: Localization = "greedy"
    initial_subnet: InitialSubnet = "scored"
    target: str | Sequence[str] = "all"
    train_norms: bool = False
    train_embeddings: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise a `LoSiAError` naming every value that is out of its range."""
        faults = []
        if not 0 < self.rank_factor <= 1:
            faults.append(f"rank_factor is {self.rank_factor}, but must be in (0, 1]")
        if not 0 <= self.output_factor <= 1:
            faults.append(f"output_factor is {self.output_factor}, but must be in [0, 1]")
        if self.period != "auto" and (not isinstance(self.period, int) or self.period < 1):
            faults.append(f"period is {self.period!r}, but must be a whole number >= 1 or 'auto'")
        if len(self.ema) != 2 or not all(0 <= beta < 1 for beta in self.ema):
            faults.append(f"ema is {self.ema}, but must be two numbers in [0, 1)")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                faults.append(
                    f"{name} is {getattr(self, name)!r}, but must be one of {get_args(choices)}"
                )
        if faults:
            raise LoSiAError("; ".join(faults))

    def wants(self, linear: str) -> bool:
        """Whether the linear with this dotted name is among `target`."""
        return "all" in self.targets or linear.rpartition(".")[2] in self.targets

    @property
    def targets(self) -> set[str]:
        """The names in `target`."""
        names = self.target.split(",") if isinstance(self.target, str) else self.target
        return {name.strip() for name in names}


_CHOICES = {
    "importance": Importance,
    "schedule": Schedule,
    "reset": Reset,
    "localization": Localization,
    "initial_subnet": InitialSubnet,
}
