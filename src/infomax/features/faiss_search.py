"""Exact search for nearest neighbours by cosine with faiss, in place of our own."""

from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.runtime.extras import how_to_install

BLOCK = 65536
"""Rows that are made float32 and of length 1 at a time; faiss keeps a float32 copy of all."""


def import_faiss() -> Any:
    """Returns the package faiss.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise ValueError(
            f"--engine faiss needs the package faiss-cpu: {how_to_install('faiss')}; --engine exact needs none"
        ) from error


@torch.no_grad()
def nearest_by_faiss(
    bank: Float[Tensor, "n d"], queries: Float[Tensor, "m d"], k: int
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Finds the k rows of the bank with the highest cosine to each query by faiss's ``IndexFlatIP``, which is exact.

    The neighbours are those of :func:`infomax.features.nearest_neighbours.nearest`, but for the order of those whose
    cosines are equal up to rounding in float32. It runs on the CPU, on as many threads as torch has.

    Args:
        bank: Rows of any floating-point type; they need not have length 1. One that is 0 or not finite has cosine 0.
        queries: Rows of any floating-point type, likewise.
        k: Number of neighbours; a bank of fewer rows gives them all.

    Returns:
        Cosines from the highest to the lowest, and row numbers in the bank, for each query.

    Raises:
        ValueError: if faiss is not installed.
    """
    faiss = import_faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(bank.shape[1])
    for part in bank.split(BLOCK):
        index.add(_unit_rows(part).numpy())
    cosines, rows = index.search(_unit_rows(queries).numpy(), min(k, len(bank)))
    return torch.from_numpy(cosines), torch.from_numpy(rows)


def _unit_rows(rows: Tensor) -> Tensor:
    """Returns the rows at length 1 in float32; one that is 0 or not finite becomes 0, whose cosines are all 0."""
    rows = rows.float()
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (rows / length.clamp_min(1e-12)).masked_fill_(~length.isfinite(), 0.0)
