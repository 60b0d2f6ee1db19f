"""VICReg's loss against the equations of its code, term by term, and the method against the public function."""

import numpy as np
import pytest
import torch

from infomax.methods.vicreg import vicreg_loss
from losses_of_methods import LOSSES
from tiny import progress, tiny_method, tiny_views

WEIGHTS = ({}, {"invariance": 3.0, "variance": 5.0, "covariance": 7.0, "epsilon": 0.01})


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_loss_is_the_sum_of_its_terms(weights):
    arguments = {name: 0.6 * x for name, x in LOSSES["vicreg"].make(rows=9).items()}  # some deviations are below 1
    z1, z2 = (x.numpy() for x in arguments.values())
    expected = weights.get("invariance", 25) * ((z1 - z2) ** 2).mean()
    for z in (z1, z2):
        covariance = np.cov(z.T)
        deviations = np.sqrt(np.diag(covariance) + weights.get("epsilon", 1e-4))
        expected += weights.get("variance", 25) * np.maximum(0, 1 - deviations).mean() / 2
        expected += weights.get("covariance", 1) * sum(covariance[i, j] ** 2 for i, j in np.ndindex(8, 8) if i != j) / 8
    assert float(vicreg_loss(**arguments, **weights)) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_definition():
    arguments = {name: (0.6 * x).requires_grad_() for name, x in LOSSES["vicreg"].make(rows=9).items()}
    vicreg_loss(**arguments).backward()
    z1, z2 = (x.detach().clone().requires_grad_() for x in arguments.values())
    loss = 25 * torch.nn.functional.mse_loss(z1, z2)
    for z in (z1, z2):
        covariance = z.T.cov()
        loss = loss + 12.5 * torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()
        loss = loss + (covariance - covariance.diag().diag()).square().sum() / 8
    loss.backward()
    for actual, expected in zip(arguments.values(), (z1, z2), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_the_variance_term_is_the_mean_of_both_views():
    """solo-learn has twice this. Of constant embeddings both views' term is 1 - sqrt(epsilon)."""
    z = torch.zeros(4, 3)
    weights = {"invariance": 0.0, "covariance": 0.0, "variance": 1.0}
    assert float(vicreg_loss(z, z, **weights)) == pytest.approx(0.99)


def test_a_collapsed_batch_has_a_finite_gradient():
    z = torch.full((6, 4), 0.3, requires_grad=True)
    vicreg_loss(z, z.detach()).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_averages_over_pairs_with_a_global_crop(global_crops, local_crops):
    method = tiny_method("vicreg")
    method.global_crop_count = global_crops
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    pairs = [(i, j) for i in range(len(z)) for j in range(i + 1, len(z)) if i < global_crops]
    expected = sum(vicreg_loss(z[i], z[j]) for i, j in pairs) / len(pairs)
    loss = method(views, progress(0))
    torch.testing.assert_close(loss.total, expected)
    terms = loss.terms
    torch.testing.assert_close(25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"], loss.total)


@pytest.mark.parametrize(("global_crops", "crops"), [(2, 4), (3, 3)])
def test_the_gradient_is_the_mean_over_pairs_too(global_crops, crops):
    """A view of several pairs gets the sum of their gradients, and one without a gradient gets none."""
    method = tiny_method("vicreg")
    method.global_crop_count = global_crops
    z = [torch.randn(9, 8, dtype=torch.float64).requires_grad_(view != 1) for view in range(crops)]
    trained = [x for x in z if x.requires_grad]
    pairs = [(i, j) for i in range(crops) for j in range(i + 1, crops) if i < global_crops]
    expected = torch.autograd.grad(sum(vicreg_loss(z[i], z[j]) for i, j in pairs) / len(pairs), trained)
    actual = torch.autograd.grad(method.compute_loss(z, [], ()).total, trained)
    torch.testing.assert_close(actual, expected)
