"""The rules on the papers' claims say what the runs tell."""

import claims
import pytest

A, B, C = (claims.Setting("mira", (f"method.prototypes={k}",)) for k in (1, 2, 3))


def found(**scores):
    """Returns rows of the settings a, b and c with these scores, seed by seed."""
    by_name = {"a": A, "b": B, "c": C}
    return {
        by_name[name].name: [
            {"seed": seed, "knn_top1": x / 100, "embedding_mean_cosine": x, "embedding_effective_rank": x}
            for seed, x in enumerate(values)
        ]
        for name, values in scores.items()
    }


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((50, 52, 51), (40, 41, 42), "holds"),
        ((40, 41, 42), (50, 52, 51), "does not hold"),
        ((50, 40, 45), (45, 44, 46), "cannot be told"),
        ((50,), (40,), "cannot be told"),
    ],
)
def test_a_setting_is_higher_if_the_interval_of_the_difference_is(first, second, words):
    assert claims.higher(A, B)(found(a=first, b=second)).words == words


def test_a_difference_has_the_interval_of_students_t():
    mean, low, high = claims.differences(*(found(a=(1, 2, 6), b=(0, 0, 0))[x.name] for x in (A, B)))
    half = 4.303 * (7.0**0.5) / 3**0.5  # the variance of 1, 2 and 6 is 7
    assert (mean, low, high) == pytest.approx((3, 3 - half, 3 + half), rel=1e-4)


def test_settings_are_alike_if_no_difference_can_be_large():
    assert claims.alike(A, B)(found(a=(50, 51, 52), b=(50.2, 51.1, 52.3))).words == "holds"
    assert claims.alike(A, B)(found(a=(50, 51, 52), b=(60.2, 61.1, 62.3))).words == "does not hold"
    assert claims.alike(A, B)(found(a=(50, 51, 52), b=(54, 47, 56))).words == "cannot be told"
    assert claims.alike(A, B, C)(found(a=(50, 51, 52), b=(50, 51, 52), c=(70, 71, 72))).words == "does not hold"


def test_an_optimum_lies_inside_and_is_better_than_both_ends():
    rule = claims.best_inside(A, B, C)
    assert rule(found(a=(40, 41, 42), b=(50, 51, 52), c=(44, 45, 46))).words == "holds"
    assert rule(found(a=(40, 41, 42), b=(50, 51, 52), c=(60, 61, 62))).words == "does not hold"
    assert rule(found(a=(40, 41, 42), b=(50, 51, 52), c=(50, 54, 51))).words == "cannot be told"


def test_collapse_spectra_and_rising_measures():
    assert claims.collapses(A)(found(a=(0.99, 0.98, 1.0))).words == "holds"
    assert claims.collapses(A)(found(a=(0.1, 0.2, 0.1))).words == "does not hold"
    assert claims.collapses(A)(found(a=(0.99, 0.2, 0.99))).words == "cannot be told"
    assert claims.fuller_spectrum(A, B)(found(a=(60, 61), b=(20, 30))).words == "holds"
    assert claims.fuller_spectrum(B, A)(found(a=(60, 61), b=(20, 30))).words == "does not hold"
    for sign, words in ((1, "holds"), (-1, "does not hold")):
        series = [{"epoch": i, "ldmi": sign * i, "knn_top1": i / 10} for i in range(5)]
        assert claims.rises_with_accuracy(A, "ldmi")({A.name: [{"series": series}] * 2}).words == words


def test_a_claim_without_all_of_its_runs_is_not_judged():
    (first, *others) = claims.judged([{"setting": claims.MIRA.name, "seed": 0, "knn_top1": 0.5}])
    assert first["words"] == "not tried yet"
    assert {outcome["words"] for outcome in others} == {"not tried yet"}
    assert "not tried yet" in claims.claims_table([])


@pytest.mark.parametrize(("seeds", "words"), [(1, "cannot be told so far"), (3, "holds")])
def test_an_outcome_of_fewer_seeds_than_planned_is_said_to_be_one_so_far(seeds, words):
    scores = {claims.MIRA.name: 0.5, claims.NO_TEACHER.name: 0.4}
    rows = [
        {"setting": setting, "seed": seed, "knn_top1": score + seed / 1000}
        for setting, score in scores.items()
        for seed in range(seeds)
    ]
    (line,) = (line for line in claims.claims_table(rows).splitlines() if line.startswith("| a teacher helps"))
    assert f"| {words} |" in line
