"""Compares each measure with its definition in numpy, with closed forms, and with the values of degenerate data."""

import math
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import scipy.linalg
import torch

from infomax.analysis import measures
from infomax.analysis.measures import directions
from infomax.analysis.rows import Rows
from ranks import on_ranks

# ------------------------------------------------------------------------------------- oracles: definitions in numpy


def unit(z):
    return np.array([row / max(math.sqrt(sum(row * row)), 1e-12) for row in z])


def sigma(z, *, centred):
    values = np.linalg.svd(z - z.mean(0) if centred else z, compute_uv=False)
    if centred:
        values = np.array([value if value > 1e-10 * np.linalg.norm(z) else 0.0 for value in values])
        values = np.concatenate([values, np.zeros(z.shape[1] - len(values))])
    return values


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def shares(values):
    return values / values.sum() if values.sum() > 0 else np.zeros(len(values))


def rankme(z, epsilon=1e-7):
    return math.exp(entropy(shares(sigma(z, centred=False)) + epsilon))


def effective_rank(z):
    values = sigma(z, centred=True)
    return math.exp(entropy(shares(values))) if values.sum() > 0 else 0


def participation_ratio(z):
    values = sigma(z, centred=True) ** 2
    return values.sum() ** 2 / (values**2).sum() if values.sum() > 0 else 0


def stable_rank(z):
    values = sigma(z, centred=True) ** 2
    return values.sum() / values[0] if values.sum() > 0 else 0


def effective_dimension(z, energy=0.99):
    values = sigma(z, centred=True) ** 2
    if values.sum() == 0:
        return 0
    return next(k for k in range(1, len(values) + 1) if values[:k].sum() / values.sum() >= energy - 1e-12)


def covariance_spectrum(z):
    return np.array(sorted(np.linalg.eigvalsh((z - z.mean(0)).T @ (z - z.mean(0)) / len(z)), reverse=True))


def spectrum_auc(z):
    values = sigma(z, centred=True)
    d = len(values)
    return sum(values[:k].sum() for k in range(1, d + 1)) / values.sum() / d if values.sum() > 0 else 1


def von_neumann_entropy(z):
    u = unit(z)
    return entropy(shares(np.maximum(np.linalg.eigvalsh(u.T @ u), 0)))


def alpha_req(z, first=11, last=100):
    values = sigma(z, centred=True) ** 2
    ranks = list(range(first, min(last, sum(values > 1e-12 * values[0])) + 1))
    if len(ranks) < 3:
        return math.nan
    k = np.array(ranks)
    return -np.polyfit(np.log(k), np.log(values[k - 1]), 1, w=np.sqrt(1 / k))[0]


def feature_std(z):
    u = unit(z)
    return np.mean([math.sqrt(np.mean((column - column.mean()) ** 2)) for column in u.T])


def collapse_level(z):
    return max(0, 1 - math.sqrt(z.shape[1]) * feature_std(z))


def mean_cosine(z):
    u = unit(z)
    return np.mean([u[i] @ u[j] for i in range(len(u)) for j in range(len(u)) if i != j])


def self_clustering(z):
    (n, d), u = z.shape, unit(z)
    total = sum((u[i] @ u[j]) ** 2 for i in range(n) for j in range(n))
    return (d * total - n * (d + n - 1)) / ((d - 1) * (n - 1) * n) if d > 1 else 1


def alignment(z1, z2, power=2):
    return np.mean([math.sqrt(((a - b) ** 2).sum()) ** power for a, b in zip(unit(z1), unit(z2), strict=True)])


def uniformity(z, temperature=2.0):
    return math.log(np.mean([math.exp(-temperature * ((a - b) ** 2).sum()) for a, b in combinations(unit(z), 2)]))


def near_duplicate_share(z, cosine=0.99):
    u = unit(z)
    return np.mean([max(u[i] @ u[j] for j in range(len(u)) if i != j) >= cosine - 1e-12 for i in range(len(u))])


def assignment_entropy(p):
    return np.mean([entropy(row) for row in p])


def marginal_entropy(p):
    return entropy(p.mean(0))


def mutual_information(p):
    """Computes the Kullback-Leibler divergence of the joint distribution from the product of its marginals."""
    n, marginal = len(p), p.mean(0)
    joint = p / n
    return sum(x * math.log(x / (m / n)) for row in joint for x, m in zip(row, marginal, strict=True) if x > 0)


def argmax_shares(p):
    winners = [list(row).index(max(row)) for row in p]
    return np.array([winners.count(k) / len(p) for k in range(p.shape[1])])


def prototypes_in_use(p, share=0.1):
    return np.mean([s > 0 and s >= share / p.shape[1] - 1e-12 for s in argmax_shares(p)])


def effective_prototypes(p):
    return math.exp(entropy(argmax_shares(p)))


def lidar(z, delta=1e-4, epsilon=1e-7):
    n, q, d = z.shape
    means = [image.mean(0) for image in z]
    between = sum(np.outer(m - z.mean((0, 1)), m - z.mean((0, 1))) for m in means) / n
    within = sum(np.outer(x - m, x - m) for image, m in zip(z, means, strict=True) for x in image) / (n * (q - 1))
    values = np.maximum(scipy.linalg.eigh(between, within + delta * np.eye(d), eigvals_only=True), 0)
    if np.trace(between) <= 1e-20 * (z**2).sum(2).mean():
        values = np.zeros(d)
    return math.exp(entropy(shares(values) + epsilon))


def recursive_ldmi(z1, z2, forgetting=0.01, epsilon=1e-8):
    """Computes Eq. A.4 of the recursive covariances, by a conditional covariance."""
    d = z1.shape[2]
    R1, R2, R12, mu1, mu2 = np.eye(d), np.eye(d), np.zeros((d, d)), np.zeros(d), np.zeros(d)
    values = []
    for a, b in zip(z1, z2, strict=True):
        mu1, mu2 = (forgetting * m + (1 - forgetting) * z.mean(0) for m, z in ((mu1, a), (mu2, b)))
        a, b = a - mu1, b - mu2
        R1, R2, R12 = (
            forgetting * R + (1 - forgetting) / len(a) * x.T @ y for R, x, y in ((R1, a, a), (R2, b, b), (R12, a, b))
        )
        conditional = R1 - R12 @ np.linalg.inv(R2 + epsilon * np.eye(d)) @ R12.T
        log_dets = [np.linalg.slogdet(R + epsilon * np.eye(d))[1] for R in (R1, conditional)]
        values.append((log_dets[0] - log_dets[1]) / 2)
    return np.array(values)


# --------------------------------------------------------------------------------------------------------------- data

EMBEDDING_MEASURES = {
    "rankme": [{}, {"epsilon": 0}, {"epsilon": 0.01}],
    "effective_rank": [{}],
    "participation_ratio": [{}],
    "stable_rank": [{}],
    "effective_dimension": [{}, {"energy": 0.5}, {"energy": 1}],
    "spectrum_auc": [{}],
    "von_neumann_entropy": [{}],
    "alpha_req": [{}, {"first": 1}, {"first": 2, "last": 4}, {"first": 3, "last": 4}],
    "feature_std": [{}],
    "collapse_level": [{}],
}
PAIR_MEASURES = {
    "mean_cosine": [{}],
    "self_clustering": [{}],
    "uniformity": [{}, {"temperature": 0.5}],
    "near_duplicate_share": [{}, {"cosine": 0.5}, {"cosine": 1}, {"cosine": -1}],
}
ASSIGNMENT_MEASURES = {
    "assignment_entropy": [{}],
    "marginal_entropy": [{}],
    "mutual_information": [{}],
    "prototypes_in_use": [{}, {"share": 0}, {"share": 1.5}],
    "effective_prototypes": [{}],
}


def calls(table):
    return [pytest.param(name, kwargs, id=f"{name}-{kwargs}") for name, rows in table.items() for kwargs in rows]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def samples():
    """Returns matrices of many kinds by name."""
    z = normal(14, 6)
    with_zero, equal = z.copy(), np.tile(normal(1, 5), (9, 1))
    with_zero[3] = 0
    return {
        "tall": z,
        "wide": normal(7, 20),
        "square": normal(6, 6),
        "mean": z + 5,
        "power law": normal(60, 40) * np.arange(1, 41) ** -0.7,
        "rank 2": normal(12, 2) @ normal(2, 7, seed=1),
        "line": np.outer(normal(9), normal(4)),
        "line with mean": np.outer(normal(9), normal(4)) + normal(4, seed=1),
        "one column": normal(8, 1),
        "equal": equal,
        "nearly equal": equal + 1e-13 * normal(9, 5),
        "close": equal + 1e-4 * normal(9, 5),
        "doubles": np.concatenate([z, 3 * z]),
        "a zero row": with_zero,
        "zeros": np.zeros((5, 3)),
        "large": 1e30 * z,
        "small": 1e-9 * z,
        "shorter than the floor": 1e-30 * z,
        "one row": normal(1, 4),
    }


SAMPLES = samples()


def distributions():
    logits = normal(30, 8)
    return {
        "soft": torch.tensor(logits).softmax(1).numpy(),
        "sharp": torch.tensor(300 * logits).softmax(1).numpy(),
        "uneven": torch.tensor(logits - np.arange(8)).softmax(1).numpy(),
        "ties": np.full((5, 4), 0.25),
        "one hot": np.eye(5)[[0, 0, 0, 2]],
        "one prototype": np.ones((3, 1)),
        "half precision": torch.tensor(logits).softmax(1).half().double().numpy(),
    }


DISTRIBUTIONS = distributions()


def close(value, expected, *, rel=1e-9, abs=1e-9):  # noqa: A002
    return value == pytest.approx(expected, rel=rel, abs=abs, nan_ok=True)


# -------------------------------------------------------------------------------------------- values, by the oracles


@pytest.mark.parametrize(("name", "kwargs"), calls({**EMBEDDING_MEASURES, **PAIR_MEASURES}))
def test_a_measure_of_embeddings_is_its_definition(name, kwargs):
    measure, oracle = getattr(measures, name), globals()[name]
    for kind, z in SAMPLES.items():
        if len(z) > 1 or name not in PAIR_MEASURES:
            # The oracle of the von Neumann entropy squares the condition, and -p log p is steep at 0.
            value = measure(torch.tensor(z), **kwargs)
            assert close(value, oracle(z, **kwargs)), kind
            assert close(measure(Rows(torch.tensor(z)), **kwargs), value, rel=0, abs=0), kind


@pytest.mark.parametrize("kind", [kind for kind in SAMPLES if kind not in ("large", "shorter than the floor")])
def test_the_spectrum_is_the_eigenvalues_of_the_covariance(kind):
    z = SAMPLES[kind]
    spectrum = measures.covariance_spectrum(torch.tensor(z))
    assert spectrum.shape == (z.shape[1],)
    assert np.allclose(spectrum, covariance_spectrum(z), rtol=1e-9, atol=1e-13 * (z**2).mean())
    assert (spectrum.diff() <= 0).all()


@pytest.mark.parametrize(("name", "kwargs"), calls(ASSIGNMENT_MEASURES))
def test_a_measure_of_assignments_is_its_definition(name, kwargs):
    for kind, p in DISTRIBUTIONS.items():
        value = getattr(measures, name)(torch.tensor(p), **kwargs)
        # Rows of half precision do not sum to 1, for which the divergence of the oracle is another number.
        tolerance = 1e-2 if kind == "half precision" and name == "mutual_information" else 1e-12
        assert close(value, globals()[name](p, **kwargs), abs=tolerance), kind


@pytest.mark.parametrize("power", [1, 2, 3.5])
def test_alignment_is_its_definition(power):
    for kind, z in SAMPLES.items():
        other = z + normal(*z.shape, seed=5) * np.abs(z).max()
        assert close(measures.alignment(torch.tensor(z), torch.tensor(other), power=power), alignment(z, other, power))
        assert measures.alignment(torch.tensor(z), torch.tensor(z), power=power) == 0, kind


@pytest.mark.parametrize("shape", [(10, 3, 4), (4, 2, 9), (2, 2, 3), (6, 5, 1)])
@pytest.mark.parametrize("kwargs", [{}, {"delta": 0.3}, {"epsilon": 0}, {"delta": 10, "epsilon": 0.01}])
def test_lidar_is_its_definition(shape, kwargs):
    for scale in (0.01, 1, 30):
        z = scale * (normal(shape[0], 1, shape[2]) + 0.3 * normal(*shape, seed=1) + 2)
        assert close(measures.lidar(torch.tensor(z), **kwargs), lidar(z, **kwargs), rel=1e-7)


@pytest.mark.parametrize("kwargs", [{}, {"forgetting": 0}, {"forgetting": 0.9, "epsilon": 0.1}])
@pytest.mark.parametrize("n", [3, 20])
def test_the_recursive_information_is_its_definition(n, kwargs):
    z1 = normal(6, n, 4) + 1
    z2 = z1 @ normal(4, 4, seed=1) + 0.5 * normal(6, n, 4, seed=2)
    if kwargs.get("forgetting") == 0 and n < 8:  # a covariance of one small batch alone is singular
        kwargs = {**kwargs, "epsilon": 1e-3}
    value = measures.recursive_ldmi(torch.tensor(z1), torch.tensor(z2), **kwargs)
    assert np.allclose(value, recursive_ldmi(z1, z2, **kwargs), rtol=1e-6, atol=1e-6)


def test_the_recursive_information_of_views_that_are_equal_is_finite():
    """The joint covariance is then singular, and rounding makes eigenvalues negative if the entries are large."""
    for scale in (1e-20, 1, 1e4, 1e30):
        z = torch.tensor(scale * normal(5, 3, 4))
        value = measures.recursive_ldmi(z, z)
        assert value.isfinite().all()
        assert (value >= 0).all()


def test_the_recursive_information_of_independent_views_is_small_and_of_equal_ones_large():
    z1, z2 = torch.tensor(normal(30, 200, 4)), torch.tensor(normal(30, 200, 4, seed=1))
    independent, equal = measures.recursive_ldmi(z1, z2, forgetting=0.9), measures.recursive_ldmi(z1, z1)
    assert independent[-1] < 0.05
    assert equal[-1] > 10
    assert (measures.recursive_ldmi(torch.zeros(3, 2, 4), torch.zeros(3, 2, 4)) < 1e-12).all()


# ------------------------------------------------------------------------------------------------------ closed forms


def cross(d):
    """Returns the unit vectors along the axes, in both directions: isotropic, and without mean."""
    return torch.cat([torch.eye(d), -torch.eye(d)]).double()


@pytest.mark.parametrize("d", [2, 5, 100])
def test_an_isotropic_distribution_has_full_rank(d):
    z = 3 * cross(d)
    for name in ("rankme", "effective_rank", "participation_ratio", "stable_rank"):
        assert close(getattr(measures, name)(z), d, rel=1e-4), name
    assert measures.effective_dimension(z) == math.ceil(0.99 * d)
    assert close(measures.spectrum_auc(z), (d + 1) / (2 * d))
    assert close(measures.von_neumann_entropy(z), math.log(d))
    assert np.allclose(measures.covariance_spectrum(z), 9 / d)
    assert close(measures.feature_std(z), 1 / math.sqrt(d))
    assert close(measures.collapse_level(z), 0)
    assert close(measures.mean_cosine(z), -1 / (2 * d - 1))


def test_an_axis_counts_that_reaches_the_energy_but_for_rounding():
    assert [measures.effective_dimension(cross(10), energy=k / 10) for k in range(1, 11)] == list(range(1, 11))


def test_a_line_has_rank_1_with_and_without_a_mean():
    for z in (SAMPLES["line"], SAMPLES["line with mean"]):
        for name in ("effective_rank", "participation_ratio", "stable_rank", "effective_dimension", "spectrum_auc"):
            assert close(getattr(measures, name)(torch.tensor(z)), 1), name
    assert close(measures.rankme(torch.tensor(SAMPLES["line"]), epsilon=0), 1)
    assert close(measures.von_neumann_entropy(torch.tensor(SAMPLES["line"])), 0)


@pytest.mark.parametrize("kind", ["equal", "nearly equal", "zeros"])
def test_rows_that_are_equal_but_for_rounding_have_no_rank(kind):
    z = torch.tensor(SAMPLES[kind])
    for name in ("effective_rank", "participation_ratio", "stable_rank", "effective_dimension"):
        assert getattr(measures, name)(z) == 0, name
    assert measures.spectrum_auc(z) == 1
    assert math.isnan(measures.alpha_req(z, first=1))
    assert (measures.covariance_spectrum(z) == 0).all()
    assert close(measures.collapse_level(z), 1)
    assert measures.von_neumann_entropy(z) < 1e-9
    if kind != "zeros":
        assert close(measures.rankme(z, epsilon=0), 1)
        for name in ("mean_cosine", "self_clustering", "near_duplicate_share"):
            assert close(getattr(measures, name)(z), 1), name
        assert close(measures.uniformity(z), 0)


def test_rankme_of_zeros_is_that_of_epsilon():
    assert measures.rankme(torch.zeros(5, 3), epsilon=0.1) == pytest.approx(math.exp(-3 * 0.1 * math.log(0.1)))
    assert measures.rankme(torch.zeros(5, 3), epsilon=0) == 1


@pytest.mark.parametrize(("mean", "expected"), [(0, 63), (1, 55), (5, 24), (20, 6)])
def test_a_mean_lowers_rankme_and_not_the_effective_rank(mean, expected):
    z = torch.tensor(normal(512, 64) + mean)
    assert measures.rankme(z) == pytest.approx(expected, abs=0.75)
    assert measures.effective_rank(z) == pytest.approx(63, abs=1)


@pytest.mark.parametrize("n", [4, 9])
def test_fewer_rows_than_columns_bound_the_ranks(n):
    z = torch.tensor(normal(n, 50))
    assert n - 1 < measures.rankme(z) <= n + 1e-3
    for name in ("effective_rank", "participation_ratio", "stable_rank", "effective_dimension"):
        assert 1 < getattr(measures, name)(z) <= n - 1 + 1e-9, name
    assert (measures.covariance_spectrum(z)[n - 1 :] == 0).all()
    assert measures.von_neumann_entropy(z) <= math.log(n)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_ranks_know_no_scale(scale):
    z = torch.tensor(normal(20, 6))
    for name in ("rankme", "effective_rank", "participation_ratio", "stable_rank", "effective_dimension", "alpha_req"):
        kwargs = {"first": 1} if name == "alpha_req" else {}
        measure = partial(getattr(measures, name), **kwargs)
        assert close(measure(scale * z), measure(z)), name


def test_rows_shorter_than_the_floor_are_no_directions():
    """A row is divided by 1e-12 if its norm is smaller, so that it has almost no cosine to another."""
    z = torch.tensor(SAMPLES["equal"])
    assert close(measures.mean_cosine(1e200 * z), 1)
    assert close(measures.mean_cosine(1e-11 * z), 1)
    assert measures.mean_cosine(1e-20 * z) < 1e-10
    assert measures.mean_cosine(1e-310 * z) < 1e-10
    assert close(measures.mean_cosine(torch.tensor([[3e-13, 4e-13]] * 2, dtype=torch.float64)), 0.25)


@pytest.mark.parametrize(("function", "bounds"), [("mean_cosine", (-0.01, 0.01)), ("self_clustering", (-0.02, 0.02))])
def test_random_directions_do_not_cluster(function, bounds):
    value = getattr(measures, function)(torch.tensor(normal(500, 30)))
    assert bounds[0] < value < bounds[1]


def test_random_directions_are_uniform():
    assert measures.uniformity(torch.tensor(normal(300, 200))) == pytest.approx(-4, abs=0.05)
    assert measures.uniformity(torch.tensor(normal(10, 5)), temperature=1e4) < -1000  # exp of it underflows


def test_directions_on_a_line_are_a_cluster_for_one_column():
    assert measures.self_clustering(torch.tensor([[1.0], [-2.0], [3.0]])) == 1


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_alpha_is_the_exponent_of_a_power_law(exponent):
    z = cross(120) * torch.arange(1, 121).double() ** (-exponent / 2)
    assert close(measures.alpha_req(z), exponent)


def test_near_duplicates_of_cosine_1_are_found_whatever_rounding_makes_of_their_cosine():
    z = torch.tensor(normal(50, 7))
    assert measures.near_duplicate_share(torch.cat([z, math.pi * z]), cosine=1) == 1
    assert measures.near_duplicate_share(z, cosine=1) == 0


def test_lidar_of_isotropic_images_is_their_dimension():
    images, noise = cross(5), 0.1 * torch.tensor(normal(10, 1, 5))
    z = torch.cat([images[:, None] + noise, images[:, None] - noise], dim=1)
    assert measures.lidar(z, delta=1e4, epsilon=0) == pytest.approx(5, rel=1e-6)  # all noise is equal


@pytest.mark.parametrize("views", [torch.zeros(4, 3, 5), torch.ones(4, 3, 5) / 3, torch.randn(1, 3, 5).expand(4, 3, 5)])
def test_lidar_of_equal_images_is_that_of_epsilon(views):
    value = measures.lidar(views, epsilon=0.1)
    assert value == pytest.approx(math.exp(-5 * 0.1 * math.log(0.1)))
    assert measures.lidar(views) == pytest.approx(1, abs=1e-4)


def test_images_that_differ_by_rounding_are_equal_for_lidar():
    z = torch.tensor(normal(1, 1, 5) + 1e-12 * normal(7, 1, 5) + 0.1 * (normal(1, 3, 5) - normal(1, 3, 5).mean(1)))
    assert measures.lidar(z, epsilon=0.1) == pytest.approx(math.exp(-5 * 0.1 * math.log(0.1)))
    assert measures.lidar(z + 1e-6 * torch.tensor(normal(7, 1, 5)), epsilon=0) > 1.5


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8, 1e12, 1e200])
def test_lidar_finds_directions_without_noise_at_every_scale(scale):
    """There delta alone divides, however small it is beside the noise of the other directions."""
    images, noise = normal(40, 1, 6), normal(40, 2, 6, seed=1)
    noise[..., 3:] = 0
    z = images + noise - noise.mean(1, keepdims=True)
    delta = 1e-4 * min(scale, 1e100) ** 2
    expected = lidar(z, delta=1e-4)
    assert close(measures.lidar(torch.tensor(scale * z), delta=delta), expected, rel=1e-6 if scale < 1e100 else 5)


def test_prototypes_are_in_use_from_a_share_of_their_even_use_on():
    p = torch.eye(10)[[0] * 89 + [1] * 10 + [2]]
    assert measures.prototypes_in_use(p) == 0.3  # a share of exactly 0.1 / 10 counts
    assert measures.prototypes_in_use(p, share=0.11) == 0.2
    assert measures.prototypes_in_use(p, share=0) == 0.3
    assert measures.prototypes_in_use(torch.eye(7)[[0] * 69 + [1]]) == 2 / 7  # 0.1 / 7 > 1 / 70 in float64
    counts = torch.bincount(p.argmax(1), minlength=10)
    assert measures.share_in_use(counts) == 0.3
    assert measures.share_in_use(torch.zeros(4)) == 0


def test_the_first_of_tied_prototypes_wins():
    p = torch.tensor([[0.2, 0.4, 0.4], [0.4, 0.4, 0.2]])
    assert measures.effective_prototypes(p) == pytest.approx(2)
    assert measures.prototypes_in_use(p[:1].expand(5, 3)) == pytest.approx(1 / 3)


def test_blocks_change_no_value(monkeypatch):
    z = torch.tensor(normal(23, 4))
    names = ("uniformity", "near_duplicate_share", "self_clustering")
    whole = [getattr(measures, name)(z) for name in names]
    monkeypatch.setattr(directions, "BLOCK_ENTRIES", 50)
    assert [getattr(measures, name)(z) for name in names] == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(directions, "BLOCK_ENTRIES", 1)
    assert [getattr(measures, name)(z) for name in names] == pytest.approx(whole, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------- arguments

P = torch.tensor(np.random.default_rng(0).multinomial(64, np.arange(1, 9) / 36, size=30) / 64)  # exact in bfloat16
Z = torch.tensor(SAMPLES["tall"])
VIEWS = torch.tensor(normal(5, 3, 4))
CALLS = {
    **{name: (getattr(measures, name), [Z]) for name in (*EMBEDDING_MEASURES, *PAIR_MEASURES, "covariance_spectrum")},
    **{name: (getattr(measures, name), [P]) for name in ASSIGNMENT_MEASURES},
    "alignment": (measures.alignment, [Z, Z.flip(0)]),
    "lidar": (measures.lidar, [VIEWS]),
    "recursive_ldmi": (measures.recursive_ldmi, [VIEWS, VIEWS.flip(1)]),
}


def wrong_values(x):
    """Yields what no measure takes in place of ``x``."""
    for bad in (math.nan, math.inf, -math.inf):
        wrong = x.clone()
        wrong[(-1,) * x.ndim] = bad
        yield wrong
    yield from (x[0], x[None], x[:0], x[..., :0], x.long(), x.bool(), x.cfloat(), x.numpy(), x.tolist(), None)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_tensors_are_refused(name):
    measure, arguments = CALLS[name]
    for index, x in enumerate(arguments):
        for wrong in wrong_values(x):
            with pytest.raises(ValueError, match=r"[zp]\d? (must|needs|contains)"):
                measure(*arguments[:index], wrong, *arguments[index + 1 :])


WRONG = {
    "rankme": {"epsilon": [-1e-9, math.nan, math.inf, "0", None]},
    "effective_dimension": {"energy": [0, -0.1, 1.01, math.nan, "1"]},
    "alpha_req": {"first": [0, -1, 1.5, True, None], "last": [0, 2.5]},
    "lidar": {"delta": [0, -1, math.nan, math.inf], "epsilon": [-1e-9, math.nan]},
    "alignment": {"power": [0, -1, math.nan, math.inf]},
    "uniformity": {"temperature": [0, -1, math.nan, math.inf]},
    "near_duplicate_share": {"cosine": [-1.01, 1.01, math.nan]},
    "prototypes_in_use": {"share": [-0.01, math.nan, math.inf]},
    "recursive_ldmi": {"forgetting": [-0.1, 1, math.nan], "epsilon": [0, -1, math.nan, math.inf]},
}


@pytest.mark.parametrize(("name", "argument"), [(name, x) for name, table in WRONG.items() for x in table])
def test_numbers_out_of_range_are_refused(name, argument):
    measure, arguments = CALLS[name]
    for value in WRONG[name][argument]:
        with pytest.raises(ValueError, match=f"{argument} must be"):
            measure(*arguments, **{argument: value})


@pytest.mark.parametrize("name", PAIR_MEASURES)
def test_one_row_has_no_pair(name):
    for z in (Z[:1], Rows(Z[:1])):
        with pytest.raises(ValueError, match="z needs at least 2 rows, but has 1"):
            getattr(measures, name)(z)


def test_tensors_that_do_not_belong_together_are_refused():
    for other in (Z[:-1], Z[:, :-1], Z.T):
        with pytest.raises(ValueError, match="z2 must have the shape of z1"):
            measures.alignment(Z, other)
    for other in (VIEWS[:-1], VIEWS[:, :-1], VIEWS[..., :-1]):
        with pytest.raises(ValueError, match="z2 must have the shape of z1"):
            measures.recursive_ldmi(VIEWS, other)


def test_lidar_needs_two_images_and_two_views():
    for z in (VIEWS[:1], VIEWS[:, :1]):
        with pytest.raises(ValueError, match="2 images and 2 views"):
            measures.lidar(z)


@pytest.mark.parametrize("name", ASSIGNMENT_MEASURES)
def test_rows_that_are_no_distribution_are_refused(name):
    measure = getattr(measures, name)
    measure(P * (1 + 0.9e-3))
    for wrong in (P * (1 + 1.1e-3), P * (1 - 1.1e-3), torch.tensor([[1.1, -0.1]])):
        with pytest.raises(ValueError, match="p must"):
            measure(wrong)


def test_entries_whose_squares_overflow_are_refused_where_squares_are_the_result():
    with pytest.raises(ValueError, match="z must have entries up to 1e"):
        measures.covariance_spectrum(1e200 * Z)
    with pytest.raises(ValueError, match="z2 must have entries up to 1e"):
        measures.recursive_ldmi(VIEWS, 1e200 * VIEWS)


@pytest.mark.parametrize("name", CALLS)
def test_a_measure_has_no_gradient_and_leaves_its_arguments(name):
    measure, arguments = CALLS[name]
    expected = measure(*arguments)
    copies = [x.clone().requires_grad_() for x in arguments]
    value = measure(*copies)
    assert all(torch.equal(copy, x) and copy.grad_fn is None for copy, x in zip(copies, arguments, strict=True))
    assert not (isinstance(value, torch.Tensor) and value.requires_grad)
    torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", CALLS)
def test_narrower_types_are_widened_and_autocast_is_ignored(name, dtype):
    measure, arguments = CALLS[name]
    arguments = [x.to(dtype) for x in arguments]
    expected = measure(*(x.double() for x in arguments))
    torch.testing.assert_close(measure(*arguments), expected, rtol=0, atol=0, equal_nan=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(measure(*arguments), expected, rtol=0, atol=0, equal_nan=True)
    with torch.inference_mode():
        torch.testing.assert_close(measure(*arguments), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_the_order_of_memory_changes_no_value(name):
    measure, arguments = CALLS[name]
    expected = measure(*arguments)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in arguments]
    torch.testing.assert_close(measure(*strided), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", [*EMBEDDING_MEASURES, *PAIR_MEASURES, "covariance_spectrum"])
def test_the_largest_numbers_of_half_precision_have_a_measure(name):
    z = torch.tensor(np.sign(normal(20, 6))).half() * torch.finfo(torch.float16).max
    value = torch.as_tensor(getattr(measures, name)(z))
    expected = torch.as_tensor(getattr(measures, name)(z.double() / 2**16))
    if name == "covariance_spectrum":
        expected = expected * 2**32
    torch.testing.assert_close(value, expected, equal_nan=True)


def test_rows_compute_each_decomposition_once():
    rows = Rows(Z)
    assert rows.singular_values is rows.singular_values
    assert rows.centred_singular_values is rows.centred_singular_values
    assert len(rows) == 14
    assert rows.width == 6


# ------------------------------------------------------------------------------------------------------- many ranks


def share_of(x, rank, world, axis=0):
    """Returns the rows of a rank: all ranks have different numbers of them, and the second of three has none."""
    sizes = {2: [1, x.shape[axis] - 1], 3: [2, 0, x.shape[axis] - 2]}[world]
    return x.split(sizes, dim=axis)[rank]


def shares_of(name, arguments, rank, world):
    return [share_of(x, rank, world, axis=1 if name == "recursive_ldmi" else 0) for x in arguments]


def message_of(function, *args, **kwargs):
    try:
        return f"no error: {function(*args, **kwargs)}"
    except ValueError as error:
        return str(error)


def measured_on_a_rank(world):
    """Returns all measures of this rank's share, and what it says of shares of which one is wrong."""
    rank = torch.distributed.get_rank()
    last = rank == world - 1
    share = share_of(Z, rank, world)
    spoiled = share.clone()
    spoiled[-1:] = math.nan if last else 1.0
    messages = {
        "contains NaN": message_of(measures.rankme, spoiled),
        "floating-point": message_of(measures.mean_cosine, share.long() if last else share),
        "[n, d]": message_of(measures.effective_rank, share[None] if last else share),
        "but is NoneType": message_of(measures.uniformity, None if last else share),
        "differ between ranks": message_of(measures.feature_std, share[:, 1:] if last else share),
        "epsilon must be": message_of(measures.rankme, share, epsilon=-1 if last else 1e-7),
        "at least 1 row": message_of(measures.stable_rank, share[:0]),
        "at least 2 rows": message_of(measures.mean_cosine, share[:1] if last else share[:0]),
        "sum to 1": message_of(measures.marginal_entropy, share_of(P, rank, world) * (2 if last else 1)),
        "shape of z1": message_of(measures.alignment, share, share[1:] if last else share),
        "2 images": message_of(measures.lidar, VIEWS[: int(last)]),
    }
    values = {}
    for name, (measure, arguments) in CALLS.items():
        value = measure(*shares_of(name, arguments, rank, world))
        values[name] = value.tolist() if isinstance(value, torch.Tensor) else value
    rows = Rows(share)
    return values, messages, [measures.effective_rank(rows), measures.mean_cosine(rows)]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_return_the_value_of_all_rows_or_refuse_together(world):
    results = on_ranks(world, measured_on_a_rank, world)
    for values, messages, of_rows in results:
        for name, (measure, arguments) in CALLS.items():
            expected = measure(*arguments)
            expected = expected.tolist() if isinstance(expected, torch.Tensor) else expected
            assert values[name] == pytest.approx(expected, rel=1e-8, abs=1e-8, nan_ok=True), name
        assert of_rows == [pytest.approx(measures.effective_rank(Z)), pytest.approx(measures.mean_cosine(Z))]
        for expected, message in messages.items():
            assert expected in message
    assert f"on rank {world - 1}: z must be" in results[0][1]["[n, d]"]
    assert results[-1][1]["[n, d]"].startswith("z must be")
