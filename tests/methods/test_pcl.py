"""PCL's concentration and loss against numpy and loops, and its clusters against the teacher's embeddings."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from infomax.methods.moco import queue_loss
from infomax.methods.pcl import concentration, prototype_loss
from infomax.nn.kmeans import kmeans
from ranks import on_ranks
from tiny import begin_epoch, progress, tiny_method, tiny_views


def rows(count, seed=0, width=6):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_numpy(x, c, assignment, temperature=0.2, smoothing=10.0):
    """The equations as they are written, cluster by cluster."""
    x, c, assignment = x.numpy(), c.numpy(), np.array(assignment)
    phi = np.zeros(len(c))
    for k in range(len(c)):
        members = x[assignment == k]
        if len(members) > 1:
            phi[k] = np.mean([np.sqrt(((m - c[k]) ** 2).sum()) for m in members]) / np.log(len(members) + smoothing)
    for k in range(len(c)):
        if (assignment == k).sum() <= 1:
            phi[k] = phi.max()
    phi = np.clip(phi, np.percentile(phi, 10), np.percentile(phi, 90))
    return temperature * phi / phi.mean()


# Clusters of 7, 5, 3, 2, 1 and 0 images, and two images without a cluster.
ASSIGNMENT = [0] * 7 + [1] * 5 + [2, 2, 2, 3, 3, 4, -100, -100]


@pytest.mark.parametrize(("temperature", "smoothing"), [(0.2, 10.0), (0.5, 1.0)])
def test_concentration_is_that_of_numpy(temperature, smoothing):
    x, c = rows(20), rows(6, seed=1)
    settings = {"temperature": temperature, "smoothing": smoothing}
    got = concentration(x, c, torch.tensor(ASSIGNMENT), **settings)
    torch.testing.assert_close(got, torch.from_numpy(by_numpy(x, c, ASSIGNMENT, **settings)))
    assert float(got.mean()) == pytest.approx(temperature)


def test_clusters_without_extent_get_the_temperature():
    c = rows(3, seed=1)
    for assignment in ([0, 0, 1, 1], [0, 1, 2, -1]):
        x = c[torch.tensor(assignment).clamp_min(0)]
        torch.testing.assert_close(
            concentration(x, c, torch.tensor(assignment)), torch.full((3,), 0.2, dtype=torch.float64)
        )


def test_clusters_of_equal_embeddings_get_the_largest_concentration_and_a_finite_loss():
    z = torch.tensor([[0.0], [0.0], [1.0], [1.0], [2.0], [3.0], [5.0], [9.0]])
    centroids, assignment = torch.tensor([[0.0], [1.0], [2.5], [7.0]]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    phi = concentration(z, centroids, assignment)
    assert phi[0] == phi[1] == phi[3] > phi[2] > 0
    assert phi.mean() == pytest.approx(0.2)
    assert prototype_loss(z, centroids, assignment, phi).isfinite()


def test_concentration_has_no_gradient_and_ignores_autocast():
    x, c = rows(20).float().requires_grad_(), rows(6, seed=1).float().requires_grad_()
    expected = concentration(x, c, torch.tensor(ASSIGNMENT))
    assert not expected.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(concentration(x, c, torch.tensor(ASSIGNMENT)), expected)
    assert concentration(x.bfloat16(), c.bfloat16(), torch.tensor(ASSIGNMENT)).dtype == torch.float32


def concentration_of_share(counts):
    import torch.distributed as dist

    from infomax.methods.pcl import _concentration

    first = sum(counts[: dist.get_rank()])
    mine = slice(first, first + counts[dist.get_rank()])
    return _concentration(rows(20)[mine], rows(6, seed=1), torch.tensor(ASSIGNMENT)[mine], 0.2, 10.0).tolist()


def test_concentration_over_ranks_is_that_of_one_process():
    expected = by_numpy(rows(20), rows(6, seed=1), ASSIGNMENT)
    for result in on_ranks(3, concentration_of_share, [13, 0, 7]):
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_prototype_loss_is_a_cross_entropy_over_all_centroids():
    z, c, phi = rows(9).requires_grad_(), rows(5, seed=1), rows(5, seed=2)[:, 0].exp()
    assignment = torch.tensor([0, 4, -100, 2, 2, -100, 1, 3, 3])
    loss = prototype_loss(z, c, assignment, phi)
    counted = assignment >= 0
    logits = normalize(z)[counted] @ normalize(c).T / phi
    expected = cross_entropy(logits, assignment[counted])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"concentration": torch.ones(4)}, "concentration must have a number for each of 5 centroids"),
        ({"concentration": torch.zeros(5)}, "concentration must be finite and above 0"),
        ({"centroids": torch.ones(5, 4)}, "centroids must have the width of z, 6"),
        ({"assignment": torch.tensor([5, 0, 0])}, "below the number of clusters, 5"),
    ],
)
def test_wrong_arguments_are_errors(change, words):
    arguments = {
        "z": rows(3),
        "centroids": rows(5, seed=1),
        "assignment": torch.tensor([0, 1, 2]),
        "concentration": torch.ones(5),
    }
    with pytest.raises(ValueError, match=words):
        prototype_loss(**{**arguments, **change})


def grouped(method, z, number):
    """Returns unit centroids, assignment and concentration of the images of tiny_views, step by step."""
    start = np.random.default_rng([method.seed, 0, number]).choice(12, method.clusters[number], replace=False)
    centroids, assignment = kmeans(z, z[torch.from_numpy(start)], 3, spherical=False)
    return normalize(centroids), assignment, concentration(z, centroids, assignment)


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_loss_is_that_of_moco_and_the_mean_over_clusterings(global_crops, local_crops):
    method, views = tiny_method("pcl"), tiny_views(global_crops=global_crops, local_crops=local_crops)
    keys = normalize(method.moco.teacher(tiny_views().global_crops[1]))
    queue = method.moco.queue.rows.clone()
    online, target = method.online(views), method.target(views)
    total, terms = method.loss(online, target, progress(0))
    fresh = tiny_method("pcl")
    contrast = fresh.moco.compute_loss(online, target[:-1], ()).total
    prototypes = []
    for number in range(2):
        centroids, assignment, phi = grouped(method, keys, number)
        assert torch.equal(method.clusterings[number].assignment, assignment)
        prototypes.append(torch.stack([prototype_loss(z, centroids, assignment, phi) for z in online]).mean())
    torch.testing.assert_close(total, contrast + torch.stack(prototypes).mean())
    assert terms["contrast"] == contrast
    if (global_crops, local_crops) == (2, 0):
        assert len(online) == 1
        torch.testing.assert_close(contrast, queue_loss(online[0], target[0], queue))


def test_there_are_no_prototypes_during_the_warm_up_and_none_of_an_earlier_stage():
    method = tiny_method("pcl")
    assert method.clusterings[0].assignment.min() >= 0
    method.warmup_epochs = 2
    method.before_epoch(progress(3), lambda network: pytest.fail("no pass is needed in the second epoch"))
    loss = method(tiny_views(), progress(3))
    assert loss.terms["prototypes"] == 0
    torch.testing.assert_close(loss.total.detach(), loss.terms["contrast"])
    begin_epoch(method, tiny_views(), step=6)
    assert method(tiny_views(), progress(6)).terms["prototypes"] > 0


def test_more_clusters_than_images_are_an_error():
    with pytest.raises(ValueError, match="method.clusters must be at most the number of images, 3, but has 4"):
        tiny_method("pcl").prepare(3)
