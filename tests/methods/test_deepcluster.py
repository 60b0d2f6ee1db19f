"""DeepCluster-v2's k-means and loss against loops, and its memory against what it is to hold."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from infomax.methods.deepcluster import cluster_loss, spherical_kmeans
from infomax.nn.kmeans import kmeans
from infomax.nn.memory import ImageMemory, buffers_within_steps
from ranks import on_ranks
from tiny import TINY, begin_epoch, progress, tiny_encoder, tiny_method, tiny_views


def rows(count, seed=0, width=6):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kmeans_by_loops(points, centroids, iterations):
    """Spherical k-means, image by image: the first of the nearest centroids; the mean; the norm; empty ones stay."""
    points, centroids = points.tolist(), centroids.tolist()

    def nearest(point):
        dots = [math.fsum(a * b for a, b in zip(point, c, strict=True)) for c in centroids]
        return dots.index(max(dots))

    for _ in range(iterations):
        clusters = [nearest(point) for point in points]
        for k in range(len(centroids)):
            members = [p for p, cluster in zip(points, clusters, strict=True) if cluster == k]
            if members:
                centroids[k] = [math.fsum(column) / len(members) for column in zip(*members, strict=True)]
            norm = math.sqrt(math.fsum(x * x for x in centroids[k]))
            centroids[k] = [x / max(norm, 1e-12) for x in centroids[k]]
    return centroids, [nearest(point) for point in points]


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_kmeans_is_that_of_loops(iterations):
    """Inputs are not normalised; a long centroid far from all rows stays empty, and gets unit norm all the same."""
    points, start = rows(40), torch.cat([rows(5, seed=1), -30 * rows(40).mean(0, keepdim=True)])
    centroids, assignment = spherical_kmeans(points, start, iterations=iterations)
    expected = kmeans_by_loops(points, start, iterations)
    torch.testing.assert_close(centroids, torch.tensor(expected[0], dtype=torch.float64))
    assert assignment.tolist() == expected[1]
    assert assignment.dtype == torch.int64


def test_of_equal_centroids_the_first_one_is_taken_and_the_other_one_stays():
    points = torch.tensor([[1.0, 0, 0], [3, 0, 0], [2, 0, 0]], dtype=torch.float64)
    start = torch.tensor([[4.0, 0, 0], [4, 0, 0]], dtype=torch.float64)
    centroids, assignment = spherical_kmeans(points, start, iterations=1)
    assert assignment.tolist() == [0, 0, 0]
    torch.testing.assert_close(centroids, normalize(start))
    assert spherical_kmeans(points, 2 * start, iterations=0)[0].tolist() == (2 * start).tolist()


def test_kmeans_needs_no_gradient_and_takes_half_precision():
    points, start = rows(20).bfloat16().requires_grad_(), rows(3, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        centroids, assignment = spherical_kmeans(points, start)
    assert centroids.dtype == torch.float32
    assert not centroids.requires_grad
    expected = spherical_kmeans(points.detach().float(), start.float())
    assert torch.equal(centroids, expected[0])
    assert torch.equal(assignment, expected[1])


def test_blocks_of_rows_change_nothing(monkeypatch):
    points, start = rows(50), rows(4, seed=1)
    for spherical in (True, False):
        monkeypatch.setattr("infomax.nn.kmeans.BLOCK", 2**24)
        expected = kmeans(points, start, 3, spherical=spherical)
        monkeypatch.setattr("infomax.nn.kmeans.BLOCK", 20)
        got = kmeans(points, start, 3, spherical=spherical)
        torch.testing.assert_close(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_plain_kmeans_takes_the_nearest_centroid_and_the_mean():
    points, start = rows(50), rows(4, seed=1)
    centroids, assignment = kmeans(points, start, 1, spherical=False)
    nearest = torch.cdist(points, start).argmin(1)
    for k in nearest.unique():
        torch.testing.assert_close(centroids[k], points[nearest == k].mean(0))
    assert torch.equal(assignment, torch.cdist(points, centroids).argmin(1))


def kmeans_of_share(counts):
    import torch.distributed as dist

    first = sum(counts[: dist.get_rank()])
    centroids, assignment = kmeans(
        rows(30)[first : first + counts[dist.get_rank()]], rows(4, seed=1), 5, spherical=True
    )
    return centroids.tolist(), assignment.tolist()


def test_kmeans_over_ranks_is_that_of_one_process():
    """A rank may have no rows at all."""
    centroids, assignment = spherical_kmeans(rows(30), rows(4, seed=1), iterations=5)
    results = on_ranks(3, kmeans_of_share, [19, 0, 11])
    for result in results:
        torch.testing.assert_close(torch.tensor(result[0], dtype=torch.float64), centroids)
    assert [cluster for result in results for cluster in result[1]] == assignment.tolist()


def test_loss_is_the_mean_cross_entropy_of_all_crops_of_images_with_a_cluster():
    scores = [rows(9, seed=seed).requires_grad_() for seed in range(3)]
    assignment = torch.tensor([0, 5, -100, 2, 2, -100, 1, 3, -1])
    loss = cluster_loss(scores, assignment, temperature=0.3)
    labels = assignment.clamp_min(-1).repeat(3)
    expected = cross_entropy(torch.cat(scores) / 0.3, labels, ignore_index=-1)
    torch.testing.assert_close(loss, expected)
    got, want = (torch.autograd.grad(x, scores) for x in (loss, expected))
    torch.testing.assert_close(got, want)


def test_loss_of_images_without_clusters_is_zero():
    scores = rows(4).requires_grad_()
    loss = cluster_loss([scores], torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def loss_of_share(assignments):
    import torch.distributed as dist

    mine = [[2, -100, -100], [-100] * 3, [0, 1, 2]][dist.get_rank()]
    return cluster_loss([rows(9)[3 * dist.get_rank() :][:3]], torch.tensor(mine)).item()


def test_images_without_clusters_may_be_on_one_rank_more_than_on_another():
    expected = cluster_loss([rows(9)], torch.tensor([2, -100, -100, -100, -100, -100, 0, 1, 2])).item()
    assert on_ranks(3, loss_of_share, None) == pytest.approx([expected] * 3)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        (torch.zeros(4), "assignment must be int64"),
        (torch.zeros(3, dtype=torch.int64), "assignment must be int64"),
        (torch.tensor([0, 1, 2, 6]), "below the number of clusters, 6, but has 6"),
        ([0, 1, 2, 3], "assignment must be int64"),
    ],
)
def test_a_wrong_assignment_is_an_error(assignment, words):
    with pytest.raises(ValueError, match=words):
        cluster_loss([rows(4)], assignment)


def test_centroids_of_another_width_are_an_error():
    with pytest.raises(ValueError, match="width of embeddings, 6, but have 5"):
        spherical_kmeans(rows(4), rows(3, width=5))


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_each_crop_is_classified_by_the_centroids_of_each_head(global_crops, local_crops):
    method = tiny_method("deepcluster")
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    z = [normalize(method.projector(method.encoder(x))) for x in (*views.global_crops, *views.local_crops)]
    losses = [
        cross_entropy(torch.cat(z) @ clusters.centroids.T / 0.1, clusters.assignment.repeat(len(z)))
        for clusters in method.clusterings
    ]
    torch.testing.assert_close(method(views, progress(0)).total, torch.stack(losses).mean())


def test_a_head_groups_the_rows_of_its_bank_from_centroids_that_seed_epoch_and_head_draw():
    method = tiny_method("deepcluster")
    for head, clusters in enumerate(method.clusterings):
        bank = method.memory.rows[head % 2]
        _, assignment = spherical_kmeans(bank, clusters.centroids, iterations=0)
        assert torch.equal(clusters.assignment, assignment)
        torch.testing.assert_close(clusters.centroids.norm(dim=1), torch.ones(4, dtype=torch.float64))
    first, third = (method.clusterings[head].centroids.clone() for head in (0, 2))
    assert not torch.equal(first, third)  # of one bank, from other centroids
    begin_epoch(method, tiny_views())
    assert torch.equal(method.clusterings[0].centroids, first)
    begin_epoch(method, tiny_views(), step=3)
    assert not torch.equal(method.clusterings[0].centroids, first)
    method.seed = 1
    begin_epoch(method, tiny_views())
    assert not torch.equal(method.clusterings[0].centroids, first)


def test_memory_holds_the_embeddings_of_the_last_visit_and_fills_once():
    method = tiny_method("deepcluster")
    views = tiny_views(seed=5)
    views = views._replace(global_crops=[x[:4] for x in views.global_crops], positions=torch.tensor([7, 2, 11, 0]))
    before = method.memory.rows.clone()
    online, target = method.online(views), method.target(views)
    method.remember([x.detach() for x in online], target)
    for bank, z, old in zip(method.memory.rows, online, before, strict=True):
        torch.testing.assert_close(bank[[7, 2, 11, 0]], z.detach())
        others = [1, 3, 4, 5, 6, 8, 9, 10]
        assert torch.equal(bank[others], old[others])
    method.before_epoch(progress(3), lambda network: pytest.fail("the memory is full already"))


def test_images_that_were_not_visited_have_no_cluster_and_do_not_count():
    method = TINY["deepcluster"].build(tiny_encoder()).double()
    method.prepare(20)
    method.double()
    views = tiny_views()._replace(positions=torch.arange(12) + 3)
    with torch.no_grad():
        method.before_epoch(progress(0), lambda network: [(views.positions, network(views))])
    clusters = method.clusterings[0]
    assert clusters.assignment.tolist()[:3] == clusters.assignment.tolist()[15:][:3] == [-100] * 3
    assert clusters.assignment[3:15].min() >= 0
    expected = spherical_kmeans(method.memory.rows[0][3:15], clusters.centroids, iterations=0)[1]
    assert torch.equal(clusters.assignment[3:15], expected)
    assert (
        method(views._replace(positions=torch.tensor([0, 1, 2, 15, 16, 17, 18, 19, 0, 1, 2, 15])), progress(0)).total
        == 0
    )


def test_clusters_of_features_are_those_of_the_first_head():
    method = tiny_method("deepcluster")
    features = rows(5, width=24)
    expected = normalize(method.projector(features)) @ method.clusterings[0].centroids.T
    torch.testing.assert_close(method.cluster_logits(features), expected)
    z = normalize(rows(5, width=8))
    probabilities = (z @ method.clusterings[0].centroids.T / 0.1).softmax(1)
    torch.testing.assert_close(method.assignment_probabilities([z])[0], probabilities)


def test_more_clusters_than_images_are_an_error():
    method = TINY["deepcluster"].build(tiny_encoder())
    with pytest.raises(ValueError, match="method.prototypes must be at most the number of images, 3, but is 4"):
        method.prepare(3)


def test_what_changes_between_steps_alone_is_no_buffer_of_a_step():
    method = tiny_method("deepcluster")
    within = {id(x) for x in buffers_within_steps(method)}
    for name, buffer in method.named_buffers():
        assert (id(buffer) in within) == name.startswith(("encoder", "projector"))
    assert ImageMemory(1, 2, 3).rows.shape == (1, 2, 3)


def test_one_head_needs_one_bank():
    method = replace(TINY["deepcluster"], heads=1).build(tiny_encoder())
    method.prepare(12)
    assert method.memory.rows.shape == (1, 12, 8)
