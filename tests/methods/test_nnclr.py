"""NNCLR's neighbours and loss against its paper's equations, image by image; its queue against a plain loop."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from infomax.methods.moco import enqueue
from infomax.methods.nnclr import nearest_neighbour, nnclr_loss
from losses_of_methods import LOSSES, QUEUE
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def test_the_neighbour_is_the_row_of_the_largest_cosine():
    z = LOSSES["nnclr"].make()["prediction"] * 5
    for embedding, neighbour in zip(z, nearest_neighbour(z, QUEUE), strict=True):
        assert torch.equal(neighbour, max(QUEUE, key=lambda row: cosine(embedding, row)))


def test_of_rows_that_are_equally_near_the_first_is_taken():
    queue = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    marked = torch.cat([queue, torch.zeros(4, 1)], 1)
    z = torch.tensor([[2.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(nearest_neighbour(z, marked), marked[[0, 1, 0]])


def test_no_gradient_flows_through_a_neighbour():
    z = torch.eye(3).requires_grad_()
    assert not nearest_neighbour(z, torch.eye(3)).requires_grad


def test_a_queue_of_another_width_is_an_error():
    with pytest.raises(ValueError, match="queue must be as wide as what it is for, 3, but has 2 columns"):
        nearest_neighbour(torch.eye(3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="z contains NaN or infinity"):
        nearest_neighbour(torch.eye(3) * torch.nan, torch.eye(3))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_is_equation_3(temperature):
    """The positives of other images are in the denominator, other predictions of the same view alone: no p p terms."""
    arguments = LOSSES["nnclr"].make(rows=5)
    losses = []
    for i, neighbour in enumerate(arguments["neighbour"]):
        terms = [math.exp(cosine(neighbour, p) / temperature) for p in arguments["prediction"]]
        losses.append(-math.log(terms[i] / sum(terms)))
    loss = nnclr_loss(**arguments, temperature=temperature)
    assert float(loss) == pytest.approx(sum(losses) / 5, rel=1e-12)


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_neighbours_of_each_global_crop_meet_the_predictions_of_each_other_view(global_crops, local_crops):
    method, views = tiny_method("nnclr"), tiny_views(global_crops=global_crops, local_crops=local_crops)
    method.global_crop_count = global_crops
    method.eval()
    z = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    p = [method.predictor(x) for x in z]
    losses = [
        nnclr_loss(nearest_neighbour(z[crop], method.queue.rows), p[view])
        for crop in range(global_crops)
        for view in range(len(z))
        if view != crop
    ]
    torch.testing.assert_close(method(views, progress(0)).total, sum(losses) / len(losses))


def test_the_gradient_reaches_the_projector_through_predictions_alone():
    method, views = tiny_method("nnclr"), tiny_views()
    method.eval()
    for parameter in method.predictor.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(method.predictor[-1].bias)
    method(views, progress(0)).total.backward()
    assert all(not parameter.grad.any() for parameter in method.projector.parameters())


def test_the_first_views_embeddings_join_the_queue_after_the_loss():
    method, views = tiny_method("nnclr"), tiny_views(batch=12)
    queue, position = method.queue.rows.clone(), 0
    for step in range(4):  # the queue has 32 rows
        online = method.online(views)
        (p1, z1), (p2, z2) = (both.unbind(1) for both in online)
        loss = method.compute_loss(online, [], ()).total
        first, second = nearest_neighbour(z1, queue), nearest_neighbour(z2, queue)
        torch.testing.assert_close(loss, (nnclr_loss(first, p2) + nnclr_loss(second, p1)) / 2)
        queue, position = enqueue(queue, normalize(z1.detach(), dim=1), position=position)
        assert torch.equal(method.queue.rows, queue), step
    assert int(method.queue.position) == position
    with torch.no_grad():
        method(views, progress(0))
    assert torch.equal(method.queue.rows, queue)


def on_a_rank(parts: list[int]) -> tuple[float, list]:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    return loss_and_queue(slice(start, start + parts[dist.get_rank()]))


def loss_and_queue(rows: slice) -> tuple[float, list]:
    method, generator = tiny_method("nnclr"), torch.Generator().manual_seed(3)
    for _ in range(3):
        online = torch.randn(2, 12, 2, 8, generator=generator, dtype=torch.float64)
        loss = method.compute_loss([x[rows] for x in online], [], ()).total
    return float(loss), method.queue.rows.tolist()


@pytest.mark.parametrize("parts", [[5, 7], [2, 4, 1, 5]])
def test_ranks_hold_the_queue_of_one_process(parts):
    loss, queue = loss_and_queue(slice(0, 12))
    for rank_loss, rank_queue in on_ranks(len(parts), on_a_rank, parts):
        assert rank_loss == pytest.approx(loss, rel=1e-12)
        assert torch.equal(torch.tensor(rank_queue), torch.tensor(queue))
