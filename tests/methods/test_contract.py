"""The contract that every method must keep, whatever its equations."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from infomax.methods import carl, corinfomax, mira, mveb
from infomax.methods.base import Method, Views
from tiny import TINY, begin_epoch, progress, tiny_method, tiny_views

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
LATER = 4  # in the second epoch, when MIRA's prototypes are no longer frozen


def train(method: Method, steps: range, optimizer: torch.optim.Optimizer) -> None:
    for step in steps:
        views = tiny_views(seed=step)
        if step % 3 == 0:
            begin_epoch(method, views, step)
        torch.manual_seed(step)  # as the engine does, for what a network draws
        optimizer.zero_grad()
        online, target = method.online(views), method.target(views)
        method.loss(online, target, progress(step)).total.backward()
        method.after_backward(progress(step))
        optimizer.step()
        method.remember([x.detach() for x in online], target)
        method.after_step(progress(step + 1))


def sgd(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)


def snapshot(method: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY)
def test_loss_is_a_finite_scalar_of_the_views_dtype(name, dtype):
    loss = tiny_method(name, dtype)(tiny_views(dtype=dtype), progress(0))
    assert loss.total.shape == ()
    assert loss.total.dtype == dtype
    assert loss.total.isfinite()
    assert all(term.isfinite() and not term.requires_grad for term in loss.terms.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY)
def test_schedule_values_may_come_in_a_tensor(name, dtype):
    """A compiled loss takes them so; every step has equally many."""
    views = tiny_views(dtype=dtype)
    fresh = tiny_method(name, dtype)
    schedule_values = [fresh.schedule_values(progress(step)) for step in range(12)]
    assert len({len(values) for values in schedule_values}) == 1
    for step in (0, LATER, 11):
        method, same = copy.deepcopy(fresh), copy.deepcopy(fresh)
        values = torch.tensor(schedule_values[step], dtype=torch.float64)
        torch.manual_seed(step)  # for what a network draws
        total = method.compute_loss(method.online(views), method.target(views), values).total
        assert total.dtype == dtype
        torch.manual_seed(step)
        torch.testing.assert_close(total, same(views, progress(step)).total)


@pytest.mark.parametrize("name", TINY)
def test_gradient_reaches_each_trainable_parameter_and_no_other(name):
    method = tiny_method(name)
    method(tiny_views(), progress(LATER)).total.backward()
    method.after_backward(progress(LATER))
    for parameter_name, parameter in method.named_parameters():
        has_gradient = parameter.grad is not None and bool((parameter.grad != 0).any())
        # BatchNorm removes what a bias before it adds, so there the gradient is zero but for rounding.
        assert has_gradient == parameter.requires_grad, parameter_name


@pytest.mark.parametrize("name", TINY)
def test_a_resumed_run_continues_bit_for_bit(name):
    uninterrupted = tiny_method(name)
    optimizer = sgd(uninterrupted)
    train(uninterrupted, range(6), optimizer)

    first = tiny_method(name)
    optimizer = sgd(first)
    train(first, range(3), optimizer)
    file = io.BytesIO()
    torch.save({"method": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = tiny_method(name)
    second.load_state_dict(state["method"])
    optimizer = sgd(second)
    optimizer.load_state_dict(state["optimizer"])
    train(second, range(3, 6), optimizer)
    assert_same(uninterrupted.state_dict(), second.state_dict())


@pytest.mark.parametrize("name", TINY)
def test_nothing_moves_in_evaluation_mode(name):
    method = tiny_method(name)
    train(method, range(2), sgd(method))
    method.eval()
    before = snapshot(method)
    method(tiny_views(seed=9), progress(2))
    method.eval_encoder(tiny_views(seed=9).global_crops[0])
    assert_same(before, method.state_dict())


@pytest.mark.parametrize("name", TINY)
def test_training_changes_the_eval_encoder(name):
    method = tiny_method(name)
    before = copy.deepcopy(method.eval_encoder.state_dict())
    train(method, range(4), sgd(method))
    after = method.eval_encoder.state_dict()
    assert not torch.equal(before["backbone.0.weight"], after["backbone.0.weight"])


@pytest.mark.parametrize("name", TINY)
def test_loss_is_computed_in_full_precision_under_autocast(name):
    """The networks run in bfloat16, the loss does not: it equals the float64 loss up to what the networks changed."""
    method, views = tiny_method(name, torch.float32).eval(), tiny_views(dtype=torch.float32)
    with torch.no_grad():
        expected = method(views, progress(LATER)).total
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = method(views, progress(LATER)).total
    assert autocast.dtype == torch.float32
    torch.testing.assert_close(autocast, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 2), (3, 0), (4, 1)])
def test_any_number_of_views_trains_the_online_branch(name, global_crops, local_crops):
    method = tiny_method(name)
    method.global_crop_count = global_crops
    views = tiny_views(local_crops=local_crops, global_crops=global_crops)
    for view in (*views.global_crops, *views.local_crops):
        view.requires_grad_()
    method(views, progress(LATER)).total.backward()
    trained = [*views.global_crops, *views.local_crops]
    if name == "ressl":  # whose last global crop is the teacher's alone
        assert trained.pop(global_crops - 1).grad is None
    for view in trained:
        assert view.grad is not None
        assert view.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["mira", "mveb", "byol"])
def test_teacher_follows_by_moving_average_of_parameters_but_not_of_buffers(name):
    method = tiny_method(name)
    teacher = method.teacher
    online = nn.Sequential(method.encoder, method.projector)
    method(tiny_views(), progress(0))
    assert all(torch.equal(t, s) for t, s in zip(teacher.module.parameters(), online.parameters(), strict=True))

    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in teacher.module.parameters()]
    method.after_step(progress(0))  # momentum 0.9 at the start
    for old, new in zip(before, teacher.module.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
    method(tiny_views(), progress(0))
    means = [m.running_mean for m in (*teacher.modules(), *online.modules()) if isinstance(m, nn.BatchNorm2d)]
    assert not torch.equal(means[0], means[1])


@pytest.mark.parametrize("name", ["mira", "mveb", "byol"])
def test_teacher_does_not_move_at_the_end_of_the_run(name):
    method = tiny_method(name)
    teacher = method.teacher
    train(method, range(2), sgd(method))
    before = [p.clone() for p in teacher.module.parameters()]
    method.after_step(progress(12))
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.module.parameters(), strict=True))


def test_mira_freezes_its_prototypes_in_the_first_epoch_only():
    method = tiny_method("mira")
    optimizer = sgd(method)
    start = method.prototypes.weight.clone()
    train(method, range(3), optimizer)
    assert torch.equal(method.prototypes.weight, start)
    train(method, range(3, 4), optimizer)
    assert not torch.equal(method.prototypes.weight, start)


def test_mira_anneals_beta_from_its_start_to_its_end():
    """The first step has the targets of beta_start, and the last one those of beta."""
    settings = {"temperature": 0.225, "iterations": 30}
    assign, swapped_prediction_loss = mira.assign, mira.swapped_prediction_loss
    method = tiny_method("mira-no-teacher")
    views = tiny_views()
    logits = [method.prototypes(method.projector(method.encoder(view))) for view in views.global_crops]
    for step, beta in ((0, 0.7), (12, 2 / 3)):
        targets = [assign(x.detach(), beta=beta, **settings) for x in logits]
        expected = swapped_prediction_loss(logits, targets)
        torch.testing.assert_close(method(views, progress(step)).total, expected)


def embeddings(method, views, network=None):
    network = network or nn.Sequential(method.encoder, method.projector)
    return [F.normalize(network(view), dim=1) for view in (*views.global_crops, *views.local_crops)]


def test_mira_predicts_the_targets_of_all_other_global_crops():
    """The loss is the mean over targets and crops of plain cross-entropies, pair by pair."""
    method, views = tiny_method("mira"), tiny_views(global_crops=3, local_crops=1)
    logits = [
        method.prototypes(method.projector(method.encoder(view))) for view in (*views.global_crops, *views.local_crops)
    ]
    targets = [mira.assign(method.prototypes(method.teacher(view)).detach(), beta=0.7) for view in views.global_crops]
    pairs = [
        -(targets[m] * (logits[c] / method.student_temperature).log_softmax(1)).sum(1).mean()
        for m in range(3)
        for c in range(4)
        if c != m
    ]
    fresh = tiny_method("mira")
    fresh.global_crop_count = 3
    torch.testing.assert_close(fresh(views, progress(0)).total, torch.stack(pairs).mean())


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 1), (3, 1)])
def test_mveb_aligns_each_crop_with_the_mean_of_the_other_targets(global_crops, local_crops):
    method = tiny_method("mveb")
    method.global_crop_count = global_crops
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    loss = method(views, progress(0))
    fresh = tiny_method("mveb")
    online, targets = embeddings(fresh, views), embeddings(fresh, views, fresh.teacher)[:global_crops]
    dots = [
        (z * torch.stack([t for m, t in enumerate(targets) if m != c]).mean(0)).sum(1).mean()
        for c, z in enumerate(online)
    ]
    entropy = sum(mveb.entropy_surrogate(z) for z in online) / len(online)
    expected = -torch.stack(dots).mean() - 0.01 * entropy
    # Of the surrogate only the gradient means something: training leaves out the part that normalisation takes away.
    weights = [[weight for weight in x.parameters() if weight.requires_grad] for x in (method, fresh)]
    gradients = [torch.autograd.grad(x, w) for x, w in zip((loss.total, expected), weights, strict=True)]
    torch.testing.assert_close(*gradients)


def test_carl_compares_each_view_with_each_other_global_crop():
    method, views = tiny_method("carl"), tiny_views(global_crops=3, local_crops=2)
    method.global_crop_count = 3
    logits = [
        method.assigner(method.projector(method.encoder(view))) for view in (*views.global_crops, *views.local_crops)
    ]
    pairs = [carl.consistency_loss(logits[c], logits[m]) for m in range(3) for c in range(5) if c != m]
    uniformity = torch.stack([carl.uniformity_loss(x) for x in logits]).mean()
    torch.testing.assert_close(method(views, progress(0)).total, torch.stack(pairs).mean() + 4.0 * uniformity)
    parameter = method.assigner.weight
    constant = [carl.consistency_loss(logits[c], logits[m].detach()) for m in range(3) for c in range(5) if c != m]
    (expected,) = torch.autograd.grad(torch.stack(constant).mean() + 4.0 * uniformity, parameter)
    (actual,) = torch.autograd.grad(method(views, progress(0)).total, parameter)
    torch.testing.assert_close(actual, expected)


def test_corinfomax_splits_global_crops_over_its_branches_and_attracts_all_views_to_them():
    method, views = tiny_method("corinfomax"), tiny_views(global_crops=3, local_crops=1)
    method.global_crop_count = 3
    z = embeddings(method, views)
    criterion = corinfomax.CorInfoMaxLoss(4, attraction=0.0)
    # Both branches start from the same statistics, so the loss of two equal branches gives the entropy of each.
    entropy = -(criterion(torch.cat([z[0], z[2]]), torch.cat([z[0], z[2]])) / 2)
    criterion = corinfomax.CorInfoMaxLoss(4, attraction=0.0)
    entropy = entropy - criterion(z[1], z[1]) / 2
    distance = torch.stack([(z[c] - z[m]).square().mean() for m in range(3) for c in range(4) if c != m]).mean()
    torch.testing.assert_close(method(views, progress(0)).total, 250.0 * distance - entropy)


def test_carl_averages_both_roles_and_weighs_uniformity_by_epoch():
    consistency_loss, uniformity_loss = carl.consistency_loss, carl.uniformity_loss
    method = tiny_method("carl")
    views = tiny_views()
    a, b = (method.assigner(method.projector(method.encoder(view))) for view in views.global_crops)
    for step, weight in ((0, 4.0), (3, 2.75), (9, 1.5)):
        uniformity = (uniformity_loss(a) + uniformity_loss(b)) / 2
        torch.testing.assert_close(method(views, progress(step)).total, consistency_loss(a, b) + weight * uniformity)
    parameter = method.assigner.weight
    (consistency_gradient,) = torch.autograd.grad(consistency_loss(a, b), parameter, retain_graph=True)
    expected = consistency_gradient / 2 + 1.5 * torch.autograd.grad(uniformity, parameter)[0]
    (actual,) = torch.autograd.grad(method(views, progress(9)).total, parameter)
    torch.testing.assert_close(actual, expected)


def test_corinfomax_projects_to_the_unit_sphere():
    method = tiny_method("corinfomax")
    views = tiny_views()
    z = [F.normalize(method.projector(method.encoder(view)), dim=1) for view in views.global_crops]
    expected = corinfomax.CorInfoMaxLoss(4, attraction=250.0)(*z)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


def test_views_are_global_crops_and_local_crops_with_the_positions_of_the_images():
    assert Views._fields == ("global_crops", "local_crops", "positions")
