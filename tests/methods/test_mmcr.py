"""MMCR's loss against numpy's singular values, and its gradient against their definition."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from infomax.methods.mmcr import mmcr_loss
from losses_of_methods import each
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def make(rows, views=3, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(views)]


def nuclear(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()


@pytest.mark.parametrize("rows", [1, 5, 20])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_that_of_numpy(rows, weight):
    views = make(rows)
    units = np.stack([z / z.norm(dim=1, keepdim=True) for z in views])
    centroids = units.mean(0)
    images = np.mean([nuclear(units[:, b]) for b in range(rows)])
    assert mmcr_loss(views, weight=weight).item() == pytest.approx(weight * images - nuclear(centroids), rel=1e-12)


def test_embeddings_of_any_length_have_the_loss_of_unit_rows():
    """lightly 1.6.0 takes the rows as they are."""
    views = make(6)
    longer = [z * torch.linspace(0.1, 9, 6, dtype=torch.float64)[:, None] for z in views]
    torch.testing.assert_close(mmcr_loss(longer, weight=0.2), mmcr_loss(views, weight=0.2))
    assert abs(nuclear(torch.stack(views).mean(0)) + mmcr_loss(views).item()) > 1


@pytest.mark.parametrize("rows", [4, 8, 20])
def test_the_gradient_is_that_of_torchs_singular_values(rows):
    views = each({"views": make(rows)}, lambda x: x.requires_grad_())["views"]
    units = torch.stack([normalize(z, dim=1) for z in views])
    own = torch.linalg.svdvals(units.transpose(0, 1)).sum(1).mean()
    expected = 0.3 * own - torch.linalg.svdvals(units.mean(0)).sum()
    actual = torch.autograd.grad(mmcr_loss(views, weight=0.3), views)
    torch.testing.assert_close(actual, torch.autograd.grad(expected, views))


def test_repeated_singular_values_have_the_gradient_of_the_trace():
    """Near the identity the nuclear norm is the trace: to first order, each diagonal entry is a singular value."""
    views = [torch.eye(4, dtype=torch.float64).requires_grad_() for _ in range(2)]
    step = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(mmcr_loss(views), views)
    torch.testing.assert_close(gradients[0], torch.zeros(4, 4, dtype=torch.float64))  # the diagonal is radial
    moved = mmcr_loss([views[0] + 1e-5 * step, views[1]])
    assert abs(moved.item() + 4) < 1e-8


def test_equal_rows_have_the_gradient_of_least_norm_which_vanishes():
    """One singular value is above zero, and its gradient is along the rows themselves, which normalisation removes."""
    for dtype in (torch.float32, torch.float64):
        views = [torch.tensor([[1.0, 2.0, -1.0]], dtype=dtype).repeat(5, 1).requires_grad_() for _ in range(3)]
        loss = mmcr_loss(views, weight=0.5)
        assert loss.item() == pytest.approx(-(5**0.5) + 0.5 * 3**0.5, rel=1e-6)
        for gradient in torch.autograd.grad(loss, views):
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_rows_of_zeros_have_no_centroid_and_a_finite_gradient():
    views = [torch.zeros(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    loss = mmcr_loss(views, weight=0.1)
    assert loss.item() == 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, views))


def on_a_rank(rows):
    import torch.distributed as dist

    start = sum(rows[: dist.get_rank()])
    mine = slice(start, start + rows[dist.get_rank()])
    views = [z[mine].clone().requires_grad_() for z in make(sum(rows))]
    loss = mmcr_loss(views)
    loss.backward()
    return loss.item(), [z.grad.tolist() for z in views]


def test_the_gradient_on_ranks_is_not_divided_by_their_number():
    """The official code gathers without gradient, so that each rank's share of it is lost."""
    rows = [2, 4]
    views = [z.requires_grad_() for z in make(6)]
    loss = mmcr_loss(views)
    loss.backward()
    results = on_ranks(2, on_a_rank, rows)
    for number, z in enumerate(views):
        gathered = [row for _, gradients in results for row in gradients[number]]
        torch.testing.assert_close(torch.tensor(gathered, dtype=torch.float64) / 2, z.grad)
    assert all(value == pytest.approx(loss.item()) for value, _ in results)


@pytest.mark.parametrize("name", ["mmcr", "mmcr-local"])
@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_takes_all_views_alike(name, global_crops, local_crops):
    method = tiny_method(name)
    method.global_crop_count = global_crops
    online = method.online(tiny_views(global_crops=global_crops, local_crops=local_crops))
    loss = method.loss(online, [], progress(0))
    torch.testing.assert_close(loss.total, mmcr_loss(online, weight=method.weight))
    torch.testing.assert_close(-loss.terms["nuclear_norm"], mmcr_loss(online))


@pytest.mark.parametrize("views", [torch.ones(3, 4), 5, []])
def test_what_is_no_list_of_matrices_is_an_error(views):
    with pytest.raises(ValueError, match="views"):
        mmcr_loss(views)
