"""Drives the method over optimizer steps: scores, selections, rates, masters, checkpoints."""

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from losia_cli.method import localization
from losia_cli.method.attach import find_targets, replace_linears
from losia_cli.method.config import LoSiAConfig, LoSiAError
from losia_cli.method.importance import GradientScore, Score, SensitivityScore
from losia_cli.method.linear import SubnetLinear
from losia_cli.method.movement import MovementCheck
from losia_cli.method.ranks import average_over_ranks, from_first_rank, smallest
from losia_cli.method.subnet import Subnet, carry_over_, overlap
from losia_cli.method.timeline import Timeline, automatic_period

logger = logging.getLogger(__name__)
STATE_KEY = "losia"
GROUP_KEY = "losia_group"


def attach(model: PreTrainedModel, config: LoSiAConfig | None = None) -> "LoSiAController":
    """Put LoSiA into `model`, in place, and return what drives it.

    Raises:
        LoSiAError: the model or a setting cannot work; the message says why.
    """
    return LoSiAController(model, config or LoSiAConfig())


@dataclass(frozen=True)
class Selection:
    """One re-selection: after `step`, the linear `name` of `group` got `subnet`."""

    step: int
    group: int
    name: str
    subnet: Subnet
    overlap: float


class LoSiAController:
    """What a training loop calls, in this order: `parameter_groups`, `drive`, `start`.

    Once `drive` has its hooks in the optimizer, everything happens in `optimizer.step()`: any
    torch optimizer, scheduler, gradient accumulation and clipping work as they are.

    Attributes:
        layers: the trained linears by name.
        groups: the names of each timeline group's linears.
        step: optimizer steps done.
        on_selection: called with each `Selection`.
        loss_scale: what the loss is multiplied with before backward (a GradScaler's scale).
    """

    def __init__(self, model: PreTrainedModel, config: LoSiAConfig) -> None:
        targets = find_targets(model, config)
        self.config = config
        self.layers: dict[str, SubnetLinear] = replace_linears(model, targets, config)
        self.groups: dict[int, list[str]] = defaultdict(list)
        for target in targets:
            if target.group is not None:
                self.groups[target.group].append(target.name)
        self.step = 0
        self.timeline: Timeline | None = None
        self.on_selection: list[Callable[[Selection], None]] = []
        self.loss_scale: Callable[[], float] = lambda: 1.0
        self._optimizer: Optimizer | None = None
        self._model = model
        self._chosen = "random" in (config.initial_subnet, config.localization)
        self._own_rates: list[float] = []
        self._check = MovementCheck(model, self.layers)
        self._resumed_scores: dict[str, dict[str, Tensor]] = {}

    # ------------------------------------------------------------------ setting a run up

    def parameter_groups(self, model: nn.Module | None = None) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: one per timeline group, then all the rest.

        The rest (an output layer trained in full, embeddings, norms, a value head) makes one group
        of matrices and one of vectors, which are not usually decayed.

        Args:
            model: the model that is trained, if it wraps the one attached to (a value head).
        """
        groups: list[dict[str, Any]] = [
            {"params": [self.layers[name].subnet for name in names], GROUP_KEY: group}
            for group, names in sorted(self.groups.items())
        ]
        grouped = {id(parameter) for group in groups for parameter in group["params"]}
        rest = [
            parameter
            for parameter in (model or self._model).parameters()
            if parameter.requires_grad and id(parameter) not in grouped
        ]
        matrices = [parameter for parameter in rest if parameter.dim() > 1]
        vectors = [parameter for parameter in rest if parameter.dim() <= 1]
        groups += [{"params": part, GROUP_KEY: None} for part in (matrices, vectors) if part]
        return groups

    def drive(self, optimizer: Optimizer) -> None:
        """Hook into `optimizer`, which was made from `parameter_groups`."""
        if any(GROUP_KEY not in group for group in optimizer.param_groups):
            raise LoSiAError("the optimizer was not made from LoSiAController.parameter_groups()")
        if self.drives(optimizer):
            raise LoSiAError("drive was called twice: the optimizer is driven already")
        self._optimizer = optimizer
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer.register_state_dict_post_hook(self._save)
        if type(optimizer).load_state_dict is Optimizer.load_state_dict:
            optimizer.register_load_state_dict_pre_hook(self._load)
        else:  # bitsandbytes' own calls no hooks
            load = optimizer.load_state_dict

            def load_state_dict(state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
                load(self._load(optimizer, state_dict), *args, **kwargs)

            optimizer.__dict__["load_state_dict"] = load_state_dict

    def drives(self, optimizer: Optimizer) -> bool:
        """Whether this is the optimizer that `drive` was given."""
        return optimizer is self._optimizer

    def start(self, total_steps: int, warmup_steps: int = 0) -> None:
        """Lay the timeline over a run of `total_steps` optimizer steps.

        Raises:
            LoSiAError: no optimizer is driven, or the first subnet is to be scored, and was not.
        """
        if self._optimizer is None:
            raise LoSiAError(
                "no optimizer is driven, without which no weight would change: call drive before"
                " start"
            )
        if not self._chosen:
            raise LoSiAError(
                "initial_subnet is 'scored': call score_first_subnets before start, or set it "
                "to 'random'"
            )
        fitting = automatic_period(total_steps, len(self.groups))
        period = fitting if isinstance(self.config.period, str) else self.config.period
        self.timeline = Timeline(
            groups=len(self.groups),
            period=period,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            schedule=self.config.schedule,
            rewarm=self.config.rewarm,
        )
        self._set_scores(self.step)
        never = self.timeline.never_reselected()
        if never and self.config.schedule != "static":
            shorter = f" (losia_period: auto would be {fitting})" if fitting < period else ""
            logger.warning(
                "%d of %d groups are never re-selected: %d steps hold less than one cycle of %d "
                "slots of %d steps%s",
                len(never), len(self.groups), total_steps, len(self.groups), period, shorter,
            )  # fmt: skip

    @property
    def needs_first_subnets(self) -> bool:
        """Whether `score_first_subnets` has to be called before `start`."""
        return not self._chosen

    def score_first_subnets(
        self,
        batches: Sequence[Any],
        loss: Callable[[Any], Tensor],
        memory: int | None = None,
        rounds: int = 1,
    ) -> None:
        """Choose every group's first subnet from the full gradients of a few batches.

        The batches are gone through as often as it takes to score all groups within `memory`, and
        `rounds` times if there are as many groups: the subnets are the same, and the scores that
        are held at a time fewer.

        Args:
            batches: what `loss` takes; one score update each.
            loss: from a batch to a scalar that can be differentiated.
            memory: bytes for scores; by default half of what is free on the weights' device.
            rounds: how often the batches may well be gone through.
        """
        waiting = sorted(self.groups)
        at_a_time = math.ceil(len(waiting) / rounds)
        free = free_memory(self._device()) // 2 if memory is None else memory
        budget = smallest(free, self._device())
        while waiting:
            now = self._fitting(waiting[:at_a_time], budget)
            try:
                self._score_on(now, batches, loss)
            except torch.OutOfMemoryError:
                self._forget_scores()
                if len(now) == 1:
                    raise
                at_a_time = len(now) // 2
                continue
            for chosen in now:
                self._reselect(chosen, step=-1)
            self._forget_scores()
            waiting = waiting[len(now) :]
        self._chosen = True

    # ------------------------------------------------------------------ one optimizer step

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        timeline = self._timeline()
        if _skipped(optimizer):
            self._drop_gradients()
        else:
            self._advance_scores(self.loss_scale())
        self._own_rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            if group[GROUP_KEY] is not None:
                group["lr"] = group["lr"] * timeline.rate_factor(self.step, group[GROUP_KEY])
        self._check.before(optimizer)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._own_rates, strict=True):
            group["lr"] = rate
        if _skipped(optimizer):
            self._check.forget()
        else:
            self._check.after()
        self._advance()

    def skip_step(self) -> None:
        """Let the timeline go on over a step that a loss scaler kept from the optimizer."""
        self._drop_gradients()
        self._advance()

    def _advance(self) -> None:
        for layer in self.layers.values():
            layer.scatter()
        for number in self._timeline().reselected_after(self.step):
            self._reselect(number, self.step)
        self.step += 1
        self._set_scores(self.step)

    def _drop_gradients(self) -> None:
        for _, score in self._scored():
            score.gradient.zero_()

    def _scored(self) -> list[tuple[SubnetLinear, Score]]:
        layers = self.layers.values()
        return [(layer, layer.score) for layer in layers if layer.score is not None]

    def _advance_scores(self, loss_scale: float) -> None:
        scored = self._scored()
        for _, score in scored:
            if loss_scale != 1:
                score.gradient /= loss_scale
            average_over_ranks(score.gradient)
        for (layer, score), finite in zip(scored, self._finite(), strict=True):
            if finite:
                score.advance(layer.weight.detach())
            else:
                score.gradient.zero_()

    def _finite(self) -> list[bool]:
        """Whether each score's gradient is: one answer from the device for all of them."""
        sums = [score.gradient.sum() for _, score in self._scored()]
        return torch.stack(sums).isfinite().tolist() if sums else []

    def _set_scores(self, step: int) -> None:
        """Give a score to the linears that are measured at `step`, and to no other."""
        timeline = self._timeline()
        measured = set(timeline.scored(step))
        if self.config.importance == "gradient" and not timeline.reselected_after(step):
            measured = set()  # only the slot's last gradient counts
        for group, names in self.groups.items():
            for name in names:
                layer = self.layers[name]
                if group not in measured or self.config.localization == "random":
                    layer.score = None
                elif layer.score is None:
                    layer.score = self._new_score(layer, self._resumed_scores.pop(name, {}))

    def _new_score(self, layer: SubnetLinear, state: dict[str, Tensor] | None = None) -> Score:
        like = torch.empty_like(layer.weight, dtype=layer.subnet.dtype)
        if self.config.importance == "gradient":
            return GradientScore(like)
        score = SensitivityScore(like, self.config.ema)
        for name, value in (state or {}).items():
            score.state()[name].copy_(value)
        return score

    # ------------------------------------------------------------------ selection

    @torch.no_grad()
    def _reselect(self, group: int, step: int) -> None:
        for position, name in enumerate(self.groups[group]):
            layer = self.layers[name]
            old, old_masters = layer.selected, layer.subnet.detach().clone()
            new = from_first_rank(self._choose(layer, (step, group, position)))
            layer.score = None  # of the slot that ends: a group that is alone is measured in all
            masters = layer.select(new)
            carry_over_(masters, new, old_masters, old)
            self._reset_state(layer, new, old)
            selection = Selection(step, group, name, new, overlap(new, old))
            for listener in self.on_selection:
                listener(selection)

    def _choose(self, layer: SubnetLinear, draw: tuple[int, int, int]) -> Subnet:
        rows = layer.subnet.shape[0]
        columns = None if layer.columns is None else layer.subnet.shape[1]
        if layer.score is None:  # random: the same draw at the same step, resumed or not
            seed = hash((self.config.seed, *draw)) % 2**63
            generator = torch.Generator().manual_seed(seed)
            return localization.random_subnet(layer.weight, rows, columns, generator)
        scores = layer.score.value()
        if not scores.any():  # nothing to choose by, as where every step of the slot was skipped
            return layer.selected
        if columns is None:
            return localization.best_rows(scores, rows)
        return localization.greedy(scores, rows, columns)

    def _reset_state(self, layer: SubnetLinear, new: Subnet, old: Subnet) -> None:
        if self._optimizer is None:
            return
        state = self._optimizer.state.get(layer.subnet)
        if not state:
            return
        # of the subnet's shape or, Adafactor's, of one of its sides; a count of steps has none
        tensors = {n: v for n, v in state.items() if isinstance(v, Tensor) and v.dim() > 0}
        # bitsandbytes': 8 bits times the largest of a block, zero with it; pages are never freed
        largest = [value for name, value in tensors.items() if name.startswith("absmax")]
        paged = any(getattr(value, "is_paged", False) for value in tensors.values())
        if self.config.reset == "fresh" and not largest and not paged:
            del self._optimizer.state[layer.subnet]
            return
        keeps = self.config.reset == "keep" and not paged  # pages are the processor's
        for value in largest or tensors.values():
            before = value.clone() if keeps and value.shape == layer.subnet.shape else None
            value.zero_()
            if before is not None:
                carry_over_(value, new, before, old)
        if self.config.reset == "fresh":
            state["step"] = 0

    # ------------------------------------------------------------------ the first subnet

    def _score_on(
        self, groups: Sequence[int], batches: Sequence[Any], loss: Callable[[Any], Tensor]
    ) -> None:
        for group in groups:
            for name in self.groups[group]:
                self.layers[name].score = self._new_score(self.layers[name])
        # |g| of all batches is one sum, which a scale would divide again and again
        scale = 1.0 if self.config.importance == "gradient" else self.loss_scale()
        for batch in batches:
            scale, fault = self._backward(batch, loss, scale)
            if not smallest(int(fault is None), self._device()):  # on any rank: all score alike
                raise torch.OutOfMemoryError(
                    f"a batch and the scores of {len(groups)} groups do not fit"
                    f" ({fault or 'on another rank'})"
                )
            self._advance_scores(scale)
        for parameter in self._model.parameters():
            parameter.grad = None

    def _backward(
        self, batch: Any, loss: Callable[[Any], Tensor], scale: float
    ) -> tuple[float, str | None]:
        """One batch's gradients, at a scale at which they are finite; else what did not fit."""
        try:
            (loss(batch) * scale).backward()
            while scale > 1 and not all(self._finite()):
                self._drop_gradients()
                scale /= 2
                (loss(batch) * scale).backward()
        except torch.OutOfMemoryError as error:
            return scale, str(error)  # the error itself would hold on to the memory
        return scale, None

    def _forget_scores(self) -> None:
        for layer in self.layers.values():
            layer.score = None

    def _fitting(self, groups: Sequence[int], budget: int) -> list[int]:
        """The first groups whose scores fit into `budget` bytes; at least one."""
        fitting: list[int] = []
        for group in groups:
            for name in self.groups[group]:
                layer = self.layers[name]
                budget -= 4 * layer.weight.numel() * layer.subnet.element_size()
            if budget < 0 and fitting:
                break
            fitting.append(group)
        return fitting

    def _device(self) -> torch.device:
        return next(iter(self.layers.values())).weight.device

    def _timeline(self) -> Timeline:
        if self.timeline is None:
            raise LoSiAError("call LoSiAController.start before the first optimizer step")
        return self.timeline

    # ------------------------------------------------------------------ checkpoints

    def _save(self, _: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        layers = {}
        for name, layer in self.layers.items():
            selected, score = layer.selected, layer.score
            entry = {"master": layer.subnet.detach().clone()}
            if selected.rows is not None:
                entry["rows"] = selected.rows
            if selected.columns is not None:
                entry["columns"] = selected.columns
            for part, value in (score.state() if score else {}).items():
                entry[f"score.{part}"] = value.clone()
            layers[name] = entry
        state_dict[STATE_KEY] = {"step": self.step, "chosen": self._chosen, "layers": layers}
        return state_dict

    @torch.no_grad()
    def _load(self, _: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state_dict = dict(state_dict)
        saved = state_dict.pop(STATE_KEY, None)
        if saved is None:
            raise LoSiAError("the optimizer's checkpoint holds no LoSiA state")
        self._refuse_other_shapes(saved["layers"])
        for name, entry in saved["layers"].items():
            layer = self.layers[name]
            device = layer.weight.device
            for part in ("rows", "columns"):
                if part in entry:
                    setattr(layer, part, entry[part].to(device))
            layer.subnet.copy_(entry["master"])
            self._resumed_scores[name] = {
                part.removeprefix("score."): value
                for part, value in entry.items()
                if part.startswith("score.")
            }
        self.step, self._chosen = saved["step"], saved["chosen"]
        if self.timeline is not None:
            self._forget_scores()
            self._set_scores(self.step)
        return state_dict

    def _refuse_other_shapes(self, saved: dict[str, dict[str, Tensor]]) -> None:
        ours = {name: tuple(layer.subnet.shape) for name, layer in self.layers.items()}
        theirs = {name: tuple(entry["master"].shape) for name, entry in saved.items()}
        if ours != theirs:
            name = next(n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n))
            raise LoSiAError(
                f"the checkpoint's subnet of {name} has the shape {theirs.get(name)}, but this "
                f"run's has {ours.get(name)}: resume with the settings it was made with"
            )


def free_memory(device: torch.device) -> int:
    """Bytes free on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _skipped(optimizer: Optimizer) -> bool:
    """Whether a loss scaler told the optimizer, which knows such, to leave this step out."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
