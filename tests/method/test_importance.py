"""Eq. 3 to 6, step by step and by hand."""

import torch
from pytest import approx

from losia_cli.method.importance import GradientScore, SensitivityScore, sensitivity


def test_sensitivity_is_eq_3():
    gradient, weight = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([3.0, 4.0, 0.0])
    # |6 - 18|, |-4 - 8|, 0
    assert sensitivity(gradient, weight).tolist() == [12.0, 12.0, 0.0]


def test_score_is_eq_4_to_6_over_two_steps():
    weight = torch.ones(1, 1)
    score = SensitivityScore(torch.empty(1, 1), betas=(0.5, 0.8))
    for gradient in (1.0, 0.2):
        score.gradient += gradient
        score.advance(weight)
    first, second = 0.5, 0.2 - 0.02
    smoothed_1 = 0.5 * first
    uncertainty_1 = 0.2 * abs(first - smoothed_1)
    smoothed_2 = 0.5 * smoothed_1 + 0.5 * second
    uncertainty_2 = 0.8 * uncertainty_1 + 0.2 * abs(second - smoothed_2)
    assert score.value().item() == approx(smoothed_2 * uncertainty_2, rel=1e-6)
    assert score.gradient.item() == 0


def test_micro_batches_add_up_before_the_averages_move():
    weight = torch.tensor([[0.7, -1.2]])
    parts, whole = (SensitivityScore(torch.empty(1, 2), (0.85, 0.85)) for _ in range(2))
    for gradient in ([[0.1, 0.3]], [[0.4, -0.1]]):
        parts.gradient += torch.tensor(gradient)
        whole.gradient += torch.tensor(gradient)
    parts.advance(weight)
    whole.advance(weight)
    assert torch.equal(parts.value(), whole.value())


def test_gradient_score_is_the_size_of_the_gradient():
    score = GradientScore(torch.empty(1, 2))
    score.gradient += torch.tensor([[-3.0, 2.0]])
    score.advance(torch.zeros(1, 2))
    assert score.value().tolist() == [[3.0, 2.0]]
    assert score.state() == {}
