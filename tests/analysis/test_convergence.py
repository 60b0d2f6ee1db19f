"""Compares Sinkhorn-Knopp's and MIRA's iterations with their definitions, and shows that they converge."""

import math

import numpy as np
import pytest
import torch

from infomax.analysis.convergence import mira_convergence, sinkhorn, sinkhorn_convergence
from infomax.methods.mira import assign
from ranks import on_ranks


def cosines(count, prototypes, seed=0):
    rng = np.random.default_rng(seed)
    z, heads = rng.normal(size=(count, 6)) + 1, rng.normal(size=(prototypes, 6))
    return (z @ heads.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(heads, axis=1)


def swav(logits, epsilon, iterations):
    """Computes Sinkhorn-Knopp's iteration on the matrix itself."""
    Q = np.exp(logits / epsilon)
    Q = Q / Q.sum()
    for _ in range(iterations):
        Q = Q / Q.sum(0) / Q.shape[1]
        Q = Q / Q.sum(1, keepdims=True) / len(Q)
    return Q * len(Q)


def eq_5(logits, temperature, beta, sweeps):
    """Computes MIRA Eq. 5 with the u that sweeps of Eq. 7 make of u = 1, all in powers of probabilities."""
    p = np.exp(logits / temperature)
    p = p / p.sum(1, keepdims=True)
    r, s, u = beta / (1 - beta), 1 / (1 - beta), np.ones(p.shape[1])
    for _ in range(sweeps):
        u = np.mean([row**s / sum(u**-r * row**s) for row in p], axis=0) ** (1 - beta)
    W = u**-r * p**s
    return W / W.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(12, 5), (4, 9), (6, 6), (1, 4), (5, 1)])
@pytest.mark.parametrize("kwargs", [{}, {"iterations": 1}, {"epsilon": 0.3, "iterations": 7}])
def test_sinkhorn_is_its_definition(shape, kwargs):
    logits = cosines(*shape)
    W = sinkhorn(torch.tensor(logits), **kwargs)
    assert np.allclose(W, swav(logits, **{"epsilon": 0.05, "iterations": 3, **kwargs}), rtol=1e-10, atol=1e-14)
    assert np.allclose(W.sum(1), 1)


def test_sinkhorn_balances_prototypes_in_the_end():
    W = sinkhorn(torch.tensor(cosines(40, 5)), epsilon=0.2, iterations=500)
    assert np.allclose(W.mean(0), 1 / 5)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e290])
def test_sinkhorn_computes_with_logarithms(scale):
    W = sinkhorn(torch.tensor(scale * cosines(8, 4)))
    assert W.isfinite().all()
    assert np.allclose(W.sum(1), 1)
    assert mira_convergence(torch.tensor(scale * cosines(8, 4)), iterations=2, truth=5).isfinite().all()


@pytest.mark.parametrize("kwargs", [{}, {"epsilon": 0.2, "iterations": 4, "truth": 50}])
def test_the_errors_of_sinkhorn_are_their_definition(kwargs):
    logits = cosines(12, 5)
    errors = sinkhorn_convergence(torch.tensor(logits), **kwargs)
    settings = {"epsilon": 0.05, "iterations": 30, "truth": 1000, **kwargs}
    epsilon, truth = settings["epsilon"], swav(logits, settings["epsilon"], settings["truth"])
    expected = [((swav(logits, epsilon, t) - truth) ** 2).sum() for t in range(1, settings["iterations"] + 1)]
    assert np.allclose(errors, expected, rtol=1e-8, atol=1e-20)


@pytest.mark.parametrize("kwargs", [{}, {"temperature": 0.1, "beta": 0.5, "iterations": 4, "truth": 60}, {"beta": 0.0}])
def test_the_errors_of_mira_are_their_definition(kwargs):
    logits = cosines(12, 5)
    errors = mira_convergence(torch.tensor(logits), **kwargs)
    settings = {"temperature": 0.225, "beta": 2 / 3, "iterations": 30, "truth": 100, **kwargs}
    temperature, beta = settings["temperature"], settings["beta"]
    truth = eq_5(logits, temperature, beta, settings["truth"])
    expected = [((eq_5(logits, temperature, beta, t) - truth) ** 2).sum() for t in range(1, settings["iterations"] + 1)]
    assert np.allclose(errors, expected, rtol=1e-5, atol=1e-22)


def test_the_sweeps_are_those_of_the_method():
    """The method counts its iterations after a first sweep from u = 1."""
    logits = torch.tensor(cosines(30, 7))
    limit = assign(logits)
    errors = mira_convergence(logits, iterations=12)
    with pytest.warns(UserWarning, match="may leave MIRA's targets unconverged"):
        expected = [float((assign(logits, iterations=t) - limit).square().sum()) for t in range(12)]
    assert errors.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-18)


def test_mira_converges_faster_than_sinkhorn_on_structured_logits():
    """The paper's Fig. 2. Its limit after 1,000 sweeps is one: 60 sweeps are as near as float64 resolves."""
    logits = torch.tensor(cosines(64, 10) ** 3)
    mira, sk = mira_convergence(logits, iterations=60), sinkhorn_convergence(logits, iterations=60)
    assert mira[29] < sk[29]
    assert mira[59] < 1e-20


def test_the_limit_is_one_of_the_iterations_if_it_is_shown():
    assert sinkhorn_convergence(torch.tensor(cosines(6, 3)), iterations=5, truth=3)[2] == 0
    assert mira_convergence(torch.tensor(cosines(6, 3)), iterations=5, truth=5)[4] == 0


LOGITS = torch.tensor(cosines(9, 4))
FUNCTIONS = [sinkhorn, sinkhorn_convergence, mira_convergence]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_logits_are_refused(function):
    spoiled = LOGITS.clone()
    spoiled[2, 1] = math.nan
    for wrong in (spoiled, LOGITS[0], LOGITS[:0], LOGITS[:, :0], LOGITS.long(), LOGITS.numpy(), None):
        with pytest.raises(ValueError, match="logits (must|needs|contains)"):
            function(wrong)


@pytest.mark.parametrize(
    ("function", "argument", "values"),
    [
        *((function, "iterations", [0, -1, 1.5, True]) for function in FUNCTIONS),
        *((function, "truth", [0, 2.5]) for function in FUNCTIONS[1:]),
        *((function, "epsilon", [0, -1, math.nan, math.inf, 1e-305]) for function in FUNCTIONS[:2]),
        (mira_convergence, "temperature", [0, -1, math.nan, 1e-305]),
        (mira_convergence, "beta", [-0.1, 1, math.nan]),
    ],
)
def test_numbers_out_of_range_are_refused(function, argument, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{argument} (must be|is too small)"):
            function(LOGITS, **{argument: value})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_iterations_have_no_gradient_leave_their_argument_and_widen_it(function):
    half = LOGITS.bfloat16()
    expected = function(half.double())
    copy = half.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = function(copy)
    assert torch.equal(value, expected)
    assert not value.requires_grad
    assert torch.equal(copy, half)


def iterated_on_a_rank():
    rank = torch.distributed.get_rank()
    share = LOGITS[:2] if rank == 0 else LOGITS[2:]
    refused = []
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match="contains NaN"):
            function(share * math.nan if rank else share)
        refused.append(True)
    return [function(share).tolist() for function in FUNCTIONS], refused


def test_ranks_return_the_iterations_of_all_rows():
    for values, refused in on_ranks(2, iterated_on_a_rank):
        assert refused == [True] * 3
        for function, value in zip(FUNCTIONS, values, strict=True):
            assert np.allclose(value, function(LOGITS), rtol=1e-8, atol=1e-12)
