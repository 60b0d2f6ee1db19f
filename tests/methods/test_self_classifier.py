"""Self-Classifier's loss against its paper's probabilities, computed as matrices, and its classifiers."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from infomax.methods.self_classifier import self_classifier_loss
from tiny import progress, tiny_method, tiny_views


def random_logits(views, rows=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, classes, generator=generator, dtype=torch.float64).tanh() for _ in range(views)]


def literal(logits, full=2, row_temperature=0.1, column_temperature=0.05):
    losses = []
    for i, x in enumerate(logits):
        T = softmax(x.detach().numpy() / column_temperature, axis=0)
        T = T / T.sum(1, keepdims=True)
        for j, y in enumerate(logits):
            if i == j or min(i, j) >= full:
                continue
            P = softmax(y.detach().numpy() / row_temperature, axis=1)
            P = P / P.sum(0)
            losses.append(-(T * np.log(len(x) / x.shape[1] * P)).sum(1).mean())
    return np.mean(losses)


@pytest.mark.parametrize(("views", "full"), [(2, 2), (4, 2), (3, 3), (3, 1)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("kwargs", [{}, {"row_temperature": 0.3, "column_temperature": 0.2}])
def test_the_loss_is_the_mean_over_ordered_pairs_that_are_not_both_local(views, full, rows, kwargs):
    logits = random_logits(views, rows)
    expected = literal(logits, full, **kwargs)
    assert float(self_classifier_loss(logits, full=full, **kwargs)) == pytest.approx(expected, rel=1e-11, abs=1e-13)


def test_gradients_flow_through_targets_too():
    """There is no stop-gradient: the gradient is that of the definition, by autograd on the matrices."""
    first, second = (x.requires_grad_() for x in random_logits(2))

    def one_way(x, y):
        T = (x / 0.05).exp() / (x / 0.05).exp().sum(0)
        T = T / T.sum(1, keepdim=True)
        P = (y / 0.1).exp() / (y / 0.1).exp().sum(1, keepdim=True)
        return -(T * (6 / 5 * P / P.sum(0)).log()).sum(1).mean()

    expected = torch.autograd.grad((one_way(first, second) + one_way(second, first)) / 2, (first, second))
    actual = torch.autograd.grad(self_classifier_loss([first, second]), (first, second))
    torch.testing.assert_close(actual, expected)


def test_images_in_one_class_have_no_small_loss():
    """Without the uniform prior, one class for all images would have the loss 0."""
    one = torch.zeros(6, 5)
    one[:, 2] = 1.0
    assert float(self_classifier_loss([one, one])) == pytest.approx(np.log(5), rel=1e-5)


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_large_logits_do_not_overflow(scale):
    leaves = [(scale * x.float()).requires_grad_() for x in random_logits(2)]
    loss = self_classifier_loss(leaves)
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"logits": torch.zeros(2, 3, 4)}, "logits must be a list of at least 2 views, but is a tensor"),
        ({"logits": [torch.zeros(3, 4)]}, "but is one of 1"),
        ({"logits": [torch.zeros(3, 4), torch.zeros(3, 2)]}, r"logits\[1\] must have the shape"),
        ({"full": 3}, "full must be at most the number of views, 2, but is 3"),
        ({"row_temperature": 0.0}, "row_temperature"),
        ({"column_temperature": 0.0}, "column_temperature"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        self_classifier_loss(**{"logits": [torch.zeros(3, 4)] * 2, **kwargs})


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 2), (3, 0)])
def test_the_method_takes_the_mean_over_its_classifiers(global_crops, local_crops):
    views = tiny_views(global_crops=global_crops, local_crops=local_crops)
    method, fresh = tiny_method("self_classifier"), tiny_method("self_classifier")
    method.global_crop_count = global_crops
    unit = [F.normalize(fresh.projector(fresh.encoder(v)), dim=1) for v in (*views.global_crops, *views.local_crops)]
    losses = []
    for classifier in fresh.classifiers:
        weight = classifier.weight / classifier.weight.norm(dim=1, keepdim=True)
        losses.append(self_classifier_loss([z @ weight.T for z in unit], full=global_crops))
    assert [len(classifier.weight) for classifier in fresh.classifiers] == [6, 12]
    torch.testing.assert_close(method(views, progress(0)).total, torch.stack(losses).mean())


def test_the_first_classifier_tells_the_clusters():
    method, views = tiny_method("self_classifier").eval(), tiny_views()
    (probabilities, _) = method.assignment_probabilities(method.online(views))
    logits = method.cluster_logits(method.eval_encoder(views.global_crops[0]))
    assert logits.shape == (12, 6)
    torch.testing.assert_close(probabilities, (logits / 0.1).softmax(1))


def with_positions(views, positions):
    return views._replace(positions=torch.as_tensor(positions))


def queued_loss(method, views, first):
    """The loss of the method if its first view had these embeddings."""
    unit = [first, *(F.normalize(method.project(v), dim=1) for v in (*views.global_crops, *views.local_crops)[1:])]
    losses = []
    for classifier in method.classifiers:
        weight = classifier.weight / classifier.weight.norm(dim=1, keepdim=True)
        losses.append(self_classifier_loss([z @ weight.T for z in unit]))
    return torch.stack(losses).mean()


def test_a_full_queue_gives_the_first_view_the_neighbour_of_another_image():
    method = tiny_method("self_classifier-queue")
    assert method.remembers_images
    assert not tiny_method("self_classifier").remembers_images
    rows, images = [], []
    for seed in range(4):  # the queue has 20 rows, a batch 12, and each image comes in every second one
        positions = [12 * (seed % 2) + i for i in range(12)]
        views = with_positions(tiny_views(local_crops=1, seed=seed), positions)
        z = F.normalize(method.project(views.global_crops[0]), dim=1)
        chosen = z
        if len(rows) >= 20:
            known = list(zip(rows[-20:], images[-20:], strict=True))
            others = [[row for row, image in known if image != position] for position in positions]
            chosen = torch.stack([o[int((torch.stack(o) @ x).argmax())] for x, o in zip(z, others, strict=True)])
        assert (chosen is z) == (seed < 2)
        online, target = method.online(views), method.target(views)
        loss = method.compute_loss(online, target, ()).total
        torch.testing.assert_close(loss, queued_loss(method, views, chosen.detach() if seed >= 2 else z))
        parameters = [*method.projector.parameters(), *method.classifiers.parameters()]
        expected = torch.autograd.grad(queued_loss(method, views, chosen.detach() if seed >= 2 else z), parameters)
        torch.testing.assert_close(torch.autograd.grad(loss, parameters), expected)
        assert int(method.queue.count) == 12 * seed  # the loss changes nothing
        method.remember([x.detach() for x in online], target)
        rows += z.detach().unbind()
        images += positions
    assert int(method.queue.count) == 48
    assert sorted(method.queue.images.tolist()) == sorted(images[-20:])


def test_the_image_itself_is_no_neighbour():
    from infomax.nn.queue import ImageQueue

    queue, z = ImageQueue(2, 2), torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    assert torch.equal(queue.neighbours(z, torch.tensor([5, 6])), z)
    queue.enqueue(torch.eye(2), torch.tensor([5, 6]))
    assert torch.equal(queue.neighbours(z, torch.tensor([7, 8])), torch.eye(2))
    assert torch.equal(queue.neighbours(z, torch.tensor([5, 6])), torch.eye(2).flip(0))


def test_a_method_without_classifiers_is_refused():
    from infomax.recipes.self_classifier import SelfClassifierSettings
    from tiny import tiny_encoder

    with pytest.raises(ValueError, match="classes must name the number of classes"):
        SelfClassifierSettings(hidden=16, dimension=8, classes=()).build(tiny_encoder())
