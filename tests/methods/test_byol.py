"""BYOL's loss against Eq. 2 of its paper, row by row, and the method against the public function."""

import numpy as np
import pytest
import torch
from torch import nn

from infomax.methods.byol import regression_loss
from losses_of_methods import LOSSES
from tiny import progress, tiny_method, tiny_views


def test_the_loss_is_the_mean_squared_distance_of_unit_vectors():
    arguments = LOSSES["byol"].make(rows=5)
    distances = []
    for p, t in zip(*(x.numpy() for x in arguments.values()), strict=True):
        distances.append(np.square(p / np.linalg.norm(p) - t / np.linalg.norm(t)).sum())
    assert float(regression_loss(**arguments)) == pytest.approx(np.mean(distances), rel=1e-12)


def test_the_gradient_is_that_of_the_definition():
    arguments = LOSSES["byol"].make(rows=5)
    prediction = arguments["prediction"].requires_grad_()
    regression_loss(prediction, arguments["target"]).backward()
    for p, t, gradient in zip(prediction.detach(), arguments["target"], prediction.grad, strict=True):
        unit, goal = p / p.norm(), t / t.norm()
        # Of -2 cos, over 5 rows: what of the target is at right angles to the prediction, over its norm.
        torch.testing.assert_close(gradient, -2 / 5 * (goal - (goal @ unit) * unit) / p.norm())


def test_neither_norms_nor_a_row_of_zeros_matter():
    prediction = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[5.0, 0.0], [0.0, 7.0]])
    loss = regression_loss(prediction, target)
    loss.backward()
    assert loss.item() == 1  # the mean of 0, and of 2 for the zeros, whose cosine is 0
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_sums_both_directions(global_crops, local_crops):
    method = tiny_method("byol")
    method.global_crop_count = global_crops
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    crops = [*views.global_crops, *views.local_crops]
    predictions = [method.predictor(method.projector(method.encoder(view))) for view in crops]
    with torch.no_grad():
        targets = [method.teacher(view) for view in views.global_crops]
    losses = [
        regression_loss(prediction, target)
        for i, target in enumerate(targets)
        for j, prediction in enumerate(predictions)
        if i != j
    ]
    expected = losses[0] + losses[1] if len(crops) == 2 else 2 * sum(losses) / len(losses)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


def test_the_teacher_is_a_copy_at_first_and_moves_after_the_step():
    method = tiny_method("byol")
    views = tiny_views()
    before = [p.clone() for p in method.teacher.parameters()]
    method(views, progress(0)).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    for parameter in nn.Sequential(method.encoder, method.projector).parameters():
        parameter.data.sub_(parameter.grad)
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.parameters(), strict=True))
    method.after_step(progress(6))  # half of the run: the momentum is halfway from 0.9 to 1
    trained = nn.Sequential(method.encoder, method.projector).parameters()
    for old, student, new in zip(before, trained, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, 0.95 * old + 0.05 * student)


def test_the_evaluated_encoder_is_the_trained_one():
    method = tiny_method("byol")
    assert method.eval_encoder is method.encoder
