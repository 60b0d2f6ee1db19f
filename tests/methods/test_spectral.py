"""The spectral contrastive loss against Eq. 6 of its paper, pair by pair."""

import pytest
import torch

from infomax.methods.spectral import spectral_loss
from losses_of_methods import LOSSES
from tiny import progress, tiny_method, tiny_views


def shortened(z, mu):
    return [x if float(x @ x) <= mu else x * (mu / float(x @ x)) ** 0.5 for x in z]


@pytest.mark.parametrize("mu", [0.3, 8.0, 100.0])  # all rows of LossCase, some and none are longer
def test_the_loss_is_equation_6_pair_by_pair(mu):
    arguments = LOSSES["spectral"].make(rows=5)
    z1, z2 = shortened(arguments["z1"], mu), shortened(arguments["z2"], mu)
    same = sum(float(x @ y) for x, y in zip(z1, z2, strict=True)) / 5
    other = sum(float(z1[i] @ z2[j]) ** 2 for i in range(5) for j in range(5) if i != j) / 20
    expected = (other - 2 * same) / mu
    assert float(spectral_loss(**arguments, mu=mu)) == pytest.approx(expected, rel=1e-12)


def test_the_sum_over_pairs_is_that_of_two_gram_matrices():
    arguments = LOSSES["spectral"].make(rows=7)
    z1, z2 = arguments["z1"], arguments["z2"]
    dots = (z1 * z2).sum(1)
    other = (((z1.T @ z1) * (z2.T @ z2)).sum() - dots.square().sum()) / 42
    torch.testing.assert_close(spectral_loss(z1, z2, mu=1e3), (other - 2 * dots.mean()) / 1e3)


def test_a_row_that_is_too_long_keeps_its_direction_and_has_no_gradient_along_it():
    z1, z2 = (10 * x for x in LOSSES["spectral"].make(rows=4).values())
    z1.requires_grad_()
    spectral_loss(z1, z2).backward()
    torch.testing.assert_close((z1.grad * z1).sum(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(spectral_loss(z1, z2), spectral_loss(3 * z1, z2))


def test_rows_of_zeros_have_a_loss_of_zero_and_a_gradient():
    z1, z2 = torch.zeros(3, 4, requires_grad=True), torch.eye(4)[:3]
    loss = spectral_loss(z1, z2)
    loss.backward()
    assert loss.detach() == 0
    torch.testing.assert_close(z1.grad, -2 / 3 * z2)


@pytest.mark.parametrize(
    ("crops", "pairs"),
    [((2, 0), [(0, 1)]), ((2, 1), [(0, 1), (0, 2), (1, 2)]), ((3, 0), [(0, 1), (0, 2), (1, 2)])],
)
def test_the_method_averages_pairs_with_a_global_crop(crops, pairs):
    method, views = tiny_method("spectral"), tiny_views(global_crops=crops[0], local_crops=crops[1])
    method.global_crop_count = crops[0]
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    expected = torch.stack([spectral_loss(z[i], z[j], mu=2.0) for i, j in pairs]).mean()
    torch.testing.assert_close(method(views, progress(0)).total, expected)
