"""Takes in the rows that are measured: checks them, gathers those of all ranks, and keeps what measures share."""

from collections.abc import Callable
from functools import cached_property
from math import frexp
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.runtime.collectives import gather, gather_objects

NORM_FLOOR = 1e-12
"""The norm by which a shorter row is divided, instead of its own."""
SINGULAR_VALUE_FLOOR = 1e-10
"""The share of the Frobenius norm of the rows below which a singular value of the centred rows is rounding noise."""
THRESHOLD_ROUNDING = 1e-12
"""The rounding that a comparison with a threshold allows for."""
LARGEST_WITH_SQUARE = 1e150
"""The largest entry whose square, summed over a batch, float64 surely holds."""
SUM_TOLERANCE = 1e-3
"""The distance from 1 up to which the sum of a row of probabilities may be, as half precision leaves it."""


def gather_rows(
    name: str, x: Any, layout: str = "n d", *, check: Callable[[], None] | None = None
) -> tuple[Float64[Tensor, "..."], list[int]]:
    """Checks a tensor and gathers its rows of all ranks in float64, without gradient.

    If the argument is wrong on one rank, all ranks raise: none waits for another.

    Args:
        name: The name of the argument, for messages.
        x: This rank's share, which may have no rows if those of other ranks have some.
        layout: The names of the dimensions; that of the rows is ``n``.
        check: A function that raises a ValueError if another argument is wrong.

    Returns:
        The rows of the global batch in the order of the ranks, and the number of rows of each rank.

    Raises:
        ValueError: If ``x`` is no floating-point tensor of these dimensions, has no rows on all ranks together, has not
            the same width on all ranks, or contains NaN or infinity; or if ``check`` raises one.
    """
    problem = _find_problem(name, x, layout, check)
    shares = gather_objects((problem, [] if problem else list(x.shape)))
    for rank, (text, _) in enumerate(shares):
        if text is not None:
            raise ValueError(problem or f"on rank {rank}: {text}")
    shapes = [shape for _, shape in shares]
    axis = layout.split().index("n")
    counts = [shape[axis] for shape in shapes]
    widths = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
    if any(width != widths[0] for width in widths):
        raise ValueError(f"{name} must differ between ranks in the number of rows alone, but has the shapes {shapes}")
    if 0 in (sum(counts), *widths[0]):
        shown = shapes[0] if len(shapes) == 1 else " and ".join(map(str, shapes))
        raise ValueError(f"{name} needs at least 1 row and 1 column, but has the shape {shown}")
    rows = gather(x.double().movedim(axis, 0), counts)[0].movedim(0, axis)
    if not all(bound.isfinite() for bound in rows.aminmax()):  # NaN propagates into both
        raise ValueError(f"{name} contains NaN or infinity")
    return rows, counts


def _find_problem(name: str, x: Any, layout: str, check: Callable[[], None] | None) -> str | None:
    """Returns what is wrong with this rank's arguments, or None."""
    if not isinstance(x, Tensor) or x.ndim != len(layout.split()) or not x.is_floating_point():
        actual = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        return f"{name} must be a floating-point tensor [{', '.join(layout.split())}], but is {actual}"
    try:
        if check is not None:
            check()
    except ValueError as error:
        return str(error)
    return None


def check_squares(name: str, values: Tensor) -> None:
    """Raises a ValueError if squares of ``values`` may overflow."""
    if (largest := float(values.abs().max())) > LARGEST_WITH_SQUARE:
        raise ValueError(f"{name} must have entries up to {LARGEST_WITH_SQUARE:g}, but has one of size {largest:.3g}")


def svdvals(x: Float64[Tensor, "n d"]) -> Float64[Tensor, " k"]:
    """Returns the min(N, D) singular values, descending; LAPACK takes a third of the time for tall matrices."""
    return torch.linalg.svdvals(x if len(x) >= x.shape[1] else x.T)


class Rows:
    """The rows of all ranks in float64, and what measures share, computed once when it is first needed.

    A measure of one tensor takes the tensor. For several measures of it, make its rows once and pass them instead of
    the tensor: the ranks then exchange them once, and each singular value decomposition is computed once.

    Args:
        z: This rank's samples, [N, D], one a row; ranks may hold different numbers of rows, or none.
        name: The name of the argument, for messages.
        check: A function that raises a ValueError if another argument is wrong.

    Raises:
        ValueError: On all ranks, if ``z`` is on one of them no finite floating-point matrix, if ranks differ in its
            width, or if it has no rows.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import effective_rank, mean_cosine, participation_ratio
        >>> from infomax.analysis.rows import Rows
        >>> rows = Rows(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> round(effective_rank(rows), 4), round(participation_ratio(rows), 4)  # from the same singular values
        (2.0, 2.0)
        >>> round(mean_cosine(rows), 4)
        -0.3333
    """

    def __init__(self, z: Float[Tensor, "n d"], *, name: str = "z", check: Callable[[], None] | None = None):
        self.name = name
        self.values, self.counts = gather_rows(name, z, check=check)
        """The rows of the global batch, [N, D], and the number of rows of each rank."""

    @classmethod
    def gathered(cls, values: Float64[Tensor, "n d"], *, name: str = "z") -> "Rows":
        """Makes the rows of a finite tensor that holds those of all ranks already; no other rank is needed.

        Args:
            values: The samples of all ranks, [N, D] in float64.
            name: As above.
        """
        rows = cls.__new__(cls)
        rows.name, rows.values, rows.counts = name, values, [len(values)]
        return rows

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """Returns the number of columns, D."""
        return self.values.shape[1]

    @cached_property
    def unit(self) -> Float64[Tensor, "n d"]:
        """Returns the rows, each divided by its norm, or by 1e-12 if that is larger."""
        # Divided by its largest entry first, a row has a norm even if the squares of its entries have not.
        largest = self.values.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        scaled = self.values / largest
        return scaled / torch.maximum(scaled.norm(dim=1, keepdim=True), NORM_FLOOR / largest)

    @cached_property
    def scale(self) -> float:
        """Returns a power of 2 near the largest entry. Over it, which is exact, no entry has too large a square."""
        exponent = frexp(float(self.values.abs().max()))[1]
        return 2.0 ** min(max(exponent, -1000), 1000)

    @cached_property
    def singular_values(self) -> Float64[Tensor, " k"]:
        """Returns the min(N, D) singular values of the rows over ``scale``, descending."""
        return svdvals(self.values / self.scale)

    @cached_property
    def centred_singular_values(self) -> Float64[Tensor, " d"]:
        """Returns the D singular values of the centred rows over ``scale``, descending.

        Those up to 1e-10 of the Frobenius norm of the rows before centring are 0, and those beyond the number of rows:
        otherwise equal rows would have the rank of rounding noise.
        """
        # Roots of the eigenvalues of a covariance would be noise of 1e-8 in directions in which the rows do not vary.
        scaled = self.values / self.scale
        values = svdvals(scaled - scaled.mean(0))
        values = torch.where(values > SINGULAR_VALUE_FLOOR * scaled.norm(), values, 0.0)
        return torch.nn.functional.pad(values, (0, self.width - len(values)))

    @cached_property
    def probabilities(self) -> Float64[Tensor, "n k"]:
        """Returns the rows, if each is a distribution.

        Raises:
            ValueError: If an entry is negative, or a row's sum is not within 1e-3 of 1.
        """
        if (low := float(self.values.min())) < 0:
            raise ValueError(f"{self.name} must hold probabilities, which are not negative, but has {low:.3g}")
        sums = self.values.sum(1)
        if (error := float((sums - 1).abs().max())) > SUM_TOLERANCE + THRESHOLD_ROUNDING:
            raise ValueError(f"the rows of {self.name} must sum to 1, but one is off by {error:.3g}")
        return self.values

    @cached_property
    def largest_counts(self) -> Float64[Tensor, " k"]:
        """Returns the number of rows whose probability is largest in each column, the first of ties."""
        return torch.bincount(self.probabilities.argmax(1).cpu(), minlength=self.width).double()


def as_rows(
    z: Float[Tensor, "n d"] | Rows, *, name: str = "z", min_rows: int = 1, check: Callable[[], None] | None = None
) -> Rows:
    """Returns the rows of a tensor on all ranks, or the rows themselves if they were made before.

    Args:
        z: This rank's samples, [N, D], or the rows of all ranks.
        name: The name of the argument, for messages.
        min_rows: The least number of rows that the global batch may have.
        check: A function that raises a ValueError if another argument is wrong.

    Raises:
        ValueError: On all ranks, if an argument is wrong on one of them.
    """
    if isinstance(z, Rows):
        if check is not None:
            check()
    else:
        z = Rows(z, name=name, check=check)
    if len(z) < min_rows:
        raise ValueError(f"{name} needs at least {min_rows} rows, but has {len(z)}")
    return z
