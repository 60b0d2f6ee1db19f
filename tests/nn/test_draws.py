"""Random numbers of a step against what their distribution says."""

import pytest
import torch
from scipy import stats

from infomax.nn.draws import draw_directions, draw_order

CPU = torch.device("cpu")
LIKE = torch.zeros(1, dtype=torch.float64)


def directions(dimension, count, seed=0, step=0):
    return draw_directions(dimension, count, seed=seed, step=step, like=LIKE)


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (0, 1), (1, 0), (2**40 + 3, 99_999)])
def test_directions_are_uniform_on_the_sphere(seed, step):
    """Of a uniform unit vector in 3 dimensions each coordinate is uniform; on a circle the angle is."""
    assert directions(3, 20_001, seed, step).norm(dim=0).sub(1).abs().max() < 1e-14
    for coordinate in directions(3, 20_001, seed, step):
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    x, y = directions(2, 20_001, seed, step)
    assert stats.kstest(torch.atan2(y, x), stats.uniform(-torch.pi, 2 * torch.pi).cdf).pvalue > 1e-3


@pytest.mark.parametrize("others", [{"step": 1}, {"seed": 1}, {"seed": 2**32}, {"step": 2**20}])
def test_another_step_or_seed_has_independent_directions(others):
    """Cosines of independent directions in d dimensions have the variance 1/d, within a step and between steps."""
    first, second = directions(64, 500), directions(64, 500, **others)
    assert ((first * second).sum(0).var() * 64 - 1).abs() < 0.3
    for cosines in (first.T @ second, (first.T @ first).fill_diagonal_(0)):
        assert (cosines.square().mean() * 64 - 1).abs() < 0.05
        assert cosines.abs().max() < 0.75


def test_a_step_in_a_tensor_and_another_dtype_have_the_same_directions():
    expected = directions(5, 7, seed=3, step=12)
    assert torch.equal(directions(5, 7, seed=3, step=torch.tensor(12.0, dtype=torch.float64)), expected)
    single = draw_directions(5, 7, seed=3, step=12, like=torch.zeros(1))
    assert torch.equal(single, expected.float())


def test_directions_are_the_same_in_every_version():
    """A run that is resumed by a later version goes on with the same numbers."""
    expected = torch.tensor(
        [[0.9724116529489207, -0.8735060012128366], [-0.23327146677025803, -0.4868133788682887]], dtype=torch.float64
    )
    torch.testing.assert_close(directions(2, 2, seed=1, step=2), expected)


def test_every_order_of_three_comes_equally_often():
    counts: dict[tuple, int] = {}
    for step in range(3000):
        order = tuple(draw_order(3, seed=0, step=step, device=CPU).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_an_order_holds_each_image_once():
    order = draw_order(4096, seed=0, step=7, device=CPU)
    assert torch.equal(order.sort().values, torch.arange(4096))
    assert stats.spearmanr(order, range(4096)).pvalue > 1e-3
