"""MIRA's pseudo-labels and loss against oracles written from the paper's equations (Lee et al., NeurIPS 2022)."""

import warnings
from itertools import pairwise
from unittest.mock import patch

import cvxpy as cp
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr, log_softmax, logsumexp, softmax, xlogy

from infomax.methods.mira import assign, check_assignment, swapped_prediction_loss
from infomax.nn import balancing

TEMPERATURE = 0.225  # the paper's teacher temperature
BETAS = [2 / 3, 0.9, 0.99]
CONVERGED = {0.0: 1, 2 / 3: 100, 0.9: 400, 0.99: 3500}  # beta**n * |log u_0 - log w| is below 1e-11 for all logits here
UNCONVERGED = pytest.mark.filterwarnings("ignore::UserWarning")  # for tests that stop the iteration early on purpose


# ---------------------------------------------------------------------------------------------------- oracles, float64


def clustered_logits(batch, clusters, seed=0):
    """Returns cosines of long-tailed clusters; random logits hide errors, because their w_bar is uniform."""
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(clusters, 16)) + rng.normal(size=16)
    frequency = np.arange(1, clusters + 1) ** -1.5
    labels = rng.choice(clusters, batch, p=frequency / frequency.sum())
    embeddings = prototypes[labels] + 0.7 * rng.normal(size=(batch, 16))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (embeddings, prototypes)]
    return unit[0] @ unit[1].T


def eq7_literal(logits, temperature, beta, iterations):
    """Applies Eq. 7 from u = 1, `iterations` times more, then Eq. 5, with powers of probabilities as printed."""
    powers = softmax(logits / temperature, axis=1) ** (1 / (1 - beta))
    u = np.ones(logits.shape[1])
    for _ in range(1 + iterations):
        u = (powers / (powers @ u ** (-beta / (1 - beta)))[:, None]).mean(axis=0) ** (1 - beta)
    weights = u ** (-beta / (1 - beta)) * powers
    return weights / weights.sum(axis=1, keepdims=True)


def eq7_log_domain(logits, temperature, beta, iterations):
    """Applies Eqs. 7 and 5 as above to logits whose probabilities underflow."""
    log_powers = log_softmax(logits / (temperature * (1 - beta)), axis=1)
    log_u = np.zeros(logits.shape[1])
    for _ in range(1 + iterations):
        log_rows = logsumexp(log_powers - beta / (1 - beta) * log_u, axis=1, keepdims=True)
        log_u = (1 - beta) * (logsumexp(log_powers - log_rows, axis=0) - np.log(len(logits)))
    return softmax(log_powers - beta / (1 - beta) * log_u, axis=1)


def dual_newton(logits, temperature, beta):
    """Minimises Eq. 4 without Eq. 7: Newton for a = log w_bar(a), the stationary point of the K-dimensional dual."""
    log_p = log_softmax(logits / temperature, axis=1)
    ratio, log_batch = beta / (1 - beta), np.log(len(logits))

    def evaluate(a):
        log_w = log_softmax((log_p - beta * a) / (1 - beta), axis=1)
        return log_w, logsumexp(log_w, axis=0) - log_batch - a

    a = logsumexp(log_p, axis=0) - log_batch
    log_w, residual = evaluate(a)
    for _ in range(200):
        size = np.abs(residual).max()
        if size < 1e-13 * max(1, np.abs(a).max() * ratio):
            return np.exp(log_w)
        coupling = softmax(log_w, axis=0).T @ np.exp(log_w)  # row-stochastic
        step = np.linalg.solve((1 + ratio) * np.eye(len(a)) - ratio * coupling, residual)
        length = 1.0
        while length > 1e-6 and np.abs(evaluate(a + length * step)[1]).max() >= (1 - 1e-4 * length) * size:
            length /= 2
        a = a + length * step
        log_w, residual = evaluate(a)
    raise AssertionError("the oracle did not converge")


def convex_solver(logits, temperature, beta):
    """Minimises Eq. 4 over all of W with a general exponential-cone solver (objective times B, for conditioning)."""
    batch, clusters = logits.shape
    w = cp.Variable((batch, clusters))
    cross_entropy = -cp.sum(cp.multiply(w, log_softmax(logits / temperature, axis=1)))
    conditional = -(1 - beta) * cp.sum(cp.entr(w))
    marginal = -beta * batch * cp.sum(cp.entr(cp.sum(w, axis=0) / batch))
    problem = cp.Problem(cp.Minimize(cross_entropy + conditional + marginal), [cp.sum(w, axis=1) == 1])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return w.value


def published_pseudo_code(logits, temperature, beta, iterations):
    """Runs the paper's Algorithm 1 with its exponent -beta inside the loop, and the keepdim that it needs to run.

    Returns its targets, and those that the exponent of its loop would give instead of that of its last line.
    """
    k = softmax(logits / temperature / (1 - beta), axis=1)
    v = k.mean(axis=0) ** (1 - beta)
    for _ in range(iterations):
        v = (k / (v**-beta * k).sum(axis=1, keepdims=True)).mean(axis=0) ** (1 - beta)
    targets = [
        weights * k / (weights * k).sum(axis=1, keepdims=True) for weights in (v ** (-beta / (1 - beta)), v**-beta)
    ]
    return targets[0], targets[1]


def kkt_residual(w, logits, temperature, beta):
    """Measures Eq. 13: (1-beta) log w_ij - log p_ij + beta log w_bar_j is the same number for all j of a row i."""
    log_p = log_softmax(logits / temperature, axis=1)
    return np.ptp((1 - beta) * np.log(w) - log_p + beta * np.log(w.mean(axis=0)), axis=1).max()


def objective(w, logits, beta):
    """Computes Eq. 4 at the default temperature."""
    batch = len(w)
    log_p = log_softmax(logits / TEMPERATURE, axis=1)
    w_bar = w.mean(axis=0)
    return (-w * log_p).sum() / batch + (1 - beta) / batch * xlogy(w, w).sum() + beta * xlogy(w_bar, w_bar).sum()


def mutual_information(w):
    """Computes Eq. 2."""
    return entr(w.mean(axis=0)).sum() - entr(w).sum() / len(w)


def targets_of(logits, *, iterations=30, **options):
    return assign(torch.from_numpy(logits), iterations=iterations, **options).numpy()


def optimum_of(logits, beta, **options):
    return targets_of(logits, beta=beta, iterations=CONVERGED[beta], **options)


@pytest.fixture(params=[(64, 12), (12, 12)], ids=["B=64,K=12", "B=K=12"])
def logits(request):
    """B = K is the case in which a forgotten keepdim broadcasts silently along the wrong axis."""
    return clustered_logits(*request.param)


EXTREME = {
    "uniform in +-60": np.random.default_rng(0).uniform(-60, 60, (16, 5)),
    "ties at +-60": 60 * np.random.default_rng(1).choice([-1.0, 1.0], (16, 5)),
    "near ties at +-60": 60 * np.random.default_rng(1).choice([-1.0, 1.0], (16, 5)) + clustered_logits(16, 5) / 100,
    "dead prototype": clustered_logits(16, 5) - 60 * np.eye(5)[2],
    "identical rows": np.repeat(np.random.default_rng(2).uniform(-60, 60, (1, 5)), 7, axis=0),
    "one row": np.random.default_rng(3).uniform(-60, 60, (1, 5)),
    "one column": np.random.default_rng(4).uniform(-60, 60, (6, 1)),
}


# --------------------------------------------------------------------------------------------- the optimum of Eq. 4


@pytest.mark.parametrize("beta", BETAS)
def test_targets_satisfy_the_kkt_conditions(logits, beta):
    assert kkt_residual(optimum_of(logits, beta), logits, TEMPERATURE, beta) < 1e-9


def problem_of_the_published_loop(temperature, beta):
    """Returns the temperature and the beta of the problem that the fixed point of Algorithm 1's loop belongs to."""
    other_beta = beta * (1 - beta)
    return temperature * (1 - beta) / (1 - other_beta), other_beta


@pytest.mark.parametrize("beta", BETAS)
def test_the_loop_of_the_published_pseudo_code_solves_another_problem(logits, beta):
    """At beta = 2/3 it is that of beta 2/9 and 3/7 of the temperature."""
    _, of_the_loop = published_pseudo_code(logits, TEMPERATURE, beta, CONVERGED[beta])
    temperature, other_beta = problem_of_the_published_loop(TEMPERATURE, beta)
    assert kkt_residual(of_the_loop, logits, temperature, other_beta) < 1e-8
    expected = assign(torch.from_numpy(logits), temperature=temperature, beta=other_beta, iterations=200)
    np.testing.assert_allclose(of_the_loop, expected.numpy(), rtol=0, atol=1e-9)
    if beta == 2 / 3:
        assert (temperature / TEMPERATURE, other_beta) == pytest.approx((3 / 7, 2 / 9))


@pytest.mark.parametrize("beta", BETAS)
def test_the_targets_of_the_published_pseudo_code_solve_neither_problem(logits, beta):
    """Its last line has the exponent of Eq. 5, but the marginal that it raises is that of the other problem."""
    wrong, _ = published_pseudo_code(logits, TEMPERATURE, beta, CONVERGED[beta])
    assert kkt_residual(wrong, logits, TEMPERATURE, beta) > 0.1
    assert kkt_residual(wrong, logits, *problem_of_the_published_loop(TEMPERATURE, beta)) > 0.1
    assert np.abs(wrong - optimum_of(logits, beta)).max() > 0.01


@pytest.mark.parametrize("beta", [2 / 3, 0.9])
@pytest.mark.parametrize("shape", [(24, 6), (8, 8)])
def test_targets_equal_those_of_a_convex_solver(shape, beta):
    logits = clustered_logits(*shape, seed=1)
    np.testing.assert_allclose(optimum_of(logits, beta), convex_solver(logits, TEMPERATURE, beta), rtol=0, atol=1e-7)


@pytest.mark.parametrize("beta", BETAS)
def test_targets_equal_those_of_newton_on_the_dual(logits, beta):
    np.testing.assert_allclose(optimum_of(logits, beta), dual_newton(logits, TEMPERATURE, beta), rtol=0, atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_no_perturbation_of_the_targets_lowers_the_objective(logits, beta):
    w = optimum_of(logits, beta)
    rng = np.random.default_rng(0)
    sizes = np.repeat([1e-2, 1e-1, 1.0], 10)
    mixed = [(1 - size) * w + size * rng.dirichlet(np.ones(w.shape[1]), len(w)) for size in sizes]
    tilted = [softmax(np.log(w) + size * rng.normal(size=w.shape), axis=1) for size in sizes]
    assert all(objective(other, logits, beta) > objective(w, logits, beta) for other in mixed + tilted)


@pytest.mark.parametrize("beta", BETAS)
def test_objective_is_lower_than_at_the_model_probabilities(logits, beta):
    p = softmax(logits / TEMPERATURE, axis=1)
    assert objective(optimum_of(logits, beta), logits, beta) < objective(p, logits, beta)


@pytest.mark.parametrize("beta", BETAS)
def test_mutual_information_is_higher_than_at_the_model_probabilities(logits, beta):
    p = softmax(logits / TEMPERATURE, axis=1)
    assert mutual_information(optimum_of(logits, beta)) > mutual_information(p)


@pytest.mark.parametrize("shape", [(4, 12), (64, 3)])
@pytest.mark.parametrize("beta", [0.0, *BETAS])
def test_mutual_information_is_between_zero_and_log_min_of_batch_and_clusters(shape, beta):
    information = mutual_information(optimum_of(clustered_logits(*shape), beta))
    assert 0 <= information <= np.log(min(shape)) + 1e-12


@pytest.mark.parametrize("iterations", [1, 30])
def test_beta_zero_returns_the_model_probabilities(logits, iterations):
    targets = targets_of(logits, beta=0.0, iterations=iterations)
    np.testing.assert_allclose(targets, softmax(logits / TEMPERATURE, axis=1), rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("copies", [1, 5])
def test_a_collapsed_batch_keeps_the_model_probabilities(copies, beta):
    """Without mutual information to gain, W = P already satisfies Eq. 5."""
    logits = np.repeat(clustered_logits(1, 7), copies, axis=0)
    np.testing.assert_allclose(optimum_of(logits, beta), softmax(logits / TEMPERATURE, axis=1), rtol=1e-10)


# ------------------------------------------------------------------------------------------------- the iteration, Eq. 7


@UNCONVERGED
@pytest.mark.parametrize("iterations", [0, 1, 2, 30])
@pytest.mark.parametrize("beta", [2 / 3, 0.9])
def test_iterations_are_updates_after_the_first_one_from_ones(logits, beta, iterations):
    expected = eq7_literal(logits, TEMPERATURE, beta, iterations)
    np.testing.assert_allclose(targets_of(logits, beta=beta, iterations=iterations), expected, rtol=0, atol=1e-13)


def test_defaults_are_those_of_the_paper(logits):
    np.testing.assert_allclose(targets_of(logits), eq7_literal(logits, 0.225, 2 / 3, 30), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(assign(torch.from_numpy(logits)), targets_of(logits, iterations=None))


# ------------------------------------------------------------------------------------------------- its limit, faster


@pytest.mark.parametrize("beta", [0.0, 1e-17, 0.1, 0.5, 2 / 3, 0.9])
def test_without_a_number_of_iterations_the_optimum_is_reached(logits, beta):
    optimum = dual_newton(logits, TEMPERATURE, beta)
    np.testing.assert_allclose(targets_of(logits, beta=beta, iterations=None), optimum, rtol=0, atol=1e-12)
    single = logits.astype(np.float32)
    np.testing.assert_allclose(
        targets_of(single, beta=beta, iterations=None), dual_newton(single.astype(float), TEMPERATURE, beta), atol=3e-6
    )


@settings(max_examples=150, deadline=None)
@given(
    logits=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1, 1)),
    size=st.sampled_from([0.2, 1.0, 5.0, 20.0]),
    beta=st.sampled_from([0.3, 2 / 3, 0.9]),
)
def test_the_limit_of_any_small_problem_is_a_fixed_point(logits, size, beta):
    """It also holds for logits far beyond cosines; acceleration is proven near the fixed point alone."""
    targets = targets_of(size * logits, beta=beta, iterations=None)
    marginal = np.maximum(targets.mean(axis=0), 1e-300)  # log w_bar = log u, from which Eq. 5 has to give w again
    log_w = (log_softmax(size * logits / TEMPERATURE, axis=1) - beta * np.log(marginal)) / (1 - beta)
    np.testing.assert_allclose(targets, softmax(log_w, axis=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 12), (torch.float64, 27)])
def test_the_limit_takes_fewer_iterations_than_the_papers_thirty(dtype, most):
    """The thirty reach the optimum less closely, and as many plain iterations as the limit takes much less closely."""
    logits = torch.from_numpy(clustered_logits(256, 40))
    optimum = dual_newton(logits.numpy(), TEMPERATURE, 2 / 3)

    def distance(iterations):
        return np.abs(assign(logits.to(dtype), iterations=iterations).double().numpy() - optimum).max()

    with patch.object(balancing, "_column_sums", wraps=balancing._column_sums) as spy:
        reached = distance(None)
    assert spy.call_count <= most
    assert reached <= 1.5 * distance(30) + max(4 * torch.finfo(dtype).eps, 1e-13)  # both have rounding of their own
    with warnings.catch_warnings(action="ignore"):
        assert reached < distance(spy.call_count) / 10


def test_a_beta_for_which_acceleration_may_fail_has_the_papers_iterations():
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="iterations=30 may leave MIRA's targets unconverged at beta=0.95"):
        targets = assign(logits, beta=0.95)
    with warnings.catch_warnings(action="ignore"):
        assert torch.equal(targets, assign(logits, beta=0.95, iterations=30))
    with pytest.raises(ValueError, match=r"iterations must be given, as iterations=30, if beta is above 0.9"):
        check_assignment(0.225, 0.95, None)  # as a recipe has it


@UNCONVERGED
@pytest.mark.parametrize("beta", [0.3, 2 / 3, 0.9])
def test_every_update_contracts_the_error_by_beta(logits, beta):
    """The Jacobian of log u is beta * (row-stochastic). W fixes log u up to a constant: measure the oscillation."""
    optimum = dual_newton(logits, TEMPERATURE, beta)
    errors = []
    for iterations in range(8):
        log_ratio = np.log(targets_of(logits, beta=beta, iterations=iterations)) - np.log(optimum)
        errors.append(np.ptp(log_ratio[0]))  # -beta/(1-beta) * (log u - log w_bar) plus a constant of the row
    assert all(after <= beta * before + 1e-12 for before, after in pairwise(errors))


@settings(max_examples=30, deadline=None)
@given(
    logits=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-1, 1)),
    beta=st.sampled_from([0.0, 0.3, 2 / 3, 0.75]),
)
def test_any_small_problem_follows_eq7(logits, beta):
    np.testing.assert_allclose(targets_of(logits, beta=beta), eq7_literal(logits, TEMPERATURE, beta, 30), atol=1e-12)


@pytest.mark.parametrize(("beta", "iterations"), [(0.9, 30), (0.99, 30), (2 / 3, 1), (2 / 3, 0)])
def test_warns_when_the_iterations_cannot_have_converged(beta, iterations):
    with pytest.warns(UserWarning, match="iterations") as caught:
        assign(torch.from_numpy(clustered_logits(8, 3)), beta=beta, iterations=iterations)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("beta", "iterations"), [(2 / 3, 30), (0.75, 30), (0.9, 400), (0.0, 1)])
def test_does_not_warn_when_the_iterations_suffice(beta, iterations):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        targets_of(clustered_logits(8, 3), beta=beta, iterations=iterations)


# -------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize("beta", [2 / 3, 0.99])
def test_targets_do_not_see_a_constant_added_to_a_row(logits, beta):
    """The size of the shifts decides nothing: only differences within a row enter a softmax."""
    shifts = np.linspace(-50, 50, len(logits))[:, None]
    np.testing.assert_allclose(optimum_of(logits + shifts, beta), optimum_of(logits, beta), rtol=0, atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_permuting_the_samples_permutes_the_targets(logits, beta):
    order = np.random.default_rng(0).permutation(len(logits))
    np.testing.assert_allclose(optimum_of(logits[order], beta), optimum_of(logits, beta)[order], rtol=0, atol=1e-11)


@pytest.mark.parametrize("beta", BETAS)
def test_permuting_the_clusters_permutes_the_targets(logits, beta):
    order = np.random.default_rng(0).permutation(logits.shape[1])
    permuted = optimum_of(np.ascontiguousarray(logits[:, order]), beta)
    np.testing.assert_allclose(permuted, optimum_of(logits, beta)[:, order], rtol=0, atol=1e-11)


@pytest.mark.parametrize("beta", BETAS)
def test_duplicating_the_batch_changes_nothing(logits, beta):
    doubled = optimum_of(np.concatenate([logits, logits]), beta)
    np.testing.assert_allclose(doubled, np.concatenate([optimum_of(logits, beta)] * 2), rtol=0, atol=1e-11)


# ---------------------------------------------------------------------------------------------------------- precision


@UNCONVERGED
@pytest.mark.parametrize("temperature", [1.0, 0.225, 0.1, 0.05, 0.02, 0.01])
@pytest.mark.parametrize(
    ("dtype", "beta", "tolerance"),
    [
        (torch.float64, 2 / 3, 1e-12),
        (torch.float64, 0.99, 1e-11),
        (torch.float32, 2 / 3, 1e-6),
        (torch.float32, 0.9, 3e-6),
        (torch.float32, 0.99, 1e-5),
    ],
)
def test_every_exponent_range_follows_eq7(logits, temperature, dtype, beta, tolerance):
    """Exponents of 6 to 20 000 nats give the right targets, whichever form computes them and wherever it switches."""
    rounded = torch.from_numpy(logits).to(dtype)
    targets = assign(rounded, temperature=temperature, beta=beta, iterations=30)
    expected = eq7_log_domain(rounded.double().numpy(), temperature, beta, 30)
    np.testing.assert_allclose(targets.double().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_float32_is_accurate_to_1e_6_at_the_settings_of_the_paper(seed):
    rounded = clustered_logits(256, 40, seed).astype(np.float32)
    expected = eq7_literal(rounded.astype(np.float64), TEMPERATURE, 2 / 3, 30)
    np.testing.assert_allclose(targets_of(rounded), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", EXTREME)
@pytest.mark.parametrize("beta", BETAS)
def test_extreme_logits_reach_the_optimum(case, beta):
    expected = dual_newton(EXTREME[case], TEMPERATURE, beta)
    np.testing.assert_allclose(optimum_of(EXTREME[case], beta), expected, rtol=0, atol=1e-9)


@UNCONVERGED
@pytest.mark.parametrize("case", EXTREME)
@pytest.mark.parametrize("beta", BETAS)
def test_extreme_logits_in_float32_stay_close_to_float64(case, beta):
    """Float32 exponents of thousands of nats cannot resolve the near ties: the range must decide the precision."""
    rounded = EXTREME[case].astype(np.float32)
    expected = eq7_log_domain(rounded.astype(np.float64), TEMPERATURE, beta, 30)
    tolerance = {2 / 3: 1e-6, 0.9: 3e-6, 0.99: 1e-5}[beta]
    np.testing.assert_allclose(targets_of(rounded, beta=beta), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", EXTREME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@UNCONVERGED
def test_extreme_rows_are_distributions(case, dtype):
    targets = assign(torch.from_numpy(EXTREME[case]).to(dtype), beta=0.99, iterations=30)
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(targets), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_have_the_dtype_of_the_logits(logits, dtype):
    assert assign(torch.from_numpy(logits).to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_assigned_in_float32(logits, dtype):
    half = torch.from_numpy(logits).to(dtype)
    targets = assign(half)
    torch.testing.assert_close(targets, assign(half.float()).to(targets.dtype), rtol=0, atol=0)


@UNCONVERGED
@pytest.mark.parametrize("beta", [2 / 3, 0.99], ids=["linear range", "log range"])
def test_autocast_does_not_change_a_bit_of_the_targets(logits, beta):
    single = torch.from_numpy(logits).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = assign(single, beta=beta, iterations=30)
    assert torch.equal(targets, assign(single, beta=beta, iterations=30))


def test_targets_carry_no_gradient(logits):
    assert not assign(torch.from_numpy(logits).requires_grad_()).requires_grad


@UNCONVERGED
@pytest.mark.parametrize("beta", [2 / 3, 0.99], ids=["linear range", "log range"])
def test_logits_are_not_modified(logits, beta):
    given_logits = torch.from_numpy(logits)
    before = given_logits.clone()
    assign(given_logits, beta=beta, iterations=30)
    assert torch.equal(given_logits, before)


def with_entry(value):
    poisoned = torch.zeros(4, 3)
    poisoned[2, 1] = value
    return poisoned


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("logits", with_entry(value)) for value in (float("nan"), float("inf"), float("-inf"))],
        *[("logits", torch.zeros(shape)) for shape in [(3,), (4, 3, 2), (0, 3), (4, 0)]],
        *[("beta", value) for value in (1.0, 1.5, -0.1, float("nan"))],
        *[("temperature", value) for value in (0.0, -0.1, float("nan"))],
        *[("iterations", value) for value in (-1, 2.5)],
    ],
)
def test_assign_names_the_bad_argument(name, value):
    arguments = {"logits": torch.zeros(4, 3)} | {name: value}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        assign(arguments.pop("logits"), **arguments)


# ------------------------------------------------------------------------------------------ swapped prediction, Eq. 8


def random_crops(crops, dtype=torch.float64):
    generator = torch.Generator().manual_seed(crops)
    students = [torch.rand(6, 5, generator=generator, dtype=dtype) * 2 - 1 for _ in range(crops)]
    targets = [torch.rand(6, 5, generator=generator, dtype=dtype).log_softmax(1).exp() for _ in range(2)]
    return students, targets


def eq8_cross_entropy(target, logits, temperature):
    return -(target.numpy() * log_softmax(logits.numpy() / temperature, axis=1)).sum(axis=1).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_two_crops_give_half_of_eq8(temperature):
    (q1, q2), (u1, u2) = random_crops(2)
    expected = 0.5 * (eq8_cross_entropy(u1, q2, temperature) + eq8_cross_entropy(u2, q1, temperature))
    loss = swapped_prediction_loss([q1, q2], [u1, u2], temperature=temperature)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-13)


def test_default_temperature_is_that_of_the_paper():
    students, targets = random_crops(2)
    expected = swapped_prediction_loss(students, targets, temperature=0.1)
    assert swapped_prediction_loss(students, targets) == expected


@pytest.mark.parametrize("crops", [3, 8])
def test_every_crop_predicts_the_targets_of_the_other_views(crops):
    students, targets = random_crops(crops)
    terms = [
        [eq8_cross_entropy(targets[m], students[c], 0.1) for c in range(crops) if c != m] for m in range(2)
    ]  # local crops (c >= 2) predict both targets
    loss = swapped_prediction_loss(students, targets)
    np.testing.assert_allclose(loss.item(), (np.mean(terms[0]) + np.mean(terms[1])) / 2, rtol=1e-13)


@pytest.mark.parametrize("crops", [2, 8])
def test_gradient_is_softmax_minus_target(crops):
    students, targets = random_crops(crops)
    leaves = [student.clone().requires_grad_() for student in students]
    swapped_prediction_loss(leaves, targets, temperature=0.1).backward()
    for c, leaf in enumerate(leaves):
        q = softmax(students[c].numpy() / 0.1, axis=1)
        others = sum(q - targets[m].numpy() for m in range(2) if m != c)
        np.testing.assert_allclose(leaf.grad.numpy(), others / (0.1 * len(q) * 2 * (crops - 1)), rtol=0, atol=1e-15)


def test_loss_of_any_student_exceeds_the_entropy_of_the_targets():
    students, targets = random_crops(2)
    entropy = np.mean([entr(target.numpy()).sum(axis=1).mean() for target in targets])
    assert swapped_prediction_loss(students, targets) > entropy


def test_loss_of_a_perfect_student_is_the_entropy_of_the_targets():
    _, targets = random_crops(2)
    students = [0.1 * targets[1].log(), 0.1 * targets[0].log()]
    entropy = np.mean([entr(target.numpy()).sum(axis=1).mean() for target in targets])
    np.testing.assert_allclose(swapped_prediction_loss(students, targets).item(), entropy, rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_has_the_dtype_of_the_student(dtype):
    assert swapped_prediction_loss(*random_crops(2, dtype)).dtype == dtype


def test_autocast_does_not_change_a_bit_of_the_loss():
    students, targets = random_crops(3, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = swapped_prediction_loss(students, targets)
    assert torch.equal(loss, swapped_prediction_loss(students, targets))


def test_half_precision_students_are_compared_in_float32():
    students, targets = random_crops(3, torch.float32)
    half = [student.bfloat16() for student in students]
    loss = swapped_prediction_loss(half, targets)
    expected = swapped_prediction_loss([student.float() for student in half], targets)
    torch.testing.assert_close(loss, expected.to(loss.dtype), rtol=0, atol=0)


UNIFORM = torch.full((4, 3), 1 / 3)


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        ("targets", {"targets": [UNIFORM]}),
        ("targets", {"targets": [UNIFORM] * 3}),
        ("targets", {"targets": [UNIFORM, with_entry(float("nan"))]}),
        ("targets", {"targets": [UNIFORM, with_entry(float("inf"))]}),
        ("targets", {"targets": [UNIFORM, with_entry(-0.2)]}),
        ("targets", {"targets": [UNIFORM, with_entry(1.2)]}),
        ("targets", {"targets": UNIFORM}),
        ("student_logits", {"student_logits": UNIFORM}),
        ("student_logits", {"student_logits": [UNIFORM]}),
        ("student_logits", {"student_logits": []}),
        ("student_logits", {"student_logits": [UNIFORM, UNIFORM, with_entry(float("nan"))]}),
        ("student_logits", {"student_logits": [UNIFORM, UNIFORM, with_entry(float("-inf"))]}),
        ("student_logits", {"student_logits": [UNIFORM, UNIFORM, torch.zeros(3)]}),
        ("student_logits|targets", {"student_logits": [UNIFORM, UNIFORM, torch.zeros(4, 1)]}),
        ("student_logits|targets", {"student_logits": [UNIFORM, UNIFORM, torch.zeros(1, 3)]}),
        ("student_logits|targets", {"targets": [UNIFORM, torch.zeros(4, 1)]}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": float("nan")}),
    ],
)
def test_swapped_prediction_loss_names_the_bad_argument(names, arguments):
    arguments = {"student_logits": [UNIFORM, UNIFORM], "targets": [UNIFORM, UNIFORM]} | arguments
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        swapped_prediction_loss(arguments.pop("student_logits"), arguments.pop("targets"), **arguments)
