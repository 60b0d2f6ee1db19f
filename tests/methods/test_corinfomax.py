"""CorInfoMaxLoss against NumPy in double precision, written from Eqs. 6, 7, A.7, A.8 and a corrected A.6."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from infomax.methods.corinfomax import CorInfoMaxLoss

BUFFERS = ("R1", "R2", "mu1", "mu2")
EPSILON = 1e-8
OFFSET = 0.3  # a mean away from zero, and columns of unequal scale, so that a wrong mean or a missing inverse shows


def views(samples, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.3, 1.0, dim, dtype=torch.float64)
    z1 = torch.randn(samples, dim, generator=generator, dtype=torch.float64) * scale + OFFSET
    z2 = z1 + 0.5 * torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    return z1.to(dtype), z2.to(dtype)


def unit_views(samples, dim, seed=0):
    return tuple(nn.functional.normalize(z - OFFSET, dim=1) for z in views(samples, dim, seed))


def state(loss):
    return {name: getattr(loss, name).clone() for name in BUFFERS}


def assert_same_state(left, right):
    for name in BUFFERS:
        assert torch.equal(left[name], right[name]), name


class Branch:
    """Applies Eq. 7 to one view, from identity covariance and zero mean; the updated mean centres the batch."""

    def __init__(self, dim, forgetting):
        self.mean, self.covariance, self.forgetting = np.zeros(dim), np.eye(dim), forgetting

    def update(self, z):
        keep, samples = self.forgetting, len(z)
        self.previous_mean = self.mean
        self.mean = keep * self.mean + (1 - keep) * z.mean(0)
        centred = z - self.mean
        self.covariance = keep * self.covariance + (1 - keep) / samples * centred.T @ centred
        return self

    def log_det(self, epsilon=EPSILON):
        sign, value = np.linalg.slogdet(self.covariance + epsilon * np.eye(len(self.mean)))
        assert sign == 1
        return value

    def log_det_gradient(self, z, epsilon=EPSILON):
        """Returns the derivative of log det(R + eps I): (A.6) with its factor 2 and the path through the mean."""
        keep = self.forgetting
        inner = (z - self.mean) - keep * (1 - keep) * (z.mean(0) - self.previous_mean)
        return 2 * self.a6(inner, epsilon)

    def a6(self, centred, epsilon=EPSILON):
        """Returns (A.6) as it is printed, for rows that are already centred."""
        weight = (1 - self.forgetting) / len(centred)
        return weight * np.linalg.solve(self.covariance + epsilon * np.eye(len(self.mean)), centred.T).T


def reference_loss(branches, z1, z2, attraction, epsilon=EPSILON):
    dim = z1.shape[1]
    big_bang = -sum(branch.log_det(epsilon) for branch in branches) / dim
    return big_bang + attraction * ((z1 - z2) ** 2).mean()


def warm_up(loss, dim, forgetting=0.01):
    """Moves the loss and two reference branches through the same two batches."""
    branches = [Branch(dim, forgetting) for _ in range(2)]
    for step in range(2):
        batch = views(4 * dim, dim, step)
        loss(*batch)
        for branch, z in zip(branches, batch, strict=True):
            branch.update(z.numpy())
    return branches


def make(dim, attraction=25.0, forgetting=0.01, **options):
    return CorInfoMaxLoss(dim, attraction=attraction, forgetting=forgetting, **options)


def gradients(loss, z1, z2):
    z1, z2 = z1.clone().requires_grad_(), z2.clone().requires_grad_()
    return torch.autograd.grad(loss(z1, z2), (z1, z2))


# Value and recursion


@pytest.mark.parametrize("dim", [1, 6])
@pytest.mark.parametrize("forgetting", [0.0, 0.01, 0.1, 0.5])
def test_value_and_state_follow_eq_7_step_by_step(dim, forgetting):
    loss = make(dim, attraction=3.0, forgetting=forgetting)
    branches = [Branch(dim, forgetting) for _ in range(2)]
    for step in range(5):
        z1, z2 = views(16, dim, step)
        value = loss(z1, z2)
        branches[0].update(z1.numpy())
        branches[1].update(z2.numpy())
        assert value.ndim == 0
        assert value.item() == pytest.approx(reference_loss(branches, z1.numpy(), z2.numpy(), 3.0), rel=1e-11)
        for index, branch in enumerate(branches, start=1):
            np.testing.assert_allclose(getattr(loss, f"R{index}"), branch.covariance, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(getattr(loss, f"mu{index}"), branch.mean, rtol=1e-12, atol=1e-14)


def test_state_starts_at_identity_and_zero_in_double():
    loss = make(3)
    buffers = dict(loss.named_buffers())
    assert set(BUFFERS) <= set(buffers)
    assert all(buffers[name].dtype == torch.float64 for name in BUFFERS)
    assert torch.equal(loss.R1, torch.eye(3, dtype=torch.float64))
    assert torch.equal(loss.R2, loss.R1)
    assert not loss.mu1.any()
    assert not loss.mu2.any()


def test_epsilon_is_added_to_the_covariance():
    # Eq. 6 has eps inside the log det; the printed Algorithm 1 leaves it out.
    z1, z2 = views(16, 4)
    branches = [Branch(4, 0.01).update(z.numpy()) for z in (z1, z2)]
    expected = reference_loss(branches, z1.numpy(), z2.numpy(), 0.0, epsilon=0.5)
    assert make(4, attraction=0.0, epsilon=0.5)(z1, z2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("attraction", [1.0, 250.0])
def test_dim_times_loss_is_minus_eq_6_with_attraction_two_over_epsilon(attraction):
    z1, z2 = views(20, 5)
    branches = [Branch(5, 0.1).update(z.numpy()) for z in (z1, z2)]
    squared_distance = float(((z1 - z2) ** 2).sum())
    objective = sum(branch.log_det() for branch in branches) - attraction / len(z1) * squared_distance
    assert 5 * make(5, attraction, 0.1)(z1, z2).item() == pytest.approx(-objective, rel=1e-12)


def test_attraction_on_unit_rows_is_two_minus_twice_the_mean_cosine():
    z1, z2 = unit_views(20, 5)
    pull = make(5, attraction=1.0)(z1, z2) - make(5, attraction=0.0)(z1, z2)
    cosine = (z1 * z2).sum(1).mean()
    assert 5 * pull.item() == pytest.approx(2 - 2 * cosine.item(), rel=1e-11)


def test_no_forgetting_gives_the_plain_batch_covariance():
    loss = make(4, forgetting=0.0)
    loss(*views(16, 4, seed=7))
    z1, z2 = views(16, 4, seed=8)
    loss(z1, z2)
    np.testing.assert_allclose(loss.R1, np.cov(z1.numpy().T, bias=True), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(loss.R2, np.cov(z2.numpy().T, bias=True), rtol=1e-12, atol=1e-14)


def test_mean_approaches_a_constant_input_geometrically():
    loss, constant = make(3, forgetting=0.5), torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64)
    for step in range(1, 8):
        loss(constant.expand(8, 3), -constant.expand(8, 3))
        remainder = 0.5**step * constant
        torch.testing.assert_close(constant - loss.mu1, remainder, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(loss.mu2 + constant, remainder, rtol=1e-12, atol=1e-15)


def test_covariance_stays_symmetric_and_above_what_is_left_of_the_identity():
    loss = make(6, forgetting=0.1)
    for step in range(6):
        loss(*views(12, 6, step))
        for covariance in (loss.R1, loss.R2):
            torch.testing.assert_close(covariance, covariance.T, rtol=0, atol=1e-15)
            assert torch.linalg.eigvalsh(covariance).min() >= 0.1 ** (step + 1) - 1e-14


# Gradients. The log det is tested alone (attraction 0): a strong attraction would hide its errors.


@pytest.mark.parametrize("forgetting", [0.0, 0.01, 0.1, 0.5])
def test_log_det_gradient_is_the_corrected_a6(forgetting):
    loss = make(5, attraction=0.0, forgetting=forgetting)
    branches = warm_up(loss, 5, forgetting)
    batch = views(20, 5, seed=11)
    for branch, z, gradient in zip(branches, batch, gradients(loss, *batch), strict=True):
        expected = -branch.update(z.numpy()).log_det_gradient(z.numpy()) / 5
        np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("forgetting", [0.01, 0.1, 0.5])
@pytest.mark.parametrize(("factor", "least_error"), [(1, 0.4), (2, 1e-3)], ids=["as printed", "with its factor 2"])
def test_a6_without_the_mean_path_is_not_the_gradient(forgetting, factor, least_error):
    # Fails if the implementation copies (A.6), or detaches the mean, which gives exactly twice (A.6).
    loss = make(5, attraction=0.0, forgetting=forgetting)
    z1, z2 = views(20, 5)
    gradient = gradients(loss, z1, z2)[0].numpy()
    branch = Branch(5, forgetting).update(z1.numpy())
    printed = -factor * branch.a6(z1.numpy() - branch.mean) / 5
    assert np.linalg.norm(printed - gradient) > least_error * np.linalg.norm(gradient)


def test_attraction_gradient_is_a7_and_a8():
    z1, z2 = views(20, 5)
    with_pull, without = (gradients(make(5, attraction), z1, z2) for attraction in (30.0, 0.0))
    expected = 4 / (2 / 30.0) / len(z1) * (z2 - z1)  # (A.7) for the objective, with eps = 2 / attraction
    torch.testing.assert_close(-5 * (with_pull[0] - without[0]), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(-5 * (with_pull[1] - without[1]), -expected, rtol=1e-10, atol=1e-12)


def test_gradient_agrees_with_finite_differences():
    loss = make(3, attraction=2.0, forgetting=0.3)
    warm_up(loss, 3)
    z1, z2 = (z.requires_grad_() for z in views(8, 3, seed=5))
    assert torch.autograd.gradcheck(loss.eval(), (z1, z2))  # eval: the state must not move between evaluations


def test_gradient_scales_with_the_incoming_gradient():
    z1, z2 = views(16, 4)
    plain = gradients(make(4), z1, z2)
    loss = make(4)
    for expected, actual in zip(plain, gradients(lambda a, b: -3 * loss(a, b), z1, z2), strict=True):
        torch.testing.assert_close(actual, -3 * expected, rtol=1e-12, atol=1e-15)


def test_one_view_may_be_detached():
    z1, z2 = views(16, 4)
    expected = gradients(make(4), z1, z2)[0]
    leaf = z1.clone().requires_grad_()
    make(4)(leaf, z2).backward()
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-15)


def test_two_steps_can_be_backpropagated_together():
    # The recursion must neither reach back into the previous batch nor overwrite what its backward pass needs.
    loss, twin = make(4), make(4)
    batches = [[z.requires_grad_() for z in views(16, 4, seed)] for seed in (0, 1)]
    (loss(*batches[0]) + loss(*batches[1])).backward()
    for batch in batches:
        for leaf, expected in zip(batch, gradients(twin, *(z.detach() for z in batch)), strict=True):
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-15)


# State


def test_eval_scores_the_batch_but_leaves_the_state():
    loss = make(4)
    warm_up(loss, 4)
    before, (z1, z2) = state(loss), views(16, 4, seed=9)
    in_eval = loss.eval()(z1, z2)
    assert_same_state(state(loss), before)
    assert torch.equal(loss.train()(z1, z2), in_eval)


def test_no_grad_leaves_the_state():
    loss = make(4)
    before = state(loss)
    with torch.no_grad():
        loss(*views(16, 4))
    assert_same_state(state(loss), before)


def test_state_carries_no_graph():
    loss = make(4)
    loss(*(z.requires_grad_() for z in views(16, 4)))
    assert not any(getattr(loss, name).requires_grad for name in BUFFERS)


def test_state_dict_resumes_bit_for_bit():
    loss = make(4)
    warm_up(loss, 4)
    resumed = make(4)
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    batch = views(16, 4, seed=5)
    assert torch.equal(resumed(*batch), loss(*batch))
    assert_same_state(state(resumed), state(loss))


@pytest.mark.parametrize(
    "cast",
    [
        nn.Module.float,
        nn.Module.half,
        nn.Module.bfloat16,
        lambda m: m.to(torch.float32),
        lambda m: m.to(torch.bfloat16),
    ],
    ids=["float", "half", "bfloat16", "to float32", "to bfloat16"],
)
def test_casting_a_model_keeps_the_state_in_double(cast):
    # A trip through single precision would lose eigenvalues of the order of epsilon.
    loss = make(4)
    warm_up(loss, 4)
    before = state(loss)
    cast(nn.Sequential(nn.Linear(4, 4), loss))
    assert all(getattr(loss, name).dtype == torch.float64 for name in BUFFERS)
    assert_same_state(state(loss), before)


# Fewer samples than dimensions: the null space of R holds powers of the forgetting factor down to epsilon.


def long_memory(batches, dim, forgetting):
    """Computes log det(R + eps I) and its gradient by a QR of the stacked rows, which has no rounding of R."""
    rows = [math.sqrt(forgetting ** len(batches)) * np.eye(dim), math.sqrt(EPSILON) * np.eye(dim)]
    mean = np.zeros(dim)
    for age, z in zip(reversed(range(len(batches))), batches, strict=True):
        previous, mean = mean, forgetting * mean + (1 - forgetting) * z.mean(0)
        rows.append(math.sqrt(forgetting**age * (1 - forgetting) / len(z)) * (z - mean))
    upper = np.linalg.qr(np.vstack(rows), mode="r")
    inner = (z - mean) - forgetting * (1 - forgetting) * (z.mean(0) - previous)
    solved = np.linalg.solve(upper, np.linalg.solve(upper.T, inner.T)).T
    return 2 * np.log(np.abs(np.diag(upper))).sum(), 2 * (1 - forgetting) / len(z) * solved


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("samples", "dim"), [(2, 16), (8, 64), (32, 48)])
def test_rank_deficient_batches_keep_value_and_gradient_exact(samples, dim, dtype):
    loss, history = make(dim, attraction=0.0), [[], []]
    for step in range(12):
        batch = [z.to(dtype) for z in unit_views(samples, dim, step)]
        for past, z in zip(history, batch, strict=True):
            past.append(z.double().numpy())
        leaves = [z.requires_grad_() for z in batch]
        value = loss(*leaves)
        value.backward()
        references = [long_memory(past, dim, 0.01) for past in history]
        assert value.item() == pytest.approx(-sum(reference[0] for reference in references) / dim, rel=1e-6)
        for leaf, (_, log_det_gradient) in zip(leaves, references, strict=True):
            error = np.linalg.norm(leaf.grad.double().numpy() + log_det_gradient / dim)
            assert error < 1e-5 * np.linalg.norm(log_det_gradient / dim)


@pytest.mark.parametrize(("samples", "warned"), [(7, True), (8, False)])
def test_a_batch_smaller_than_twice_the_dimension_warns(samples, warned, recwarn):
    make(4)(*views(samples, 4))
    assert any(issubclass(warning.category, UserWarning) for warning in recwarn) is warned


# Bounds and symmetries


@pytest.mark.parametrize("dim", [2, 8])
def test_big_bang_is_at_least_two_log_dim_for_unit_rows(dim):
    # tr R <= 1 in the steady state, so log det R <= -D log D for each view.
    loss = make(dim, attraction=0.0)
    values = [loss(*unit_views(16, dim, step)).item() for step in range(10)]
    assert min(values[5:]) >= 2 * math.log(dim) - 1e-6


def test_big_bang_bound_is_attained_by_an_isotropic_batch():
    isotropic = torch.cat([torch.eye(6), -torch.eye(6)]).double()
    value = make(6, attraction=0.0, forgetting=0.0)(isotropic, isotropic)
    assert value.item() == pytest.approx(2 * math.log(6), abs=1e-6)


def test_total_collapse_costs_minus_two_log_epsilon_and_stays_finite():
    loss = make(4, attraction=0.0)
    point = nn.functional.normalize(torch.ones(1, 4, dtype=torch.float64)).expand(8, 4)
    for _ in range(12):
        leaves = [point.clone().requires_grad_() for _ in range(2)]
        value = loss(*leaves)
        value.backward()
    assert value.item() == pytest.approx(-2 * math.log(EPSILON), rel=1e-9)
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_loss_ignores_a_joint_rotation():
    plain, rotated = make(5), make(5)
    rotation = torch.linalg.qr(views(5, 5, seed=3)[0]).Q
    for step in range(3):
        z1, z2 = views(16, 5, step)
        assert rotated(z1 @ rotation, z2 @ rotation).item() == pytest.approx(plain(z1, z2).item(), rel=1e-11)


def test_loss_ignores_the_order_of_the_pairs():
    plain, shuffled = make(5), make(5)
    for step in range(3):
        z1, z2 = views(16, 5, step)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(step))
        assert shuffled(z1[order], z2[order]).item() == pytest.approx(plain(z1, z2).item(), rel=1e-11)


def test_loss_is_symmetric_in_the_views():
    plain, swapped = make(5), make(5)
    for step in range(3):
        z1, z2 = views(16, 5, step)
        assert swapped(z2, z1).item() == pytest.approx(plain(z1, z2).item(), rel=1e-12)


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_has_the_dtype_of_its_input(dtype):
    z1, z2 = (z.requires_grad_() for z in views(16, 4, dtype=dtype))
    loss = make(4)(z1, z2)
    loss.backward()
    assert loss.dtype == z1.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_accumulated_in_double(dtype):
    loss, exact = make(4), make(4)
    for step in range(3):
        z1, z2 = views(16, 4, step, dtype=dtype)
        value, expected = loss(z1, z2), exact(z1.double(), z2.double())
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for name in BUFFERS:
        torch.testing.assert_close(getattr(loss, name), getattr(exact, name), rtol=1e-12, atol=1e-14)


def test_autocast_changes_no_bit():
    z1, z2 = views(16, 4, dtype=torch.float32)
    plain, under = make(4), make(4)
    expected = gradients(plain, z1, z2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = gradients(under, z1, z2)
    assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))
    assert_same_state(state(under), state(plain))


# Bad input


def spoilt(z, value):
    z = z.clone()
    z[1, 1] = value
    return z


BAD_VIEWS = {
    "NaN in z1": ("z1", lambda z1, z2: (spoilt(z1, math.nan), z2)),
    "NaN in z2": ("z2", lambda z1, z2: (z1, spoilt(z2, math.nan))),
    "Inf in z1": ("z1", lambda z1, z2: (spoilt(z1, math.inf), z2)),
    "-Inf in z2": ("z2", lambda z1, z2: (z1, spoilt(z2, -math.inf))),
    "z1 a vector": ("z1", lambda z1, z2: (z1[0], z2)),
    "z2 a stack": ("z2", lambda z1, z2: (z1, z2[None])),
    "another width": ("z1", lambda z1, z2: (z1[:, :3], z2[:, :3])),
    "fewer in z2": ("z[12]", lambda z1, z2: (z1, z2[:-1])),
    "one broadcast row": ("z[12]", lambda z1, z2: (z1, z2[:1])),
    "one sample": ("z[12]", lambda z1, z2: (z1[:1], z2[:1])),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "spoil"), BAD_VIEWS.values(), ids=BAD_VIEWS.keys())
def test_bad_views_are_named_and_do_not_touch_the_state(name, spoil):
    loss = make(4)
    before = state(loss)
    with pytest.raises(ValueError, match=name):
        loss(*spoil(*views(8, 4)))
    assert_same_state(state(loss), before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dim", value) for value in (0, -2)),
        *(("attraction", value) for value in (-1.0, math.nan, math.inf)),
        *(("forgetting", value) for value in (-0.1, 1.0, 1.5, math.nan)),
        *(("epsilon", value) for value in (0.0, -1e-8, math.nan, math.inf)),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        CorInfoMaxLoss(**{"dim": 4, "attraction": 1.0, name: value})


def test_the_default_attraction_is_the_papers_ratio_to_the_width():
    """Table 1: 250 at 64 dimensions, 500 at 128 and 2000 at 512."""
    for dim, attraction in ((64, 250), (128, 500), (512, 2000)):
        assert CorInfoMaxLoss(dim).attraction == attraction
    with pytest.raises(ValueError, match="attraction must be a number"):
        CorInfoMaxLoss(64, attraction=-1)
