"""Compares intervals of differences with published examples, with other computations, and with their coverage."""

from itertools import product
from math import sqrt

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, multinomial, ttest_rel

from infomax.evaluation.few_shot import drawn_interval
from infomax.evaluation.intervals import (
    MATCHED,
    SEEDED,
    Difference,
    compare_means_per_class,
    compare_repeated,
    compare_seeds_and_images,
    compare_shares,
    half_interval,
    mean_per_class,
    mean_per_class_interval,
    share_interval,
    weighted_interval,
    weighted_sums,
    wilson_distances,
)
from infomax.evaluation.scores import judge


def counts(both: int, only_first: int, only_second: int, neither: int) -> Difference:
    """Returns the difference of two results that get so many images right."""
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    return compare_shares(first, np.repeat([True, False, True, False], [both, only_first, only_second, neither]))


@pytest.mark.parametrize(
    ("table", "value", "low", "high"),
    [
        # Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014), 2850-2875: airway hyper-responsiveness before
        # and after stem cell transplantation (Bentur et al. 2009), Newcombe's square-and-add interval.
        ((1, 1, 7, 12), -0.286, -0.507, -0.026),
        # The same authors, Statistical Analysis of Contingency Tables (2017), Ch. 8: complete response before and after
        # consolidation therapy (Cavo et al. 2012), as their R package contingencytables prints and tests it.
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046),
    ],
)
def test_published_examples(table, value, low, high):
    digits = 3 if sum(table) == 21 else 4
    difference = counts(*table)
    assert [round(x, digits) for x in (difference.value, difference.low, difference.high)] == [value, low, high]


@pytest.mark.parametrize("table", [(30, 9, 3, 20), (4, 5, 1, 2), (355, 0, 0, 4), (9, 8, 7, 1), (40, 8, 2, 0)])
def test_limits_are_made_of_wilsons_as_scipy_computes_them(table):
    a, b, c, d = table
    images = sum(table)
    first, second = (binomtest(a + x, images).proportion_ci(method="wilson") for x in (b, c))
    p1, p2 = (a + b) / images, (a + c) / images
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    numerator = a * d - b * c
    numerator = max(0, numerator - images / 2) if numerator > 0 else numerator
    phi = numerator / sqrt(margins) if margins else 0
    dl1, du1, dl2, du2 = p1 - first.low, first.high - p1, p2 - second.low, second.high - p2
    low = p1 - p2 - sqrt(dl1**2 - 2 * phi * dl1 * du2 + du2**2)
    high = p1 - p2 + sqrt(dl2**2 - 2 * phi * dl2 * du1 + du1**2)
    assert (counts(*table).low, counts(*table).high) == pytest.approx((low, high), abs=1e-12)


def test_without_discordant_images_the_interval_is_not_empty_and_shrinks_with_their_number():
    widths = []
    for images in (1, 2, 10, 359, 10_000):
        difference = counts(images - images // 4, 0, 0, images // 4)
        assert difference.value == 0
        assert difference.low == pytest.approx(-difference.high)
        assert difference.low < 0
        assert difference.verdict == "not clearly better"
        widths.append(difference.high)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.001


def test_few_images_and_extremes_stay_within_their_bounds():
    for images in (1, 2, 3, 7):
        for a, b, c in product(range(images + 1), repeat=3):
            if (d := images - a - b - c) < 0:
                continue
            difference, mirrored = counts(a, b, c, d), counts(a, c, b, d)
            assert -1 <= difference.low <= difference.value <= difference.high <= 1
            assert (difference.low, difference.high) == pytest.approx((-mirrored.high, -mirrored.low))
            assert difference.low < difference.high


def test_what_an_exact_test_leaves_open_for_few_images_is_not_clear():
    """Four images against none happen to equals one time in eight."""
    assert counts(352, 4, 0, 3).verdict == counts(100, 4, 0, 255).verdict == "not clearly better"
    assert counts(349, 7, 0, 3).verdict == "clearly better"
    assert counts(349, 0, 7, 3).verdict == "clearly worse"
    for b, c in product(range(13), repeat=2):
        if counts(200, b, c, 100).verdict != "not clearly better":
            assert 2 * binom.cdf(min(b, c), b + c, 0.5) - binom.pmf(min(b, c), b + c, 0.5) < 0.05  # the mid-p test


def coverage(images, shares):
    """Computes the exact share of samples whose interval holds the true difference, for each table of shares."""
    samples = [t for t in product(range(images + 1), repeat=4) if sum(t) == images]
    intervals = np.array([(x.low, x.high) for x in (counts(*table) for table in samples)])
    covered = []
    for table in shares:
        weights = multinomial.pmf(samples, images, table)
        holds = (intervals[:, 0] <= table[1] - table[2]) & (table[1] - table[2] <= intervals[:, 1])
        covered.append(weights[holds].sum())
    return np.array(covered)


def tables(steps):
    """Returns shares of images that both, the first, the second and none get right."""
    grid = np.linspace(0.01, 0.4, steps)
    return [(a * (1 - b - c), b, c, (1 - a) * (1 - b - c)) for a in (0.3, 0.6, 0.9) for b in grid for c in grid]


def test_the_exact_coverage_of_20_images_is_that_of_the_name():
    covered = coverage(20, tables(5))
    assert covered.mean() > 0.95
    assert covered.min() > 0.92


@pytest.mark.slow
@pytest.mark.parametrize("images", [8, 30, 50])
def test_the_exact_coverage_of_few_and_of_more_images(images):
    covered = coverage(images, tables(12))
    assert covered.mean() > 0.95
    assert covered.min() > 0.91


def test_the_difference_of_means_per_class_is_that_of_the_metric_and_its_interval_is_paired():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    second = rng.random(400) < 0.7
    first = second | (rng.random(400) < 0.1)  # right wherever the second is, and more
    found = compare_means_per_class(first, second, labels)
    assert found.value == pytest.approx(mean_per_class(first, labels) - mean_per_class(second, labels))
    assert found.low < found.value < found.high
    assert found.verdict == "clearly better"
    assert found.high - found.low < 0.05  # two unpaired intervals would be 0.09 wide each
    assert found == compare_means_per_class(first, second, labels)
    mirrored = compare_means_per_class(second, first, labels)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.slow
def test_the_simulated_coverage_of_the_bootstrap():
    rng, covered = np.random.default_rng(0), []
    labels = np.repeat(np.arange(5), 40)
    for _ in range(300):
        first, second = rng.random(200) < 0.75, rng.random(200) < 0.7
        found = compare_means_per_class(first, second, labels)
        covered.append(found.low <= 0.05 <= found.high)
    assert np.mean(covered) > 0.91


def test_repeated_scores_have_students_interval_of_their_differences():
    first, second = [0.51, 0.55, 0.49, 0.60], [0.50, 0.51, 0.50, 0.54]
    found = compare_repeated(first, second, SEEDED)
    expected = ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(0.025)
    with pytest.raises(ValueError, match="at least 2 of them, not 1"):
        compare_repeated([0.5], [0.4], SEEDED)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.019, -0.008, 0.046), "+1.9 (-0.8 to +4.6): not clearly better"),
        ((0.019, 0.0001, 0.046), "+1.9 (+0.0 to +4.6): clearly better"),
        ((-0.2, -0.3, -0.1), "-20.0 (-30.0 to -10.0): clearly worse"),
        ((0.0, -0.0001, 0.0), "+0.0 (+0.0 to +0.0): not clearly better"),
    ],
)
def test_a_difference_in_words(numbers, text):
    assert str(Difference(*numbers, MATCHED)) == text


def test_other_numbers_of_images_are_refused():
    with pytest.raises(ValueError, match="must be the same, at least one, but are 2 and 3"):
        compare_shares(np.ones(2, bool), np.ones(3, bool))
    with pytest.raises(ValueError, match="at least one, but are 0 and 0"):
        compare_shares(np.ones(0, bool), np.ones(0, bool))


@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.3, 0.0), (0.0, 1.0), (0.1, 1.0)])
def test_an_interval_over_seeds_and_images_covers_what_varies_with_either(of_seeds, of_images):
    rng, covered, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        seeds, images = of_seeds * rng.standard_normal((3, 1)), of_images * rng.standard_normal(100)
        found = compare_seeds_and_images(seeds + images + 0.1 * rng.standard_normal((3, 100)))
        covered += found.low <= 0 <= found.high
    assert covered / trials >= 0.93


def test_an_interval_over_seeds_and_images_wants_two_of_both():
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="at least 2 of both"):
            compare_seeds_and_images(np.zeros(shape))
    found = compare_seeds_and_images(np.eye(3))
    turned = found.reversed()
    assert (turned.value, turned.low, turned.high) == (-found.value, -found.high, -found.low)


@pytest.mark.parametrize(("right", "images"), [(0, 3), (3, 3), (23, 24), (40, 100)])
def test_an_accuracy_has_wilsons_interval(right, images):
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert share_interval(np.arange(images) < right) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("rows", "least"), [(5, 0.88), (10, 0.94), (30, 0.94)])
def test_the_interval_of_random_weights_covers_the_mean_of_few_rows(rows, least):
    """The percentiles 2.5 and 97.5 cover that of five rows in 81 % of all samples."""
    numbers = np.random.default_rng(1).normal(size=(rows, 1000))
    means = weighted_sums(numbers) / weighted_sums(np.ones((rows, 1)))
    limits = np.array([weighted_interval(of_sample, rows) for of_sample in means.T])
    covered = float(((limits[:, 0] <= 0) & (limits[:, 1] >= 0)).mean())
    assert least < covered < 0.97


@pytest.mark.parametrize("metric", ["top1", "mean_per_class", "map11"])
def test_no_worse_score_has_a_higher_limit_and_none_is_certain(metric):
    """By the bootstrap 23 of 24 had a higher lower limit than Wilson's of 24."""
    labels = np.repeat([0, 1, 2], [15, 6, 3])
    true = torch.tensor(np.eye(3)[labels] if metric == "map11" else labels)
    limits = []
    for right in (0, 1, 2, 12, 22, 23, 24):
        given = np.where(np.arange(24) < right, labels, (labels + 1) % 3)
        limits.append(judge(torch.tensor(np.eye(3)[given]), true, metric)["interval"])
    differences = np.diff(limits, axis=0)
    assert (differences >= 0).all() if metric != "map11" else (differences[-2:, 0] >= 0).all()
    assert all(high - low > 0.1 for low, high in limits)
    assert limits[0][0] >= 0
    assert limits[-1][1] == 1


def test_a_mean_over_classes_has_wilsons_interval_of_its_effective_images():
    hit = np.arange(60) % 5 > 0
    low, high = mean_per_class_interval(hit, np.arange(60) % 3)
    assert (low, high) == pytest.approx(share_interval(hit))  # of equally large classes
    low, high = mean_per_class_interval(np.ones(103, bool), np.repeat([0, 2], [100, 3]))  # no image shows class 1
    assert (low, high) == pytest.approx((1 - wilson_distances(1200 / 103, 1200 / 103)[0], 1))


def test_draws_of_labels_that_are_all_right_are_not_certain():
    assert drawn_interval(np.ones((20, 24), bool)) == pytest.approx(share_interval(np.ones(24, bool)))
    hit = np.arange(24) < 18
    assert drawn_interval(hit[None]) == share_interval(hit)
    right = np.random.default_rng(0).random((4, 24)) < 0.5
    right[0] = True
    mean, half = right.mean(), half_interval(right.mean(1), right.mean(0))
    assert drawn_interval(right) == pytest.approx((mean - half, min(1, mean + half)))


@pytest.mark.slow
def test_the_simulated_coverage_of_means_over_classes():
    rng = np.random.default_rng(0)
    labels, covered = np.repeat(np.arange(10), np.geomspace(2, 200, 10).astype(int)), []
    for accuracy in (np.full(10, 0.95), np.linspace(0.5, 1, 10), np.linspace(1, 0.5, 10)):
        hits = rng.random((1000, len(labels))) < accuracy[labels]
        limits = np.array([mean_per_class_interval(hit, labels) for hit in hits])
        covered.append(np.mean((limits[:, 0] <= accuracy.mean()) & (accuracy.mean() <= limits[:, 1])))
    assert min(covered) > 0.92
