"""ReSSL's loss against its paper's equations, image by image; its views, queue and teacher against plain loops."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from infomax.methods.moco import enqueue
from infomax.methods.ressl import relation_loss
from infomax.recipes.registry import METHODS
from losses_of_methods import LOSSES, QUEUE
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def distribution(x, temperature):
    terms = [math.exp(cosine(x, row) / temperature) for row in QUEUE]
    return [term / sum(terms) for term in terms]


@pytest.mark.parametrize(("student", "teacher"), [(0.1, 0.04), (0.3, 0.2)])
def test_the_loss_is_the_cross_entropy_of_the_relations_to_the_queue(student, teacher):
    arguments = LOSSES["ressl"].make(rows=5)
    losses = []
    for query, key in zip(arguments["query"], arguments["key"], strict=True):
        pairs = zip(distribution(key, teacher), distribution(query, student), strict=True)
        losses.append(-sum(p * math.log(q) for p, q in pairs))
    temperatures = {"student_temperature": student, "teacher_temperature": teacher}
    loss = relation_loss(**arguments, queue=QUEUE, **temperatures)
    assert float(loss) == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_gradient_is_the_difference_of_both_relations():
    arguments = LOSSES["ressl"].make(rows=3)
    query = arguments["query"].requires_grad_()
    relation_loss(**arguments, queue=QUEUE, student_temperature=0.2, teacher_temperature=0.1).backward()
    for x, gradient, key in zip(query.detach(), query.grad, arguments["key"], strict=True):
        difference = torch.tensor(distribution(x, 0.2)) - torch.tensor(distribution(key, 0.1))
        unit, pull = x / x.norm(), difference.double() @ QUEUE
        expected = (pull - (pull @ unit) * unit) / x.norm() / 0.2 / 3
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def test_small_temperatures_do_not_overflow():
    z = torch.eye(4)
    assert relation_loss(z, z.flip(0), z, student_temperature=1e-3, teacher_temperature=1e-3).isfinite()


def test_a_queue_of_another_width_is_an_error():
    with pytest.raises(ValueError, match="queue must be as wide as what it is for, 3, but has 2 columns"):
        relation_loss(torch.eye(3), torch.eye(3), torch.ones(4, 2))


def test_of_two_views_the_first_is_the_students_and_the_second_the_teachers():
    method, views = tiny_method("ressl").eval(), tiny_views()
    first, second = views.global_crops
    query, key = method.projector(method.encoder(first)), method.teacher(second)
    torch.testing.assert_close(method(views, progress(0)).total, relation_loss(query, key, method.queue.rows))
    assert len(method.online(views)) == len(method.target(views)) == 1


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 1), (2, 4), (3, 0)])
def test_of_more_views_the_last_global_crop_is_the_teachers_and_all_others_are_the_students(global_crops, local_crops):
    method, views = tiny_method("ressl"), tiny_views(global_crops=global_crops, local_crops=local_crops)
    method.global_crop_count = global_crops
    method.eval()
    *students, weak = views.global_crops
    key = method.teacher(weak)
    losses = [
        relation_loss(method.projector(method.encoder(view)), key, method.queue.rows)
        for view in (*students, *views.local_crops)
    ]
    assert len(losses) == global_crops + local_crops - 1
    torch.testing.assert_close(method(views, progress(0)).total, sum(losses) / len(losses))


def test_keys_join_the_queue_after_the_loss():
    method = tiny_method("ressl")
    queue, position = method.queue.rows.clone(), 0
    for seed in range(4):  # the queue has 32 rows, a batch 12
        views = tiny_views(seed=seed)
        online, target = method.online(views), method.target(views)
        expected = relation_loss(online[0], target[0], queue)
        torch.testing.assert_close(method.compute_loss(online, target, ()).total, expected)
        queue, position = enqueue(queue, normalize(target[0], dim=1), position=position)
        assert torch.equal(method.queue.rows, queue)
    assert int(method.queue.position) == position
    with torch.no_grad():
        method(views, progress(0))
    assert torch.equal(method.queue.rows, queue)


def on_a_rank(parts: list[int]) -> tuple[float, list]:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    return loss_and_queue(slice(start, start + parts[dist.get_rank()]))


def loss_and_queue(rows: slice) -> tuple[float, list]:
    method, generator = tiny_method("ressl"), torch.Generator().manual_seed(3)
    for _ in range(3):
        query, key = torch.randn(2, 12, 8, generator=generator, dtype=torch.float64)
        loss = method.compute_loss([query[rows]], [key[rows]], ()).total
    return float(loss), method.queue.rows.tolist()


@pytest.mark.parametrize("parts", [[5, 7], [2, 4, 1, 5]])
def test_ranks_hold_the_queue_of_one_process(parts):
    loss, queue = loss_and_queue(slice(0, 12))
    for rank_loss, rank_queue in on_ranks(len(parts), on_a_rank, parts):
        assert rank_loss == pytest.approx(loss, rel=1e-12)
        assert torch.equal(torch.tensor(rank_queue), torch.tensor(queue))


def test_the_teacher_moves_before_its_forward_pass():
    """Ours, which moves after a step, has the same weights in each pass; the first one is that of a copy."""
    method = tiny_method("ressl")
    plain = [p.clone() for p in method.teacher.parameters()]
    for step in range(4):
        momentum = 0.999 - 0.099 * (1 + math.cos(math.pi * step / 12)) / 2
        student = [*method.encoder.parameters(), *method.projector.parameters()]
        plain = [momentum * p + (1 - momentum) * s.detach() for p, s in zip(plain, student, strict=True)]
        for ours, theirs in zip(method.teacher.parameters(), plain, strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            for parameter in student:
                parameter.add_(torch.randn_like(parameter))
        method.after_step(progress(step + 1))


@pytest.mark.parametrize("name", METHODS["ressl"].recipes)
def test_the_second_view_of_each_recipe_is_weak(name):
    strong, weak = METHODS["ressl"].recipes[name].recipe().views.global_crops
    assert (weak.jitter, weak.blur, weak.solarize) == (0, 0, 0)
    assert (weak.scale, weak.size, weak.flip) == (strong.scale, strong.size, strong.flip)
    assert strong.jitter == 0.8
