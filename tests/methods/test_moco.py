"""MoCo's losses against their papers' equations, image by image; its queue and its teacher against plain loops."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from infomax.methods.moco import batch_loss, enqueue, queue_loss
from infomax.training.output_observer import OutputObserver
from losses_of_methods import LOSSES, QUEUE
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_queue_loss_is_equation_1_of_moco(temperature):
    arguments = LOSSES["moco"].make(rows=5)
    losses = []
    for query, key in zip(arguments["query"], arguments["key"], strict=True):
        positive = math.exp(cosine(query, key) / temperature)
        negatives = sum(math.exp(cosine(query, row) / temperature) for row in QUEUE)
        losses.append(-math.log(positive / (positive + negatives)))
    loss = queue_loss(**arguments, queue=QUEUE, temperature=temperature)
    assert float(loss) == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_gradient_of_queue_loss_is_the_softmax_mean_minus_the_key():
    """Along the sphere, and over temperature, rows and the query's length."""
    arguments = LOSSES["moco"].make(rows=3)
    query = arguments["query"].requires_grad_()
    queue_loss(**arguments, queue=QUEUE, temperature=0.3).backward()
    for x, gradient, key in zip(query.detach(), query.grad, arguments["key"], strict=True):
        unit, rows = x / x.norm(), torch.cat([(key / key.norm())[None], QUEUE])
        pull = (rows @ unit / 0.3).softmax(0) @ rows - rows[0]
        expected = (pull - (pull @ unit) * unit) / x.norm() / 0.3 / 3
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_batch_loss_is_algorithm_1_of_moco_v3(temperature):
    arguments = LOSSES["mocov3"].make(rows=5)
    losses = []
    for i, query in enumerate(arguments["query"]):
        terms = [math.exp(cosine(query, key) / temperature) for key in arguments["key"]]
        losses.append(-math.log(terms[i] / sum(terms)))
    expected = 2 * temperature * sum(losses) / 5
    assert float(batch_loss(**arguments, temperature=temperature)) == pytest.approx(expected, rel=1e-12)


def test_large_logits_do_not_overflow():
    z = torch.eye(4)
    assert queue_loss(z, -z, z, temperature=1e-3).isfinite()
    assert batch_loss(z, z.flip(0), temperature=1e-3).isfinite()


def test_a_queue_of_another_precision_is_an_error_where_it_is_compared_with_and_converted_into():
    with pytest.raises(ValueError, match=r"queue must have the type torch.float64 of its counterpart, but has .*32"):
        queue_loss(torch.eye(3).double(), torch.eye(3).double(), torch.ones(4, 3))
    queue, _ = enqueue(torch.ones(4, 3), torch.eye(3).double(), position=0)
    assert queue.dtype == torch.float32


def test_a_queue_of_another_width_is_an_error():
    with pytest.raises(ValueError, match="queue must be as wide as what it is for, 3, but has 2 columns"):
        queue_loss(torch.eye(3), torch.eye(3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="queue"):
        enqueue(torch.ones(4, 2), torch.eye(3), position=0)
    with pytest.raises(ValueError, match="position must be below the queue's 4 rows, but is 4"):
        enqueue(torch.ones(4, 3), torch.eye(3), position=4)


@pytest.mark.parametrize(("count", "position"), [(3, 0), (3, 3), (3, 4), (5, 2), (7, 0), (13, 4)])
def test_enqueue_writes_one_key_after_another_and_goes_on_at_the_start(count, position):
    """lightly's memory bank cuts a batch that passes the end."""
    queue, keys = torch.zeros(5, 2), torch.randn(count, 2)
    expected, place = queue.clone(), position
    for key in keys:
        expected[place] = key
        place = (place + 1) % 5
    updated, new_position = enqueue(queue, keys, position=position)
    assert torch.equal(updated, expected)
    assert new_position == place
    assert not queue.any()


def embeddings(method, network, crops):
    return [network(crop) for crop in crops]


def test_moco_compares_the_first_view_with_the_key_of_the_second_one_alone():
    method, views = tiny_method("moco"), tiny_views()
    queue, (first, second) = method.queue.rows.clone(), views.global_crops
    method.eval()  # the running statistics serve each call alike
    query, key = method.projector(method.encoder(first)), method.teacher(second)
    torch.testing.assert_close(method(views, progress(0)).total, queue_loss(query, key, queue))
    assert len(method.online(views)) == len(method.target(views)) == 1


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
@pytest.mark.parametrize("name", ["moco", "moco-symmetric", "mocov3"])
def test_views_query_all_other_global_crops(name, global_crops, local_crops):
    if name == "moco" and local_crops + global_crops == 2:
        pytest.skip("one direction, tested above")
    method, views = tiny_method(name), tiny_views(global_crops=global_crops, local_crops=local_crops)
    method.global_crop_count = global_crops
    method.eval()
    everything = [*views.global_crops, *views.local_crops]
    queries = [method.projector(method.encoder(view)) for view in everything]
    keys = [method.teacher(crop) for crop in views.global_crops]
    pairs = [(q, k) for q in range(len(queries)) for k in range(global_crops) if q != k]
    if name == "mocov3":
        predictions = [method.predictor(z) for z in queries]
        losses = [batch_loss(predictions[q], keys[k]) for q, k in pairs]
        expected = sum(losses) * 2 / len(losses)  # of two views, the sum
    else:
        losses = [queue_loss(queries[q], keys[k], method.queue.rows) for q, k in pairs]
        expected = sum(losses) / len(losses)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


@pytest.mark.parametrize("name", ["moco", "moco-symmetric"])
def test_keys_join_the_queue_after_all_of_the_loss(name):
    """Both halves of a symmetric loss see the queue of the step before (lightly#564)."""
    method, views = tiny_method(name), tiny_views(batch=12)
    before, reference = method.queue.rows.clone(), copy.deepcopy(method)
    loss = method(views, progress(0)).total
    online, target = reference.online(views), [normalize(key, dim=1) for key in reference.target(views)]
    pairs = [(0, 0)] if name == "moco" else [(0, 1), (1, 0)]
    expected = sum(queue_loss(online[q], target[k], before) for q, k in pairs) / len(pairs)
    torch.testing.assert_close(loss, expected)
    position = 0
    for key in target:
        before, position = enqueue(before, key, position=position)
    torch.testing.assert_close(method.queue.rows, before)
    assert int(method.queue.position) == position
    with torch.no_grad():
        method(views, progress(0))
    torch.testing.assert_close(method.queue.rows, before)


@pytest.mark.parametrize("name", ["moco", "moco-symmetric"])
def test_direct_outputs_of_both_views_are_taken_as_those_of_online_and_target(name):
    method = tiny_method(name).eval()
    q, k = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    halves = [queue_loss(q[0], k[1], method.queue.rows), queue_loss(q[1], k[0], method.queue.rows)]
    expected = halves[0] if name == "moco" else sum(halves) / 2
    torch.testing.assert_close(method.compute_loss(list(q), list(k), ()).total, expected)


def on_a_rank(parts: list[int]) -> tuple[float, list]:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    return loss_and_queue(slice(start, start + parts[dist.get_rank()]))


def loss_and_queue(rows: slice) -> tuple[float, list]:
    method, generator = tiny_method("moco-symmetric"), torch.Generator().manual_seed(3)
    for _ in range(3):
        q, k = torch.randn(2, 2, 12, 8, generator=generator, dtype=torch.float64)
        loss = method.compute_loss([x[rows] for x in q], [x[rows] for x in k], ()).total
    return float(loss), method.queue.rows.tolist()


@pytest.mark.parametrize("parts", [[5, 7], [2, 4, 1, 5]])
def test_ranks_hold_the_queue_of_one_process(parts):
    loss, queue = loss_and_queue(slice(0, 12))
    for rank_loss, rank_queue in on_ranks(len(parts), on_a_rank, parts):
        assert rank_loss == pytest.approx(loss, rel=1e-12)
        assert torch.equal(torch.tensor(rank_queue), torch.tensor(queue))


@pytest.mark.parametrize("name", ["moco", "mocov3"])
def test_the_teacher_moves_before_its_forward_pass(name):
    """The papers move the teacher first; ours, which moves after a step, has the same weights in each pass."""
    method = tiny_method(name)
    plain = [p.clone() for p in method.teacher.parameters()]
    for step in range(4):
        share = step / 12
        momentum = 0.9 if name == "mocov3" else None
        momentum = 1 - 0.1 * (1 + math.cos(math.pi * share)) / 2 if momentum else moco_momentum(share)
        student = [*method.encoder.parameters(), *method.projector.parameters()]
        plain = [momentum * p + (1 - momentum) * s.detach() for p, s in zip(plain, student, strict=True)]
        for ours, theirs in zip(method.teacher.parameters(), plain, strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            for parameter in student:
                parameter.add_(torch.randn_like(parameter))
        method.after_step(progress(step + 1))


def moco_momentum(share: float) -> float:
    """A cosine from 0.9 to 0.999, the default end."""
    return 0.999 - 0.099 * (1 + math.cos(math.pi * share)) / 2


def test_v2_has_batch_norm_in_its_projector_only_if_told():
    kinds = [type(layer).__name__ for layer in tiny_method("moco").projector]
    assert kinds == ["Linear", "ReLU", "Linear"]
    with_norm = [type(layer).__name__ for layer in tiny_method("moco-symmetric").projector]
    assert with_norm == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_v3_has_batch_norm_without_bias_and_the_last_one_without_scale():
    method = tiny_method("mocov3")
    kinds = [[type(layer).__name__ for layer in network] for network in (method.projector, method.predictor)]
    hidden = ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds == [[*hidden, "BatchNorm1d"], hidden]
    assert not method.projector[-1].affine
    assert all(layer.bias is None for network in (method.projector, method.predictor) for layer in network[::3])


def test_health_is_measured_of_the_one_view_that_is_embedded():
    method, views = tiny_method("moco"), tiny_views(batch=6)
    observer = OutputObserver(np.arange(4))
    with observer.watch(method, views):
        embeddings = method.projector(method.encoder(views.global_crops[0]))
    ((kept,),) = observer.embeddings
    torch.testing.assert_close(kept, embeddings[:4].detach())
