"""Compares a path of logistic regressions with scikit-learn's Newton solver, which works in another way."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from infomax.evaluation import logistic
from infomax.evaluation.logistic import _Problem, logistic_path

GRID = np.logspace(-6, 5, 45).tolist()
SHAPES = [
    (300, 40, 5, 0.1),
    (300, 40, 5, 1.0),
    (60, 100, 4, 0.4),
    (80, 20, 3, 0.3),
    (500, 280, 3, 0.3),  # wide enough for the leading axes to go ahead
    (150, 200, 3, 0.4),
]  # images, features, classes, signal
PRECISE = 2e-4  # tolerance, for an excess of about its square, up to a factor of ten


def problem(n, d, classes, signal, dtype=torch.float64, seed=0):
    """Returns features like those of a last ReLU: not negative, with few large variances and many small ones."""
    rng = np.random.default_rng(seed)
    labels, spectrum = np.arange(n) % classes, (1 + np.arange(d)) ** -0.7
    latent = (signal * rng.standard_normal((classes, d))[labels] + rng.standard_normal((n, d))) * spectrum
    x = np.maximum(latent @ rng.standard_normal((d, d)) - 0.3, 0)
    return torch.from_numpy(x).to(dtype), torch.from_numpy(labels)


def objective(x, labels, weight, bias, penalty):
    """Computes the objective and the logits in float64, by torch's losses."""
    logits = x.double() @ weight.double().T + bias.double()
    if labels.ndim == 1:
        loss = F.cross_entropy(logits, labels, reduction="sum")
    else:
        loss = F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum")
    return float(loss + penalty / 2 * weight.double().square().sum()), logits


def reference(x, labels, penalty):
    """Returns weight and bias of scikit-learn, solved to the last digits."""
    fit = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    fit.fit(x.double().numpy(), labels.numpy())
    return torch.from_numpy(fit.coef_), torch.from_numpy(fit.intercept_)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_optimum_is_that_of_scikit_learn(shape, dtype):
    x, labels = problem(*shape, dtype)
    fits = logistic_path(x, labels, classes=shape[2], penalties=GRID, tolerance=PRECISE)
    assert [fit.penalty for fit in fits] == GRID
    assert all(fit.converged and fit.gradient_norm <= PRECISE for fit in fits)
    for fit in fits[:: 11 if shape[1] < 200 else 22]:  # the reference takes a second for the wide ones
        weight, bias = reference(x, labels, fit.penalty)
        best, logits = objective(x, labels, weight, bias, fit.penalty)
        loss, scores = objective(x, labels, fit.weight, fit.bias, fit.penalty)
        assert loss == pytest.approx(best, rel=1e-6)
        assert fit.loss == pytest.approx(best, rel=3e-6)
        assert torch.equal(scores.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(200, 30), (60, 90), (500, 280)])
def test_each_binary_label_is_a_problem_of_its_own(shape, dtype):
    x, _ = problem(*shape, 4, 0.5, dtype)
    noisy = x[:, :3] + x.std() * torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0))
    labels = (noisy > noisy.quantile(torch.tensor(0.8, dtype=dtype))).long()
    fits = logistic_path(x, labels, classes=3, penalties=GRID[::4], tolerance=PRECISE)
    assert all(fit.converged for fit in fits)
    for fit in fits[::3]:
        solutions = [reference(x, labels[:, k], fit.penalty) for k in range(3)]
        weight, bias = (torch.cat(parts) for parts in zip(*solutions, strict=True))
        best, logits = objective(x, labels, weight, bias, fit.penalty)
        loss, scores = objective(x, labels, fit.weight, fit.bias, fit.penalty)
        assert loss == pytest.approx(best, rel=1e-6)
        assert fit.loss == pytest.approx(best, rel=3e-6)
        assert torch.equal(scores > 0, logits > 0)


def test_the_squared_norm_is_about_the_excess_loss():
    """It is the relative excess within a small factor, at any tolerance."""
    x, labels = problem(300, 40, 5, 0.4)
    exact = logistic_path(x, labels, classes=5, penalties=GRID[::6], tolerance=1e-5)
    intercept_loss = 300 * np.log(5)
    for tolerance in (1e-1, 1e-2, 1e-3):
        fits = logistic_path(x, labels, classes=5, penalties=GRID[::6], tolerance=tolerance)
        for fit, best in zip(fits, exact, strict=True):
            excess = (fit.loss - best.loss) / min(best.loss, intercept_loss - best.loss)
            assert 0.1 * fit.gradient_norm**2 < excess < 20 * fit.gradient_norm**2


def test_any_order_of_penalties():
    x, labels = problem(80, 20, 3, 0.3)
    penalties = [1.0, 1e3, 1e-2, 1.0]
    fits = logistic_path(x, labels, classes=3, penalties=penalties, tolerance=PRECISE)
    assert [fit.penalty for fit in fits] == penalties
    for fit in fits:
        alone = logistic_path(x, labels, classes=3, penalties=[fit.penalty], tolerance=PRECISE)[0]
        assert alone.loss == pytest.approx(fit.loss, rel=1e-6)
    assert logistic_path(x, labels, classes=3, penalties=[]) == []


def test_a_path_takes_far_less_work_than_its_penalties_alone():
    """Combinations of solutions start the next penalty, and the pairs of L-BFGS are kept."""
    x, labels = problem(300, 40, 5, 0.4)
    path = logistic_path(x, labels, classes=5, penalties=GRID)
    alone = [logistic_path(x, labels, classes=5, penalties=[penalty])[0] for penalty in GRID[::4]]
    assert sum(fit.evaluations for fit in path[::4]) < 0.3 * sum(fit.evaluations for fit in alone)
    x, labels = problem(60, 100, 4, 0.4)
    path = logistic_path(x, labels, classes=4, penalties=GRID)
    assert sum(fit.evaluations for fit in path) < 3 * len(
        GRID
    )  # 93; it would be 203 if each started at the last solution


def test_steps_in_the_leading_axes_spare_gradients(monkeypatch):
    x, labels = problem(1000, 400, 10, 0.3, torch.float32)
    with_leading_steps = sum(fit.evaluations for fit in logistic_path(x, labels, classes=10, penalties=GRID))  # 90
    monkeypatch.setattr(logistic, "LEADING", 101)  # too large a part of the columns
    without = sum(fit.evaluations for fit in logistic_path(x, labels, classes=10, penalties=GRID))  # 107
    assert without > 1.1 * with_leading_steps


def test_losses_keep_their_digits():
    """Losses in float32 agree with float64 for images whose class is almost certain, or certain and wrong."""
    for size in (1e-3, 1.0, 30.0, 3e4):
        logits = size * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        right = logits.argmax(1)
        for labels in (right, right.roll(1)):
            precise = logits.double().requires_grad_()
            expected = F.cross_entropy(precise, labels, reduction="sum")
            loss, residual = _Problem(torch.randn(50, 2), labels, 4).loss(logits)
            (derivative,) = torch.autograd.grad(expected, precise)
            assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
            torch.testing.assert_close(residual.double(), derivative, rtol=1e-4, atol=1e-14)


def test_too_few_evaluations_are_reported():
    x, labels = problem(300, 40, 5, 0.1)
    fit, *_ = logistic_path(x, labels, classes=5, penalties=[1e-6], max_evaluations=3)
    assert not fit.converged
    assert fit.evaluations == 3
    assert fit.gradient_norm > 3e-3
    assert np.isfinite(fit.loss)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scale_and_offset_of_the_features_change_nothing_else(dtype):
    """Features a x + b with penalty a^2 lambda are the same problem as x with lambda."""
    x, labels = problem(80, 20, 3, 0.3, dtype)
    original = logistic_path(x, labels, classes=3, penalties=[1e-1, 1e-3], tolerance=PRECISE)
    scaled = logistic_path(1e3 * x + 5e3, labels, classes=3, penalties=[1e5, 1e3], tolerance=PRECISE)
    for a, b in zip(original, scaled, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)


def test_small_features_in_float32():
    """Strong penalties hide almost all of the data's curvature, which weak penalties then need."""
    x, labels = problem(150, 128, 5, 0.4)
    x = 0.01 * x / x.std() + 0.016
    fits = logistic_path(x.float(), labels, classes=5, penalties=GRID)
    assert all(fit.converged and fit.weight.dtype == torch.float32 for fit in fits)
    assert sum(fit.evaluations for fit in fits) < 4 * len(GRID)
    for fit in fits[::4]:
        best, _ = objective(x, labels, *reference(x, labels, fit.penalty), fit.penalty)
        assert objective(x, labels, fit.weight, fit.bias, fit.penalty)[0] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constant_features_give_the_shares_of_the_classes(dtype):
    labels = torch.tensor([0] * 6 + [1] * 3 + [2] * 1)
    for x in (torch.ones(10, 4, dtype=dtype), torch.zeros(10, 30, dtype=dtype)):
        for fit in logistic_path(x, labels, classes=3, penalties=[1.0, 1e-6], tolerance=1e-3):
            assert fit.converged
            shares = (x @ fit.weight.T + fit.bias).softmax(1)[0]
            torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1], dtype=dtype), rtol=0, atol=1e-3)


def test_equal_images_and_more_features_than_rank():
    x, labels = problem(60, 100, 3, 0.4)
    x = torch.cat([x, x])[:, torch.arange(150) % 100]
    fit, *_ = logistic_path(x, labels.repeat(2), classes=3, penalties=[0.5], tolerance=PRECISE)
    best, _ = objective(x, labels.repeat(2), *reference(x, labels.repeat(2), 0.5), 0.5)
    assert fit.loss == pytest.approx(best, rel=1e-6)


def test_penalties_must_be_positive():
    with pytest.raises(ValueError, match="penalties must be above 0, not 0.0"):
        logistic_path(*problem(80, 20, 3, 0.3), classes=3, penalties=[1.0, 0.0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("indicators", [False, True])
def test_the_same_on_a_gpu(dtype, indicators):
    x, labels = problem(300, 40, 5, 0.4, dtype)
    labels = F.one_hot(labels) if indicators else labels
    on_cpu = logistic_path(x, labels, classes=5, penalties=GRID, tolerance=PRECISE)
    on_gpu = logistic_path(x.cuda(), labels.cuda(), classes=5, penalties=GRID, tolerance=PRECISE)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert b.weight.is_cuda
        assert b.converged
        assert b.loss == pytest.approx(a.loss, rel=1e-6)
