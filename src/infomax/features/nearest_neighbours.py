"""k-nearest-neighbour classification by a weighted vote, and the exact search for the neighbours.

On a GPU, and for small sets, the search is a product of blocks and torch's ``topk``. Large sets on a CPU are searched
in two steps, where the second keeps the first exact:

1. All products, in integers of 8 bits where the processor has instructions for them. With integers c and a scale a
   for each row, ``q . x`` differs from ``a_q a_x (c_q . c_x)`` by ``|q - a_q c_q| |x| + |a_q c_q| |x - a_x c_x|`` at
   most, by Cauchy and Schwarz. The bank's mean is subtracted first, and a Hadamard transform spreads large entries:
   both make that bound small, and neither changes what is sought. Elsewhere, in float32: rounding alone is bounded.
2. A pass over the products while they are in the cache. Where one plus its bound reaches the k-th best so far, which
   is rare, the cosine itself is computed and inserted.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE = 512  # rows of queries and of the bank whose products one core makes at once: they fit its cache
STEP = 32  # products that are compared at once
PLAIN = 2**24  # pairs up to which torch's topk is fast enough, and compiled loops are not worth loading


@torch.no_grad()
def nearest(
    bank: Float[Tensor, "n d"],
    queries: Float[Tensor, "m d"],
    k: int,
    *,
    leave_one_out: bool = False,
    memory: int = 2**30,
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """The k rows of the bank with the highest cosine to each query: cosines, falling, and the rows' numbers.

    The search is exact, on the device of the tensors. A cosine is computed in float32, whatever the tensors are; a row
    that is 0 or not finite has cosine 0 to all. More than 2**24 pairs of at least 512 queries on a CPU: the cosine of
    two rows depends on these rows alone, and of equal ones those of lower numbers come first, so the result depends
    neither on ``memory`` nor on the number of threads. Otherwise equal ones come in any order, and any may be last.

    Args:
        bank: Rows of any floating-point type; they need not have length 1.
        queries: Likewise.
        k: Neighbours; all of a smaller bank.
        leave_one_out: The queries are the rows of the bank, none of which is a neighbour of its own.
        memory: Bytes that are needed at most beside bank, queries and result, roughly.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    if leave_one_out and len(bank) != len(queries):
        raise ValueError(f"leave_one_out needs the bank's {len(bank)} rows as queries, but there are {len(queries)}")
    k = min(k, len(bank) - leave_one_out)
    best = queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32)
    index = queries.new_zeros((len(queries), k), dtype=torch.int64)
    large = len(queries) >= TILE and len(bank) * len(queries) > PLAIN
    search = _compiled if large and bank.device.type == "cpu" else _plain
    search(bank, queries, best, index, leave_one_out, memory)
    return best, index


def _rows(part: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in float32, which is no copy where they are, and the inverse of their lengths; rows not finite are 0."""
    part = part.float().contiguous()
    length = torch.linalg.vector_norm(part, dim=1)
    lost = ~length.isfinite()
    if lost.any():
        part, length = part.masked_fill(lost.unsqueeze(1), 0), length.masked_fill(lost, 0)
    return part, 1 / length.clamp_min(1e-12)


def _plain(bank: Tensor, queries: Tensor, best: Tensor, index: Tensor, leave_one_out: bool, memory: int) -> None:
    """Improve the best cosines and their rows, in place, by a product of blocks and ``topk``."""
    d, k = bank.shape[1], best.shape[1]
    wide = max(64, memory // 4 // (4 * d + 8))
    tall = max(64, memory // 4 // (4 * min(wide, len(bank)) + 8 * d + 48 * k))
    for start in range(0, len(bank), wide):
        part, inverse = _rows(bank[start : start + wide])
        for at in range(0, len(queries), tall):
            rows, lengths = _rows(queries[at : at + tall])
            product = (rows * lengths.unsqueeze(1)) @ part.T
            product *= inverse
            if leave_one_out:
                product.diagonal(at - start).fill_(-torch.inf)
            found, row = product.topk(min(k, len(part)), dim=1)
            here = slice(at, at + tall)
            every = torch.cat([best[here], found], 1), torch.cat([index[here], row + start], 1)
            best[here], place = every[0].topk(k, dim=1)
            index[here] = every[1].gather(1, place)


class _Coded(NamedTuple):
    """Rows as they are, and as step 1 above multiplies them."""

    rows: Float[np.ndarray, "n d"]
    inverse: Float[np.ndarray, " n"]  # of the rows' lengths
    codes: Tensor  # [n, d], or wider with zeros
    scale: Float[np.ndarray, " n"]
    shift: Float[np.ndarray, " n"]  # product of the normalised row with the mean
    length: Float[np.ndarray, " n"]  # of the normalised row without the mean
    rest: Float[np.ndarray, " n"]  # length of what the codes leave of that


def _compiled(bank: Tensor, queries: Tensor, best: Tensor, index: Tensor, leave_one_out: bool, memory: int) -> None:
    """Improve the best cosines and their rows, in place, by the two steps above; a share of queries on each core."""
    threads, d = torch.get_num_threads(), bank.shape[1]
    # For the bank's rows in float32, where they are not, and their codes; what is left is ample for the rest.
    wide, tall = max(TILE, memory // 2 // (5 * d + 64)), TILE * threads
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        for start in range(0, len(bank), wide):
            part, inverse = _rows(bank[start : start + wide])
            mean = inverse @ part / len(part) if _has_integers() else part.new_zeros(d)
            known = _coded(part, inverse, mean, each)
            for at in range(0, len(queries), tall):
                here = slice(at, at + tall)
                rows, inverse = _rows(queries[here])
                mine = _coded(rows * inverse.unsqueeze(1), torch.ones_like(inverse), mean, each)
                own = at - start if leave_one_out else -(2**62)
                lift = mine.shift - np.float32(mean @ mean)
                _improve(known, mine, lift, start, own, each, best[here], index[here])
            del part, known  # before there are the next ones


def _coded(rows: Tensor, inverse: Tensor, mean: Tensor, each: Any) -> _Coded:
    """In integers where there are instructions for them, else the rows themselves."""
    (n, d), given = rows.shape, (rows.numpy(), inverse.numpy())
    facts = np.zeros((n, 4), np.float32)
    if not _has_integers():
        return _Coded(*given, rows, given[1], *facts.T[1:])
    codes = torch.empty(n, -(-d // 64) * 64, dtype=torch.int8)
    shares = [[x[at : at + 4096] for at in range(0, n, 4096)] for x in (*given, codes.numpy(), facts)]
    list(each(partial(_kernel(_encode), mean.numpy()), *shares))
    return _Coded(*given, codes, *np.ascontiguousarray(facts.T))


def _improve(bank: _Coded, queries: _Coded, lift: np.ndarray, start: int, own: int, each: Any, *best: Tensor) -> None:
    """Multiply some queries by a part of the bank, and look through the products of each tile while they are cached.

    Args:
        lift: What is added to all products of a query.
        start: The number of the part's first row in the bank.
        own: The row of the part that is the first query itself; the next ones are those of the next queries.
        best: Cosines and rows, which are improved in place.
    """
    m, n, integers = len(queries.rows), len(bank.rows), _has_integers()
    multiply: Any = torch._int_mm if integers else torch.mm
    buffer = torch.empty(m * TILE, dtype=torch.int32 if integers else torch.float32)
    # By how much the true product may be above the one of the codes, for any of these queries; and, many times over,
    # what rounding may do: the sums of d numbers in the cosine, in two shifts and in the mean's square.
    above = queries.rest.max() * bank.length + (queries.length + queries.rest).max() * bank.rest
    plus = bank.shift + above + np.float32(8 * (bank.rows.shape[1] + 64) * 2.0**-24)
    cuts = range(0, m, TILE)
    columns = queries.scale, lift, queries.rows, *(x.numpy() for x in best)
    shares = [[x[at : at + TILE] for at in cuts] for x in columns]
    for first in range(0, n, TILE):
        tile = slice(first, min(first + TILE, n))
        codes = bank.codes[tile]
        product = buffer[: m * len(codes)].view(m, len(codes))
        multiply(queries.codes, codes.T, out=product)
        scan = partial(_kernel(_scan), bank.scale[tile], plus[tile], bank.rows[tile], bank.inverse[tile])
        lines, owns = product.numpy(), [at + own - first for at in cuts]
        list(each(partial(scan, start + first), owns, [lines[at : at + TILE] for at in cuts], *shares))


@cache
def _has_integers() -> bool:
    """Whether this processor multiplies integers of 8 bits fast, and exactly."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported() and hasattr(torch, "_int_mm")


@cache
def _kernel(function: Callable[..., None]) -> Any:
    """Compiled by Numba, which most users of this module need not load."""
    from infomax.data.augmentation.kernels import compiled

    return compiled(function)


def _encode(mean, rows, inverse, codes, facts):
    """Integers near the normalised rows without the mean, after a transform that keeps lengths and angles."""
    d, wide = rows.shape[1], codes.shape[1]
    x, top, signless = np.zeros(wide, np.float32), np.zeros(1, np.uint32), np.uint32(2**31 - 1)
    bits, high = x.view(np.uint32), top.view(np.float32)
    for i in range(len(rows)):
        row, line, shift = rows[i], codes[i], np.float32(0.0)
        for j in range(d):
            y = row[j] * inverse[i]
            shift += y * mean[j]
            x[j] = y - mean[j]
        x[d:] = 0.0
        half, size = 16, np.float32(1.0)
        while wide % (2 * half) == 0:
            for start in range(0, wide, 2 * half):
                left, right = x[start : start + half], x[start + half : start + 2 * half]
                for j in range(half):
                    a, b = left[j], right[j]
                    left[j], right[j] = a + b, a - b
            size *= np.float32(0.5)
            half *= 2
        most = np.uint32(1)
        for j in range(wide):  # numbers without a sign are in the order of their bits, see _scan
            most = max(most, bits[j] & signless)
        top[0] = most
        scale = max(high[0], np.float32(1e-30)) / np.float32(127.0)
        to, length, rest = np.float32(1.0) / scale, np.float32(0.0), np.float32(0.0)
        for j in range(wide):
            code = np.rint(x[j] * to)
            line[j] = np.int8(code)
            length += x[j] * x[j]
            rest += (x[j] - code * scale) ** 2
        size = np.sqrt(size)
        facts[i, 0], facts[i, 1] = scale * size, shift
        facts[i, 2], facts[i, 3] = np.sqrt(length) * size, np.sqrt(rest) * size


def _scan(by, plus, bank, inverse, first, own, product, scale, lift, queries, best, index):
    """Insert into the best of each query those rows of the bank whose product, at its highest, is among them."""
    n, d, k = product.shape[1], bank.shape[1], best.shape[1]
    for i in range(len(product)):
        line, s, q, cosines, numbers = product[i], scale[i], queries[i], best[i], index[i]
        least = cosines[k - 1] - lift[i]
        for start in range(0, n, STEP):
            some = np.uint32(0)
            if start + STEP <= n:
                those, its, add = line[start : start + STEP], by[start : start + STEP], plus[start : start + STEP]
                for j in range(STEP):  # the largest of integers: for floats, Numba makes no vector instructions
                    some = max(some, np.uint32(np.float32(those[j]) * its[j] * s + add[j] >= least))
                if some == 0:
                    continue
            for j in range(start, min(start + STEP, n)):
                if np.float32(line[j]) * by[j] * s + plus[j] < least or j == i + own:
                    continue
                cosine, row, at = np.float32(0.0), bank[j], k - 1
                for c in range(d):
                    cosine += q[c] * row[c]
                cosine *= inverse[j]
                if cosine <= cosines[at]:
                    continue
                while at > 0 and cosines[at - 1] < cosine:
                    cosines[at], numbers[at] = cosines[at - 1], numbers[at - 1]
                    at -= 1
                cosines[at], numbers[at] = cosine, first + j
                least = cosines[k - 1] - lift[i]
