"""SimSiam's loss against Eqs. 1 and 3 of its paper, row by row, and the method against the public function."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infomax.methods.byol import regression_loss
from infomax.methods.simsiam import negative_cosine
from infomax.nn.optimizers import set_learning_rate
from infomax.planning.step_cost import count_step_cost
from infomax.recipes.building import build_optimizer
from infomax.recipes.registry import get_recipe
from infomax.recipes.schema import OptimizerSettings
from losses_of_methods import LOSSES
from tiny import progress, tiny_method, tiny_views


def test_the_loss_is_the_mean_negative_cosine():
    arguments = LOSSES["simsiam"].make(rows=5)
    pairs = zip(*(x.numpy() for x in arguments.values()), strict=True)
    cosines = [p @ z / (np.linalg.norm(p) * np.linalg.norm(z)) for p, z in pairs]
    assert float(negative_cosine(**arguments)) == pytest.approx(-np.mean(cosines), rel=1e-12)
    assert float(regression_loss(**arguments)) == pytest.approx(2 - 2 * np.mean(cosines), rel=1e-12)


def outputs(method, views):
    projections = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    return [method.predictor(z) for z in projections], projections


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_averages_over_both_directions(global_crops, local_crops):
    method = tiny_method("simsiam")
    method.global_crop_count = global_crops
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    predictions, projections = outputs(method, views)
    losses = [
        negative_cosine(prediction, target)
        for i, target in enumerate(projections[:global_crops])
        for j, prediction in enumerate(predictions)
        if i != j
    ]
    expected = sum(losses) / len(losses)
    total = method(views, progress(0)).total
    torch.testing.assert_close(total, expected)
    parameters = [p for p in method.parameters() if p.requires_grad]
    actual, wanted = torch.autograd.grad(total, parameters), torch.autograd.grad(expected, parameters)
    for gradient, of_definition in zip(actual, wanted, strict=True):
        torch.testing.assert_close(gradient, of_definition)


def test_no_gradient_flows_through_the_targets():
    """With targets that are not held constant the projector has another gradient."""
    method, views = tiny_method("simsiam"), tiny_views()
    weight = method.projector[0].weight
    (p1, p2), (z1, z2) = outputs(method, views)
    cosines = [torch.cosine_similarity(p, z).mean() for p, z in ((p1, z2), (p2, z1))]
    (without_stop,) = torch.autograd.grad(-(cosines[0] + cosines[1]) / 2, weight)
    total = method(views, progress(0)).total
    torch.testing.assert_close(total, -(cosines[0] + cosines[1]) / 2)
    (actual,) = torch.autograd.grad(total, weight)
    assert not torch.allclose(actual, without_stop, rtol=1e-2)


def test_the_projector_ends_with_a_plain_batch_norm():
    _, projections = outputs(tiny_method("simsiam"), tiny_views())
    for z in projections:
        torch.testing.assert_close(z.mean(0), torch.zeros(8).double(), atol=1e-7, rtol=0)
        torch.testing.assert_close(z.var(0, correction=0), torch.ones(8).double(), atol=1e-2, rtol=0)


def test_the_predictor_alone_keeps_its_rate():
    method = tiny_method("simsiam")
    optimizer = build_optimizer(method, OptimizerSettings(name="sgd", learning_rate=0.5, constant_predictor=True))
    set_learning_rate(optimizer, 0.1)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.predictor.parameters()} == {0.5}
    assert {rates[id(p)] for m in (method.encoder, method.projector) for p in m.parameters()} == {0.1}


@pytest.mark.parametrize("joint", [False, True])
def test_views_that_pass_together_give_outputs_in_the_same_order(joint):
    method, views = tiny_method("simsiam").eval(), tiny_views(local_crops=1)
    method.joint_forward = joint
    predictions, projections = outputs(method, views)
    for actual, expected in zip(method.online(views), [*predictions, *projections[:2]], strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_step_can_be_counted_although_the_targets_have_no_gradient():
    """In microbatches all but the last one pass the networks once more."""
    recipe = get_recipe("simsiam", "digits")
    at_once, in_four = (count_step_cost(replace(recipe, micro_batch_size=size)) for size in (None, 32))
    assert at_once.loss_flops == in_four.loss_flops
    assert 1.1 < in_four.flops / at_once.flops < 1.4
