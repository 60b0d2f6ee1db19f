"""Calibration, held-out logits and distances, beside scikit-learn and plain loops."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.calibration import calibration_curve
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from infomax.classifying.calibration import calibrated, calibration_error, fit_temperature, smoothed_loss
from infomax.classifying.fit import describe_temperature, score_held_out
from infomax.classifying.known_features import ClassShapes, KnownFeatures, shrunk_covariance
from infomax.classifying.solve import HeldOut, assign_folds, fit_planes, held_out_folds, solve
from infomax.evaluation.linear import PENALTIES, RADIUS


def overconfident(n=3000, classes=4, factor=3.0):
    """Logits whose labels are drawn from the softmax of a third of them, so that the right temperature is 3."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, classes, generator=generator) * 2
    labels = torch.multinomial(z.softmax(1), 1, generator=generator).squeeze(1)
    return z * factor, labels


def test_the_temperature_has_the_least_loss_of_scikit_learn():
    z, labels = overconfident()
    temperature = fit_temperature(z, labels)
    losses = {t: log_loss(labels, (z.double() / t).softmax(1).numpy()) for t in np.linspace(2, 4.5, 101)}
    assert temperature == pytest.approx(min(losses, key=losses.get), rel=0.02)
    assert temperature == pytest.approx(3.0, rel=0.1)


def test_a_temperature_that_makes_the_calibration_error_larger_is_explained():
    """Of 30 images whose logits need no temperature, some draws get one that makes the error larger."""
    worse = set()
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(30, 3, generator=generator)
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        temperature = fit_temperature(logits, labels)
        scores = score_held_out(HeldOut(np.arange(30), logits, labels), temperature)
        is_worse = scores.calibration_error > scores.uncalibrated_error
        line = describe_temperature(temperature, scores)
        assert line.startswith(f"temperature {temperature:.3g}, fitted on the held-out images: calibration error ")
        assert (
            "%. The error grows, because the temperature is the one with the least cross-entropy" in line
        ) == is_worse
        assert ("15 bins, and chance moves it if they have few of the 30 images" in line) == is_worse
        worse.add(is_worse)
    assert worse == {True, False}


def test_the_temperature_is_where_the_smoothed_loss_is_least():
    z, labels = overconfident(n=40)
    best = fit_temperature(z, labels)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert smoothed_loss(z, labels, best) < smoothed_loss(z, labels, best * factor)


def test_images_that_are_all_right_do_not_get_a_probability_of_one():
    labels = torch.arange(20) % 4
    z = torch.nn.functional.one_hot(labels).float() * 5
    highest = calibrated(z, fit_temperature(z, labels)).amax(1)
    assert 0.9 < highest.min() <= highest.max() < 0.99
    assert torch.equal(calibrated(z, None), z.double().softmax(1))


def test_logits_that_tell_nothing_give_equal_probabilities():
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(2000, 3, generator=generator), torch.randint(3, (2000,), generator=generator)
    assert calibrated(z, fit_temperature(z, labels)).amax() < 0.4


def test_the_calibration_error_is_that_of_scikit_learns_bins():
    z, labels = overconfident()
    p = z.softmax(1)
    confidence, chosen = (x.numpy() for x in p.max(1))
    right = chosen == labels.numpy()
    share, mean = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    wanted = float((np.abs(share - mean) * counts[counts > 0]).sum() / len(right))
    assert wanted > 0.1
    assert calibration_error(p, labels) == pytest.approx(wanted, abs=1e-6)
    assert calibration_error(calibrated(z, fit_temperature(z, labels)), labels) < 0.03
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, torch.tensor([0, 1])) == 0


def blobs(counts, seed=0, spread=1.0, d=6):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((len(counts), d)) * 2 + 3
    labels = np.repeat(np.arange(len(counts)), counts)
    x = centres[labels] + spread * rng.standard_normal((len(labels), d))
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


def test_folds_hold_out_a_fifth_of_each_class_and_never_its_only_image():
    labels = np.repeat(np.arange(5), [50, 7, 2, 1, 20])
    folds = assign_folds(labels, seed=0)
    assert [np.bincount(folds[labels == c]).tolist() for c in (0, 4)] == [[10] * 5, [4] * 5]
    assert folds[labels == 3].tolist() == [-1]
    assert len(set(folds[labels == 2])) == 2
    assert (folds == assign_folds(labels, seed=0)).all()
    assert (folds != assign_folds(labels, seed=1)).any()


def test_weights_are_those_of_scikit_learn():
    x, labels = blobs([40, 30, 50])
    ((weight, bias),) = fit_planes(x, labels, 3, [1e-2])
    scale = RADIUS / float((x - x.mean(0)).square().sum(1).mean().sqrt())
    reference = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-9, max_iter=5000)
    reference.fit(((x - x.mean(0)) * scale).numpy().astype(np.float64), labels.numpy())
    wanted = reference.predict_proba(((x - x.mean(0)) * scale).numpy().astype(np.float64))
    np.testing.assert_allclose((x @ weight.T + bias).softmax(1).numpy(), wanted, atol=2e-3)


def test_held_out_logits_do_not_depend_on_the_images_own_label():
    x, labels = blobs([12, 12, 12], spread=3.0)
    first = solve(x, labels, classes=3, penalty=1e-3)
    changed = labels.clone()
    changed[0], changed[5] = 2, 1
    again = solve(x, changed, classes=3, penalty=1e-3)
    folds = assign_folds(labels.numpy(), seed=0)
    assert first.folds == 5
    assert sorted(first.held_out.rows.tolist()) == list(range(36))
    place = {row: i for i, row in enumerate(first.held_out.rows.tolist())}
    for row in np.flatnonzero(folds == folds[0])[:1]:
        rest = torch.from_numpy(folds != folds[row])
        ((weight, bias),) = fit_planes(x[rest], labels[rest], 3, [1e-3])
        wanted = x[row] @ weight.T + bias
        torch.testing.assert_close(first.held_out.logits[place[int(row)]], wanted, atol=1e-4, rtol=1e-4)
    assert not torch.equal(first.weight, again.weight)


def test_overlapping_classes_get_a_strong_penalty_and_calibrated_probabilities():
    x, labels = blobs([150, 150, 150], spread=3.0)
    solution = solve(x, labels, classes=3)
    new, true = blobs([500, 500, 500], seed=1, spread=3.0)
    logits = new @ solution.weight.T + solution.bias
    assert calibration_error(calibrated(logits, solution.temperature), true) < 0.05
    losses = {p: log_loss(true, (new @ w.T + b).softmax(1).numpy()) for p in (1e-1, 1e-5)
              for w, b in fit_planes(x, labels, 3, [p])}  # fmt: skip
    assert log_loss(true, calibrated(logits, solution.temperature).numpy()) < min(losses.values()) + 0.02


def test_the_penalty_is_the_one_with_the_least_loss_on_held_out_images():
    x, labels = blobs([30, 30, 30], spread=3.0, d=12)
    solution = solve(x, labels, classes=3)
    losses = {}
    for penalty in PENALTIES:
        alone = solve(x, labels, classes=3, penalty=penalty)
        losses[penalty] = smoothed_loss(alone.held_out.logits, alone.held_out.labels, alone.temperature)
    assert max(losses.values()) > min(losses.values()) + 0.05
    assert losses[solution.penalty] == pytest.approx(min(losses.values()), abs=1e-3)


def test_one_image_a_class_is_solved_without_calibration():
    x, labels = blobs([1, 1, 1])
    solution = solve(x, labels, classes=3)
    assert (solution.temperature, solution.held_out, solution.folds) == (None, None, 0)
    assert torch.equal((x @ solution.weight.T + solution.bias).argmax(1), labels)


def test_more_images_are_held_out_once(monkeypatch):
    from infomax.classifying import solve as module

    monkeypatch.setattr(module, "MOST_IN_FOLDS", 50)
    x, labels = blobs([30, 30])
    solution = solve(x, labels, classes=2)
    assert solution.folds == 1
    assert len(solution.held_out.rows) == 12


def test_the_covariance_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for n in (12, 40, 400):
        x = rng.standard_normal((n, 20)) @ np.diag(np.linspace(0.1, 3, 20))
        x -= x.mean(0)
        wanted, shrinkage = ledoit_wolf(x, assume_centered=True)
        assert 0 < shrinkage < 1
        np.testing.assert_allclose(shrunk_covariance(torch.from_numpy(x).float()).numpy(), wanted, atol=1e-5)


def test_distances_are_mahalanobis_to_the_nearest_class():
    x, labels = blobs([60, 50, 70])
    shapes = ClassShapes.of(x, labels, 3)
    residuals = np.concatenate([(x[labels == c] - x[labels == c].mean(0)).numpy() for c in range(3)])
    inverse = np.linalg.inv(ledoit_wolf(residuals, assume_centered=True)[0])
    new, _ = blobs([5, 5, 5], seed=1)
    wanted = [
        min(mahalanobis(row, x[labels == c].mean(0).numpy(), inverse) for c in range(3)) / math.sqrt(6)
        for row in new.numpy()
    ]
    np.testing.assert_allclose(shapes.distances(new).numpy(), wanted, rtol=1e-3)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_stated_share_of_usual_images_lies_beyond_the_threshold(share):
    x, labels = blobs([400, 500, 600], d=20)
    known = KnownFeatures.of(x, labels, 3, held_out_folds(labels.numpy(), seed=0))
    threshold, expected = known.threshold(share)
    assert len(known.held_out) == 1500
    assert expected == pytest.approx(share, abs=1e-3)
    new, _ = blobs([1000, 1000, 1000], seed=1, d=20)
    beyond = float((known.shapes.distances(new) > threshold).double().mean())
    assert beyond == pytest.approx(share, abs=3.5 * math.sqrt(share * (1 - share) * (1 / 3000 + 1 / 1500)))
    others, _ = blobs([100, 100, 100], seed=2, spread=4.0, d=20)
    assert float((known.shapes.distances(others) > threshold).double().mean()) > 0.9


def test_the_distance_of_a_held_out_image_does_not_know_it():
    x, labels = blobs([12, 11], d=30)  # with fewer images than features it would be far smaller
    folds = held_out_folds(labels.numpy(), seed=0)
    known = KnownFeatures.of(x, labels, 2, folds)
    wanted = []
    for rows in folds:
        rest = np.setdiff1d(np.arange(23), rows)
        wanted += ClassShapes.of(x[rest], labels[rest], 2).distances(x[rows]).tolist()
    np.testing.assert_allclose(known.held_out.numpy(), sorted(wanted), rtol=1e-4)
    assert float(known.held_out.mean()) > 1.2 * float(known.shapes.distances(x).mean())


def test_few_images_allow_no_small_share_and_none_no_threshold():
    x, labels = blobs([5, 4])
    known = KnownFeatures.of(x, labels, 2, held_out_folds(labels.numpy(), seed=0))
    assert known.threshold(0.01) == (float(known.held_out[-1]), pytest.approx(0.1))
    assert known.threshold(0.2)[0] == float(known.held_out[7])
    assert known.threshold(0) == (math.inf, 0)
    alone = KnownFeatures.of(x[[0, 5]], torch.tensor([0, 1]), 2, [])
    assert alone.threshold(0.05) == (math.inf, 0)
    assert alone.shapes.distances(x).isfinite().all()


def test_images_that_were_fitted_on_are_known_again():
    x, labels = blobs([50, 40], d=30)
    known = KnownFeatures.of(x, labels, 2, [])
    new, _ = blobs([50, 40], seed=1, d=30)
    assert known.are_fitted(x * (1 + 1e-6)).all()
    assert not known.are_fitted(new).any()
    assert known.are_fitted(torch.cat([new[:3], x[:2]])).tolist() == [False] * 3 + [True] * 2
