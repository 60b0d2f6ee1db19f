"""SwAV's assignments and loss against its paper's equations, computed on the matrices themselves, and its queue."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from infomax.methods.swav import sinkhorn, swapped_loss
from tiny import progress, tiny_method, tiny_views

SHAPES = [(12, 5), (4, 9), (6, 6), (1, 4), (5, 1)]


def random_scores(rows, prototypes, views=1, seed=0):
    rng = np.random.default_rng(seed)
    return [np.tanh(rng.normal(size=(rows, prototypes)) + 0.5 * rng.normal(size=prototypes)) for _ in range(views)]


def literal_sinkhorn(scores, epsilon=0.05, iterations=3):
    """Scales rows and columns of the matrix itself (appendix A of the paper)."""
    Q = np.exp(scores / epsilon)
    Q = Q / Q.sum()
    for _ in range(iterations):
        Q = Q / Q.sum(0) / Q.shape[1]
        Q = Q / Q.sum(1, keepdims=True) / len(Q)
    return Q * len(Q)


def literal_loss(scores, full=2, temperature=0.1, epsilon=0.05, iterations=3, queued=None):
    total = 0.0
    for i in range(full):
        everything = scores[i] if queued is None else np.concatenate([queued[i], scores[i]])
        q = literal_sinkhorn(everything, epsilon, iterations)[-len(scores[i]) :]
        others = [v for v in range(len(scores)) if v != i]
        total += sum(-(q * log_softmax(scores[v] / temperature, axis=1)).sum(1).mean() for v in others) / len(others)
    return total / full


def tensors(arrays):
    return [torch.from_numpy(x) for x in arrays]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kwargs", [{}, {"iterations": 1}, {"epsilon": 0.3, "iterations": 7}])
def test_sinkhorn_scales_the_matrix_as_the_paper_says(shape, kwargs):
    (scores,) = random_scores(*shape)
    Q = sinkhorn(torch.from_numpy(scores), **kwargs)
    np.testing.assert_allclose(Q, literal_sinkhorn(scores, **kwargs), rtol=1e-10, atol=1e-14)


def test_assignments_have_no_gradient():
    scores = torch.from_numpy(random_scores(6, 4)[0]).requires_grad_()
    assert not sinkhorn(scores).requires_grad
    float32 = sinkhorn(scores.detach().bfloat16())
    assert float32.dtype == torch.float32


@pytest.mark.parametrize("scale", [90.0, 1e4, 1e30])
def test_large_scores_do_not_overflow(scale):
    """The official code and lightly divide by sums of exp(scores / epsilon), which are infinite here."""
    scores = torch.from_numpy(random_scores(8, 4)[0]).float() * scale
    assert torch.exp(scores / 0.05).sum().isinf()
    Q = sinkhorn(scores)
    torch.testing.assert_close(Q.sum(1), torch.ones(8))
    assert swapped_loss([scores, scores]).isfinite()


def test_scores_beyond_the_type_are_an_error():
    with pytest.raises(ValueError, match=r"epsilon=0.05 is too small for scores as large as 3e\+38"):
        sinkhorn(torch.full((2, 2), 3e38))


@pytest.mark.parametrize(("views", "full"), [(2, 2), (3, 2), (5, 2), (3, 3), (3, 1), (2, 1)])
@pytest.mark.parametrize("queue", [None, 7])
@pytest.mark.parametrize("kwargs", [{}, {"temperature": 0.3, "epsilon": 0.2, "iterations": 5}])
def test_the_loss_is_the_mean_over_full_views_and_their_predictions(views, full, queue, kwargs):
    scores = random_scores(6, 4, views)
    queued = None if queue is None else random_scores(queue, 4, full, seed=1)
    loss = swapped_loss(tensors(scores), full=full, queued=queued and tensors(queued), **kwargs)
    assert float(loss) == pytest.approx(literal_loss(scores, full, queued=queued, **kwargs), rel=1e-10)


def test_the_gradient_leaves_out_the_assignments():
    scores = [x.requires_grad_() for x in tensors(random_scores(5, 4, 3))]
    swapped_loss(scores).backward()
    targets = [sinkhorn(x.detach()) for x in scores[:2]]
    for view, x in enumerate(scores):
        probabilities = (x / 0.1).softmax(1).detach()
        others = [q for i, q in enumerate(targets) if i != view]
        expected = sum(probabilities - q for q in others) / 0.1 / 5 / 2 / 2  # rows, predictions and full views
        torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scores": [torch.zeros(3, 2)]}, "scores must be a list of at least 2 views, but is one of 1"),
        ({"scores": torch.zeros(2, 3, 2)}, "scores must be a list of at least 2 views, but is a tensor"),
        ({"scores": [torch.zeros(3, 2), torch.zeros(3, 4)]}, r"scores\[1\] must have the shape"),
        ({"full": 3}, "full must be at most the number of views, 2, but is 3"),
        ({"full": 0}, "full"),
        ({"temperature": 0.0}, "temperature"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"iterations": 0}, "iterations"),
        ({"queued": [torch.zeros(3, 2)]}, "queued must be a list of 2 matrices"),
        ({"queued": [torch.zeros(3, 4)] * 2}, r"queued\[0\] must have 2 columns"),
        ({"queued": [torch.zeros(3, 2), torch.full((3, 2), torch.nan)]}, r"queued\[1\] contains NaN"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        swapped_loss(**{"scores": [torch.zeros(3, 2)] * 2, **kwargs})


def scores_of(method, views):
    embeddings = [method.projector(method.encoder(view)) for view in (*views.global_crops, *views.local_crops)]
    unit = [z / z.norm(dim=1, keepdim=True) for z in embeddings]
    prototypes = method.prototypes.weight / method.prototypes.weight.norm(dim=1, keepdim=True)
    return [z @ prototypes.T for z in unit], unit


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_has_the_loss_of_its_scores(global_crops, local_crops):
    method, views = tiny_method("swav"), tiny_views(global_crops=global_crops, local_crops=local_crops)
    method.global_crop_count = global_crops
    expected = swapped_loss(scores_of(tiny_method("swav"), views)[0], full=global_crops)
    torch.testing.assert_close(method(views, progress(0)).total, expected)


@pytest.mark.parametrize("global_crops", [2, 3])
def test_the_queue_counts_from_its_epoch_on_once_it_is_full(global_crops):
    """Each step assigns 12 images; the queue holds 20, and its epoch begins with the fourth step."""
    method = tiny_method("swav-queue")
    method.global_crop_count = global_crops
    earlier = [torch.zeros(0, 8, dtype=torch.float64) for _ in range(2)]
    for step in range(6):
        views = tiny_views(seed=step, local_crops=1, global_crops=global_crops)
        scores, unit = scores_of(method, views)
        queued = None
        if step >= 3:
            assert len(earlier[0]) >= 20
            queued = [earlier[view % 2][-20:] @ method.prototypes.weight.T for view in range(global_crops)]
        expected = swapped_loss([x.detach() for x in scores], full=global_crops, queued=queued)
        torch.testing.assert_close(method(views, progress(step)).total, expected)
        earlier = [torch.cat([rows, z.detach()]) for rows, z in zip(earlier, unit, strict=False)]
    late = tiny_method("swav-queue")
    for step in (3, 4):  # its epoch, but it is not full
        views = tiny_views(seed=step)
        expected = swapped_loss(scores_of(late, views)[0])
        torch.testing.assert_close(late(views, progress(step)).total, expected)
    assert int(late.images_queued) == 24


def test_the_queue_rests_in_evaluation_and_without_gradient():
    method = tiny_method("swav-queue")
    before = method.queues[0].rows.clone()
    with torch.no_grad():
        method(tiny_views(), progress(0))
    method.eval()(tiny_views(), progress(0))
    assert torch.equal(method.queues[0].rows, before)
    assert int(method.images_queued) == 0
    method.train()(tiny_views(), progress(0))
    assert not torch.equal(method.queues[0].rows, before)


def test_probabilities_and_logits_are_of_the_prototypes_alone():
    for name in ("swav", "swav-queue"):
        method, views = tiny_method(name).eval(), tiny_views(local_crops=1)
        scores, _ = scores_of(method, views)
        for actual, expected in zip(method.assignment_probabilities(method.online(views)), scores, strict=True):
            torch.testing.assert_close(actual, (expected / 0.1).softmax(1))
        torch.testing.assert_close(method.cluster_logits(method.eval_encoder(views.global_crops[0])), scores[0])


def test_prototypes_rest_at_first_and_keep_unit_norm():
    method = tiny_method("swav")
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    start = method.prototypes.weight.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(12, dtype=torch.float64))
    for step in range(4):
        optimizer.zero_grad()
        method(tiny_views(seed=step), progress(step)).total.backward()
        method.after_backward(progress(step))
        assert (method.prototypes.weight.grad is None) == (step < 3)
        if step == 3:  # the gradient has a part along the prototypes, which a normalised forward pass would not have
            assert (method.prototypes.weight.grad * method.prototypes.weight).sum(1).abs().max() > 1e-6
        optimizer.step()
        method.after_step(progress(step + 1))
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12, dtype=torch.float64))
    assert not torch.equal(method.prototypes.weight, start)


@pytest.mark.parametrize(
    "setting", [{"prototypes": 0}, {"queue": -1}, {"epsilon": 0.0}, {"temperature": 0.0}, {"iterations": 0}]
)
def test_settings_out_of_range_are_refused(setting):
    from dataclasses import replace

    from tiny import TINY, tiny_encoder

    with pytest.raises(ValueError, match=next(iter(setting))):
        replace(TINY["swav"], **setting).build(tiny_encoder())
