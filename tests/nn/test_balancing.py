"""The two forms of scaled exponentials against each other, and the range of logits that one of them is for."""

from unittest.mock import patch

import pytest
import torch

from infomax.methods import swav
from infomax.methods.mira import assign_evenly
from infomax.methods.swav import sinkhorn, swapped_loss
from infomax.nn.balancing import LinearForm, LogForm, fits_linear_form, sinkhorn_knopp
from tiny import TINY, progress, tiny_encoder, tiny_views

USED = {"no queue": None, "counts": torch.tensor(True), "rests": torch.tensor(False)}
LIMIT = {torch.float32: 68.0, torch.float64: 689.0}
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-13}


def logits(dtype, rows=9, seed=0):
    return list(torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype))


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("normalize_rows", [False, True])
@pytest.mark.parametrize("used", USED)
def test_both_forms_are_equal(dtype, normalize_rows, used):
    arguments = {"normalize_rows": normalize_rows}
    if USED[used] is not None:
        arguments |= {"earlier": logits(dtype, rows=4, seed=1), "earlier_count": USED[used]}
    linear, logs = (form(logits(dtype), 0.2, **arguments) for form in (LinearForm, LogForm))
    factors = [None, torch.linspace(-3, 4, 10, dtype=dtype).view(2, 5)]
    for log_factors in factors:
        sums = [form.log_column_sums(log_factors).double() for form in (linear, logs)]
        first, second = (x - x.mean(1, keepdim=True) for x in sums)  # up to a constant of each view
        torch.testing.assert_close(first, second, rtol=0, atol=10 * TOLERANCE[dtype])
    for first, second in zip(linear.assignments(factors[1]), logs.assignments(factors[1]), strict=True):
        assert first.dtype == second.dtype == dtype
        torch.testing.assert_close(first, second, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("share", [0.1, 0.999, 1.001, 3.0])
def test_the_range_of_the_scores_chooses_the_form_and_both_are_right(dtype, share):
    scores = torch.linspace(-1, 1, 60, dtype=torch.float64)[
        torch.randperm(60, generator=torch.Generator().manual_seed(0))
    ]
    scores, epsilon = scores.view(12, 5).to(dtype), 2 / (share * LIMIT[dtype])
    assert fits_linear_form(2 / epsilon, dtype) == (share < 1)
    expected = sinkhorn_knopp(LogForm([scores.double()], epsilon), 3)[0]
    for assignments in (
        sinkhorn(scores, epsilon=epsilon),
        assign_evenly(scores, temperature=epsilon, beta=0, iterations=3),
    ):
        torch.testing.assert_close(assignments.double(), expected, rtol=0, atol=20 * TOLERANCE[dtype])
    literal = sinkhorn_knopp(LinearForm([scores], epsilon), 3)[0]
    assert literal.isfinite().all() == (share < 3)  # beyond the range, the linear form fails sooner or later


@pytest.mark.parametrize(("epsilon", "form"), [(0.05, "LinearForm"), (0.03, "LinearForm"), (0.02, "LogForm")])
def test_in_training_the_settings_choose_the_form(epsilon, form):
    from dataclasses import replace

    method, views = (
        replace(TINY["swav"], epsilon=epsilon).build(tiny_encoder()).float(),
        tiny_views(dtype=torch.float32),
    )
    expected = swapped_loss(method.online(views), epsilon=epsilon)
    with patch.object(swav, form, wraps=getattr(swav, form)) as chosen:
        total = method(views, progress(0)).total
    chosen.assert_called_once()
    torch.testing.assert_close(total, expected)
