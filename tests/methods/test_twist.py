"""TWIST's loss against its paper's equations, computed with scipy, and the method's pairs of views."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from infomax.methods.twist import twist_loss
from tiny import progress, tiny_method, tiny_views


def random_logits(rows=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def literal(logits1, logits2, sharpness=1.0, diversity=1.0, temperature=1.0):
    p, q = (softmax(x.numpy(), axis=1) for x in (logits1, logits2))
    divergence = (rel_entr(p, q).sum(1).mean() + rel_entr(q, p).sum(1).mean()) / 2
    p, q = (softmax(x.numpy() / temperature, axis=1) for x in (logits1, logits2))
    sharp = np.mean([entropy(row) for row in (*p, *q)])
    diverse = (entropy(p.mean(0)) + entropy(q.mean(0))) / 2
    return divergence + sharpness * sharp - diversity * diverse


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("kwargs", [{}, {"sharpness": 0.4, "diversity": 2.0, "temperature": 0.3}, {"diversity": 0.0}])
def test_the_loss_is_the_sum_of_the_papers_three_terms(rows, kwargs):
    logits = random_logits(rows), random_logits(rows, seed=1)
    assert float(twist_loss(*logits, **kwargs)) == pytest.approx(literal(*logits, **kwargs), rel=1e-12, abs=1e-14)


def test_many_classes_have_no_floor():
    """The official code adds 1e-5 to probabilities in logarithms: with 32768 classes a third of one."""
    logits = 0.1 * random_logits(4, 32768), 0.1 * random_logits(4, 32768, seed=1)
    expected = literal(*logits)
    assert float(twist_loss(*logits)) == pytest.approx(expected, rel=1e-10)
    p = softmax(logits[0].numpy(), axis=1)
    assert abs(-(p * np.log(p + 1e-5)).sum(1).mean() - entropy(p, axis=1).mean()) > 0.1


def test_probabilities_that_underflow_give_finite_gradients():
    logits = (300 * random_logits(4).float()).requires_grad_()
    loss = twist_loss(logits, torch.zeros(4, 5))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"logits2": torch.zeros(3, 2)}, "logits2 must have the shape"),
        ({"sharpness": -1.0}, "sharpness"),
        ({"diversity": -1.0}, "diversity"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        twist_loss(**{"logits1": torch.zeros(3, 4), "logits2": torch.zeros(3, 4), **kwargs})


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 2), (3, 0)])
def test_the_method_takes_the_mean_over_pairs_with_a_global_crop(global_crops, local_crops):
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    method, fresh = tiny_method("twist"), tiny_method("twist")
    method.global_crop_count = global_crops
    logits = [fresh.projector(fresh.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    pairs = [(i, j) for i in range(len(logits)) for j in range(i) if j < global_crops]
    expected = torch.stack([twist_loss(logits[j], logits[i]) for i, j in pairs]).mean()
    torch.testing.assert_close(method(views, progress(0)).total, expected)


def test_class_logits_end_with_batch_norm_without_parameters():
    method, views = tiny_method("twist"), tiny_views()
    (logits, _) = method.online(views)
    torch.testing.assert_close(logits.mean(0), torch.zeros(12, dtype=torch.float64))
    assert not list(method.projector[-1].parameters())
    method.eval()
    (logits, _) = method.online(views)
    torch.testing.assert_close(method.assignment_probabilities([logits])[0], logits.softmax(1))
    torch.testing.assert_close(method.cluster_logits(method.eval_encoder(views.global_crops[0])), logits)
