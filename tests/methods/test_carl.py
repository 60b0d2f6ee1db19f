"""CARL's losses against probabilities and logarithms in double-precision NumPy, written from Eqs. 3 to 8."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from infomax.methods import carl
from infomax.methods.carl import consistency_loss, kl_weight, uniformity_loss

BATCH, PROTOTYPES = 12, 5


def logits(seed=0, scale=2.0, batch=BATCH, prototypes=PROTOTYPES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(batch, prototypes, generator=generator, dtype=torch.float64)).to(dtype)


def gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*leaves), leaves)


def probabilities(x):
    e = np.exp(x.numpy())
    return e / e.sum(1, keepdims=True)


def logsumexp(x, axis):
    top = x.max(axis=axis, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis=axis, keepdims=True))).squeeze(axis)


def log_probabilities(x):
    x = x.double().numpy()
    return x - logsumexp(x, 1)[:, None]


def consistency_reference(anchor, positive):
    return -logsumexp(log_probabilities(anchor) + log_probabilities(positive), 1).mean()


def uniformity_reference(x):
    mean = np.exp(log_probabilities(x)).mean(0)
    return math.log(x.shape[1]) + sum(p * math.log(p) for p in mean if p > 0)


# Values: Eqs. 4 to 6


def test_consistency_is_minus_the_mean_log_inner_product():
    anchor, positive = logits(0), logits(1)
    expected = -np.log((probabilities(anchor) * probabilities(positive)).sum(1)).mean()
    value = consistency_loss(anchor, positive)
    assert value.ndim == 0
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_uniformity_is_the_kl_of_the_mean_assignment_in_nats():
    # Eq. 5 prints log2(n) beside a natural logarithm, which would not vanish for a uniform mean.
    mean = probabilities(logits()).mean(0)
    value = uniformity_loss(logits())
    assert value.ndim == 0
    assert value.item() == pytest.approx((mean * np.log(mean * PROTOTYPES)).sum(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 60.0, 300.0])
def test_large_logits_keep_their_value(scale, dtype):
    # Nothing bounds CARL's logits; a product of probabilities underflows to log 0 from a scale of about 40.
    anchor, positive = logits(0, scale, dtype=dtype), logits(1, scale, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert consistency_loss(anchor, positive).item() == pytest.approx(
        consistency_reference(anchor, positive), rel=tolerance
    )
    assert uniformity_loss(anchor).item() == pytest.approx(uniformity_reference(anchor), rel=tolerance, abs=tolerance)


def test_uniformity_of_an_unused_prototype_is_finite():
    # One column has probability 0 in every row: 0 log 0 is 0.
    x = logits(dtype=torch.float32)
    x[:, 0] = -300.0
    (grad,) = gradients(uniformity_loss, x)
    assert uniformity_loss(x).item() == pytest.approx(uniformity_reference(x), rel=1e-6)
    assert grad.isfinite().all()


@pytest.mark.parametrize("scale", [0.1, 2.0, 60.0])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_uniformity_lies_between_zero_and_log_k(batch, scale):
    value = uniformity_loss(logits(3, scale, batch)).item()
    assert -1e-12 <= value <= math.log(PROTOTYPES) + 1e-12


def test_uniformity_vanishes_when_only_the_mean_is_uniform():
    row = logits(batch=1)[0]
    circulant = torch.stack([row.roll(shift) for shift in range(PROTOTYPES)])  # every prototype meets every logit once
    assert uniformity_loss(circulant).item() == pytest.approx(0, abs=1e-14)
    circulant[0, 0] += 0.1
    assert uniformity_loss(circulant).item() > 1e-6


def test_collapse_onto_one_prototype_is_free_for_consistency_and_costs_log_k():
    x = torch.zeros(BATCH, PROTOTYPES, dtype=torch.float64)
    x[:, 2] = 300.0
    assert consistency_loss(x, x).item() == pytest.approx(0, abs=1e-14)
    assert uniformity_loss(x).item() == pytest.approx(math.log(PROTOTYPES), rel=1e-14)


def test_both_losses_vanish_for_confident_consistent_balanced_assignments():
    x = 300.0 * F.one_hot(torch.arange(2 * PROTOTYPES) % PROTOTYPES).double()
    assert consistency_loss(x, x).item() == pytest.approx(0, abs=1e-14)
    assert uniformity_loss(x).item() == pytest.approx(0, abs=1e-14)


def test_consistency_of_uniform_assignments_is_log_k():
    x = torch.full((BATCH, PROTOTYPES), 7.0, dtype=torch.float64)
    assert consistency_loss(x, x).item() == pytest.approx(math.log(PROTOTYPES), rel=1e-14)


@pytest.mark.parametrize("scale", [0.5, 5.0, 50.0])
def test_consistency_is_between_zero_and_the_cross_entropy(scale):
    anchor, positive = logits(0, scale), logits(1, scale)
    value = consistency_loss(anchor, positive).item()
    assert 0 <= value <= F.cross_entropy(anchor, positive.softmax(1)).item()


# Gradients


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_consistency_gradient_is_prediction_minus_agreement(scale):
    # d Eq. 4 / d q = (p - rho) / B with rho the normalised product p^a p^+; it reaches both arguments.
    anchor, positive = logits(0, scale), logits(1, scale)
    log_a, log_p = log_probabilities(anchor), log_probabilities(positive)
    agreement = np.exp(log_a + log_p - logsumexp(log_a + log_p, 1)[:, None])
    to_anchor, to_positive = gradients(consistency_loss, anchor, positive)
    np.testing.assert_allclose(to_anchor, (np.exp(log_a) - agreement) / BATCH, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(to_positive, (np.exp(log_p) - agreement) / BATCH, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_uniformity_gradient_is_the_centred_log_mean(scale):
    x = logits(0, scale)
    p = np.exp(log_probabilities(x))
    log_mean = np.log(p.mean(0))
    expected = p * (log_mean - (p @ log_mean)[:, None]) / BATCH
    np.testing.assert_allclose(gradients(uniformity_loss, x)[0], expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", [60.0, 300.0])
def test_single_precision_gradients_are_right_for_large_logits(scale):
    anchor, positive = logits(0, scale), logits(1, scale)
    exact = (*gradients(consistency_loss, anchor, positive), *gradients(uniformity_loss, anchor))
    anchor, positive = anchor.float(), positive.float()
    single = (*gradients(consistency_loss, anchor, positive), *gradients(uniformity_loss, anchor))
    for expected, actual in zip(exact, single, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-5)


def test_symmetrised_stop_gradient_has_half_the_full_gradient():
    z1, z2 = logits(0), logits(1)

    def symmetrised(a, b):
        return (consistency_loss(a, b.detach()) + consistency_loss(b, a.detach())) / 2

    both_roles, plain = gradients(symmetrised, z1, z2), gradients(consistency_loss, z1, z2)
    for actual, expected in zip(both_roles, plain, strict=True):
        torch.testing.assert_close(actual, expected / 2, rtol=1e-12, atol=1e-16)


def test_a_uniform_positive_teaches_nothing():
    to_anchor, _ = gradients(consistency_loss, logits(), torch.zeros(BATCH, PROTOTYPES, dtype=torch.float64))
    torch.testing.assert_close(to_anchor, torch.zeros_like(to_anchor), rtol=0, atol=1e-16)


def test_a_confident_anchor_is_stuck_even_when_it_is_wrong():
    anchor, positive = (300.0 * F.one_hot(torch.full((BATCH,), k), PROTOTYPES).double() for k in (0, 1))
    positive = positive / 300  # a soft opinion about another prototype
    to_anchor, to_positive = gradients(consistency_loss, anchor, positive)
    torch.testing.assert_close(to_anchor, torch.zeros_like(to_anchor), rtol=0, atol=1e-16)
    assert to_positive.norm() > 1e-3


def test_prototypes_may_be_renamed():
    order = torch.tensor([3, 0, 4, 1, 2])
    anchor, positive = logits(0), logits(1)
    for function, inputs in ((consistency_loss, (anchor, positive)), (uniformity_loss, (anchor,))):
        renamed = [x[:, order] for x in inputs]
        assert function(*renamed).item() == pytest.approx(function(*inputs).item(), rel=1e-13)
        for after, before in zip(gradients(function, *renamed), gradients(function, *inputs), strict=True):
            torch.testing.assert_close(after, before[:, order], rtol=1e-12, atol=1e-16)


def test_a_constant_added_to_a_row_changes_nothing():
    shift = logits(9, scale=10.0, prototypes=1)
    assert consistency_loss(logits(0) + shift, logits(1) - shift).item() == pytest.approx(
        consistency_loss(logits(0), logits(1)).item(), rel=1e-12
    )
    assert uniformity_loss(logits() + shift).item() == pytest.approx(uniformity_loss(logits()).item(), rel=1e-12)


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_have_the_dtype_of_the_logits(dtype):
    anchor, positive = logits(0, dtype=dtype), logits(1, dtype=dtype)
    assert consistency_loss(anchor, positive).dtype == uniformity_loss(anchor).dtype == dtype
    assert all(g.dtype == dtype for g in gradients(consistency_loss, anchor, positive))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_computed_in_single_precision(dtype):
    anchor, positive = logits(0, 20.0, dtype=dtype), logits(1, 20.0, dtype=dtype)
    rounding = torch.finfo(dtype).eps
    for function, inputs in ((consistency_loss, (anchor, positive)), (uniformity_loss, (anchor,))):
        expected = function(*(x.double() for x in inputs)).item()
        assert function(*inputs).item() == pytest.approx(expected, rel=rounding)


def test_autocast_changes_no_bit():
    anchor, positive = logits(0, dtype=torch.float32), logits(1, dtype=torch.float32)

    def results():
        return [*gradients(consistency_loss, anchor, positive), *gradients(uniformity_loss, anchor)]

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = results()
    assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))


# The weight of the regulariser: Eq. 8


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 2.0), (25, 1.75), (50, 1.5), (99, 1.01), (100, 1.0), (101, 1.0), (10**6, 1.0)]
)
def test_kl_weight_falls_linearly_and_then_stays(epoch, expected):
    weight = kl_weight(epoch, start=2.0, end=1.0, epochs=100)
    assert isinstance(weight, float)
    assert weight == pytest.approx(expected, rel=1e-14)


def test_kl_weight_hits_both_ends_exactly():
    assert kl_weight(0, start=4.1, end=1.3, epochs=3) == 4.1
    assert kl_weight(3, start=4.1, end=1.3, epochs=3) == 1.3


def test_kl_weight_may_rise_or_stay_constant():
    assert kl_weight(5, start=0.0, end=1.0, epochs=10) == pytest.approx(0.5)
    assert kl_weight(5, start=2.0, end=2.0, epochs=10) == 2.0


# The method computes both losses together, by a closed form in blocks of rows


def losses_by_definition(views, global_crops):
    """Computes both losses pair by pair: each view is the anchor to each global crop but itself, which is constant."""
    pairs = [(x, views[m].detach()) for c, x in enumerate(views) for m in range(global_crops) if m != c]
    consistency = torch.stack([consistency_loss(x, y) for x, y in pairs]).mean()
    return consistency, torch.stack([uniformity_loss(x) for x in views]).mean()


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize(("views", "global_crops"), [(2, 2), (3, 2), (4, 3)])
def test_the_methods_form_is_the_definition(views, global_crops, scale):
    """Logits of a thousand, where all probabilities but one underflow, and an unused prototype change nothing."""
    all_logits = [logits(seed, scale) for seed in range(views)]
    for x in all_logits:
        x[:, 3] = -3000.0
    with patch.object(carl, "row_blocks", lambda *xs: zip(*(x.split(5) for x in xs), strict=True)):
        for loss in range(2):
            expected_leaves, leaves = ([x.clone().requires_grad_() for x in all_logits] for _ in range(2))
            expected = losses_by_definition(expected_leaves, global_crops)[loss]
            actual = carl._losses(leaves, global_crops)[loss]
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
            expected.backward()
            actual.backward()
            for x, y in zip(leaves, expected_leaves, strict=True):
                torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-14)


# Bad input


def spoilt(value):
    x = logits()
    x[1, 1] = value
    return x


BAD_LOGITS = {
    "NaN": spoilt(math.nan),
    "Inf": spoilt(math.inf),
    "-Inf": spoilt(-math.inf),
    "a vector": logits()[0],
    "a stack": logits()[None],
    "no sample": logits()[:0],
    "no prototype": logits()[:, :0],
}


@pytest.mark.parametrize("bad", BAD_LOGITS.values(), ids=BAD_LOGITS.keys())
def test_bad_logits_are_named(bad):
    with pytest.raises(ValueError, match="anchor_logits"):
        consistency_loss(bad, logits())
    with pytest.raises(ValueError, match="positive_logits"):
        consistency_loss(logits(), bad)
    with pytest.raises(ValueError, match=r"(?<!_)\blogits\b"):
        uniformity_loss(bad)


@pytest.mark.parametrize("bad", [logits()[:-1], logits()[:1], logits()[:, :-1], logits()[:, :1]])
def test_views_of_different_shapes_are_refused(bad):
    # One row or one column would broadcast silently.
    with pytest.raises(ValueError, match=r"anchor_logits|positive_logits"):
        consistency_loss(logits(), bad)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", value) for value in (-1, math.nan)),
        *((name, value) for name in ("start", "end") for value in (-1.0, math.nan, math.inf)),
        *(("epochs", value) for value in (-1, math.nan)),
    ],
)
def test_bad_schedules_are_named(name, value):
    settings = {"epoch": 3, "start": 2.0, "end": 1.0, "epochs": 10, name: value}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        kl_weight(settings.pop("epoch"), **settings)
