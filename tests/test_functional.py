"""Log-determinant information measures (Ozsoy et al., NeurIPS 2022, Eqs. 1 and A.2-A.5)."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from infomax.functional import ld_entropy, ld_mutual_information, log_det

EPSILONS = [1e-8, 1e-2, 0.5]  # large values show where epsilon enters


# ---------------------------------------------------------------------------------------------------- oracles, float64


def samples(count, dim, seed=0):
    """Draws samples that are correlated and not centred."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def correlated_pair(count=40, dims=(3, 5), noise=0.5, seed=0):
    """Draws two variables of different dimensions, so that a transpose in the wrong place fails."""
    x = samples(count, dims[0], seed)
    rng = np.random.default_rng(seed + 1)
    return x, x @ rng.normal(size=dims) + noise * rng.normal(size=(count, dims[1])) + 2.0


def covariance(x, y):
    return (x - x.mean(axis=0)).T @ (y - y.mean(axis=0)) / len(x)


def regularised(x, epsilon):
    return covariance(x, x) + epsilon * np.eye(x.shape[1])


def logdet(matrix):
    sign, value = np.linalg.slogdet(matrix)
    assert sign == 1
    return value


def conditional_logdet(x, y, epsilon):
    """Computes log det of Eq. A.3, the error covariance of the best affine estimate of x from y."""
    cross = covariance(x, y)
    return logdet(regularised(x, epsilon) - cross @ np.linalg.inv(regularised(y, epsilon)) @ cross.T)


def one_sided(x, y, epsilon):
    """Computes Eq. A.4."""
    return 0.5 * (logdet(regularised(x, epsilon)) - conditional_logdet(x, y, epsilon))


def one_sided_swapped(x, y, epsilon):
    return one_sided(y, x, epsilon)


def symmetric(x, y, epsilon):
    """Computes Eqs. 1 and A.5."""
    marginal = logdet(regularised(x, epsilon)) + logdet(regularised(y, epsilon))
    return 0.25 * (marginal - conditional_logdet(x, y, epsilon) - conditional_logdet(y, x, epsilon))


def joint(x, y, epsilon):
    """Computes h(x) + h(y) - h(x, y) by the joint covariance."""
    both = regularised(np.concatenate([x, y], axis=1), epsilon)
    return 0.5 * (logdet(regularised(x, epsilon)) + logdet(regularised(y, epsilon)) - logdet(both))


def canonical(x, y):
    """Computes -1/2 sum log(1 - rho^2) over the canonical correlations: the limit of epsilon -> 0."""
    bases = [np.linalg.qr(z - z.mean(axis=0))[0] for z in (x, y)]
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return -0.5 * np.log1p(-(correlations**2)).sum()


def positive_definite(dim, seed=0):
    factor = np.random.default_rng(seed).normal(size=(dim, dim + 2))
    return factor @ factor.T / dim


def rotation(dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def entropy_of(x, **options):
    return ld_entropy(torch.from_numpy(x), **options).item()


def information_of(x, y, **options):
    return ld_mutual_information(torch.from_numpy(x), torch.from_numpy(y), **options).item()


# ------------------------------------------------------------------------------------------------------ log-determinant


@pytest.mark.parametrize("dim", [1, 2, 7, 40])
def test_log_det_equals_slogdet(dim):
    matrix = positive_definite(dim)
    np.testing.assert_allclose(log_det(torch.from_numpy(matrix)).item(), logdet(matrix), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_log_det_survives_a_determinant_beyond_float64(scale):
    matrix = scale * torch.eye(100, dtype=torch.float64)
    np.testing.assert_allclose(log_det(matrix).item(), 100 * np.log(scale), rtol=1e-13)


@pytest.mark.parametrize("dim", [1, 7, 40])
def test_log_det_gradient_is_the_inverse(dim):
    matrix = positive_definite(dim)
    leaf = torch.from_numpy(matrix).requires_grad_()
    (3 * log_det(leaf)).backward()  # the factor shows that the incoming gradient is used
    np.testing.assert_allclose(leaf.grad.numpy(), 3 * np.linalg.inv(matrix), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.ones(3),
        torch.ones(2, 3),
        torch.full((3, 3), float("nan")),
        torch.eye(3) * float("inf"),
        torch.diag(torch.tensor([1.0, -1.0, -1.0])),  # a positive determinant does not make it definite
    ],
)
def test_log_det_names_the_bad_argument(matrix):
    with pytest.raises(ValueError, match=r"\bmatrix\b"):
        log_det(matrix)


# --------------------------------------------------------------------------------------------------- entropy, Eq. A.2


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_entropy_is_that_of_a_gaussian_with_the_regularised_covariance(epsilon):
    x = samples(9, 4)  # few samples: 1/N and 1/(N-1) differ by 0.47 nats
    expected = 0.5 * logdet(2 * np.pi * np.e * regularised(x, epsilon))
    np.testing.assert_allclose(entropy_of(x, epsilon=epsilon), expected, rtol=1e-12)


def test_entropy_of_gaussian_samples_approaches_the_differential_entropy():
    sigma = positive_definite(3)
    x = np.random.default_rng(0).multivariate_normal(np.ones(3), sigma, size=20_000)
    expected = 0.5 * logdet(2 * np.pi * np.e * sigma)
    np.testing.assert_allclose(entropy_of(x), expected, atol=5 * np.sqrt(3 / (2 * 20_000)))  # 5 standard errors


def test_entropy_of_a_collapsed_batch_is_that_of_epsilon():
    expected = 2.0 * np.log(2 * np.pi * np.e * 1e-8)
    np.testing.assert_allclose(entropy_of(np.ones((6, 4))), expected, rtol=1e-12)


def test_entropy_with_fewer_samples_than_dimensions():
    x = samples(4, 10)
    eigenvalues = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:3] ** 2 / 4
    expected = 0.5 * (np.log(eigenvalues + 1e-8).sum() + 7 * np.log(1e-8) + 10 * np.log(2 * np.pi * np.e))
    np.testing.assert_allclose(entropy_of(x), expected, rtol=1e-6)


# ----------------------------------------------------------------------------------------- mutual information, Eq. A.5


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("form", [one_sided, one_sided_swapped, symmetric, joint])
def test_information_equals_every_published_form(form, epsilon):
    x, y = correlated_pair()
    np.testing.assert_allclose(information_of(x, y, epsilon=epsilon), form(x, y, epsilon), rtol=0, atol=1e-9)


def test_information_tends_to_that_of_the_canonical_correlations():
    x, y = correlated_pair()
    np.testing.assert_allclose(information_of(x, y, epsilon=1e-13), canonical(x, y), rtol=0, atol=1e-9)


def test_default_epsilon_is_that_of_the_paper():
    x, y = correlated_pair(noise=1e-4)  # the information depends on epsilon here
    assert information_of(x, y) == information_of(x, y, epsilon=1e-8)


@pytest.mark.parametrize(("epsilon", "tolerance"), [(1e-2, 1e-11), (1e-8, 1e-6)])
def test_information_of_a_variable_with_itself_is_limited_by_epsilon(epsilon, tolerance):
    x = samples(30, 4)
    e = np.linalg.eigvalsh(covariance(x, x))
    expected = 0.5 * np.log((e + epsilon) ** 2 / (epsilon * (2 * e + epsilon))).sum()
    np.testing.assert_allclose(information_of(x, x, epsilon=epsilon), expected, rtol=tolerance)


@pytest.mark.parametrize("shape", [(40, 3, 5), (8, 2, 2), (6, 4, 5), (2, 1, 3), (100, 8, 1)])
@pytest.mark.parametrize("noise", [0.1, 10.0])
def test_information_is_not_negative(shape, noise):
    """Lemma 1 holds also for joint covariances without full rank."""
    for seed in range(4):
        assert information_of(*correlated_pair(shape[0], shape[1:], noise, seed)) > -1e-9


def test_information_of_uncorrelated_variables_is_zero():
    """Lemma 1 holds exactly for the residual of a regression on x, which is uncorrelated with x."""
    x, y = correlated_pair()
    design = np.column_stack([np.ones(len(x)), x])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert abs(information_of(x, residual)) < 1e-10


def test_information_is_symmetric():
    x, y = correlated_pair()
    np.testing.assert_allclose(information_of(x, y), information_of(y, x), rtol=1e-12)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_information_is_invariant_under_rotations_and_shifts(epsilon):
    x, y = correlated_pair()
    moved = information_of(x @ rotation(3) + 5, y @ rotation(5) - 7, epsilon=epsilon)
    np.testing.assert_allclose(moved, information_of(x, y, epsilon=epsilon), rtol=0, atol=1e-10)


def test_information_grows_as_the_noise_shrinks():
    values = [information_of(*correlated_pair(noise=noise)) for noise in (10.0, 1.0, 0.1, 0.01)]
    assert all(after > before + 0.1 for before, after in pairwise(values))


# ---------------------------------------------------------------- the promises of all measures: gradient, dtype, errors


def inputs_of(function, dtype=torch.float64):
    arrays = {
        log_det: lambda: (positive_definite(4),),
        ld_entropy: lambda: (samples(9, 4),),
        ld_mutual_information: lambda: correlated_pair(12, (2, 3)),
    }[function]()
    return [torch.from_numpy(array).to(dtype) for array in arrays]


each_function = pytest.mark.parametrize("function", [log_det, ld_entropy, ld_mutual_information])


@pytest.mark.parametrize("function", [ld_entropy, ld_mutual_information])
def test_gradient_equals_finite_differences(function):
    leaves = [tensor.requires_grad_() for tensor in inputs_of(function)]
    assert torch.autograd.gradcheck(function, leaves)


@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_is_a_scalar_of_the_input_dtype(function, dtype):
    result = function(*inputs_of(function, dtype))
    assert (result.dtype, result.shape) == (dtype, ())


@each_function
def test_float32_agrees_with_float64(function):
    single = inputs_of(function, torch.float32)
    expected = function(*[tensor.double() for tensor in single])
    torch.testing.assert_close(function(*single).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("function", [ld_entropy, ld_mutual_information])
def test_float32_gradient_agrees_with_float64_without_full_rank(function):
    """A float32 covariance of few samples loses epsilon = 1e-8: the value looks right, the gradient is then wrong."""
    gradients = []
    single = [torch.from_numpy(z).float() for z in correlated_pair(8, (16, 16), noise=0.1)]
    for dtype in (torch.float32, torch.float64):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in single]
        inputs = leaves[: 1 if function is ld_entropy else 2]
        gradients.append(torch.autograd.grad(function(*inputs), leaves[0])[0].double())
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


@each_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(function, dtype):
    half = inputs_of(function, dtype)
    result = function(*half)
    expected = function(*[tensor.float() for tensor in half])
    torch.testing.assert_close(result, expected.to(result.dtype), rtol=0, atol=0)


@each_function
def test_autocast_changes_neither_value_nor_gradient(function):
    def run():
        leaves = [tensor.requires_grad_() for tensor in inputs_of(function, torch.float32)]
        value = function(*leaves)
        return [value.detach(), torch.autograd.grad(value, leaves[0])[0]]

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = run()
    assert all(map(torch.equal, result, expected))


def with_entry(value):
    poisoned = torch.from_numpy(samples(6, 3))
    poisoned[2, 1] = value
    return poisoned


GOOD = torch.from_numpy(samples(6, 3))
NOT_FINITE = [with_entry(float(value)) for value in ("nan", "inf", "-inf")]


@pytest.mark.parametrize("x", [*NOT_FINITE, GOOD[:1], GOOD[0], GOOD[None]])
def test_entropy_names_the_bad_samples(x):
    with pytest.raises(ValueError, match=r"\bx\b"):
        ld_entropy(x)


@pytest.mark.parametrize(
    ("names", "x", "y"),
    [
        *[("x", bad, GOOD) for bad in (*NOT_FINITE, GOOD[0])],
        *[("y", GOOD, bad) for bad in (*NOT_FINITE, GOOD[0])],
        ("x|y", GOOD[:1], GOOD[:1]),
        ("x|y", GOOD, GOOD[:5]),
        ("x|y", GOOD, GOOD[:1]),
    ],
)
def test_information_names_the_bad_samples(names, x, y):
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        ld_mutual_information(x, y)


@pytest.mark.parametrize("epsilon", [-1e-8, float("nan")])
@pytest.mark.parametrize(("function", "arguments"), [(ld_entropy, [GOOD]), (ld_mutual_information, [GOOD, GOOD])])
def test_measures_name_a_bad_epsilon(function, arguments, epsilon):
    with pytest.raises(ValueError, match=r"\bepsilon\b"):
        function(*arguments, epsilon=epsilon)
