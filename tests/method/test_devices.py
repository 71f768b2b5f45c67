"""On a GPU: the same numbers, nothing that mixes devices, and few waits for it."""

from contextlib import nullcontext

import pytest
import torch

from losia_cli.method import LoSiAConfig, attach, controller, use_chunked_loss
from tests.models import batches, tiny
from tests.pretended_gpu import PretendedTensor, pretended_gpu, to_pretended_gpu, to_processor

STEPS, PERIOD, RESUMED = 12, 2, 5


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    monkeypatch.setattr(controller, "free_memory", lambda device: 2**30)


def trained(place, architecture, chunked, **settings):
    """Losses, waits for the device and final weights of a run that is resumed in the middle."""
    losses, waits, saved = part(place, range(RESUMED), None, architecture, chunked, settings)
    rest = part(place, range(RESUMED, STEPS), saved, architecture, chunked, settings)
    return losses + rest[0], waits + rest[1], rest[2][0]


def part(place, steps, saved, architecture, chunked, settings):
    model = tiny(architecture, torch.bfloat16)
    if saved:
        model.load_state_dict(saved[0])
    if place == "cuda":
        to_pretended_gpu(model)
    if chunked:
        use_chunked_loss(model)
    losses, waits = [], []
    with pretended_gpu() if place == "cuda" else nullcontext():
        data = [ids.to(place) for ids in batches(STEPS)]
        run = attach(model, LoSiAConfig(0.25, **{"period": PERIOD, **settings}))
        optimizer = torch.optim.AdamW(run.parameter_groups(), lr=1e-2)
        run.drive(optimizer)
        if saved:
            optimizer.load_state_dict(saved[1])
        elif run.needs_first_subnets:
            run.score_first_subnets(data[:2], lambda ids: model(ids, labels=ids).loss)
        run.start(STEPS)
        for step in steps:
            PretendedTensor.waits = 0
            loss = model(data[step], labels=data[step]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            waits.append(PretendedTensor.waits)
            losses.append(loss.item())
        return losses, waits, to_processor((dict(model.state_dict()), optimizer.state_dict()))


@pytest.mark.parametrize(
    ("architecture", "chunked", "settings"),
    [
        ("llama", True, {}),
        ("gemma", True, {}),
        ("gemma", False, {"reset": "keep", "output_factor": 1.0}),
        ("llama", False, {"pro": False, "importance": "gradient", "schedule": "sync"}),
        ("llama", True, {"localization": "random", "initial_subnet": "random", "reset": "fresh"}),
    ],
    ids=["llama", "tied", "keep", "ablations", "random"],
)
def test_a_gpu_gives_the_processors_numbers(architecture, chunked, settings):
    losses, _, weights = trained("cpu", architecture, chunked, **settings)
    losses_there, waits, weights_there = trained("cuda", architecture, chunked, **settings)
    assert losses_there == losses and len(set(losses)) == STEPS
    assert all(torch.equal(weights_there[name], weights[name]) for name in weights)
    # between selections: whether the scores are finite, how many tokens have a label
    assert max(waits[PERIOD::PERIOD]) <= 1 + chunked


def test_a_mixed_operation_is_refused():
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        assert (there + 1).device.type == "cuda" and (there + 1).tolist() == [2.0] * 3
        with pytest.raises(RuntimeError, match="aten::add mixes the GPU and the processor"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="aten::index mixes"):
            torch.ones(3)[torch.zeros(1, dtype=torch.long, device="cuda")]
        assert there[torch.zeros(1, dtype=torch.long)].device.type == "cuda"


@pytest.mark.parametrize(
    "wait",
    [
        lambda there: there.sum().item(),
        lambda there: there.tolist(),
        lambda there: there.cpu(),
        lambda there: there.to("cpu"),
        lambda there: torch.ones(3).copy_(there),
        lambda there: there[there > 0],
        lambda there: bool((there > 0).all()),
    ],
)
def test_what_waits_for_a_gpu_is_counted(wait):
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        (there + 1).mul_(2).sum()
        assert PretendedTensor.waits == 0
        found = wait(there)
        assert PretendedTensor.waits == 1
        assert not isinstance(found, torch.Tensor) or found.tolist() == [1.0] * 3
