"""Compares the search for neighbours and their vote with brute force in float64, for each algorithm of the search."""

import numpy as np
import pytest
import torch
from torch import Tensor

from infomax.evaluation.knn_vote import knn_scores, vote
from infomax.features import nearest_neighbours as knn
from infomax.features.faiss_search import nearest_by_faiss
from infomax.features.nearest_neighbours import nearest


@pytest.fixture(params=["plain", "float32", "integers"])
def algorithm(request, monkeypatch):
    """Lets small sets be searched as large ones are, in tiles of 40 rows, which is one step of 32 and 8 more."""
    if request.param == "integers" and not knn._has_integers():
        pytest.skip("no instructions for products of integers")
    set_algorithm(request.param, monkeypatch)
    return request.param


def set_algorithm(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "PLAIN_PAIRS", 2**62 if algorithm == "plain" else 0)
    monkeypatch.setattr(knn, "TILE", 40)
    monkeypatch.setattr(knn, "_has_integers", lambda: algorithm == "integers")


def features(kind: str, n: int, d: int, seed: int) -> Tensor:
    """Returns noise; or ten clusters without negative entries; or rows that are mostly one large equal entry."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    if kind == "clusters":
        centres = torch.randn(10, d, generator=torch.Generator().manual_seed(99))
        x = (centres[torch.randint(10, (n,), generator=generator)] + 0.5 * x).relu()
    if kind == "collapsed":
        x[:, 0] = 20
    return x


def cosines(bank: Tensor, queries: Tensor) -> Tensor:
    b, q = (x.double() / x.double().norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (bank, queries))
    return q @ b.T


def check(bank: Tensor, queries: Tensor, k: int, similarity: Tensor, index: Tensor, truth: Tensor | None = None):
    """Checks that these are the k highest cosines, in falling order, and the rows that have them, each row once."""
    truth = cosines(bank, queries) if truth is None else truth
    assert similarity.dtype == torch.float32
    assert index.dtype == torch.int64
    torch.testing.assert_close(similarity.double(), truth.topk(k, dim=1).values, rtol=0, atol=1e-6)
    torch.testing.assert_close(truth.gather(1, index), similarity.double(), rtol=0, atol=1e-6)
    assert (similarity.diff(dim=1) <= 0).all()
    assert all(len(row.unique()) == k for row in index)


@pytest.mark.parametrize("kind", ["noise", "clusters", "collapsed"])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(333, 67, 37, 20), (1000, 40, 512, 5), (95, 40, 1000, 95)])
def test_nearest_equals_brute_force(algorithm, kind, n, m, d, k):
    """No size is a multiple of a tile's; the last one asks for all rows of the bank."""
    bank, queries = features(kind, n, d, 1), features(kind, m, d, 2)
    check(bank, queries, k, *nearest(bank, queries, k))


@pytest.mark.parametrize("bank_dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_cosines_are_those_of_the_tensors_in_their_own_type(algorithm, bank_dtype):
    """Lengths of rows and the memory layout do not matter."""
    bank = (features("clusters", 200, 60, 1) * torch.logspace(-2, 2, 200).unsqueeze(1)).to(bank_dtype)
    queries = features("clusters", 40, 60, 2)
    for same_bank in (bank, bank.repeat_interleave(2, 0)[::2], bank.T.contiguous().T):
        check(bank, queries, 7, *nearest(same_bank, queries, 7))
    check(bank, queries, 7, *nearest(*(x.clone().requires_grad_() for x in (bank, queries)), 7))


@pytest.mark.parametrize("memory", [1, 30_000])
def test_memory_does_not_change_the_result(algorithm, memory):
    bank, queries = features("clusters", 700, 50, 1), features("clusters", 100, 50, 2)
    result, with_little = nearest(bank, queries, 9), nearest(bank, queries, 9, memory=memory)
    check(bank, queries, 9, *with_little)
    assert algorithm == "plain" or all(torch.equal(a, b) for a, b in zip(result, with_little, strict=True))


def test_memory_decides_the_sizes_of_the_parts(algorithm, monkeypatch):
    sizes, rows = [], knn._rows
    monkeypatch.setattr(knn, "_rows", lambda part: (sizes.append(len(part)), rows(part))[1])
    bank, queries = features("noise", 700, 50, 1), features("noise", 400, 50, 2)
    nearest(bank, queries, 9)
    number_of_large_parts = len(sizes)
    nearest(bank, queries, 9, memory=50_000)
    assert len(sizes) - number_of_large_parts > number_of_large_parts + 2
    assert max(sizes[number_of_large_parts:]) < 150


def test_leave_one_out(algorithm):
    bank = features("clusters", 150, 20, 1)
    truth = cosines(bank, bank).fill_diagonal_(-torch.inf)
    for memory in (1, 2**30):
        similarity, index = nearest(bank, bank, 10, leave_one_out=True, memory=memory)
        check(bank, bank, 10, similarity, index, truth)
        assert not (index == torch.arange(150).unsqueeze(1)).any()
    assert nearest(bank[:20], bank[:20], 30, leave_one_out=True)[1].shape == (20, 19)
    with pytest.raises(ValueError, match="150 rows as queries, but there are 149"):
        nearest(bank, bank[1:], 10, leave_one_out=True)


def test_equal_rows_come_in_the_order_of_their_numbers(algorithm):
    """The bank holds four copies of each row, in several tiles and parts; the last two neighbours are two of four."""
    distinct, queries = features("noise", 90, 24, 1), features("noise", 40, 24, 2)
    similarity, index = nearest(distinct.repeat(4, 1), queries, 10, memory=8000)
    check(distinct, queries, 3, similarity[:, ::4], index[:, ::4] % 90)
    if algorithm != "plain":
        torch.testing.assert_close(index[:, :8].reshape(-1, 2, 4).diff(dim=2), torch.full((40, 2, 3), 90))
        assert (index[:, 8:] // 90 == torch.arange(2)).all()
        assert torch.equal(similarity[:, :4], similarity[:, :1].expand(-1, 4))


def test_rows_that_are_zero_or_not_finite_have_cosine_0(algorithm):
    bank, queries = features("noise", 60, 12, 1), features("noise", 40, 12, 2)
    bank[5], bank[6, 3], bank[7, 0], queries[1], queries[2, 2] = 0, torch.inf, torch.nan, 0, torch.nan
    truth = cosines(bank, queries)
    truth[:, 5:8], truth[1:3] = 0, 0
    check(bank, queries, 40, *nearest(bank, queries, 40), truth)


def test_both_compiled_algorithms_have_the_same_result(monkeypatch):
    if not knn._has_integers():
        pytest.skip("no instructions for products of integers")
    bank, queries = features("clusters", 500, 300, 1), features("clusters", 90, 300, 2)
    results = []
    for algorithm in ("float32", "integers"):
        set_algorithm(algorithm, monkeypatch)
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(nearest(bank, queries, 15))
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


def hadamard(x: Tensor, wide: int) -> Tensor:
    """Returns the Hadamard transform, over entries at distance 16, 32 and so on, of rows padded with zeros."""
    x, half = torch.nn.functional.pad(x, (0, wide - x.shape[1])), 16
    while wide % (2 * half) == 0:
        left, right = x.view(len(x), -1, 2, half).unbind(2)
        x, half = torch.stack([left + right, left - right], 2).reshape(len(x), wide) / 2**0.5, 2 * half
    return x


@pytest.mark.parametrize("d", [60, 200, 512])
def test_a_skipped_row_cannot_be_a_neighbour(d, monkeypatch):
    """The products plus their bound exceed the cosines by what Cauchy and Schwarz ask for, and not by much more.

    Comparing neighbours would not show a bound that is too small, unless the bank were made for that purpose.
    """
    if not knn._has_integers():
        pytest.skip("no instructions for products of integers")
    scanned, compiled = [], knn._kernel
    set_algorithm("integers", monkeypatch)
    monkeypatch.setattr(knn, "TILE", 100)

    def kernel(function):
        if function is knn._scan:
            return lambda *arguments: (scanned.append([np.copy(x) for x in arguments]), compiled(function)(*arguments))
        return compiled(function)

    monkeypatch.setattr(knn, "_kernel", kernel)
    bank, queries = features("clusters", 100, d, 1), features("clusters", 100, d, 2)
    nearest(bank, queries, 5)
    ((scales, plus, _, _, _, _, product, query_scales, lift, *_),) = scanned
    highest = torch.from_numpy(product.astype(float) * scales * query_scales[:, None] + plus + lift[:, None])
    b, q = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (bank, queries))
    mean, (rows, inverse) = b.mean(0), knn._rows(bank)
    rests, near = [], []
    for x, original in ((b, bank), (q, queries)):
        coded = knn._code_rows(*knn._rows(original), inverse @ rows / 100, map)
        near.append(coded.codes * torch.from_numpy(coded.scale).double().unsqueeze(1))
        rests.append((hadamard(x - mean, near[-1].shape[1]) - near[-1]).norm(dim=1))
    expected = rests[1].unsqueeze(1) * (b - mean).norm(dim=1) + near[1].norm(dim=1).unsqueeze(1) * rests[0]
    error = near[1] @ near[0].T + (q @ mean).unsqueeze(1) + b @ mean - mean @ mean - q @ b.T
    assert (error.abs() <= expected).all()
    above = highest - (q @ b.T + error)
    assert (above >= expected).all()
    assert above.max() < 1.2 * expected.max() + 1e-3 < 0.03


def test_the_algorithm_is_chosen_by_size(monkeypatch):
    monkeypatch.setattr(knn, "_search_compiled", lambda *_: chosen.append("compiled"))
    monkeypatch.setattr(knn, "_search_plain", lambda *_: chosen.append("plain"))
    chosen: list[str] = []
    for n, m in ((2**15, 512), (2**15 + 1, 512), (2**17, 511)):
        nearest(torch.empty(n, 1), torch.empty(m, 1), 1)
    assert chosen == ["plain", "compiled", "plain"]


def test_a_large_set_with_the_real_sizes():
    bank, queries = features("clusters", 20_011, 24, 1), features("clusters", 1030, 24, 2)
    check(bank, queries, 20, *nearest(bank, queries, 20))


def test_several_votes_from_one_search(algorithm):
    bank, queries = features("clusters", 400, 30, 1), features("clusters", 50, 30, 2)
    labels = torch.arange(400) % 7
    truth, (similarity, index) = cosines(bank, queries), nearest(bank, queries, 30)
    for k, temperature in ((1, 0.07), (7, 0.07), (30, 0.5), (30, 0.02), (99, 0.07)):
        scores = vote(similarity, index, labels, classes=8, k=k, temperature=temperature)
        best = truth.topk(min(k, 30), dim=1)
        weight = ((best.values - best.values[:, :1]) / temperature).exp()
        expected = torch.zeros(50, 8, dtype=torch.float64).scatter_add_(1, labels[best.indices], weight)
        torch.testing.assert_close(scores.double(), expected, rtol=1e-3, atol=1e-6)
        assert torch.equal(scores.argmax(1), expected.argmax(1))
        if k < 30:
            same = knn_scores(bank, labels, queries, classes=8, k=k, temperature=temperature)
            torch.testing.assert_close(scores, same)


def test_of_equal_scores_the_first_class_wins():
    bank, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([2, 1, 0, 1])
    scores = knn_scores(bank, labels, torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 0, 0]]), classes=4, k=2)
    assert scores[0].tolist() == [0, 1, 1, 0]
    assert scores.argmax(1)[0] == 1


@pytest.mark.parametrize(("n", "neighbours"), [(0, 0), (1, 1), (5, 5), (30, 20)])
def test_a_bank_smaller_than_k_votes_whole(n, neighbours):
    bank, queries = features("noise", n, 6, 1), features("noise", 1, 6, 2)
    similarity, index = nearest(bank, queries, 20)
    check(bank, queries, neighbours, similarity, index)
    labels = torch.zeros(n, dtype=torch.int64)
    assert (knn_scores(bank, labels, queries, classes=3)[0] > 0).tolist() == [n > 0, False, False]


def test_k_of_0_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1, but is 0"):
        nearest(torch.ones(2, 2), torch.ones(2, 2), 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype):
    bank, queries = features("clusters", 5000, 300, 1).to(dtype), features("clusters", 700, 300, 2)
    truth = cosines(bank, queries)
    for memory in (2**18, 2**30):
        similarity, index = nearest(bank.cuda(), queries.cuda(), 20, memory=memory)
        check(bank, queries, 20, similarity.cpu(), index.cpu(), truth)
    labels = torch.arange(5000).cuda() % 10
    first = vote(similarity, index, labels, classes=10, k=20, temperature=0.07)
    assert torch.equal(first, vote(similarity, index, labels, classes=10, k=20, temperature=0.07))


@pytest.mark.parametrize("kind", ["noise", "clusters", "collapsed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_faiss_finds_the_same_neighbours(kind, dtype, monkeypatch):
    monkeypatch.setattr("infomax.features.faiss_search.BLOCK", 100)
    bank, queries = features(kind, 333, 37, 1).to(dtype), features(kind, 67, 37, 2).to(dtype)
    similarity, index = nearest_by_faiss(bank, queries, 20)
    check(bank, queries, 20, similarity, index)
    torch.testing.assert_close(similarity, nearest(bank, queries, 20)[0], rtol=0, atol=1e-6)


def test_faiss_takes_rows_without_direction_as_like_nothing():
    bank = torch.tensor([[1.0, 0.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [-1.0, 0.0]])
    similarity, index = nearest_by_faiss(bank, torch.tensor([[2.0, 0.0], [float("nan"), 0.0]]), 9)
    torch.testing.assert_close(similarity, torch.tensor([[1.0, 0, 0, 0, -1], [0, 0, 0, 0, 0]]))
    assert index[0].tolist()[::4] == [0, 4]
