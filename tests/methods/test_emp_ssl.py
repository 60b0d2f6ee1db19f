"""EMP-SSL's loss against numpy's determinants, and its signs against the paper's aim."""

import numpy as np
import pytest
import torch

from infomax.methods.emp_ssl import emp_ssl_loss, total_coding_rate
from infomax.recipes.registry import get_recipe
from tiny import progress, tiny_method, tiny_views


def make(rows=6, views=3, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(views)]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rate(z, epsilon):
    rows, width = z.shape
    u = unit(z)
    return np.linalg.slogdet(np.eye(width) + width / (rows * epsilon) * u.T @ u)[1] / 2


@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("epsilon", [0.2, 1.5])
def test_the_rate_is_that_of_numpy(rows, epsilon):
    (z,) = make(rows, views=1)
    assert total_coding_rate(z, epsilon=epsilon).item() == pytest.approx(rate(z.numpy(), epsilon), rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.2, 1.5])
@pytest.mark.parametrize("invariance", [0.0, 200.0])
def test_the_loss_is_the_mean_over_views_of_both_terms(invariance, epsilon):
    views = make()
    units = unit(np.stack(views))
    mean = units.mean(0)
    cosines = [
        u @ c / (np.linalg.norm(u) * np.linalg.norm(c)) for view in units for u, c in zip(view, mean, strict=True)
    ]
    expected = -np.mean([rate(z.numpy(), epsilon) for z in views]) - invariance * np.mean(cosines)
    assert emp_ssl_loss(views, invariance=invariance, epsilon=epsilon).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_definition():
    """Autograd differentiates the determinant and the cosine; the mean of the views has a gradient too."""
    views = [z.requires_grad_() for z in make()]
    units = torch.stack([z / z.norm(dim=1, keepdim=True) for z in views])
    rates = torch.logdet(torch.eye(8) + 8 / (6 * 0.2) * units.mT @ units) / 2
    cosine = torch.cosine_similarity(units, units.mean(0).expand_as(units), dim=2).mean()
    expected = torch.autograd.grad(-rates.mean() - 200 * cosine, views)
    torch.testing.assert_close(torch.autograd.grad(emp_ssl_loss(views), views), expected)


def test_more_volume_lowers_the_loss():
    """lightly 1.6.0 adds the rate where the paper subtracts it: embeddings of all images at one point would be best."""
    spread, together = torch.eye(4), torch.eye(4)[:1].repeat(4, 1) + 0.1 * torch.eye(4)
    loss, worse = emp_ssl_loss([spread, spread]), emp_ssl_loss([together, together])
    assert loss.item() == pytest.approx(-total_coding_rate(spread).item() - 200)
    assert loss < worse
    z = together.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(emp_ssl_loss([z, z]), z)
    assert total_coding_rate(together - 0.1 * gradient) > total_coding_rate(together)


def test_equal_rows_have_the_rate_of_one_direction_and_no_gradient():
    z = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64).repeat(7, 1).requires_grad_()
    loss = total_coding_rate(z)
    assert loss.item() == pytest.approx(np.log(1 + 3 / 0.2) / 2, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, torch.zeros_like(z))


def test_views_that_cancel_have_a_cosine_of_zero():
    z = torch.eye(3, dtype=torch.float64)
    views = [z.clone().requires_grad_(), (-z).requires_grad_()]
    loss = emp_ssl_loss(views)
    assert loss.item() == pytest.approx(-total_coding_rate(z).item())
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, views))


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_takes_all_views_alike(global_crops, local_crops):
    method = tiny_method("emp_ssl")
    method.global_crop_count = global_crops
    online = method.online(tiny_views(global_crops=global_crops, local_crops=local_crops))
    loss = method.loss(online, [], progress(0))
    torch.testing.assert_close(loss.total, emp_ssl_loss(online))
    torch.testing.assert_close(-loss.terms["coding_rate"], emp_ssl_loss(online, invariance=0.0))


def test_our_recipes_have_many_small_crops():
    for name, area in (("digits", (0.4, 0.6)), ("small", (0.25, 0.25))):
        crops = get_recipe("emp_ssl", name).views.global_crops
        assert len(crops) == 8
        assert {crop.scale for crop in crops} == {area}
