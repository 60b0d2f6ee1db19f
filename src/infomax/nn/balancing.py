"""Scales the columns of ``exp(logits / scale)`` over the rows of all ranks, as MIRA's and SwAV's assignments need it.

Both methods iterate on a factor for each column: they normalise the rows of the scaled matrix, and take the sums of its
columns. What the factors describe are the assignments ``softmax(logits / scale + log_factors)`` of each row. There are
two forms to compute them, which are equal but for rounding (docs/decisions.md, mira-two-forms):

* :class:`LinearForm` holds the exponentials themselves, so that an iteration is two matrix-vector products.
* :class:`LogForm` holds the logarithms, which cannot overflow, in float64.
"""

from collections.abc import Sequence
from math import log
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import row_blocks
from infomax.runtime.collectives import global_logmeanexp, global_sum

COSINE_RANGE = 2.0
"""The range of logits that are cosines: no need to read it from the device."""
SUMMANDS = 1e9
"""The number of rows times columns up to which sums stay within the type."""


class BalancedColumns(Protocol):
    """A form of ``exp(logits / scale)``, the matrices of several views [B, K] with the rows of all ranks."""

    def log_column_sums(self, log_factors: Float[Tensor, "v k"] | None) -> Float[Tensor, "v k"]:
        """Computes the logarithms of the sums over rows, up to a constant of each view.

        Args:
            log_factors: The logarithms of the columns' factors, up to a constant: each row is scaled by them and
                normalised before the sum. None sums the rows as they are.
        """
        ...

    def assignments(self, log_factors: Float[Tensor, "v k"]) -> list[Float[Tensor, "b k"]]:
        """Returns this rank's ``softmax(logits / scale + log_factors)`` of each view; no other method works then."""
        ...


def sinkhorn_knopp(columns: BalancedColumns, iterations: int) -> list[Float[Tensor, "b k"]]:
    """Computes assignments that use all columns evenly, by iterations that scale first the columns and then the rows.

    Source: Cuturi, "Sinkhorn Distances", 2013; Caron et al. (SwAV), 2020.

    Args:
        columns: The views, whose rows were not normalised.
        iterations: The number of iterations, at least 1.

    Returns:
        The assignments of each view; each row sums to 1.
    """
    log_factors = None
    for _ in range(iterations):
        log_factors = -columns.log_column_sums(log_factors)
    assert log_factors is not None
    return columns.assignments(log_factors)


def fits_linear_form(exponent_range: float, dtype: torch.dtype) -> bool:
    """Returns whether nothing in the linear form can overflow or vanish, which for float32 allows 68 nats.

    All that it computes lies between exp(-range)/K and K B exp(range).

    Args:
        exponent_range: The range of the logits of all views and ranks over the scale. It is the largest one minus the
            least one if rows are normalised at the beginning; if they are not, twice the largest magnitude.
        dtype: The type of the logits, which is that of the computation unless it is narrower than float32.
    """
    return exponent_range <= log(torch.finfo(torch.promote_types(dtype, torch.float32)).max / SUMMANDS)


class LinearForm:
    """The exponentials of the logits, in their own precision.

    Args:
        logits: This rank's logits of each view, [B, K].
        scale: The divisor of the logits.
        normalize_rows: Whether each row is divided by its sum at the beginning.
        earlier: Further rows of each view that have no assignments but count in the sums, [n, K]; may be empty.
        earlier_count: Whether those rows count, a scalar of type bool; None if they do.
    """

    def __init__(
        self,
        logits: Sequence[Tensor],
        scale: float | Tensor,
        *,
        normalize_rows: bool = False,
        earlier: Sequence[Tensor] = (),
        earlier_count: Tensor | None = None,
    ):
        self.parts = [_exponentials(x, scale, normalize_rows) for x in (logits, earlier) if x]
        self.earlier_count = earlier_count

    def log_column_sums(self, log_factors: Float[Tensor, "v k"] | None) -> Float[Tensor, "v k"]:
        if log_factors is None:
            sums = [sums for _, sums in self.parts]
        else:  # with factors of sum 1, no product with a row is beyond the least and the largest of that row
            sums = [_column_sums(q, log_factors.softmax(1)) for q, _ in self.parts]
        if len(sums) > 1:
            earlier = sums[1] if self.earlier_count is None else sums[1] * self.earlier_count
            sums[0] = sums[0] + earlier
        return global_sum(sums[0]).log()

    def assignments(self, log_factors: Float[Tensor, "v k"]) -> list[Float[Tensor, "b k"]]:
        q, _ = self.parts[0]
        for q_view, v in zip(q, log_factors.softmax(1), strict=True):
            for (rows,) in row_blocks(q_view):
                # In place: on a CPU fresh memory costs more than the arithmetic.
                rows.div_((rows @ v).unsqueeze(1)).mul_(v)
        return list(q)


def _exponentials(
    logits: Sequence[Float[Tensor, "b k"]], scale: float | Tensor, normalize_rows: bool
) -> tuple[Float[Tensor, "v b k"], Float[Tensor, "v k"]]:
    """Returns ``exp(logits / scale)``, or the softmax of each row, and the column sums of this rank's rows."""
    q = torch.empty(len(logits), *logits[0].shape, dtype=logits[0].dtype, device=logits[0].device)
    sums = q.new_zeros(len(q), q.shape[2])
    for q_view, view_logits, total in zip(q, logits, sums, strict=True):
        for out, rows in row_blocks(q_view, view_logits):
            if normalize_rows:
                torch.softmax(rows / scale, 1, out=out)
            else:
                torch.div(rows, scale, out=out).exp_()
            total += out.sum(0)
    return q, sums


def _column_sums(q: Float[Tensor, "v b k"], v: Float[Tensor, "v k"]) -> Float[Tensor, "v k"]:
    """Computes ``sum_i q_ij / <q_i, v>`` of each view over this rank's rows."""
    if q.is_cuda or torch.compiler.is_compiling():  # all views at once: on a GPU the number of operations counts
        return ((q @ v.unsqueeze(2)).reciprocal_().mT @ q).squeeze(1)
    sums = torch.zeros_like(v)
    for q_view, v_view, total in zip(q, v, sums, strict=True):
        for (rows,) in row_blocks(q_view):
            total.addmv_(rows.T, (rows @ v_view).reciprocal_())
    return sums


class LogForm:
    """The logits over the scale, in float64: far outside the exponents of float32, its logits have too few digits too.

    Args:
        logits: As of :class:`LinearForm`.
        scale: As there.
        normalize_rows: As there.
        earlier: As there.
        earlier_count: As there.
    """

    def __init__(
        self,
        logits: Sequence[Tensor],
        scale: float | Tensor,
        *,
        normalize_rows: bool = False,
        earlier: Sequence[Tensor] = (),
        earlier_count: Tensor | None = None,
    ):
        self.dtype, self.rows = logits[0].dtype, len(logits[0])
        self.scaled = torch.stack(list(logits)).double() / scale
        self.earlier_count, self.earlier_rows = earlier_count, 0
        if earlier:
            self.scaled = torch.cat([self.scaled, torch.stack(list(earlier)).double() / scale], dim=1)
        if normalize_rows:
            self.scaled = self.scaled.log_softmax(2)

    def log_column_sums(self, log_factors: Float[Tensor, "v k"] | None) -> Float[Tensor, "v k"]:
        x = self.scaled
        if log_factors is not None:
            x = x - (x + log_factors.unsqueeze(1)).logsumexp(2, keepdim=True)
        if self.earlier_count is not None:
            rows = torch.arange(x.shape[1], device=x.device).unsqueeze(1)
            x = x.masked_fill((rows >= self.rows) & ~self.earlier_count, -torch.inf)
        return global_logmeanexp(x.transpose(0, 1))

    def assignments(self, log_factors: Float[Tensor, "v k"]) -> list[Float[Tensor, "b k"]]:
        return list((self.scaled[:, : self.rows] + log_factors.unsqueeze(1)).softmax(2).to(self.dtype))
