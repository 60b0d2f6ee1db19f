"""Forms of the papers' losses beside those that they train: objectives and bounds; and properties that they state."""

from itertools import pairwise
from math import log, pi

import pytest
import torch
from scipy.special import i0, i1
from torch.nn.functional import normalize

from infomax.functional import ld_mutual_information
from infomax.methods.base import Progress, Views
from infomax.methods.carl import kl_weight
from infomax.methods.corinfomax import CorInfoMaxLoss, recursive_statistics
from infomax.methods.mira import assign, assign_evenly, assignment_objective
from infomax.methods.mveb import balance_factor, conditional_entropy_bound
from infomax.methods.swav import sinkhorn
from infomax.recipes.corinfomax import CorInfoMaxSettings
from tiny import IMAGES, TINY, progress, tiny_encoder, tiny_method

LOGITS = {"temperature": 0.2, "beta": 0.6}


def cosines(rows=40, columns=6) -> torch.Tensor:
    return torch.rand(rows, columns, dtype=torch.float64) * 2 - 1


def test_miras_objective_is_eq_4_summed_by_hand():
    logits, w = cosines(5, 3), cosines(5, 3).softmax(1)
    p, mean = (logits / 0.2).softmax(1), w.mean(0)
    terms = -(w * p.log()).sum() / 5 + (1 - 0.6) / 5 * (w * w.log()).sum() + 0.6 * (mean * mean.log()).sum()
    assert assignment_objective(w, logits, **LOGITS).item() == pytest.approx(terms.item())


def test_miras_targets_minimise_the_objective_and_its_gradient_is_a_constant_a_row():
    logits = cosines()
    best = assign(logits, **LOGITS)
    least = assignment_objective(best, logits, **LOGITS)
    for scale in (0.01, 0.1, 1.0):
        other = (best.log() + scale * torch.randn_like(best)).softmax(1)
        assert assignment_objective(other, logits, **LOGITS) > least
    w = best.clone().requires_grad_()
    assignment_objective(w, logits, **LOGITS).backward()  # on the simplex: the KKT condition of Proposition 1
    assert (w.grad - w.grad.mean(1, keepdim=True)).abs().max() < 1e-6 * w.grad.abs().max()


def test_even_targets_minimise_the_objective_among_even_ones_and_are_swavs():
    logits = cosines()
    even = assign_evenly(logits, **LOGITS, iterations=500)
    torch.testing.assert_close(even.sum(0), torch.full((6,), 40 / 6).double())
    torch.testing.assert_close(even, sinkhorn(logits, epsilon=0.2 * 0.4, iterations=500))
    least = assignment_objective(even, logits, **LOGITS)
    assert least > assignment_objective(assign(logits, **LOGITS), logits, **LOGITS)
    for _ in range(20):  # to an even neighbour: what one row takes from a column, another gives
        (a, b), (j, k) = torch.randperm(40)[:2].tolist(), torch.randperm(6)[:2].tolist()
        other, step = even.clone(), 0.1 * min(even[a, j], even[b, k])
        other[a, j] -= step
        other[b, k] -= step
        other[a, k] += step
        other[b, j] += step
        assert assignment_objective(other, logits, **LOGITS) > least


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_miras_lemma_2_the_map_of_the_fixed_point_is_concave(beta):
    a = torch.rand(50, dtype=torch.float64)

    def h(x):
        return (a / x).mean() ** -beta

    for _ in range(50):
        x, y, t = torch.rand(50).double() + 1e-3, torch.rand(50).double() + 1e-3, torch.rand(1).item()
        assert h(t * x + (1 - t) * y) >= t * h(x) + (1 - t) * h(y) - 1e-12


def test_equipartition_needs_a_number_of_iterations():
    settings = type(TINY["mira-even"])(hidden=16, dimension=8, prototypes=12, iterations=None, equipartition=True)
    with pytest.raises(ValueError, match="iterations, with equipartition, must be"):
        settings.build(tiny_encoder())


def test_the_loss_by_mutual_information_is_that_of_the_batch_if_nothing_is_kept():
    z1 = normalize(torch.randn(30, 4, dtype=torch.float64)).requires_grad_()
    z2 = normalize(z1.detach() + 0.3 * torch.randn(30, 4)).requires_grad_()
    loss = CorInfoMaxLoss(4, forgetting=0.0, epsilon=1e-2, objective="ldmi")
    value = loss(z1, z2)
    expected = -ld_mutual_information(z1, z2, epsilon=1e-2)  # 4/D with D = 4
    assert value.item() == pytest.approx(expected.item())
    assert loss.mutual_information().item() == pytest.approx(-expected.item())
    gradients = torch.autograd.grad(value, [z1, z2])
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, [z1, z2]))


@pytest.mark.parametrize("global_crops", [2, 3, 4, 5])
def test_all_running_covariances_of_corinfomax_are_of_the_same_pairs(global_crops):
    """An odd crop in one of them alone would give a joint matrix that is no covariance, and a mutual information of
    NaN."""
    method, images = tiny_method("corinfomax"), torch.randn(IMAGES, 3, 8, 8, dtype=torch.float64)
    method.global_crop_count = global_crops
    for step in range(4):
        crops = [images + 0.3 * torch.randn_like(images) for _ in range(global_crops)]
        method(Views(crops, [], positions=torch.arange(IMAGES)), progress(step))
    criterion = method.criterion
    joint = torch.cat([torch.cat([criterion.R1, criterion.R12], 1), torch.cat([criterion.R12.T, criterion.R2], 1)])
    assert torch.linalg.eigvalsh(joint).min() > 0
    assert criterion.mutual_information() > 0


def test_the_old_statistics_of_corinfomax_are_held_constant():
    z, mean = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.zeros(3, dtype=torch.float64)
    covariance = torch.eye(3, dtype=torch.float64, requires_grad=True)
    new_mean, new_covariance = recursive_statistics(z, mean.requires_grad_(), covariance, 0.5)
    (new_mean.sum() + new_covariance.sum()).backward()
    assert z.grad is not None
    assert mean.grad is None
    assert covariance.grad is None


def test_the_gradient_of_miras_objective_is_minus_infinity_where_an_assignment_is_0():
    w = torch.eye(3, dtype=torch.float64).requires_grad_()
    assignment_objective(w, cosines(3, 3), **LOGITS).backward()
    assert w.grad.diagonal().isfinite().all()
    assert (w.grad[~torch.eye(3, dtype=torch.bool)] == -torch.inf).all()


def test_ldmi_is_invariant_to_a_linear_map_of_one_branch_and_the_taylor_loss_is_not():
    z1 = normalize(torch.randn(60, 4, dtype=torch.float64))
    turned = z1 @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    losses = {
        objective: [
            CorInfoMaxLoss(4, attraction=10.0, forgetting=0.0, objective=objective)(z1, z).item() for z in (z1, turned)
        ]
        for objective in ("ldmi", "taylor")
    }
    assert losses["ldmi"][0] == pytest.approx(losses["ldmi"][1])
    assert losses["taylor"][1] > losses["taylor"][0] + 1


def test_the_mutual_information_trains_and_refuses_local_crops():
    method = CorInfoMaxSettings(hidden=16, dimension=4, objective="ldmi", epsilon=8e-3).build(tiny_encoder())
    views = Views([torch.randn(12, 3, 8, 8) for _ in range(2)], [])
    loss = method(views, Progress(0, 10, 0))
    loss.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.projector.parameters() if p.ndim > 1)
    assert loss.terms["information"] == -loss.total
    with pytest.raises(ValueError, match="objective=ldmi has no attraction, in which alone local crops enter"):
        method.online(Views(views.global_crops, views.global_crops))


def test_branches_without_shared_weights_have_gradients_of_their_own():
    method = TINY["corinfomax-branches"].build(tiny_encoder())
    views = Views([torch.randn(12, 3, 8, 8) for _ in range(2)], [])
    method(views, Progress(0, 10, 0)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.second_branch.parameters() if p.ndim > 1)
    assert not torch.equal(method.second_branch[1][0].weight, method.projector[0].weight)
    before = [z.clone() for z in method.online(views)]
    with torch.no_grad():
        for p in method.second_branch.parameters():
            p.mul_(2)
    after = method.online(views)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("decay", ["linear", "exponential", "cosine"])
def test_decays_of_carls_weight_share_their_ends_and_fall_all_the_way(decay):
    weights = [kl_weight(epoch, start=4.0, end=1.5, epochs=100, decay=decay) for epoch in range(0, 201, 10)]
    assert (weights[0], weights[10], weights[20]) == (4.0, pytest.approx(1.5), pytest.approx(1.5))
    assert all(a > b for a, b in pairwise(weights[:11]))
    ratios = {round(b / a, 6) for a, b in pairwise(weights[:11])}
    assert (len(ratios) == 1) == (decay == "exponential")


def test_an_exponential_cannot_end_at_0_and_a_wrong_decay_is_named():
    with pytest.raises(ValueError, match="end must be"):
        kl_weight(0, start=1.0, end=0.0, epochs=9, decay="exponential")
    with pytest.raises(ValueError, match="decay must be one of linear, exponential, cosine"):
        kl_weight(0, start=1.0, end=0.0, epochs=9, decay="log")


def test_the_bound_is_the_entropy_of_a_von_mises_density_on_the_circle():
    kappa, generator = 3.0, torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        angles = torch.distributions.VonMises(torch.tensor(0.0).double(), torch.tensor(kappa).double()).sample(
            (20_000,)
        )
    around = 2 * pi * torch.rand(20_000, generator=generator, dtype=torch.float64)
    z2 = torch.stack([around.cos(), around.sin()], 1)
    z1 = torch.stack([(around + angles).cos(), (around + angles).sin()], 1)
    entropy = log(2 * pi * i0(kappa)) - kappa * i1(kappa) / i0(kappa)
    assert conditional_entropy_bound(z1, z2, concentration=kappa).item() == pytest.approx(entropy, abs=0.02)
    for other in (1.0, 9.0):  # with another concentration it is above
        assert conditional_entropy_bound(z1, z2, concentration=other) > entropy + 0.05


def test_the_bound_has_the_normalisation_of_the_sphere_in_three_dimensions():
    z = normalize(torch.randn(9, 3, dtype=torch.float64))
    kappa = torch.tensor(5.0).double()
    expected = -torch.log(kappa / (4 * pi * torch.sinh(kappa))) - kappa
    assert conditional_entropy_bound(z, z, concentration=5.0).item() == pytest.approx(expected.item())
    assert balance_factor(0.0, 5.0) == 0.2


def test_mvebs_eq_21_the_mean_squared_cosine_is_a_form_of_the_correlation_matrix():
    z = normalize(torch.randn(50, 7, dtype=torch.float64))
    correlation = z.T @ z / 50
    squared = (z @ z.T).square()
    torch.testing.assert_close(squared.mean(1), torch.einsum("nd,de,ne->n", z, correlation, z))
    assert squared.mean().item() == pytest.approx(correlation.square().sum().item())  # |F|^2, of the figure plane
