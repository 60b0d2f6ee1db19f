"""VISReg's regulariser against scipy, column by column, and its method against the equation of its loss."""

import numpy as np
import pytest
import torch
from scipy import stats

from infomax.methods.visreg import regulariser
from infomax.nn.draws import draw_directions
from losses_of_methods import DIRECTIONS
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def make(rows=12, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + scale * torch.randn(rows, 6, generator=generator, dtype=torch.float64)


def terms(z, directions, epsilon=1e-6):
    """Returns the deviation's, the shape's and the mean's term by loops over columns."""
    mean, deviation = z.mean(0), z.std(0) + epsilon
    quantiles = stats.norm.ppf(np.arange(1, len(z) + 1) / (len(z) + 1))
    shapes = [((np.sort((z - mean) / deviation @ a) - quantiles) ** 2).mean() for a in directions.T]
    return ((deviation - 1) ** 2).mean(), np.mean(shapes), (mean**2).mean()


@pytest.mark.parametrize("rows", [1, 2, 12, 25])
@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 2.0, 3.0)])
def test_the_regulariser_is_that_of_scipy(rows, weights):
    z = make(rows)
    expected = np.dot(weights, terms(z.numpy(), DIRECTIONS.numpy()))
    actual = regulariser(z, DIRECTIONS, **dict(zip(("scale", "shape", "centre"), weights, strict=True)))
    assert actual.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_each_sample_meets_its_own_quantile():
    """In the paper's Algorithm 1 the quantiles are a row, which meets columns instead where B = M, and else nothing."""
    z = torch.special.ndtri(torch.arange(1, 21, dtype=torch.float64) / 21)[:, None].repeat(1, 20)
    z = z * torch.ones(20)
    directions = torch.eye(20, dtype=torch.float64)
    deviation = z[:, 0].std(correction=0)
    expected = ((z[:, 0] / deviation - z[:, 0]) ** 2).mean()
    assert regulariser(z, directions, scale=0, centre=0).item() == pytest.approx(expected.item(), abs=1e-5)


def test_epsilon_stands_in_both_terms_and_is_small():
    """lightly 1.6.0 has 1e-4 in the shape's term and none in the deviation's."""
    z = make(scale=1e-3)
    for epsilon in (1e-6, 1e-3):
        expected = sum(terms(z.numpy(), DIRECTIONS.numpy(), epsilon))
        assert regulariser(z, DIRECTIONS, epsilon=epsilon).item() == pytest.approx(expected, rel=1e-12)
    assert regulariser(z, DIRECTIONS) == regulariser(z, DIRECTIONS, epsilon=1e-6)
    assert abs(regulariser(z, DIRECTIONS, epsilon=1e-4) - regulariser(z, DIRECTIONS)) > 1e-4


def test_the_gradient_is_that_of_the_definition_with_the_deviation_held_constant_in_the_shape():
    z = make().requires_grad_()
    mean, deviation = z.mean(0), z.std(0, correction=0) + 1e-6
    quantiles = torch.from_numpy(stats.norm.ppf(np.arange(1, 13) / 13))
    projections = (z - mean) / deviation.detach() @ DIRECTIONS
    order = projections.argsort(0)
    shape = (projections.gather(0, order) - quantiles[:, None]).square().mean()
    expected = 0.5 * (deviation - 1).square().mean() + 2 * shape + 3 * mean.square().mean()
    actual = regulariser(z, DIRECTIONS, scale=0.5, shape=2.0, centre=3.0)
    torch.testing.assert_close(torch.autograd.grad(actual, z), torch.autograd.grad(expected, z))


def test_equal_rows_have_a_deviation_of_zero_whatever_their_mean():
    rows = 3 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).expand(100, 8)
    directions = draw_directions(8, 16, seed=0, step=0, like=rows)
    assert regulariser(rows, directions) == pytest.approx(float(regulariser(rows.double(), directions.double())))


@pytest.mark.parametrize("point", [0.0, 0.7])
def test_equal_rows_are_driven_apart_by_a_finite_gradient(point):
    z = torch.full((12, 6), point, dtype=torch.float64, requires_grad=True)
    loss = regulariser(z, DIRECTIONS)
    (gradient,) = torch.autograd.grad(loss, z)
    assert gradient.isfinite().all()
    assert gradient.std(0).min() > 0
    quantiles = stats.norm.ppf(np.arange(1, 13) / 13)
    assert loss.item() == pytest.approx(1 + (quantiles**2).mean() + point**2, rel=1e-5)


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_predicts_all_views_from_the_mean_of_global_ones(global_crops, local_crops):
    method = tiny_method("visreg")
    method.global_crop_count, method.seed = global_crops, 3
    online = method.online(tiny_views(global_crops=global_crops, local_crops=local_crops))
    directions = draw_directions(8, 20, seed=3, step=5, like=online[0])
    centre = sum(online[:global_crops]) / global_crops
    distance = sum((z - centre).square().mean() for z in online) / len(online)
    penalty = sum(regulariser(z, directions) for z in online) / len(online)
    loss = method.loss(online, [], progress(5))
    torch.testing.assert_close(loss.total, 0.1 * distance + 0.9 * penalty)
    parameters = list(method.parameters())
    actual = torch.autograd.grad(loss.total, parameters, retain_graph=True)
    torch.testing.assert_close(actual, torch.autograd.grad(0.1 * distance + 0.9 * penalty, parameters))


def test_each_step_and_seed_has_its_own_directions():
    method = tiny_method("visreg")
    online = method.online(tiny_views())
    first, second = (method.loss(online, [], progress(step)).total for step in (0, 1))
    assert first != second
    assert method.loss(online, [], progress(0)).total == first
    method.seed = 1
    assert method.loss(online, [], progress(0)).total != first


def on_a_rank():
    import torch.distributed as dist

    method = tiny_method("visreg")
    online = [z[: 4 + 4 * dist.get_rank()].detach() for z in method.online(tiny_views())]
    return method.loss(online, [], progress(1)).total.item()


def test_ranks_have_one_loss_as_their_directions_are_equal():
    """In the official code each rank has directions of its own."""
    first, second = on_ranks(2, on_a_rank)
    assert first == second


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (DIRECTIONS[:5], "directions must have a row for each of the embeddings' 6 columns, but have 5"),
        (2 * DIRECTIONS, "directions must have columns of unit norm, but one is off by 1"),
    ],
)
def test_directions_that_do_not_fit_are_errors(directions, message):
    with pytest.raises(ValueError, match=message):
        regulariser(make(), directions)
