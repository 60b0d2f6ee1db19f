"""DenseCL's loss against loops over images and cells; its queues, maps and teacher against plain computation."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from infomax.methods.densecl import dense_loss
from infomax.methods.moco import enqueue, queue_loss
from infomax.recipes.building import build_without_memory, check_view_sizes
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from losses_of_methods import LOSSES, QUEUE
from ranks import on_ranks
from tiny import TINY, progress, tiny_encoder, tiny_method, tiny_views


def unit(x):
    return x / max(math.sqrt((x**2).sum()), 1e-12)


def by_loops(query, key, query_features, key_features, queue, temperature):
    """The paper's equations, cell by cell, in numpy."""
    losses = []
    for q, k, f, g in zip(query, key, query_features, key_features, strict=True):
        for s in range(q.shape[1]):
            similarities = [unit(f[:, s]) @ unit(g[:, t]) for t in range(g.shape[1])]
            match = similarities.index(max(similarities))
            positive = unit(q[:, s]) @ unit(k[:, match]) / temperature
            logits = [positive, *(unit(q[:, s]) @ row / temperature for row in queue)]
            losses.append(math.log(math.fsum(math.exp(x) for x in logits)) - positive)
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_dense_loss_is_that_of_loops(temperature):
    arguments = LOSSES["densecl"].make(rows=5)
    arrays = {name: x.numpy() for name, x in arguments.items()}
    expected = by_loops(**arrays, queue=QUEUE.numpy(), temperature=temperature)
    loss = dense_loss(**arguments, queue=QUEUE, temperature=temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_of_equal_cells_the_first_one_matches():
    """Cells without features are equally far from all cells."""
    arguments = LOSSES["densecl"].make(rows=2)
    arguments["query_features"] = torch.zeros_like(arguments["query_features"])
    first = arguments["key"][:, :, :1].expand(-1, -1, 3)
    expected = queue_loss(arguments["query"].mT.flatten(0, 1), first.mT.flatten(0, 1), QUEUE)
    torch.testing.assert_close(dense_loss(**arguments, queue=QUEUE), expected)


def test_equal_maps_match_each_cell_with_itself():
    arguments = LOSSES["densecl"].make(rows=4)
    arguments["key_features"] = arguments["query_features"]
    expected = queue_loss(arguments["query"].mT.flatten(0, 1), arguments["key"].mT.flatten(0, 1), QUEUE)
    torch.testing.assert_close(dense_loss(**arguments, queue=QUEUE), expected)


def test_one_cell_is_moco():
    arguments = {name: x[:, :, :1] for name, x in LOSSES["densecl"].make(rows=4).items()}
    expected = queue_loss(arguments["query"][:, :, 0], arguments["key"][:, :, 0], QUEUE)
    torch.testing.assert_close(dense_loss(**arguments, queue=QUEUE), expected)


@pytest.mark.parametrize("side", ["query", "key"])
def test_the_order_of_cells_and_the_lengths_of_vectors_do_not_matter(side):
    arguments = LOSSES["densecl"].make(rows=4)
    moved, order = dict(arguments), torch.tensor([2, 0, 1])
    for number, name in enumerate((side, f"{side}_features")):
        lengths = torch.rand(4, 1, 3, generator=torch.Generator().manual_seed(number), dtype=torch.float64) + 0.1
        moved[name] = (arguments[name] * lengths)[:, :, order]
    torch.testing.assert_close(dense_loss(**moved, queue=QUEUE), dense_loss(**arguments, queue=QUEUE))


def test_a_key_is_looked_for_in_its_own_image_alone():
    arguments = LOSSES["densecl"].make(rows=4)
    halves = [dense_loss(**{name: x[rows] for name, x in arguments.items()}, queue=QUEUE) for rows in ([0, 1], [2, 3])]
    torch.testing.assert_close(dense_loss(**arguments, queue=QUEUE), sum(halves) / 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": torch.ones(4, 8)}, r"query must be a floating-point tensor \[images, channels, cells\], but is"),
        ({"query": torch.ones(4, 8, 3).long()}, "query must be a floating-point tensor"),
        ({"key": torch.ones(4, 8, 2)}, r"key must have the shape \[4, 8, 3\] of its counterpart, but has \[4, 8, 2\]"),
        ({"key_features": torch.ones(4, 6, 3)}, r"key_features must have the shape \[4, 5, 3\]"),
        (
            {"query_features": torch.ones(4, 5, 2), "key_features": torch.ones(4, 5, 2)},
            r"query_features must have the images and cells of query, \[4, 3\], but have \[4, 2\]",
        ),
        ({"queue": torch.ones(4, 7)}, "queue must be as wide as what it is for, 8, but has 7 columns"),
        ({"queue": QUEUE * torch.inf}, "queue contains NaN or infinity"),
        ({"temperature": 0.0}, "temperature"),
        ({"query": torch.ones(4, 8, 0), "key": torch.ones(4, 8, 0)}, "query needs at least 1"),
    ],
)
def test_wrong_arguments_are_errors(change, words):
    with pytest.raises(ValueError, match=words):
        dense_loss(**{**LOSSES["densecl"].make(rows=4), "queue": QUEUE, **change})


def outputs(branch, image):
    """Returns the projection, the dense projections and the map of a view, layer by layer."""
    layers = list(branch.encoder.backbone)
    last_map = torch.nn.Sequential(*layers[:3])(image)
    cells = [branch.dense_projector(cell) for cell in last_map.flatten(2).unbind(2)]
    return branch.projector(last_map.mean((2, 3))), torch.stack(cells, 2), last_map.flatten(2)


def expected_loss(method, views, pairs, weight=0.5):
    queries = [outputs(method, view) for view in views.crops]
    keys = [outputs(method.teacher.module, view) for view in views.global_crops]
    total = 0.0
    for query, key in pairs:
        (q, dense_q, features), (k, dense_k, others) = queries[query], keys[key]
        dense = by_loops(
            *(x.detach().numpy() for x in (dense_q, dense_k, features, others, method.dense_queue.rows)), 0.2
        )
        total += (1 - weight) * queue_loss(q, k, method.queue.rows) + weight * dense
    return total / len(pairs)


def different_branches(name, **changes):
    """Returns a method whose teacher is not its student, in evaluation mode, so that each call has one result."""
    method = tiny_method(name)
    if changes:
        torch.manual_seed(1)
        method = replace(TINY[name], **changes).build(method.encoder).double()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return method.eval()


@pytest.mark.parametrize(
    ("name", "global_crops", "local_crops", "pairs"),
    [
        ("densecl", 2, 0, [(0, 1)]),
        ("densecl-symmetric", 2, 0, [(0, 1), (1, 0)]),
        ("densecl", 2, 1, [(0, 1), (1, 0), (2, 0), (2, 1)]),  # the local crop has a smaller map
        ("densecl", 3, 0, [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]),
    ],
)
def test_the_loss_is_half_of_mocos_and_half_of_the_cells(name, global_crops, local_crops, pairs):
    method = different_branches(name)
    views = tiny_views(batch=5, global_crops=global_crops, local_crops=local_crops)
    torch.testing.assert_close(method(views, progress(0)).total, expected_loss(method, views, pairs))


def test_the_weight_is_that_of_the_cells():
    method, views = different_branches("densecl", dense_weight=0.3), tiny_views(batch=5)
    total, terms = method(views, progress(0))
    torch.testing.assert_close(total, expected_loss(method, views, [(0, 1)], weight=0.3))
    torch.testing.assert_close(total.detach(), 0.7 * terms["contrast"] + 0.3 * terms["dense"])
    with pytest.raises(ValueError, match="dense_weight"):
        different_branches("densecl", dense_weight=1.1)


def test_views_of_one_size_may_pass_together():
    method, views = different_branches("densecl-symmetric"), tiny_views(batch=5, local_crops=1)
    apart = [*method.online(views), *method.target(views)]
    method.joint_forward = True
    for x, y in zip(apart, [*method.online(views), *method.target(views)], strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("name", ["densecl", "densecl-symmetric"])
def test_keys_of_whole_images_join_both_queues_after_the_loss(name):
    method, views = tiny_method(name), tiny_views()
    before, fresh = copy.deepcopy(method.state_dict()), copy.deepcopy(method)
    loss = method(views, progress(0)).total
    online, target = fresh.online(views), fresh.target(views)
    fresh.queue.enqueue = fresh.dense_queue.enqueue = lambda keys: None
    torch.testing.assert_close(loss, fresh.compute_loss(online, target, ()).total)
    count = len(target) // 3
    for queue, keys in (("queue", target[:count]), ("dense_queue", [x.mean(1) for x in target[count : 2 * count]])):
        rows, position = before[f"{queue}.rows"], 0
        for key in keys:
            rows, position = enqueue(rows, normalize(key, dim=1), position=position)
        torch.testing.assert_close(getattr(method, queue).rows, rows)
        assert int(getattr(method, queue).position) == position == 12 * count
    with torch.no_grad():
        method(views, progress(0))
    assert int(method.queue.position) == int(method.dense_queue.position) == 12 * count


def loss_and_queues(rows: slice) -> tuple[float, list, list]:
    method, generator = tiny_method("densecl-symmetric"), torch.Generator().manual_seed(3)
    shapes = [(8,)] * 2 + [(4, 8)] * 2 + [(4, 24)] * 2
    for _ in range(3):
        online, target = (
            [torch.randn(12, *shape, generator=generator, dtype=torch.float64)[rows] for shape in shapes]
            for _ in range(2)
        )
        loss = method.compute_loss(online, target, ()).total
    return float(loss), method.queue.rows.tolist(), method.dense_queue.rows.tolist()


def on_a_rank(parts: list[int]) -> tuple[float, list, list]:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    return loss_and_queues(slice(start, start + parts[dist.get_rank()]))


def test_ranks_hold_the_queues_of_one_process():
    loss, *queues = loss_and_queues(slice(0, 12))
    for rank_loss, *rank_queues in on_ranks(2, on_a_rank, [5, 7]):
        assert rank_loss == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(rank_queues, queues, rtol=0, atol=1e-15)


def test_the_teacher_follows_with_both_projectors():
    method = tiny_method("densecl")
    teacher = {name: p.clone() for name, p in method.teacher.module.named_parameters()}
    with torch.no_grad():
        for part in (method.encoder, method.projector, method.dense_projector):
            for parameter in part.parameters():
                parameter.add_(1.0)
    method.after_step(progress(0))  # momentum 0.9 at the start
    assert {name.partition(".")[0] for name in teacher} == {"encoder", "projector", "dense_projector"}
    for name, parameter in method.teacher.module.named_parameters():
        torch.testing.assert_close(parameter, teacher[name] + 0.1)


def test_an_encoder_without_a_pooled_map_is_refused():
    with pytest.raises(ValueError, match="^densecl compares the cells of feature maps, but the encoder has no layer"):
        TINY["densecl"].build(tiny_encoder())  # it keeps four cells of the map in its features


@pytest.mark.parametrize(("backbone", "side"), [("small", 8), ("resnet18", 32), ("torchvision:resnet18", 32)])
def test_views_whose_map_has_one_cell_are_refused(backbone, side):
    recipe = customise(get_recipe("densecl", "small"), backbone=backbone, image_size=side)
    with pytest.raises(ValueError, match=f"of which views of {side} pixels give one alone; --image-size"):
        check_view_sizes(recipe, build_without_memory(recipe))
    larger = customise(get_recipe("densecl", "small"), backbone=backbone, image_size=side + 1)
    check_view_sizes(larger, build_without_memory(larger))
