"""SubnetLinear against autograd on the full weight, and what it keeps for backward."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from losia_cli.method.importance import GradientScore
from losia_cli.method.linear import SubnetLinear
from losia_cli.method.localization import random_subnet
from losia_cli.method.subnet import Subnet


def layer(outputs=12, inputs=10, rows=3, columns=4, dtype=torch.float64, bias=True, **kwargs):
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    chosen = random_subnet(
        torch.empty(outputs, inputs), rows, columns, torch.Generator().manual_seed(1)
    )
    return SubnetLinear(linear, chosen, **kwargs)


def saved_bytes(module, x):
    """Bytes that forward keeps for backward, parameters left out, each storage once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = module(x)
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values()), y


@settings(max_examples=40)
@given(
    st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]), st.data(),
)  # fmt: skip
def test_gradients_are_full_fine_tunings(outputs, inputs, pro, keep, bias, dtype, data):
    rows, columns = data.draw(st.integers(1, outputs)), data.draw(st.integers(1, inputs))
    ours = layer(outputs, inputs, rows, columns, dtype, bias, pro=pro, keep_input=keep)
    full = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    full.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, inputs, dtype=dtype)
    results = []
    for module in (ours, full):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y.float() ** 2).sum().backward()
        results.append((y, leaf.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
    expected = ours.selected.gather(full.weight.grad).to(ours.subnet.dtype)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(ours.subnet.grad, expected, **tolerance)
    assert ours.weight.grad is None


@pytest.mark.parametrize("pro", [True, False])
def test_gradcheck_of_the_input(pro):
    module = layer(pro=pro)
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


@pytest.mark.parametrize("pro", [True, False])
def test_subnet_gradient_is_the_numerical_one(pro):
    """Differences of the loss when a master moves and is scattered, as the optimizer does it."""
    module, x = layer(pro=pro), torch.randn(5, 10, dtype=torch.float64)

    def loss():
        return module(x).sin().sum()

    loss().backward()
    analytic, numerical, step = module.subnet.grad, torch.zeros(3, 4, dtype=torch.float64), 1e-6
    for i in range(3):
        for j in range(4):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    module.subnet[i, j] += sign * step
                    module.scatter()
                    values.append(loss().item())
                    module.subnet[i, j] -= sign * step
                    module.scatter()
            numerical[i, j] = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(analytic, numerical, rtol=1e-6, atol=1e-8)


def test_pro_keeps_at_most_its_share_of_the_input():
    x = torch.randn(64, 128, dtype=torch.bfloat16, requires_grad=True)
    factor = 1 / 8
    pro, plain = (
        saved_bytes(layer(96, 128, 12, 16, torch.bfloat16, bias=False, pro=pro), x)[0]
        for pro in (True, False)
    )
    assert plain == x.nbytes
    assert pro <= factor * plain + 8 * (12 + 16)


def test_no_cast_copy_of_the_weight_is_kept_under_autocast():
    module = layer(96, 128, 12, 16, torch.float32, bias=False)
    x = torch.randn(64, 128, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        kept, y = saved_bytes(module, x)
    assert y.dtype == torch.bfloat16
    assert kept <= 64 * 16 * 2 + 8 * (12 + 16)
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    assert module.subnet.grad.dtype == torch.float32


def test_autocast_agrees_with_the_plain_linear():
    module = layer(96, 128, 12, 16, torch.float32)
    plain = nn.Linear(128, 96)
    plain.load_state_dict(module.state_dict())
    x = torch.randn(64, 128)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = module(x), plain(x)
        (ours.sum() + theirs.sum()).backward()
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(
        module.subnet.grad, module.selected.gather(plain.weight.grad), rtol=2e-2, atol=2e-2
    )


def test_without_gradients_nothing_is_kept():
    module, x = layer(), torch.randn(5, 10, dtype=torch.float64)
    with torch.no_grad():
        kept, y = saved_bytes(module, x)
    assert kept == 0
    assert not y.requires_grad


@pytest.mark.parametrize("pro", [True, False])
def test_scored_layer_gathers_the_full_gradient_over_micro_batches(pro):
    module = layer(pro=pro)
    module.score = GradientScore(torch.empty_like(module.weight))
    full = nn.Linear(10, 12, dtype=torch.float64)
    full.load_state_dict(module.state_dict())
    for _ in range(2):
        x = torch.randn(5, 10, dtype=torch.float64)
        module(x).square().sum().backward()
        full(x).square().sum().backward()
    torch.testing.assert_close(module.score.gradient, full.weight.grad)
    torch.testing.assert_close(module.subnet.grad, module.selected.gather(full.weight.grad))


def test_state_dict_is_the_plain_linears():
    module = layer()
    assert list(module.state_dict()) == ["weight", "bias"]
    other = layer()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(other.weight, module.weight)


def test_masters_keep_what_bfloat16_would_round_away():
    module = layer(dtype=torch.bfloat16)
    tiny = 1e-5
    start = module.subnet.detach().clone()
    with torch.no_grad():
        for _ in range(4000):
            module.subnet += tiny
    module.scatter()
    assert module.subnet.dtype == torch.float32
    expected = (start + 4000 * tiny).to(torch.bfloat16)
    torch.testing.assert_close(
        module.selected.gather(module.weight), expected, rtol=1e-2, atol=1e-3
    )


def test_all_rows_or_all_columns():
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, dtype=torch.float64)
    full = copy.deepcopy(linear)
    x = torch.randn(4, 6, dtype=torch.float64)
    full(x).square().sum().backward()
    for chosen in (Subnet(None, None), Subnet(torch.tensor([1, 3]), None)):
        module = SubnetLinear(copy.deepcopy(linear), chosen)
        module(x).square().sum().backward()
        torch.testing.assert_close(module.subnet.grad, chosen.gather(full.weight.grad))
