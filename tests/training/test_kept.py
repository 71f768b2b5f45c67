"""What is kept for backward, against arithmetic on layers small enough for it."""

import gc

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from losia_cli.training.kept import KeptForBackward, SavedTensors

ROWS, WIDTH = 3, 16
ONE = ROWS * WIDTH * 4  # bytes of one float32 activation


class Model(nn.Module):
    """Three linears with a tanh between: the inputs of the trained ones and both tanhs are kept."""

    def __init__(self, trained=(0, 1, 2)):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        for index, linear in enumerate(self.linears):
            linear.requires_grad_(index in trained)

    def forward(self, x, labels=None):
        first, second, third = self.linears
        y = third(torch.tanh(second(torch.tanh(first(x)))))
        return {"loss": y.sum(), "logits": y}


def kept(model, x):
    with SavedTensors() as saved:
        y = model(x)
    count = saved.nbytes(model.parameters())
    y["loss"].backward()
    return count, saved.nbytes(model.parameters())


def test_each_storage_counts_once_and_weights_do_not():
    x = torch.randn(ROWS, WIDTH)
    # x for the first weight; each tanh's result serves the tanh and the weight after it
    assert kept(Model(), x) == (3 * ONE, 0)
    # of a frozen beginning nothing is kept: the last linear alone keeps its input
    assert kept(Model(trained=[2]), x) == (ONE, 0)
    # what is frozen at the end lets the gradient through
    assert kept(Model(trained=[0]), x) == (3 * ONE, 0)


def test_a_view_is_its_storage():
    x = torch.randn(ROWS, 2 * WIDTH)[:, :WIDTH]
    assert kept(Model(trained=[0]), x)[0] == 2 * ONE + 2 * ONE


def trained(tmp_path, *callbacks, **arguments):
    torch.manual_seed(0)
    model = Model()
    data = [{"x": torch.randn(WIDTH), "labels": torch.zeros(1)} for _ in range(8 * ROWS)]
    settings = TrainingArguments(
        tmp_path, per_device_train_batch_size=ROWS, max_steps=4, use_cpu=True, report_to=[],
        save_strategy="no", **arguments,
    )  # fmt: skip
    Trainer(model, settings, train_dataset=data, callbacks=[*callbacks]).train()
    return model


def test_a_training_counts_its_first_forward_pass_and_is_not_changed_by_it(tmp_path):
    count = KeptForBackward()
    watched = trained(tmp_path, count, gradient_accumulation_steps=2)
    assert count.nbytes == 3 * ONE
    assert not watched._forward_hooks
    assert not watched._forward_pre_hooks
    plain = trained(tmp_path, gradient_accumulation_steps=2)
    for one, other in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_pass_that_fails_leaves_nothing_watched_and_the_next_counts(tmp_path):
    count, model = KeptForBackward(), Model()
    arguments = TrainingArguments(tmp_path, use_cpu=True)
    count.on_step_begin(arguments, TrainerState(), TrainerControl(), model=model)
    with pytest.raises(RuntimeError):
        model(torch.randn(ROWS, WIDTH + 1))
    assert count.nbytes is None
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    y = model(torch.randn(ROWS, WIDTH))
    assert count.nbytes == 3 * ONE
    assert not model._forward_hooks
    y["loss"].backward()


def test_a_pass_that_fails_and_none_that_follows_holds_no_activation():
    """A training that is tried again with smaller batches has the memory of the larger one."""
    saved = SavedTensors()
    with saved:
        y = Model()(torch.randn(ROWS, WIDTH))
    assert saved.nbytes(()) > 0
    del y
    gc.collect()
    assert saved.nbytes(()) == 0


def test_under_checkpointing_there_is_no_such_count(tmp_path):
    count = KeptForBackward()
    model = Model()
    model.linears[1].gradient_checkpointing = True  # as transformers marks its layers
    arguments = TrainingArguments(tmp_path, use_cpu=True)
    count.on_step_begin(arguments, TrainerState(), TrainerControl(), model=model)
    assert not model._forward_hooks
