"""LeJEPA against numpy, a closed form and its definition, and the errors of other implementations that it must not
share."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from infomax.methods.lejepa import epps_pulley, lejepa_loss, sigreg_loss
from infomax.nn.draws import draw_directions
from losses_of_methods import DIRECTIONS, LOSSES
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def samples(rows=9, columns=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) + 0.3


def statistic(x, limit, knots):
    """Computes the statistic of one column with complex numbers, over both halves of the axis."""
    t = np.linspace(-limit, limit, 2 * knots - 1)
    gaussian = np.exp(-(t**2) / 2)
    characteristic = np.exp(1j * np.outer(t, x)).mean(1)
    return len(x) * np.trapezoid(np.abs(characteristic - gaussian) ** 2 * gaussian, t)


def definition(x, limit, knots):
    """Computes the statistics as the definition is written, for autograd."""
    t = torch.linspace(0, limit, knots, dtype=x.dtype)[:, None, None]
    gaussian = (-t.square() / 2).exp()[:, :, 0]
    error = ((t * x).cos().mean(1) - gaussian).square() + (t * x).sin().mean(1).square()
    return len(x) * 2 * torch.trapezoid(error * gaussian, t[:, 0, 0], dim=0)


@pytest.mark.parametrize(("limit", "knots"), [(3.0, 17), (5.0, 2), (0.5, 40)])
def test_the_statistic_is_that_of_complex_characteristic_functions(limit, knots):
    x = samples()
    expected = [statistic(column, limit, knots) for column in x.T.numpy()]
    assert epps_pulley(x, limit=limit, knots=knots).tolist() == pytest.approx(expected, rel=1e-12)


def test_with_many_knots_the_statistic_is_the_closed_form_of_the_integral():
    """Over the whole axis each term of the squared difference is a Gaussian integral."""
    (x,) = samples(columns=1).T.numpy()
    pairs = np.exp(-(np.subtract.outer(x, x) ** 2) / 2).mean() * math.sqrt(2 * math.pi)
    single = 2 * math.sqrt(math.pi) * np.exp(-(x**2) / 4).mean()
    expected = len(x) * (pairs - single + math.sqrt(2 * math.pi / 3))
    assert float(epps_pulley(samples(columns=1), limit=10.0, knots=400)[0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 9, 3000])
def test_gradients_are_those_of_the_definition(rows):
    x, weights = samples(rows).requires_grad_(), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(definition(x, 3.0, 17) @ weights, x)
    (actual,) = torch.autograd.grad(epps_pulley(x) @ weights, x)
    torch.testing.assert_close(actual, expected)


def test_in_single_precision_large_values_lose_few_digits():
    x = 20 * samples(rows=500)
    torch.testing.assert_close(epps_pulley(x.float()).double(), epps_pulley(x), rtol=1e-3, atol=0)


def test_of_normal_samples_the_statistic_does_not_grow_with_their_number_and_of_others_it_does():
    mean = [float(epps_pulley(samples(n, 2000) - 0.3).mean()) for n in (50, 800)]
    assert mean[1] == pytest.approx(mean[0], rel=0.1)
    uniform = torch.from_numpy(stats.uniform(-3, 6).rvs((800, 1), random_state=0))
    assert float(epps_pulley(uniform)) > 10 * mean[1]
    ratio = float(epps_pulley(uniform.repeat(4, 1)) / epps_pulley(uniform))
    assert ratio == pytest.approx(4, rel=1e-12)


def test_sigreg_is_the_mean_over_directions():
    z = LOSSES["sigreg"].make()["z"]
    expected = [statistic((z @ direction).numpy(), 3.0, 17) for direction in DIRECTIONS.T]
    assert float(sigreg_loss(z, DIRECTIONS)) == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("full", [1, 2, 3])
def test_the_loss_is_that_of_loops_over_views_and_images(full):
    views = LOSSES["lejepa"].make(rows=4)["views"]
    squares, sigreg = [], []
    for z in views:
        for image in range(4):
            centre = sum(view[image] for view in views[:full]) / full
            squares += ((z[image] - centre) ** 2).tolist()
        sigreg.append(float(sigreg_loss(z, DIRECTIONS)))
    expected = 0.98 * np.mean(squares) + 0.02 * np.mean(sigreg)
    assert float(lejepa_loss(views, DIRECTIONS, full=full, weight=0.02)) == pytest.approx(expected, rel=1e-12)


def test_the_centre_has_a_gradient():
    """Of two full views each has half the squared distance; with a constant centre its gradient would be the same, but
    a local view would not pull the full ones."""
    views = [z.requires_grad_() for z in LOSSES["lejepa"].make()["views"]]
    (gradient,) = torch.autograd.grad(lejepa_loss(views, DIRECTIONS, weight=0.0), views[0])
    centre = (views[0] + views[1]) / 2
    pulled = (views[0] - centre) - (views[2] - centre) / 2
    torch.testing.assert_close(gradient, pulled.detach() * 2 / (3 * views[0].numel()))


# Errors of other implementations.


def test_views_are_not_pooled():
    """Of two views that are shifted apart, the pool has the right mean, and neither of them has (lejepa#45)."""
    z = samples(200, 6) - 0.3
    views = [z + 1, z - 1]
    alone = [float(sigreg_loss(view, DIRECTIONS)) for view in views]
    assert float(lejepa_loss(views, DIRECTIONS, weight=1.0)) == pytest.approx(np.mean(alone), rel=1e-12)
    pooled = float(sigreg_loss(torch.cat(views), DIRECTIONS))
    assert abs(pooled - np.mean(alone)) > 0.2 * np.mean(alone)


def test_the_weights_of_both_terms_add_up_to_one():
    """stable-pretraining adds the weighted SIGReg to the whole distance (stable-pretraining#413)."""
    views = LOSSES["lejepa"].make()["views"]
    distance, sigreg = (lejepa_loss(views, DIRECTIONS, weight=weight) for weight in (0.0, 1.0))
    torch.testing.assert_close(lejepa_loss(views, DIRECTIONS, weight=0.3), 0.7 * distance + 0.3 * sigreg)
    assert float(sigreg) == pytest.approx(np.mean([float(sigreg_loss(z, DIRECTIONS)) for z in views]), rel=1e-12)


BEFORE = tiny_method("lejepa")
"""A method that is built before there are ranks."""
OUTPUTS = LOSSES["lejepa"].make(rows=10)["views"]


def outputs(rows: slice = slice(0, 10)) -> list[torch.Tensor]:
    return [torch.cat([z, z[:, :2]], dim=1)[rows].requires_grad_() for z in OUTPUTS]


def loss_at(step: int, seed: int = 0) -> float:
    BEFORE.seed = seed
    return BEFORE.loss(outputs(), [], progress(step)).total.item()


def loss_and_gradient(rows: slice) -> tuple[float, list]:
    online = outputs(rows)
    loss = BEFORE.loss(online, [], progress(5)).total
    loss.backward()
    return loss.item(), [z.grad.tolist() for z in online]


def on_a_rank() -> tuple[float, list]:
    import torch.distributed as dist

    return loss_and_gradient(slice(0, 3) if dist.get_rank() == 0 else slice(3, 10))


def test_ranks_are_counted_when_the_loss_is_computed_and_their_sums_have_gradients():
    """stable-pretraining looks for ranks when it is built, and then drops the sum over them, so that a rank's own
    statistic is multiplied by the images of all; in lightly the sum had no gradient (lightly#1920)."""
    value, gradients = loss_and_gradient(slice(0, 10))
    results = on_ranks(2, on_a_rank)
    assert [result[0] for result in results] == pytest.approx([value] * 2, rel=1e-12)
    for view, expected in enumerate(gradients):
        actual = torch.tensor([row for result in results for row in result[1][view]]) / 2
        torch.testing.assert_close(actual, torch.tensor(expected))
    local = loss_and_gradient(slice(0, 3))[0]
    assert abs(local - value) > 0.05 * value


# The method.


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_has_the_loss_of_all_views_on_directions_of_the_step(global_crops, local_crops):
    method, views = tiny_method("lejepa"), tiny_views(global_crops=global_crops, local_crops=local_crops)
    method.global_crop_count, method.seed = global_crops, 3
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    for step in (0, 7):
        directions = draw_directions(8, 20, seed=3, step=step, like=z[0])
        expected = lejepa_loss(z, directions, full=global_crops)
        torch.testing.assert_close(method(views, progress(step)).total, expected)


def test_each_step_and_seed_has_directions_of_its_own():
    assert loss_at(1) == loss_at(1)
    assert len({loss_at(0, seed=1), loss_at(1), loss_at(0)}) == 3


@pytest.mark.process
def test_one_graph_serves_all_steps():
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    expected = [loss_at(step) for step in (0, 1, 2)]  # before the loss is compiled, as it sets the seed
    torch.compiler.reset()
    compiled = torch.compile(BEFORE.compute_loss, fullgraph=True, dynamic=False, backend=counting)
    for step in (0, 1, 2):
        total = compiled(outputs(), [], torch.tensor([float(step)], dtype=torch.float64)).total
        assert total.item() == pytest.approx(expected[step], rel=1e-12)
    assert len(graphs) == 1
