"""Barlow Twins' loss against Eqs. 1 and 2 of its paper, element by element, and the method against the function."""

import numpy as np
import pytest
import torch
from scipy import stats

from infomax.functional import split_diagonal
from infomax.methods.barlow import redundancy_loss
from infomax.recipes.building import build_optimizer
from infomax.recipes.registry import get_recipe
from losses_of_methods import LOSSES
from tiny import progress, tiny_method, tiny_views


@pytest.mark.parametrize("weight", [0.005, 0.3])
def test_the_loss_is_the_distance_of_pearson_correlations_from_the_identity(weight):
    arguments = LOSSES["barlow"].make(rows=9)
    z1, z2 = (x.numpy() for x in arguments.values())
    expected = 0.0
    for i in range(8):
        for j in range(8):
            correlation = stats.pearsonr(z1[:, i], z2[:, j]).statistic
            expected += (1 - correlation) ** 2 if i == j else weight * correlation**2
    assert float(redundancy_loss(**arguments, off_diagonal=weight, epsilon=1e-14)) == pytest.approx(expected, rel=1e-10)


def test_epsilon_is_added_to_the_biased_variance():
    z1, z2 = (x[:, :1] for x in LOSSES["barlow"].make(rows=6).values())
    (a, b), epsilon = (z1 - z1.mean(), z2 - z2.mean()), 0.5
    scales = [np.sqrt(float(x.square().sum()) / 6 + epsilon) for x in (a, b)]
    correlation = float((a * b).sum()) / 6 / (scales[0] * scales[1])
    assert float(redundancy_loss(z1, z2, epsilon=epsilon)) == pytest.approx((1 - correlation) ** 2, rel=1e-12)


def test_the_gradient_is_that_of_the_definition():
    """The definition is written with torch's own statistics, and differentiated by autograd."""
    arguments = {name: x.requires_grad_() for name, x in LOSSES["barlow"].make(rows=9).items()}
    redundancy_loss(**arguments, off_diagonal=0.2, epsilon=1e-3).backward()
    z1, z2 = (x.detach().clone().requires_grad_() for x in arguments.values())
    columns = [(z - z.mean(0)) / (z.var(0, correction=0) + 1e-3).sqrt() for z in (z1, z2)]
    correlation = torch.einsum("bi,bj->ij", *columns) / 9
    weights = torch.full((8, 8), 0.2).double().fill_diagonal_(1)
    (weights * (torch.eye(8) - correlation) ** 2).sum().backward()
    for actual, expected in zip(arguments.values(), (z1, z2), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_scale_and_shift_of_a_dimension_do_not_matter():
    z1, z2 = LOSSES["barlow"].make().values()
    moved = z1 * torch.linspace(1, 5, 8) + torch.arange(8)
    torch.testing.assert_close(redundancy_loss(moved, z2, epsilon=1e-12), redundancy_loss(z1, z2, epsilon=1e-12))


def test_small_correlations_keep_their_digits():
    """In float32 a difference of sums would leave nothing of squares that are 1e-10 of those on the diagonal."""
    matrix = torch.eye(64) * 100 + 1e-3 * (1 - torch.eye(64))
    diagonal, of_rows, of_columns = split_diagonal(matrix)
    assert diagonal.tolist() == [100] * 64
    for sums in (of_rows, of_columns):
        assert sums.tolist() == pytest.approx([63 * 1e-6] * 64, rel=1e-5)


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_averages_over_pairs_with_a_global_crop(global_crops, local_crops):
    method = tiny_method("barlow")
    method.global_crop_count, method.loss_scale = global_crops, 0.3
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    pairs = [(i, j) for i in range(len(z)) for j in range(i + 1, len(z)) if i < global_crops]
    expected = 0.3 * sum(redundancy_loss(z[i], z[j], off_diagonal=0.1) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


def test_biases_and_batch_norm_have_a_lower_rate_on_imagenet():
    recipe = get_recipe("barlow", "imagenet")
    method = tiny_method("barlow")
    optimizer = build_optimizer(method, recipe.optimizer)
    factors = {id(p): group["rate_factor"] for group in optimizer.param_groups for p in group["params"]}
    for parameter in method.parameters():
        assert factors[id(parameter)] == pytest.approx(1 if parameter.ndim > 1 else 0.0048 / 0.2)


@pytest.mark.parametrize(("global_crops", "crops"), [(2, 4), (3, 3)])
def test_the_gradient_is_the_mean_over_pairs_too(global_crops, crops):
    """A view of several pairs gets the sum of their gradients, and one without a gradient gets none."""
    method = tiny_method("barlow")
    method.global_crop_count = global_crops
    z = [torch.randn(9, 8, dtype=torch.float64).requires_grad_(view != 1) for view in range(crops)]
    trained = [x for x in z if x.requires_grad]
    pairs = [(i, j) for i in range(crops) for j in range(i + 1, crops) if i < global_crops]
    expected = torch.autograd.grad(
        sum(redundancy_loss(z[i], z[j], off_diagonal=0.1) for i, j in pairs) / len(pairs), trained
    )
    actual = torch.autograd.grad(method.compute_loss(z, [], ()).total, trained)
    torch.testing.assert_close(actual, expected)
