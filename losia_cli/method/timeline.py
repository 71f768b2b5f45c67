"""Which groups are scored and which are rewarming at an optimizer step: a pure function of it."""

from dataclasses import dataclass

from losia_cli.method.config import Schedule

AUTO_PERIOD_RANGE = (10, 150)
AUTO_CYCLES = 12


def automatic_period(total_steps: int, groups: int) -> int:
    """T such that each of `groups` is re-selected about twelve times, within 10 to 150 steps."""
    low, high = AUTO_PERIOD_RANGE
    return min(max(round(total_steps / (AUTO_CYCLES * groups)), low), high)


@dataclass(frozen=True)
class Timeline:
    """The asynchronous, periodic timeline of Section 3.3 and Figure 4.

    Time is cut into slots of `period` optimizer steps. In slot s the group s mod `groups` is
    scored; when the slot ends it is re-selected; during the next slot its rate rises from zero.
    A slot that ends at or after the last step is not scored, since nothing would come of it.
    (The text of Section 3.3 begins with layer 1 and ends a cycle with layer 0; the rule is that of
    the authors' code.)
    """

    groups: int
    period: int
    total_steps: int
    warmup_steps: int = 0
    schedule: Schedule = "async"
    rewarm: bool = True

    def scored(self, step: int) -> tuple[int, ...]:
        """The groups whose importance is being measured at `step`."""
        return self._scored_in(step // self.period)

    def reselected_after(self, step: int) -> tuple[int, ...]:
        """The groups that get a new subnet once `step` is done."""
        return self.scored(step) if (step + 1) % self.period == 0 else ()

    def rewarming(self, step: int) -> tuple[int, ...]:
        """The groups whose rate is being raised at `step`; none during the global warm-up."""
        if not self.rewarm or step <= self.warmup_steps:
            return ()
        return self._scored_in(step // self.period - 1)

    def rate_factor(self, step: int, group: int) -> float:
        """What Eq. 8 multiplies the scheduler's rate of `group` with at `step`."""
        return step % self.period / self.period if group in self.rewarming(step) else 1.0

    def never_reselected(self) -> tuple[int, ...]:
        """The groups that keep their first subnet because the run is too short for their turn."""
        slots = range(self.total_steps // self.period)
        reached = {group for slot in slots for group in self._scored_in(slot)}
        return tuple(group for group in range(self.groups) if group not in reached)

    def _scored_in(self, slot: int) -> tuple[int, ...]:
        ends_too_late = (slot + 1) * self.period >= self.total_steps
        if self.schedule == "static" or slot < 0 or ends_too_late:
            return ()
        turn = slot % self.groups
        if self.schedule == "sync":
            return tuple(range(self.groups)) if turn == 0 else ()
        return (turn,)
