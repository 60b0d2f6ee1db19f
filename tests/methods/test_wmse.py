"""W-MSE against numpy and scipy, part by part, and errors of other implementations that it must not share."""

import numpy as np
import pytest
import torch
from scipy.linalg import cholesky, solve_triangular

from infomax.methods.wmse import whiten, wmse_loss
from infomax.nn.draws import draw_order
from losses_of_methods import LOSSES
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views

ROWS = 13
VIEWS = {
    name: torch.randn(ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
    for i, name in enumerate("ab")
}
A, B = VIEWS["a"] @ torch.tensor([[1.0, 2, 0], [0, 1, 3], [1, 0, 1]]).double() + 1, VIEWS["b"]
ORDER = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))


def whitened(z, epsilon):
    z = z.numpy()
    covariance = (1 - epsilon) * np.cov(z.T) + epsilon * np.eye(z.shape[1])
    return solve_triangular(cholesky(covariance, lower=True), (z - z.mean(0)).T, lower=True).T


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_whitening_is_that_of_scipy(epsilon):
    assert whiten(A, epsilon=epsilon).numpy() == pytest.approx(whitened(A, epsilon), rel=1e-10)


def test_whitened_rows_have_no_mean_and_the_identity_as_covariance():
    white = whiten(A)
    torch.testing.assert_close(white.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(white.T.cov(), torch.eye(3).double())


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("order", [None, ORDER], ids=["as they are", "in another order"])
def test_the_loss_is_that_of_parts(epsilon, order):
    """Of 13 images parts of 4 would leave one, parts of 5 leave three."""
    positions = list(range(ROWS)) if order is None else order.tolist()
    distances = []
    for start in range(0, ROWS, 9 if epsilon == 0 else 5):
        part = positions[start : start + (9 if epsilon == 0 else 5)]
        views = [whitened(z[part], epsilon) for z in (A, B)]
        u, v = (w / np.linalg.norm(w, axis=1, keepdims=True) for w in views)
        distances += ((u - v) ** 2).sum(1).tolist()
    loss = wmse_loss(A, B, size=9 if epsilon == 0 else 5, epsilon=epsilon, order=order)
    assert float(loss) == pytest.approx(np.mean(distances), rel=1e-10)


def test_gradients_flow_through_mean_and_covariance_of_both_views():
    """Whitening undoes any affine map of a view, so the gradient along one is zero; solo-learn's detaches one view."""
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    gradients = torch.autograd.grad(wmse_loss(a, b, size=20), (a, b))
    for z, gradient in zip((A, B), gradients, strict=True):
        assert gradient.abs().max() > 1e-3
        zero = torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(gradient.sum(0), zero, rtol=0, atol=1e-12)
        along = gradient.T @ z  # lower triangular maps alone are undone: Cholesky's whitening rotates with others
        torch.testing.assert_close(along.tril(), zero.expand(3, 3), rtol=0, atol=1e-12)


def test_a_singular_covariance_gives_nan():
    assert whiten(A[:3]).isnan().all()  # three rows in three dimensions
    assert whiten(A[:1].expand(9, 3)).isnan().all()
    assert wmse_loss(A, B, size=11).isnan()  # the last part has two rows
    assert wmse_loss(A, B, size=11, epsilon=0.1).isfinite()


@pytest.mark.parametrize("seed", range(5))
def test_a_covariance_that_is_singular_but_for_rounding_gives_nan(seed):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(256, 8, dtype=torch.float64, generator=rng)
    copied, constant, nearly = z.clone(), z.clone(), z.clone()
    copied[:, 5] = z[:, 2]
    constant[:, 3] = 0.1  # whose mean is rounded, so that something is left of it
    nearly[:, 5] = z[:, 2] + 1e-5 * z[:, 5]
    assert whiten(copied).isnan().all()
    assert whiten(constant).isnan().all()
    assert wmse_loss(constant, z, size=256).isnan()
    assert (whiten(nearly).T.cov() - torch.eye(8)).abs().max() < 1e-3
    assert (whiten(1 + 1e-9 * z).T.cov() - torch.eye(8)).abs().max() < 1e-3


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="size must leave no part of a single row, but is 4 for 13 rows"):
        wmse_loss(A, B, size=4)
    with pytest.raises(ValueError, match="order must be an int64 tensor"):
        wmse_loss(A, B, order=ORDER[:4])
    with pytest.raises(ValueError, match="order must hold each position from 0 to 12 once"):
        wmse_loss(A, B, order=torch.zeros(ROWS, dtype=torch.int64))
    for number in ({"epsilon": 1.0}, {"size": 1}):
        with pytest.raises(ValueError, match=next(iter(number))):
            wmse_loss(A, B, **number)
    with pytest.raises(ValueError, match="at least 2"):
        whiten(A[:1])


def of_a_rank() -> list:
    import torch.distributed as dist

    mine = slice(0, 4) if dist.get_rank() == 0 else slice(4, ROWS)
    a = A[mine].clone().requires_grad_()
    loss = wmse_loss(a, B[mine], size=9, order=ORDER)
    loss.backward()
    return [loss.item(), a.grad.tolist(), whiten(A[mine]).tolist()]


def test_ranks_order_and_whiten_the_global_batch():
    a = A.clone().requires_grad_()
    loss = wmse_loss(a, B, size=9, order=ORDER)
    loss.backward()
    results = on_ranks(2, of_a_rank)
    assert [result[0] for result in results] == pytest.approx([loss.item()] * 2, rel=1e-12)
    gradient, white = (
        torch.tensor([row for result in results for row in result[i]], dtype=torch.float64) for i in (1, 2)
    )
    torch.testing.assert_close(gradient / 2, a.grad)
    torch.testing.assert_close(white, whiten(A))


@pytest.mark.parametrize(
    ("crops", "pairs"),
    [((2, 0), [(0, 1)]), ((2, 1), [(0, 1), (0, 2), (1, 2)]), ((3, 0), [(0, 1), (0, 2), (1, 2)])],
)
def test_the_method_averages_pairs_in_the_order_of_the_step(crops, pairs):
    method, views = tiny_method("wmse"), tiny_views(global_crops=crops[0], local_crops=crops[1])
    method.global_crop_count, method.seed = crops[0], 3
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    totals = []
    for step in (0, 7):
        order = draw_order(12, seed=3, step=step, device=torch.device("cpu"))
        expected = torch.stack([wmse_loss(z[i], z[j], size=6, order=order) for i, j in pairs]).mean()
        totals.append(method(views, progress(step)).total)
        torch.testing.assert_close(totals[-1], expected)
    assert totals[0] != totals[1]


def test_a_batch_that_leaves_too_few_images_has_a_warning_that_says_what_to_do():
    """It is no error, as a plan measures steps of few images."""
    method = tiny_method("wmse")
    with pytest.warns(
        UserWarning, match="2 images cannot be whitened in 4 dimensions; choose a batch of a multiple of 6"
    ):
        assert method(tiny_views(batch=8), progress(0)).total.isnan()
    method.epsilon = 0.1
    assert method(tiny_views(batch=8), progress(0)).total.isfinite()
    with pytest.warns(UserWarning, match=r"1 images cannot be whitened in 4 dimensions; .* of 6, the method's size$"):
        assert method(tiny_views(batch=7), progress(0)).total.isnan()


@pytest.mark.process
def test_one_graph_serves_all_steps():
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    method, z = tiny_method("wmse"), LOSSES["spectral"].make()
    online = [x[:, :4] for x in z.values()]
    torch.compiler.reset()
    compiled = torch.compile(method.compute_loss, fullgraph=True, dynamic=False, backend=counting)
    for step in (0, 1, 2):
        total = compiled(online, [], torch.tensor([float(step)], dtype=torch.float64)).total
        assert total.item() == pytest.approx(method.loss(online, [], progress(step)).total.item(), rel=1e-12)
    assert len(graphs) == 1
