"""DINO's loss, centre and temperature against Algorithm 1 of its paper, and the order of its steps."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch.nn import functional as F

from infomax.methods.dino import dino_loss, teacher_temperature, update_centre
from ranks import on_ranks
from tiny import progress, tiny_method, tiny_views


def random_scores(views, rows=6, prototypes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, prototypes, generator=generator, dtype=torch.float64) for _ in range(views)]


def literal_loss(student, teacher, centre, student_temperature=0.1, teacher_temperature=0.04):
    losses = []
    for i, t in enumerate(teacher):
        p = softmax((t.numpy() - centre.numpy()) / teacher_temperature, axis=1)
        for v, s in enumerate(student):
            if v != i:
                losses.append(-(p * log_softmax(s.detach().numpy() / student_temperature, axis=1)).sum(1).mean())
    return np.mean(losses)


@pytest.mark.parametrize(("views", "full"), [(2, 2), (4, 2), (3, 3), (3, 1)])
@pytest.mark.parametrize("kwargs", [{}, {"student_temperature": 0.2, "teacher_temperature": 0.07}])
def test_the_loss_is_the_mean_over_pairs_of_different_views(views, full, kwargs):
    student, teacher, centre = random_scores(views), random_scores(full, seed=1), random_scores(1, seed=2)[0][0]
    expected = literal_loss(student, teacher, centre, **kwargs)
    assert float(dino_loss(student, teacher, centre, **kwargs)) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_student_alone():
    """lightly's loss lets the gradient into the teacher."""
    student, teacher = random_scores(3), [x.requires_grad_() for x in random_scores(2, seed=1)]
    centre = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    leaves = [x.clone().requires_grad_() for x in student]
    dino_loss(leaves, teacher, centre).backward()
    assert all(x.grad is None for x in (*teacher, centre))
    for view, x in enumerate(leaves):
        targets = [(t.detach() / 0.04).softmax(1) for i, t in enumerate(teacher) if i != view]
        expected = sum((x.detach() / 0.1).softmax(1) - p for p in targets) / 0.1 / 6 / 4  # rows, and pairs of views
        torch.testing.assert_close(x.grad, expected)


def test_the_centre_is_an_average_over_views_and_steps():
    centre, teacher = random_scores(1, seed=2)[0][0], random_scores(2)
    expected = 0.8 * centre + 0.2 * torch.cat(teacher).mean(0)
    torch.testing.assert_close(update_centre(centre, teacher, momentum=0.8), expected)
    assert not update_centre(centre, [x.requires_grad_() for x in teacher]).requires_grad


def centre_on_a_rank():
    rank = torch.distributed.get_rank()
    rows = slice(0, 2) if rank == 0 else slice(2, 6)
    return update_centre(torch.ones(5).double(), [x[rows] for x in random_scores(2)]).tolist()


def test_the_centre_is_that_of_all_ranks():
    expected = update_centre(torch.ones(5).double(), random_scores(2)).tolist()
    for centre in on_ranks(2, centre_on_a_rank):
        assert centre == pytest.approx(expected, rel=1e-12)


def test_the_temperature_is_that_of_the_official_schedule():
    """A list of linspace's numbers, one an epoch, and then constant."""
    schedule = [*np.linspace(0.04, 0.07, 30), *[0.07] * 5]
    assert [teacher_temperature(epoch) for epoch in range(35)] == pytest.approx(schedule)
    assert [teacher_temperature(epoch, warmup=1) for epoch in range(3)] == [0.04, 0.07, 0.07]
    assert [teacher_temperature(epoch, warmup=0) for epoch in range(2)] == [0.07, 0.07]
    with pytest.raises(ValueError, match="epoch"):
        teacher_temperature(-1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"student": torch.zeros(2, 3, 2)}, "student must be a list of matrices, one a view"),
        ({"student": [torch.zeros(3, 2)]}, "student must be at least 2 views"),
        ({"teacher": []}, "teacher the first of them or more, but they are 2 and 0"),
        ({"teacher": [torch.zeros(3, 2)] * 3}, "but they are 2 and 3"),
        ({"teacher": [torch.zeros(3, 4)] * 2}, r"teacher\[0\] must have the shape"),
        ({"centre": torch.zeros(3)}, "centre must be a floating-point vector of 2 elements"),
        ({"centre": torch.tensor([0.0, torch.inf])}, "centre contains NaN or infinity"),
        ({"student_temperature": 0.0}, "student_temperature"),
        ({"teacher_temperature": -1.0}, "teacher_temperature"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    views = [torch.zeros(3, 2)] * 2
    with pytest.raises(ValueError, match=message):
        dino_loss(**{"student": views, "teacher": views, "centre": torch.zeros(2), **kwargs})
    for arguments in ({"centre": torch.zeros(3)}, {"teacher": []}, {"momentum": 1.5}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            update_centre(**{"centre": torch.zeros(2), "teacher": views, **arguments})


def scores_of(network, views):
    encoder, projector, prototypes = network
    weight = prototypes.weight / prototypes.weight.norm(dim=1, keepdim=True)  # weight-norm with g = 1
    return [F.normalize(projector(encoder(view)), dim=1) @ weight.T for view in views]


@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_each_step_has_the_centre_and_the_temperature_of_its_time(global_crops, local_crops):
    """The centre follows after the loss, and the teacher after the optimiser's step."""
    method = tiny_method("dino")
    method.global_crop_count = global_crops
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    centre = torch.zeros(12, dtype=torch.float64)
    for step in range(5):
        views = tiny_views(seed=step, global_crops=global_crops, local_crops=local_crops)
        before = copy.deepcopy(method)
        teacher = [x.detach() for x in scores_of(before.teacher.module, views.global_crops)]
        student = scores_of(before._student, [*views.global_crops, *views.local_crops])
        temperature = teacher_temperature(step // 3, warmup=3)
        expected = dino_loss(student, teacher, centre, teacher_temperature=temperature)
        loss = method(views, progress(step)).total
        torch.testing.assert_close(loss, expected)
        centre = update_centre(centre, teacher)
        torch.testing.assert_close(method.centre, centre)
        optimizer.zero_grad()
        loss.backward()
        method.after_backward(progress(step))
        assert (method.prototypes.weight.grad is None) == (step < 3)
        optimizer.step()
        method.after_step(progress(step + 1))
        momentum = 1 - 0.1 * (1 + np.cos(np.pi * (step + 1) / 12)) / 2
        pairs = zip(before.teacher.module.parameters(), method.teacher.module.parameters(), strict=True)
        for (old, new), trained in zip(pairs, method._student.parameters(), strict=True):
            torch.testing.assert_close(new, momentum * old + (1 - momentum) * trained)


def test_the_centre_rests_in_evaluation_and_without_gradient():
    method = tiny_method("dino")
    with torch.no_grad():
        method(tiny_views(), progress(0))
    method.eval()(tiny_views(), progress(0))
    assert not method.centre.any()


def test_the_teacher_is_evaluated_and_the_student_is_observed():
    method, views = tiny_method("dino").eval(), tiny_views()
    with torch.no_grad():
        for parameter in method._student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    (scores,) = scores_of(method._student, views.global_crops[:1])
    (probabilities,) = method.assignment_probabilities(method.online(views)[:1])
    torch.testing.assert_close(probabilities, (scores / 0.1).softmax(1))
    (teacher_scores,) = scores_of(method.teacher.module, views.global_crops[:1])
    torch.testing.assert_close(method.cluster_logits(method.eval_encoder(views.global_crops[0])), teacher_scores)


def test_the_projector_has_gelu_and_norm_only_if_asked_for():
    from infomax.recipes.dino import DinoSettings
    from tiny import tiny_encoder

    for norm, expected in (
        (False, ["Linear", "GELU", "Linear", "GELU", "Linear"]),
        (True, ["Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d", "GELU", "Linear"]),
    ):
        settings = DinoSettings(hidden=16, dimension=8, prototypes=12, projector_norm=norm)
        assert [type(layer).__name__ for layer in settings.build(tiny_encoder()).projector] == expected
