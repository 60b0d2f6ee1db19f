"""UniGrad against the gradient of its paper, row by row, and the order in which its state moves."""

import copy

import pytest
import torch

from infomax.methods.unigrad import unigrad_loss, update_correlation
from losses_of_methods import LOSSES
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views

ARGUMENTS = LOSSES["unigrad"].make(rows=5)
CORRELATION = LOSSES["unigrad"].whole["correlation"]


def unit(x):
    return x / x.norm()


def test_the_loss_is_that_of_loops():
    z1, z2, t1, t2 = ([unit(row) for row in ARGUMENTS[name]] for name in ("z1", "z2", "target1", "target2"))
    total = 0.0
    for z, t in ((z1, t2), (z2, t1)):
        for a, b in zip(z, t, strict=True):
            total += float(-a @ b + 7.0 / 2 * (a @ CORRELATION @ a)) / 5 / 2
    assert float(unigrad_loss(**ARGUMENTS, correlation=CORRELATION, weight=7.0)) == pytest.approx(total, rel=1e-12)


def test_the_gradient_is_the_papers_unified_form():
    """With respect to a unit row z it is (-t + weight F z) / 2B; what the official code's surrogate has too."""
    _, z2, t1, t2 = (torch.stack([unit(row) for row in ARGUMENTS[name]]) for name in ARGUMENTS)
    raw = ARGUMENTS["z1"].clone().requires_grad_()
    loss = unigrad_loss(raw, z2, t1, t2, CORRELATION, weight=7.0)
    (actual,) = torch.autograd.grad(loss, raw)
    leaf = ARGUMENTS["z1"].clone().requires_grad_()
    u = leaf / leaf.norm(dim=1, keepdim=True)
    direction = (-t2 + 7.0 * u @ CORRELATION).detach()
    surrogate = (direction * u).sum(1).mean() / 2
    (expected,) = torch.autograd.grad(surrogate, leaf)
    torch.testing.assert_close(actual, expected)
    # The surrogate has the second term twice: its value is another one.
    other = (-(z2 * t1).sum(1) + 7.0 * (z2 @ CORRELATION * z2).sum(1)).mean() / 2
    assert abs(float((surrogate + other - loss).detach())) > 0.1


def test_the_correlation_is_a_running_mean_of_outer_products():
    targets = [ARGUMENTS["target1"], ARGUMENTS["target2"]]
    outer = sum(torch.outer(unit(row), unit(row)) for t in targets for row in t) / 10
    torch.testing.assert_close(update_correlation(None, *targets), outer)
    expected = 0.8 * CORRELATION + 0.2 * outer
    torch.testing.assert_close(update_correlation(CORRELATION, *targets, momentum=0.8), expected)
    assert float(update_correlation(None, *targets).trace()) == pytest.approx(1, rel=1e-12)


def correlation_of_a_rank(parts: list[int]) -> list:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    t1, t2 = (ARGUMENTS[name][start : start + parts[dist.get_rank()]] for name in ("target1", "target2"))
    return update_correlation(CORRELATION, t1, t2, momentum=0.5).tolist()


def test_ranks_have_the_correlation_of_the_global_batch():
    expected = update_correlation(CORRELATION, ARGUMENTS["target1"], ARGUMENTS["target2"], momentum=0.5)
    for result in on_ranks(2, correlation_of_a_rank, [1, 4]):
        torch.testing.assert_close(torch.tensor(result, dtype=torch.float64), expected)


def test_errors_name_the_argument():
    t1, t2 = ARGUMENTS["target1"], ARGUMENTS["target2"]
    with pytest.raises(ValueError, match="momentum"):
        update_correlation(None, t1, t2, momentum=1.5)
    with pytest.raises(ValueError, match="correlation"):
        update_correlation(torch.eye(3), t1, t2)
    with pytest.raises(ValueError, match="target2"):
        update_correlation(None, t1, t2[:, :3])
    with pytest.raises(ValueError, match="correlation"):
        unigrad_loss(**ARGUMENTS, correlation=torch.eye(3))


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_updates_the_correlation_before_the_loss(global_crops, local_crops):
    method, seeds = tiny_method("unigrad"), range(3)
    method.global_crop_count, correlation = global_crops, None
    for step in seeds:
        views = tiny_views(global_crops=global_crops, local_crops=local_crops, seed=step)
        fresh = copy.deepcopy(method)
        online = fresh.online(views)
        targets = [t / t.norm(dim=1, keepdim=True) for t in fresh.target(views)]
        new = sum(t.T @ t for t in targets) / sum(map(len, targets))
        correlation = new if correlation is None else 0.9 * correlation + 0.1 * new
        losses = []
        for view, z in enumerate(online):
            u = z / z.norm(dim=1, keepdim=True)
            common = method.weight / 2 * (u @ correlation * u).sum(1).mean()
            losses += [common - (u * t).sum(1).mean() for crop, t in enumerate(targets) if crop != view]
        torch.testing.assert_close(method(views, progress(step)).total, torch.stack(losses).mean())
        torch.testing.assert_close(method.correlation, correlation)


def test_of_two_crops_the_method_has_the_public_loss():
    method, views = tiny_method("unigrad"), tiny_views()
    z, t = copy.deepcopy(method).online(views), method.target(views)
    expected = unigrad_loss(*z, *t, update_correlation(None, *t), weight=method.weight)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


def test_the_teacher_moves_with_the_momentum_of_the_step_to_come():
    """The official code moves it before the forward pass of a step, by that step's momentum; at the first step it is a
    copy."""
    method = tiny_method("unigrad")
    online, teacher = [*method.encoder.parameters(), *method.projector.parameters()], method.teacher.module
    with torch.no_grad():
        for p in online:
            p.add_(1.0)
    before = [p.clone() for p in teacher.parameters()]
    method.after_step(progress(6))  # half of the run: the momentum is between 0.9 and 1
    for old, new in zip(before, teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.05)


def test_without_gradient_or_in_evaluation_the_correlation_rests():
    method, views = tiny_method("unigrad"), tiny_views()
    with torch.no_grad():
        method(views, progress(0))
    method.eval()(views, progress(0))
    assert not method.has_correlation
    assert not method.correlation.any()
