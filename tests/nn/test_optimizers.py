"""LARS by hand, parameter groups, schedules at their ends."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from infomax.nn.blocks import Teacher
from infomax.nn.optimizers import WRAPPED, Lars, parameter_groups, without_compiler
from infomax.nn.schedules import cosine, linear, warmup_cosine_by_epoch, warmup_cosine_by_step


def step(parameter: torch.Tensor, gradients: list[torch.Tensor], **settings) -> torch.Tensor:
    p = nn.Parameter(parameter.clone())
    optimizer = Lars([p], **settings)
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach()


def test_matrices_step_in_proportion_to_their_norm():
    torch.manual_seed(0)
    p, g1, g2 = (torch.randn(4, 3, dtype=torch.float64) for _ in range(3))
    settings = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1, "trust": 0.001}
    d1 = g1 + 0.1 * p
    m1 = 0.001 * p.norm() / d1.norm() * d1
    p1 = p - 0.5 * m1
    d2 = g2 + 0.1 * p1
    m2 = 0.9 * m1 + 0.001 * p1.norm() / d2.norm() * d2
    torch.testing.assert_close(step(p, [g1, g2], **settings), p1 - 0.5 * m2)


def test_vectors_step_plainly_and_do_not_decay():
    p, g = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(step(p, [g, g], lr=0.1, momentum=0.5, weight_decay=0.7), p - 0.1 * g - 0.1 * 1.5 * g)


@pytest.mark.parametrize("zero", ["parameter", "gradient"])
def test_a_zero_norm_takes_no_ratio(zero):
    p, g = torch.ones(2, 2), torch.ones(2, 2)
    p, g = (p * 0, g) if zero == "parameter" else (p, g * 0)
    torch.testing.assert_close(step(p, [g], lr=0.1, momentum=0.0), p - 0.1 * g)


def by_hand(parameters: list[torch.Tensor], gradients: list[torch.Tensor], averages: list[torch.Tensor]) -> None:
    """Makes one step with learning rate 0.3, momentum 0.9 and decay 0.01."""
    for p, g, average in zip(parameters, gradients, averages, strict=True):
        update = g
        if p.ndim > 1:
            update = g + 0.01 * p
            update = update * (0.001 * p.norm() / update.norm())
        average.mul_(0.9).add_(update)
        p.sub_(0.3 * average)


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decay_all", [True, False])
def test_all_parameters_together_step_as_each_alone_would(device, decay_all):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.Linear(4, 5), nn.Linear(5, 2))
    module = layers.to(device).to(memory_format=torch.channels_last)
    expected = [p.detach().clone() for p in module.parameters()]
    averages = [torch.zeros_like(p) for p in expected]
    optimizer = Lars(parameter_groups(module, 0.01, decay_all=decay_all), lr=0.3)
    for _ in range(3):
        gradients = [torch.randn_like(p) for p in expected]
        for p, g in zip(module.parameters(), gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        by_hand(expected, gradients, averages)
    module[0].weight.grad = None  # has no part in the next step
    before = module[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(module[0].weight, before)
    by_hand(expected[1:], gradients[1:], averages[1:])
    for p, q in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
def test_a_teacher_moves_as_each_parameter_alone_would(device):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 5)).to(device)
    teacher = Teacher(student, 0.9)
    before = [p.clone() for p in teacher.module.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.copy_(torch.randn_like(p))
    teacher.ema_update(student, 0.5)  # momentum half way from 0.9 to 1
    for old, new, p in zip(before, teacher.module.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.95 * old + 0.05 * p.detach(), rtol=1e-6, atol=1e-7)


@NO_GPU
@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_gpu():
    p, q = (nn.Parameter(torch.ones(*shape, device="cuda")) for shape in ((3, 2), (4,)))
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer = Lars([p, q], lr=0.1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.Adam, {"lr": 0.1}),
        (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
        (Lars, {"lr": 0.1, "weight_decay": 0.01}),
    ],
)
def test_without_the_compiler_an_optimizer_makes_the_same_steps_bit_by_bit(optimizer, settings):
    start, gradients = torch.randn(4, 3), torch.randn(5, 4, 3)

    def trained(optimizer_class) -> tuple[torch.Tensor, dict]:
        p = nn.Parameter(start.clone())
        first, second = (optimizer_class([{"params": [p], "lr": 0.0}], **settings) for _ in range(2))
        for number, gradient in enumerate(gradients):
            stepping = first if number < 3 else second
            stepping.param_groups[0]["lr"] = 0.1 / (number + 1)
            stepping.zero_grad()
            assert p.grad is None
            p.grad = gradient.clone()
            stepping.step()
            if number == 2:
                second.load_state_dict(first.state_dict())
        return p.detach(), second.state_dict()

    theirs, their_state = trained(optimizer)
    ours, our_state = trained(without_compiler(optimizer))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)
    assert our_state["param_groups"] == their_state["param_groups"]
    assert all(
        torch.equal(our_state["state"][0][key], x) for key, x in their_state["state"][0].items() if x is not None
    )


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, Lars])
def test_without_the_compiler_no_method_imports_it(optimizer):
    without_compiler(optimizer)([nn.Parameter(torch.ones(1))], lr=0.1)  # which wraps step for the profiler
    for name in WRAPPED:
        method = getattr(without_compiler(optimizer), name)
        while method is not None:
            assert "torch._dynamo" not in method.__code__.co_names, name
            method = getattr(method, "__wrapped__", None)


def test_biases_and_norms_do_not_decay_unless_decay_all():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2))
    module[2].weight.requires_grad_(False)
    decayed, spared = parameter_groups(module, 0.1, decay_all=False)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert len(spared["params"]) == 4
    (everything,) = parameter_groups(module, 0.1, decay_all=True)
    assert len(everything["params"]) == 5


def test_cosine_and_line_at_their_ends_and_middle():
    assert (cosine(0.7, 0.2, 0.0), cosine(0.7, 0.2, 1.0)) == (0.7, pytest.approx(0.2))
    assert cosine(0.7, 0.2, 0.5) == pytest.approx(0.45)
    assert cosine(1.0, 0.0, 0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert (linear(4.0, 1.5, 0.0), linear(4.0, 1.5, 1.0), linear(4.0, 1.5, 7.0)) == (4.0, 1.5, 1.5)


def test_warm_up_by_step_is_miras_law():
    rates = [warmup_cosine_by_step(t, steps=20, warmup_steps=4, peak=4.8, start=0.3) for t in range(20)]
    assert rates[:4] == pytest.approx([0.3 + (t + 1) / 5 * 4.5 for t in range(4)])
    assert rates[4] == pytest.approx(4.8)
    assert rates[12] == pytest.approx(2.4)
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert warmup_cosine_by_step(0, steps=10, warmup_steps=0, peak=1.0) == 1.0


def test_warm_up_by_epoch_is_corinfomaxs_law():
    rates = [
        warmup_cosine_by_epoch(e, epochs=100, warmup_epochs=10, peak=0.5, start=0.003, end=1e-6) for e in range(100)
    ]
    assert rates[0] == 0.003
    assert rates[9] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.5)
    assert rates[55] == pytest.approx(1e-6 + (0.5 - 1e-6) / 2)
