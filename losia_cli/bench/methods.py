"""Every method as a training step in phases, all over the same base, loss and optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from losia_cli.bench import galore
from losia_cli.bench.clock import Phase
from losia_cli.bench.settings import FLOOR
from losia_cli.method import LoSiAConfig, LoSiAController, attach, use_chunked_loss
from losia_cli.method.attach import Target, find_targets

LORA_RANK = 64
STEPS_PER_TURN = 4
RATE = 1e-5


@dataclass(frozen=True)
class Row:
    """What is measured together: a method and its size.

    Attributes:
        method: one of `STEP_METHODS`, or the floor.
        scored: for LoSiA, whether a group is being scored.
        rank: of LoRA and DoRA.
        rank_factor: LoSiA's p.
        output_factor: LoSiA's p_o.
    """

    method: str
    scored: bool = False
    rank: int = LORA_RANK
    rank_factor: float = LoSiAConfig.rank_factor
    output_factor: float = LoSiAConfig.output_factor

    @property
    def name(self) -> str:
        """`METHOD` or `METHOD-scored`."""
        return f"{self.method}-scored" if self.scored else self.method


def rows(methods: Sequence[str]) -> list[Row]:
    """The floor and every method, LoSiA's both unscored and scored."""
    listed = [Row(FLOOR)]
    for method in methods:
        listed.append(Row(method))
        if _is_losia(method):
            listed.append(Row(method, scored=True))
    return listed


def install(row: Row, model: PreTrainedModel) -> tuple[nn.Module, LoSiAController | None]:
    """Put the row's method into `model`, all of whose parameters are frozen.

    The floor trains nothing. LoRA and DoRA are PEFT's, in every linear of the decoder layers, with
    float32 adapters. GaLore trains those linears and the output layer, all in full. LoSiA has the
    settings of the paper.
    """
    if row.method == FLOOR:
        return model, None
    if row.method == "full":
        return model.requires_grad_(True), None
    if row.method == "galore":
        galore.unfreeze(model)
        return model, None
    if row.method.endswith("-chunked"):
        use_chunked_loss(model)
    if not _is_losia(row.method):
        return _with_adapters(model, row), None
    return model, attach(model, _losia_config(row))


class TrainingStep:
    """One optimizer step of a row's method: forward, backward, update.

    Args:
        row: what to train.
        model: a copy of the base that this step may change.
        ids: token ids `(batch, tokens)`, their own labels.
        checkpointing: recompute activations in backward.
    """

    def __init__(
        self, row: Row, model: PreTrainedModel, ids: Tensor, checkpointing: bool = False
    ) -> None:
        if checkpointing:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        # As LLaMA-Factory does; and so that every row computes the input gradients of the floor.
        model.enable_input_require_grads()
        self._ids, self._dtype = ids, model.dtype
        self.model, self.controller = install(row, model)
        self.optimizer = self._optimizer(row)
        self._loss: Tensor | None = None
        if self.controller is not None:
            _start(self.controller, row.scored)

    @property
    def phases(self) -> tuple[Phase, Phase, Phase]:
        """What to run, in this order, for one step."""
        return self.forward, self.backward, self.update

    def forward(self) -> None:
        """The loss, under autocast if the base is in bfloat16."""
        mixed = self._dtype == torch.bfloat16
        with torch.autocast(self._ids.device.type, torch.bfloat16, enabled=mixed):
            output = self.model(input_ids=self._ids, labels=self._ids, use_cache=False)
        self._loss = output.loss

    def backward(self) -> None:
        """The gradients; nothing of the graph outlives it."""
        assert self._loss is not None
        self._loss.backward()
        self._loss = None

    def update(self) -> None:
        """The optimizer and, from its hooks, LoSiA's controller."""
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def _optimizer(self, row: Row) -> torch.optim.Optimizer | None:
        if row.method == "galore":
            galore.update_in_backward(self.model, RATE)
            return None
        if self.controller is not None:
            optimizer = torch.optim.AdamW(self.controller.parameter_groups(), RATE, fused=True)
            self.controller.drive(optimizer)
            return optimizer
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, RATE, fused=True) if trained else None


class FullGradient:
    """What scoring a group cannot do without: `dy^T x` of each of its linears, and nothing else.

    Args:
        targets: the group's linears.
        tokens: in a batch.
    """

    def __init__(self, targets: Sequence[Target], tokens: int) -> None:
        self._factors: list[tuple[Tensor, Tensor]] = []
        for target in targets:
            outputs, inputs = target.linear.weight.shape
            like = target.linear.weight.detach().new_empty
            self._factors.append((like(tokens, outputs).normal_(), like(tokens, inputs).normal_()))

    @property
    def phases(self) -> tuple[Phase]:
        """What to run for one step."""
        return (self.multiply,)

    def multiply(self) -> None:
        """The products, one after another."""
        for grad_y, x in self._factors:
            grad_y.t() @ x


def scored_group(model: PreTrainedModel) -> list[Target]:
    """The linears that are scored in the scored rows: the last decoder layer's."""
    targets = [t for t in find_targets(model, LoSiAConfig()) if t.group is not None]
    last = max(target.group for target in targets if target.group is not None)
    return [target for target in targets if target.group == last]


def _is_losia(method: str) -> bool:
    return method.startswith("losia")


def _with_adapters(model: PreTrainedModel, row: Row) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=row.rank,
        lora_alpha=2 * row.rank,
        target_modules="all-linear",
        use_dora=row.method == "dora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _losia_config(row: Row) -> LoSiAConfig:
    return LoSiAConfig(
        rank_factor=row.rank_factor,
        output_factor=row.output_factor,
        pro=row.method != "losia",
        schedule="async" if row.scored else "static",
        period=STEPS_PER_TURN + 1,  # no slot ends within a turn
        rewarm=False,
        initial_subnet="random",
    )


def _start(controller: LoSiAController, scored: bool) -> None:
    """Begin where no group is scored, or at the start of the last group's slot."""
    period, last = STEPS_PER_TURN + 1, max(controller.groups)
    controller.step = last * period if scored else 0
    controller.start(total_steps=(last + 1) * period + 1)
