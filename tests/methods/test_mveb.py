"""MVEB's score against Eq. 26 as a dense double sum, and against densities whose score is known.

Only the tangential part of a score reaches the encoder, and only that part is compared with an oracle: the
implementation is free to return any radial part.
"""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.nn.functional import normalize

from infomax.methods.mveb import alignment, entropy_surrogate, stein_score

SHAPES = [(12, 4), (5, 16)]  # more samples than dimensions, and fewer


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere(samples, dim, seed=0):
    return normalize(gaussian(samples, dim, seed=seed), dim=1)


def cluster(samples, dim, spread, seed=0):
    """Returns rows around the last axis; spread is the standard deviation of every coordinate before normalisation."""
    axis = torch.zeros(dim, dtype=torch.float64)
    axis[-1] = 1
    return normalize(axis + spread * gaussian(samples, dim, seed=seed), dim=1)


def von_mises_fisher(samples, concentration, seed=0):
    """Draws points on the two-sphere around the last axis, by inverting the distribution of the height."""
    rng = np.random.default_rng(seed)
    uniform, angle = rng.random(samples), 2 * np.pi * rng.random(samples)
    height = 1 + np.log(uniform + (1 - uniform) * np.exp(-2 * concentration)) / concentration
    radius = np.sqrt(1 - height**2)
    return torch.tensor(np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1))


def tangent(score, z):
    return score - (score * z).sum(1, keepdim=True) * z


def kernel(x, y, bandwidth):
    return torch.exp(x @ y.T / bandwidth)  # Eq. 18, not normalised


def closed_form(z, eta, bandwidth):
    """Computes -(K + eta I)^-1 diag(K 1) Z / Delta, which is Eq. 26 with the kernel's gradient written out."""
    k = kernel(z, z, bandwidth).numpy()
    return torch.tensor(-np.linalg.solve(k + eta * np.eye(len(z)), k.sum(1, keepdims=True) * z.numpy()) / bandwidth)


def double_sum(z, eta, bandwidth, argument):
    """Computes Eq. 26 from the [M, M, D] derivatives of the kernel in its first (0) or second (1) argument."""
    samples, dim = z.shape
    derivatives = torch.zeros(samples, samples, dim, dtype=z.dtype)
    for i in range(samples):
        for m in range(samples):
            pair = [z[i : i + 1].clone().requires_grad_(), z[m : m + 1].clone().requires_grad_()]
            derivatives[i, m] = torch.autograd.grad(kernel(*pair, bandwidth).sum(), pair[argument])[0]
    right = derivatives.mean(1).numpy()
    return torch.tensor(-samples * np.linalg.solve(kernel(z, z, bandwidth).numpy() + eta * np.eye(samples), right))


def official_bandwidth(z):
    """Returns the floor(M^2 / 2)-th largest of all M^2 cosine distances, the M zeros of the diagonal included."""
    distances = np.sort(1 - z.numpy() @ z.numpy().T, axis=None)[::-1]
    return max(float(distances[len(z) ** 2 // 2 - 1]), 0.1)


def relative_error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


def surrogate_gradient(z, **options):
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad(entropy_surrogate(leaf, **options), leaf)[0]


# The estimator: Eqs. 18 and 26


@pytest.mark.parametrize(("samples", "dim"), SHAPES)
@pytest.mark.parametrize(("eta", "bandwidth"), [(0.01, 1.0), (0.5, 0.4), (0.01, 0.05)])
def test_score_is_the_double_sum_over_derivatives_in_the_second_argument(samples, dim, eta, bandwidth):
    # eta is relative to the kernel as printed: with a unit diagonal it would act exp(1 / bandwidth) times as strongly.
    z = sphere(samples, dim)
    expected = tangent(double_sum(z, eta, bandwidth, argument=1), z)
    assert relative_error(tangent(stein_score(z, eta=eta, bandwidth=bandwidth), z), expected) < 1e-9


@pytest.mark.parametrize("scope", ["global", "chunk:6"])
def test_the_radial_part_is_that_of_the_double_sum_too(scope):
    z = sphere(12, 4)
    parts = z.split(6) if scope == "chunk:6" else [z]
    expected = torch.cat([double_sum(part, 0.01, official_bandwidth(part), argument=1) for part in parts])
    assert relative_error(stein_score(z, scope=scope), expected) < 1e-9
    assert relative_error(surrogate_gradient(z, scope=scope), -expected / 12) < 1e-9


def test_score_is_not_made_of_derivatives_in_the_first_argument():
    # The easy misreading of Eq. 26; its ascent contracts the embeddings.
    z = sphere(12, 4)
    wrong = tangent(double_sum(z, 0.01, 1.0, argument=0), z)
    right = tangent(stein_score(z, eta=0.01, bandwidth=1.0), z)
    assert (right - wrong).norm() > 0.9 * right.norm()


@pytest.mark.parametrize("samples", [2, 3, 40])
@pytest.mark.parametrize("eta", [1e-3, 0.01, 1.0])
def test_score_has_the_tangent_of_the_uncentred_closed_form(samples, eta):
    z = sphere(samples, 6, seed=samples)
    expected = tangent(closed_form(z, eta, 0.7), z)
    assert relative_error(tangent(stein_score(z, eta=eta, bandwidth=0.7), z), expected) < 1e-8


@pytest.mark.parametrize("samples", [2, 3, 4, 9, 32])
def test_default_bandwidth_is_the_order_statistic_with_the_diagonal(samples):
    # torch.median, or the median of the pairs i < j, is another number at these sizes.
    z = sphere(samples, 3, seed=samples)
    expected = tangent(stein_score(z, bandwidth=official_bandwidth(z)), z)
    assert relative_error(tangent(stein_score(z), z), expected) < 1e-7


@pytest.mark.parametrize("spread", [0.01, 0.1])
def test_default_bandwidth_is_at_least_a_tenth(spread):
    z = cluster(16, 4, spread)
    assert (1 - z @ z.T).max() < 0.2  # so that the order statistic lies below the floor
    assert relative_error(tangent(stein_score(z), z), tangent(stein_score(z, bandwidth=0.1), z)) < 1e-6


def test_a_given_bandwidth_is_not_clamped():
    z = cluster(16, 4, 0.3)
    expected = tangent(closed_form(z, 0.01, 0.03), z)
    assert relative_error(tangent(stein_score(z, bandwidth=0.03), z), expected) < 1e-8


def test_default_eta_is_a_hundredth():
    z = sphere(12, 4)
    torch.testing.assert_close(stein_score(z), stein_score(z, eta=0.01), rtol=0, atol=0)
    torch.testing.assert_close(entropy_surrogate(z), entropy_surrogate(z, eta=0.01), rtol=0, atol=0)


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.3, 0.95])
def test_two_points_have_their_closed_form(cosine):
    z = torch.tensor([[1.0, 0.0, 0.0], [cosine, math.sqrt(1 - cosine**2), 0.0]], dtype=torch.float64)
    bandwidth, eta = max(1 - cosine, 0.1), 0.01  # the second largest of {0, 0, 1 - c, 1 - c}
    a, b = math.exp(1 / bandwidth), math.exp(cosine / bandwidth)
    towards_the_other = z.flip(0) - cosine * z
    expected = (a + b) * b / (bandwidth * ((a + eta) ** 2 - b**2)) * towards_the_other
    torch.testing.assert_close(tangent(stein_score(z, eta=eta), z), expected, rtol=1e-9, atol=1e-12)


def test_ascent_drives_two_points_apart():
    z = cluster(2, 3, 0.2)
    moved = normalize(z + 0.01 * surrogate_gradient(z), dim=1)
    assert moved[0] @ moved[1] < z[0] @ z[1]


@pytest.mark.parametrize(("samples", "dim"), SHAPES)
def test_score_rotates_with_the_embeddings(samples, dim):
    z, rotation = sphere(samples, dim), torch.linalg.qr(gaussian(dim, dim, seed=1)).Q
    torch.testing.assert_close(stein_score(z @ rotation), stein_score(z) @ rotation, rtol=1e-7, atol=1e-8)


def test_score_follows_the_order_of_the_samples():
    z, order = sphere(12, 4), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stein_score(z[order]), stein_score(z)[order], rtol=1e-9, atol=1e-10)


# Known densities


@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
@pytest.mark.parametrize("concentration", [0.5, 1.0, 2.0])
def test_score_on_the_circle_reaches_its_analytic_limit(concentration, bandwidth):
    # With I_n the modified Bessel functions at 1 / bandwidth, the kernel has Fourier coefficients I_n. Solving Eq. 24
    # for a density of coefficients p_n gives the true score, -sum 2 n p_n sin(n t) / p, with mode n multiplied by
    # I_n^2 / (I_{n-1} I_{n+1}) > 1: the price of the ambient derivative. Quantiles stand for noise-free samples.
    samples, n = 300, np.arange(1, 31)
    angle = stats.vonmises.ppf((np.arange(samples) + 0.5) / samples, concentration)
    z = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], 1))
    along = torch.stack([-z[:, 1], z[:, 0]], 1)

    coefficient = special.ive(n, concentration) / special.ive(0, concentration) / (2 * np.pi)
    factor = special.ive(n, 1 / bandwidth) ** 2
    factor /= special.ive(n - 1, 1 / bandwidth) * special.ive(n + 1, 1 / bandwidth)
    modes = 2 * n * factor * coefficient * np.sin(np.outer(angle, n))
    limit = torch.tensor(-modes.sum(1) / stats.vonmises.pdf(angle, concentration))

    score = (stein_score(z, bandwidth=bandwidth) * along).sum(1)
    assert relative_error(score, limit) < 2e-3


@pytest.mark.parametrize("concentration", [1.0, 2.0, 4.0])
def test_score_of_von_mises_fisher_draws_points_to_the_mean_direction(concentration):
    # The score is concentration * (I - z z^T) mu; the slope lies between 1 and the 1.86 of the ambient derivative.
    z = von_mises_fisher(600, concentration)
    mean_direction = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand_as(z)
    expected = concentration * tangent(mean_direction, z)
    score = tangent(stein_score(z, eta=1.0), z)
    overlap = (score * expected).sum()
    assert overlap > 0.9 * score.norm() * expected.norm()
    assert 1 < overlap / expected.square().sum() < 2


def test_score_grows_with_the_concentration():
    # Along the mean direction; the same uniform draws serve every concentration.
    pull = [
        tangent(stein_score(z, eta=1.0), z).mean(0)[2].item()
        for z in (von_mises_fisher(400, concentration) for concentration in (1.0, 4.0, 16.0))
    ]
    assert 0 < pull[0] < pull[1] < pull[2]


def test_uniform_embeddings_feel_no_common_force():
    uniform = sphere(600, 3)
    clustered = von_mises_fisher(600, 4.0)
    common = [tangent(stein_score(z), z).mean(0).norm() for z in (uniform, clustered)]
    assert common[0] < 0.1 * common[1]


def test_common_force_on_uniform_embeddings_fades_with_their_number():
    few, many = (
        np.mean([tangent(stein_score(z), z).mean(0).norm() for z in (sphere(samples, 3, seed) for seed in range(6))])
        for samples in (32, 512)
    )
    assert many < few / 2  # a sampling error: a factor of 4 is expected


# Near collapse


def precise_tangent(z, eta, bandwidth):
    """Computes the closed form by a Cholesky solve in extended precision, with distances that do not cancel."""
    x = z.numpy().astype(np.longdouble)
    x /= np.sqrt((x**2).sum(1, keepdims=True))
    k = np.exp((1 - ((x[:, None] - x[None]) ** 2).sum(2) / 2) / np.longdouble(bandwidth))
    matrix, lower = k + np.longdouble(eta) * np.eye(len(x)), np.zeros_like(k)
    for j in range(len(x)):
        lower[j:, j] = matrix[j:, j] - lower[j:, :j] @ lower[j, :j]
        lower[j:, j] /= np.sqrt(lower[j, j])
    solution = k.sum(1, keepdims=True) * x / np.longdouble(bandwidth)
    for i in range(len(x)):
        solution[i] = (solution[i] - lower[i, :i] @ solution[:i]) / lower[i, i]
    for i in reversed(range(len(x))):
        solution[i] = (solution[i] - lower[i + 1 :, i] @ solution[i + 1 :]) / lower[i, i]
    return torch.tensor((-solution + (solution * x).sum(1, keepdims=True) * x).astype(np.float64))


@pytest.mark.parametrize(("samples", "dim"), [(12, 4), (12, 32)])
@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_double_precision_survives_near_collapse(samples, dim, spread):
    z = cluster(samples, dim, spread)
    assert relative_error(tangent(stein_score(z), z), precise_tangent(z, 0.01, 0.1)) < 1e-6


@pytest.mark.parametrize(("samples", "dim"), [(12, 4), (12, 32), (64, 16)])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_single_precision_agrees_with_double_near_collapse(samples, dim, spread):
    # The same points for both, so that only the arithmetic differs.
    single = cluster(samples, dim, spread).float()
    expected = tangent(stein_score(single.double()), single.double())
    assert relative_error(tangent(stein_score(single).double(), single.double()), expected) < 1e-3


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_rounding_the_embeddings_does_not_change_the_score_near_collapse(spread):
    # Rounded rows are off the sphere by 1e-7, which is more than 1 - z.z' of neighbours 1e-4 apart.
    z = cluster(12, 32, spread)
    assert relative_error(tangent(stein_score(z.float()).double(), z), tangent(stein_score(z), z)) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_embeddings_have_no_tangential_score(dtype):
    z = sphere(1, 6).expand(16, 6).to(dtype)
    score = tangent(stein_score(z), z)
    torch.testing.assert_close(score, torch.zeros_like(score), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_duplicated_embeddings_share_a_finite_score(spread, dtype):
    z = cluster(8, 6, spread).to(dtype)
    score = stein_score(z.repeat(2, 1))
    assert score.isfinite().all()
    torch.testing.assert_close(score[:8], score[8:], rtol=1e-3, atol=1e-3 * score.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bandwidth", [1e-3, 1e-2])
def test_a_tiny_bandwidth_does_not_overflow(bandwidth, dtype):
    # exp(1 / bandwidth) as printed leaves the range of either precision.
    assert stein_score(sphere(12, 4).to(dtype), bandwidth=bandwidth).isfinite().all()


# Gradients and training


@pytest.mark.parametrize("eta", [0.01, 0.5])
def test_surrogate_gradient_is_minus_the_score_over_the_number_of_samples(eta):
    # Eq. 13 to 17: the score enters as a constant.
    z = sphere(12, 4)
    assert entropy_surrogate(z).ndim == 0
    torch.testing.assert_close(surrogate_gradient(z, eta=eta), -stein_score(z, eta=eta) / 12, rtol=1e-12, atol=1e-15)


def test_no_gradient_passes_through_the_score():
    z = sphere(12, 4).requires_grad_()
    assert not stein_score(z).requires_grad
    (first,) = torch.autograd.grad(entropy_surrogate(z), z, create_graph=True)
    assert not first.requires_grad


def test_projecting_the_score_on_the_sphere_changes_no_parameter_gradient():
    inputs, weight = gaussian(12, 7, seed=1), gaussian(7, 4, seed=2).requires_grad_()
    z = normalize(inputs @ weight, dim=1)
    score = stein_score(z)
    (expected,) = torch.autograd.grad(-(tangent(score, z).detach() * z).sum(1).mean(), weight, retain_graph=True)
    (actual,) = torch.autograd.grad(entropy_surrogate(z), weight)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def climb(z, direction, steps=120):
    """Moves embeddings up (+1) or down (-1) the entropy on the sphere, in steps of one length."""
    for _ in range(steps):
        force = tangent(direction * surrogate_gradient(z), z)
        z = normalize(z + 0.1 * force / force.norm(dim=1).max(), dim=1)
    return z


@pytest.mark.parametrize("dim", [3, 16])
def test_ascent_spreads_a_tight_cluster_over_the_whole_sphere(dim):
    z = cluster(48, dim, 0.05)
    assert z.mean(0).norm() > 0.95
    assert climb(z, +1).mean(0).norm() < 0.05


@pytest.mark.parametrize("dim", [3, 16])
def test_descent_contracts_a_wide_cluster(dim):
    z = cluster(48, dim, 0.5)
    assert climb(z, -1).mean(0).norm() > z.mean(0).norm() + 0.02


def test_alignment_is_the_mean_cosine_of_matching_rows():
    # Algorithm 1 prints the mean over all pairs of rows; Eq. 11 has the matching ones. A target may be a mean of rows.
    online, target = sphere(12, 4), (sphere(12, 4, seed=1) + sphere(12, 4, seed=2)) / 2
    value = alignment(online, target)
    assert value.ndim == 0
    assert value.item() == pytest.approx(np.einsum("nd,nd->", online.numpy(), target.numpy()) / 12, rel=1e-12)
    assert alignment(online, online).item() == pytest.approx(1, rel=1e-12)


def test_alignment_passes_a_gradient_to_both_arguments():
    online, target = sphere(12, 4).requires_grad_(), sphere(12, 4, seed=1).requires_grad_()
    alignment(online, target).backward()
    torch.testing.assert_close(online.grad, target.detach() / 12)
    torch.testing.assert_close(target.grad, online.detach() / 12)


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_embeddings(dtype):
    z = sphere(12, 4).to(dtype)
    assert stein_score(z).dtype == entropy_surrogate(z).dtype == alignment(z, z).dtype == dtype
    assert stein_score(z).shape == z.shape
    assert surrogate_gradient(z).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_embeddings_are_computed_in_single_precision(dtype):
    z, other = sphere(64, 16).to(dtype), sphere(64, 16, seed=1).to(dtype)
    rounding = torch.finfo(dtype).eps
    assert relative_error(stein_score(z), stein_score(z.double())) < rounding
    assert alignment(z, other).item() == pytest.approx(alignment(z.double(), other.double()).item(), rel=rounding)
    assert entropy_surrogate(z).item() == pytest.approx(entropy_surrogate(z.double()).item(), rel=4 * rounding)


def test_autocast_changes_no_bit():
    z, other = sphere(64, 16).float(), sphere(64, 16, seed=1).float()

    def results():
        return stein_score(z), entropy_surrogate(z), surrogate_gradient(z), alignment(z, other)

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = results()
    assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))


# Bad input


def spoilt(value):
    z = sphere(12, 4)
    z[1, 1] = value
    return z


BAD_EMBEDDINGS = {
    "NaN": spoilt(math.nan),
    "Inf": spoilt(math.inf),
    "-Inf": spoilt(-math.inf),
    "a vector": sphere(12, 4)[0],
    "a stack": sphere(12, 4)[None],
    "no sample": sphere(12, 4)[:0],
}
NOT_A_BATCH_ON_THE_SPHERE = {
    **BAD_EMBEDDINGS,
    "one sample": sphere(12, 4)[:1],
    "a row of norm 1.05": sphere(12, 4) * torch.tensor([1.05] + 11 * [1.0], dtype=torch.float64)[:, None],
    "a zero row": sphere(12, 4) * torch.tensor([0.0] + 11 * [1.0], dtype=torch.float64)[:, None],
}


@pytest.mark.parametrize("function", [stein_score, entropy_surrogate])
@pytest.mark.parametrize("bad", NOT_A_BATCH_ON_THE_SPHERE.values(), ids=NOT_A_BATCH_ON_THE_SPHERE.keys())
def test_bad_embeddings_are_named(function, bad):
    with pytest.raises(ValueError, match=r"\bz\b"):
        function(bad)


def test_rows_of_nearly_unit_norm_are_accepted():
    assert stein_score(1.002 * sphere(12, 4)).isfinite().all()


@pytest.mark.parametrize("bad", BAD_EMBEDDINGS.values(), ids=BAD_EMBEDDINGS.keys())
def test_bad_alignment_arguments_are_named(bad):
    with pytest.raises(ValueError, match="online"):
        alignment(bad, sphere(12, 4))
    with pytest.raises(ValueError, match="target"):
        alignment(sphere(12, 4), bad)


@pytest.mark.parametrize("bad", [sphere(12, 4)[:-1], sphere(12, 4)[:1], sphere(12, 4)[:, :-1], sphere(12, 4)[:, :1]])
def test_alignment_of_different_shapes_is_refused(bad):
    # One row or one column would broadcast silently.
    with pytest.raises(ValueError, match=r"online|target"):
        alignment(sphere(12, 4), bad)


@pytest.mark.parametrize("value", [0.0, -0.01, math.nan, math.inf])
def test_bad_settings_are_named(value):
    with pytest.raises(ValueError, match="eta"):
        stein_score(sphere(12, 4), eta=value)
    with pytest.raises(ValueError, match="eta"):
        entropy_surrogate(sphere(12, 4), eta=value)
    with pytest.raises(ValueError, match="bandwidth"):
        stein_score(sphere(12, 4), bandwidth=value)
