"""Exact search for nearest neighbours by cosine.

On a GPU, and for small sets, the search is a product of blocks and torch's ``topk``. Large sets on a CPU are searched
in two steps; the second makes the result exact although the first is not:

1. All products of queries and bank rows are computed from integers of 8 bits, if the processor has instructions for
   them. A row x is coded as integers c and a scale a, so that x is about a c. By Cauchy and Schwarz, ``q . x`` differs
   from ``a_q a_x (c_q . c_x)`` by at most ``|q - a_q c_q| |x| + |a_q c_q| |x - a_x c_x|``. Two transformations make
   this bound small and do not change the neighbours: the bank's mean is subtracted first, and a Hadamard transform
   spreads large entries over the row. On other processors the products are computed in float32, and only rounding has
   to be bounded.
2. A loop goes over the products while they are in the processor's cache. If a product plus its bound reaches the k-th
   best cosine so far, which is rare, the cosine itself is computed in float32 and inserted.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE = 512  # rows of queries and of the bank whose products one core computes at a time, because they fit its cache
STEP = 32  # products that are compared with the k-th best at a time
PLAIN_PAIRS = 2**24  # pairs of rows up to which topk is fast enough, so that loading Numba does not pay


@torch.no_grad()
def nearest(
    bank: Float[Tensor, "n d"],
    queries: Float[Tensor, "m d"],
    k: int,
    *,
    leave_one_out: bool = False,
    memory: int = 2**30,
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Finds the k rows of the bank with the highest cosine to each query; the search is exact.

    It runs on the device of the tensors. A cosine is computed in float32, whatever type the tensors have. A row that is
    0 or not finite has cosine 0 to all others.

    For more than 2**24 pairs of at least 512 queries on a CPU, the cosine of two rows depends on these two rows alone,
    and of equal cosines those with lower row numbers come first, so the result depends neither on ``memory`` nor on the
    number of threads. Otherwise rows with equal cosines come in any order, and any of them may be left out at the end.

    Args:
        bank: Rows of any floating-point type; they need not have length 1.
        queries: Rows of any floating-point type; they need not have length 1.
        k: Number of neighbours; a bank of fewer rows gives them all.
        leave_one_out: Whether the queries are the rows of the bank, and a row is not a neighbour of itself.
        memory: Bytes that the search takes at most, roughly, beside bank, queries and result.

    Returns:
        Cosines from the highest to the lowest, and row numbers in the bank, for each query.

    Raises:
        ValueError: if k is below 1, or if ``leave_one_out`` and bank and queries differ in their number of rows.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    if leave_one_out and len(bank) != len(queries):
        raise ValueError(f"leave_one_out needs the bank's {len(bank)} rows as queries, but there are {len(queries)}")
    k = min(k, len(bank) - leave_one_out)
    best = queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32)
    index = queries.new_zeros((len(queries), k), dtype=torch.int64)
    large = len(queries) >= TILE and len(bank) * len(queries) > PLAIN_PAIRS
    search = _search_compiled if large and bank.device.type == "cpu" else _search_plain
    search(bank, queries, best, index, leave_one_out, memory)
    return best, index


def _rows(part: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows in float32, with 0 in place of a row that is not finite, and the inverse of each row's length.

    Rows that are in float32 and finite are not copied.
    """
    part = part.float().contiguous()
    length = torch.linalg.vector_norm(part, dim=1)
    not_finite = ~length.isfinite()
    if not_finite.any():
        part, length = part.masked_fill(not_finite.unsqueeze(1), 0), length.masked_fill(not_finite, 0)
    return part, 1 / length.clamp_min(1e-12)


def _search_plain(bank: Tensor, queries: Tensor, best: Tensor, index: Tensor, leave_one_out: bool, memory: int) -> None:
    """Searches by products of blocks and ``topk``, and puts cosines and row numbers into ``best`` and ``index``."""
    d, k = bank.shape[1], best.shape[1]
    # A quarter of the memory each for the rows of a block in float32 and for its products; the rest is for topk.
    bank_rows = max(64, memory // 4 // (4 * d + 8))
    query_rows = max(64, memory // 4 // (4 * min(bank_rows, len(bank)) + 8 * d + 48 * k))
    for bank_start in range(0, len(bank), bank_rows):
        part, inverse = _rows(bank[bank_start : bank_start + bank_rows])
        for query_start in range(0, len(queries), query_rows):
            rows, inverse_lengths = _rows(queries[query_start : query_start + query_rows])
            product = (rows * inverse_lengths.unsqueeze(1)) @ part.T
            product *= inverse
            if leave_one_out:
                product.diagonal(query_start - bank_start).fill_(-torch.inf)
            part_best, part_rows = product.topk(min(k, len(part)), dim=1)
            block = slice(query_start, query_start + query_rows)
            candidates = torch.cat([best[block], part_best], 1)
            candidate_rows = torch.cat([index[block], part_rows + bank_start], 1)
            best[block], positions = candidates.topk(k, dim=1)
            index[block] = candidate_rows.gather(1, positions)


class _CodedRows(NamedTuple):
    """A named tuple that holds rows in float32, their codes for step 1, and the numbers that bound the codes' error.

    "Normalised" means divided by the row's length, and "centred" means that the bank's mean was subtracted afterwards.
    """

    rows: Float[np.ndarray, "n d"]
    inverse: Float[np.ndarray, " n"]
    """Inverse of each row's length."""
    codes: Tensor
    """Integers [n, d], padded with zeros to a multiple of 64 columns; or the rows, if integers would not be faster."""
    scale: Float[np.ndarray, " n"]
    """Scale * codes is about the transformed centred row."""
    shift: Float[np.ndarray, " n"]
    """Product of the normalised row with the mean."""
    length: Float[np.ndarray, " n"]
    """Length of the centred row."""
    rest: Float[np.ndarray, " n"]
    """Length of the difference between the transformed centred row and scale * codes."""


def _search_compiled(
    bank: Tensor, queries: Tensor, best: Tensor, index: Tensor, leave_one_out: bool, memory: int
) -> None:
    """Searches by the two steps above, and puts cosines and row numbers into ``best`` and ``index``.

    The queries are divided among the cores.
    """
    threads, d = torch.get_num_threads(), bank.shape[1]
    # Half of the memory for a part of the bank in float32 and its codes; the other half is ample for all else.
    bank_rows, query_rows = max(TILE, memory // 2 // (5 * d + 64)), TILE * threads
    with ThreadPoolExecutor(threads) as pool:
        map_on_cores = pool.map if threads > 1 else map
        for bank_start in range(0, len(bank), bank_rows):
            part, inverse = _rows(bank[bank_start : bank_start + bank_rows])
            mean = inverse @ part / len(part) if _has_integers() else part.new_zeros(d)
            coded_bank = _code_rows(part, inverse, mean, map_on_cores)
            for query_start in range(0, len(queries), query_rows):
                block = slice(query_start, query_start + query_rows)
                rows, inverse = _rows(queries[block])
                coded_queries = _code_rows(rows * inverse.unsqueeze(1), torch.ones_like(inverse), mean, map_on_cores)
                # The row of this part that is the block's first query; without leave_one_out a row that never comes.
                own_row = query_start - bank_start if leave_one_out else -(2**62)
                # q . x = (q - mean) . (x - mean) + q . mean + x . mean - mean . mean; x . mean is added in
                # _search_part.
                lift = coded_queries.shift - np.float32(mean @ mean)
                _search_part(
                    coded_bank, coded_queries, lift, bank_start, own_row, map_on_cores, best[block], index[block]
                )
            del part, coded_bank  # frees their memory before the next part is made


def _code_rows(rows: Tensor, inverse: Tensor, mean: Tensor, map_on_cores: Any) -> _CodedRows:
    """Codes rows as integers, or keeps them as they are if the processor has no integer instructions.

    Args:
        rows: Rows in float32.
        inverse: Inverse of each row's length.
        mean: Mean of the normalised rows of the bank, which is subtracted from the normalised rows.
        map_on_cores: ``map``, or that of a pool of threads.
    """
    (n, d), arrays = rows.shape, (rows.numpy(), inverse.numpy())
    facts = np.zeros((n, 4), np.float32)  # scale, shift, length and rest of each row
    if not _has_integers():
        return _CodedRows(*arrays, rows, arrays[1], *facts.T[1:])
    codes = torch.empty(n, -(-d // 64) * 64, dtype=torch.int8)
    shares = [[x[at : at + 4096] for at in range(0, n, 4096)] for x in (*arrays, codes.numpy(), facts)]
    list(map_on_cores(partial(_kernel(_encode), mean.numpy()), *shares))
    return _CodedRows(*arrays, codes, *np.ascontiguousarray(facts.T))


def _search_part(
    bank: _CodedRows,
    queries: _CodedRows,
    lift: np.ndarray,
    start: int,
    own_row: int,
    map_on_cores: Any,
    *best: Tensor,
) -> None:
    """Multiplies some queries by a part of the bank, tile by tile, and scans each tile while it is in the cache.

    Args:
        bank: Rows of a part of the bank.
        queries: Some queries.
        lift: For each query the number to add to all of its products.
        start: Number in the whole bank of the part's first row.
        own_row: Row of the part that is the first query itself; the next rows are the next queries.
        map_on_cores: ``map``, or that of a pool of threads.
        best: Cosines and row numbers of the best so far for these queries, which are changed in place.
    """
    m, n, integers = len(queries.rows), len(bank.rows), _has_integers()
    multiply: Any = torch._int_mm if integers else torch.mm
    buffer = torch.empty(m * TILE, dtype=torch.int32 if integers else torch.float32)
    # By how much the true product of a bank row may be above the product of the codes, for any of these queries.
    bound = queries.rest.max() * bank.length + (queries.length + queries.rest).max() * bank.rest
    # The last term is many times what rounding can do in the sums of d numbers: cosine, two shifts, the mean's square.
    plus = bank.shift + bound + np.float32(8 * (bank.rows.shape[1] + 64) * 2.0**-24)
    cuts = range(0, m, TILE)
    columns = queries.scale, lift, queries.rows, *(x.numpy() for x in best)
    shares = [[x[at : at + TILE] for at in cuts] for x in columns]
    for first in range(0, n, TILE):
        tile = slice(first, min(first + TILE, n))
        codes = bank.codes[tile]
        product = buffer[: m * len(codes)].view(m, len(codes))
        multiply(queries.codes, codes.T, out=product)
        scan = partial(_kernel(_scan), bank.scale[tile], plus[tile], bank.rows[tile], bank.inverse[tile])
        products, own_rows = product.numpy(), [at + own_row - first for at in cuts]
        list(map_on_cores(partial(scan, start + first), own_rows, [products[at : at + TILE] for at in cuts], *shares))


@cache
def _has_integers() -> bool:
    """Returns whether this processor multiplies integers of 8 bits fast, and exactly."""
    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported() and hasattr(torch, "_int_mm")):
        return False
    # ONEDNN_MAX_CPU_ISA may forbid oneDNN the instructions that the processor has; then sums of two products are
    # clipped to 16 bits. torch tells only what the processor has, so the largest codes are multiplied once to see.
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.T) == 64 * 127**2).all())


@cache
def _kernel(function: Callable[..., None]) -> Any:
    """Returns the function compiled by Numba, which is imported here because most searches never need it."""
    from infomax.data.augmentation.kernels import compiled

    return compiled(function)


def _encode(mean, rows, inverse, codes, facts):
    """Writes the codes of rows, and their scale, shift, length and rest; see :class:`_CodedRows`.

    The centred row is Hadamard-transformed before it is rounded: pairs of entries at distance 16, 32, 64, ... become
    their sum and their difference. With the factor 1/sqrt(2) for each distance, which goes into the scale, that keeps
    lengths and angles. It starts at 16 so that the loops over pairs become vector instructions.
    """
    d, wide = rows.shape[1], codes.shape[1]
    x, top, signless = np.zeros(wide, np.float32), np.zeros(1, np.uint32), np.uint32(2**31 - 1)
    bits, high = x.view(np.uint32), top.view(np.float32)
    for i in range(len(rows)):
        row, code_line, shift = rows[i], codes[i], np.float32(0.0)
        for j in range(d):
            y = row[j] * inverse[i]
            shift += y * mean[j]
            x[j] = y - mean[j]
        x[d:] = 0.0
        half, size = 16, np.float32(1.0)  # size becomes the square of the transform's factor
        while wide % (2 * half) == 0:
            for start in range(0, wide, 2 * half):
                left, right = x[start : start + half], x[start + half : start + 2 * half]
                for j in range(half):
                    a, b = left[j], right[j]
                    left[j], right[j] = a + b, a - b
            size *= np.float32(0.5)
            half *= 2
        # The largest absolute value. Without its sign bit, a float's bits as an integer keep its order, and only for
        # integers does Numba make vector instructions of a maximum.
        largest = np.uint32(1)
        for j in range(wide):
            largest = max(largest, bits[j] & signless)
        top[0] = largest
        scale = max(high[0], np.float32(1e-30)) / np.float32(127.0)
        inverse_scale, length, rest = np.float32(1.0) / scale, np.float32(0.0), np.float32(0.0)
        for j in range(wide):
            code = np.rint(x[j] * inverse_scale)
            code_line[j] = np.int8(code)
            length += x[j] * x[j]
            rest += (x[j] - code * scale) ** 2
        size = np.sqrt(size)
        facts[i, 0], facts[i, 1] = scale * size, shift
        facts[i, 2], facts[i, 3] = np.sqrt(length) * size, np.sqrt(rest) * size


def _scan(scales, plus, bank, inverse, first, own_row, product, query_scales, lift, queries, best, index):
    """Inserts bank rows whose cosine is among a query's k best, for all queries of a tile of products.

    A row is skipped if its product plus its bound is below the k-th best cosine so far; else its cosine is computed.

    Args:
        scales: Scale of each bank row's codes.
        plus: Bound of each bank row's error, plus its product with the mean.
        bank: The rows of the bank in float32.
        inverse: Inverse of their lengths.
        first: Number in the whole bank of the first row.
        own_row: Row that is the first query itself and is left out; the next queries' rows follow it.
        product: Products of the codes, [queries, bank rows].
        query_scales: Scale of each query's codes.
        lift: For each query the number to add to all of its products.
        queries: Queries of length 1, in float32.
        best: For each query the k best cosines, falling; changed in place.
        index: Their row numbers in the whole bank; changed in place.
    """
    n, d, k = product.shape[1], bank.shape[1], best.shape[1]
    for i in range(len(product)):
        line, s, q, cosines, numbers = product[i], query_scales[i], queries[i], best[i], index[i]
        least = cosines[k - 1] - lift[i]
        for start in range(0, n, STEP):
            reached = np.uint32(0)
            if start + STEP <= n:
                products, step_scales = line[start : start + STEP], scales[start : start + STEP]
                step_plus = plus[start : start + STEP]
                for j in range(STEP):  # a maximum of integers: for floats, Numba makes no vector instructions
                    reached = max(
                        reached, np.uint32(np.float32(products[j]) * step_scales[j] * s + step_plus[j] >= least)
                    )
                if reached == 0:
                    continue
            for j in range(start, min(start + STEP, n)):
                if np.float32(line[j]) * scales[j] * s + plus[j] < least or j == i + own_row:
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
