"""Lays features out in the plane, so that images with similar features stand near each other: a map of a data set.

t-SNE is scikit-learn's. It takes minutes for 20,000 rows and far longer for more, so of a larger set a part is laid
out, which the seed draws from the whole of it; each of the other rows is placed by its nearest neighbours in that part.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.features.nearest_neighbours import nearest
from infomax.runtime.stages import Stage

LAID_OUT = 20_000
"""Rows that t-SNE lays out at most."""
FEWEST = 10
"""Rows from which on t-SNE is used; fewer have no neighbourhoods that it could keep."""
COMPONENTS = 50
"""Principal components that t-SNE sees of wider features."""
PERPLEXITY = 30.0
ITERATIONS = 500
NEIGHBOURS = 5
"""Neighbours that place a row which t-SNE has not laid out."""
JITTER = 0.002
"""Standard deviation of the random step that parts rows with the same neighbours, as a share of the map's width."""
THREADS = 2
"""t-SNE's sums over more threads have other last bits in each run, and so another map after hundreds of iterations."""
ROWS_PER_THREAD = 5_000
"""Rows for each thread of t-SNE: with fewer, threads on a busy machine wait for each other longer than they compute."""
EQUAL = 1e-6
"""Largest distance of unit features from their mean at which all of them count as equal: rounding in float32."""


@dataclass(frozen=True)
class Layout:
    """A frozen dataclass that holds the places of rows in the plane, and how they were computed."""

    points: Float[np.ndarray, "n 2"]
    """In float32, in units without a meaning; the middle of the map is about 0."""
    method: str
    """A sentence for the reader of the map."""


def map_layout(features: Float[Tensor, "n d"], *, seed: int = 0) -> Layout:
    """Lays rows of features out in the plane by t-SNE on their directions.

    The result depends on the features and the seed alone, up to the rounding of another machine or number of threads.

    Args:
        features: One row an image, of any floating-point type; their lengths do not matter.
        seed: Draws the rows that t-SNE lays out, if there are more than 20,000, and the random steps of the others.

    Raises:
        ValueError: if features is no matrix with at least one row and column, or holds NaN or infinity.
    """
    features = _checked(torch.as_tensor(features))
    n = len(features)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, LAID_OUT, replace=False)) if n > LAID_OUT else np.arange(n)
    unit = _unit(features[torch.from_numpy(rows)]).numpy()
    if np.linalg.norm(unit - unit.mean(0), axis=1).max() < EQUAL:
        return _around_a_point(n, rng)
    with Stage(f"laying out {_images(len(rows))} on a map") as stage:
        points, words = _lay_out(unit, seed)
        stage.detail = words.split(",")[0]
    if len(rows) == n:
        return Layout(points, f"{words}.")
    others = np.setdiff1d(np.arange(n), rows)
    with Stage(f"placing the other {_images(len(others))} by their nearest neighbours on the map"):
        placed = _place(features, rows, others, points, rng)
    layout = np.empty((n, 2), np.float32)
    layout[rows], layout[others] = points, placed
    return Layout(
        layout,
        f"{words}, of {_images(len(rows))} that the seed drew from all {n:,}. Each of the other {len(others):,} stands "
        f"at the weighted mean of its {NEIGHBOURS} nearest neighbours among these, plus a small random step.",
    )


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _checked(features: Tensor) -> Tensor:
    """Returns the features on the CPU, without their gradient."""
    shape = tuple(features.shape)
    if features.ndim != 2 or 0 in shape or not features.is_floating_point():
        raise ValueError(
            f"features must be a floating-point matrix with a row for each image, but are {features.dtype} of "
            f"shape {shape}"
        )
    features = features.detach().cpu()
    not_finite = torch.cat([~part.isfinite().all(1) for part in features.split(2**14)])
    if not_finite.any():
        first = int(not_finite.nonzero()[0])
        raise ValueError(
            f"features must be finite for a map, but {int(not_finite.sum()):,} of {len(features):,} rows hold NaN or "
            f"infinity, row {first} first; leave these rows out"
        )
    return features


def _unit(rows: Tensor) -> Tensor:
    """Returns rows in float32, of length 1; rows of 0 stay 0."""
    rows = rows.float()
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-30)  # squares of large numbers would be infinite
    return torch.nn.functional.normalize(rows / largest, dim=1)


def _around_a_point(n: int, rng: np.random.Generator) -> Layout:
    """Returns a round cloud: there is nothing to tell equal features apart by."""
    points = rng.standard_normal((n, 2)).astype(np.float32) if n > 1 else np.zeros((1, 2), np.float32)
    words = "All features have the same direction, so the images stand around one point at random."
    return Layout(points, words if n > 1 else "One image is a map of one point.")


def _lay_out(unit: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Returns the places of unit rows, and words about how they were computed."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    n, d = unit.shape
    with threadpool_limits(min(THREADS, torch.get_num_threads(), 1 + n // ROWS_PER_THREAD)):
        solver = "randomized" if min(n, d) > COMPONENTS else "full"
        pca = PCA(min(n, d, COMPONENTS), svd_solver=solver, random_state=seed)
        components = pca.fit_transform(unit).astype(np.float32)
        # Rows of one column, and rows on a line, are laid out in the plane too.
        plane = np.zeros((n, 2), np.float32)
        plane[:, : components.shape[1]] = components[:, :2]
        if n < FEWEST:
            return _centred(plane), f"The first two principal components, because {_images(n)} are too few for t-SNE"
        perplexity = min(PERPLEXITY, (n - 1) / 3)
        plane *= 1e-4 / plane[:, 0].std()  # the scale from which t-SNE starts
        plane += np.random.default_rng(seed).normal(0, 1e-7, plane.shape).astype(np.float32)
        points = _embed(components, plane, perplexity, seed)
    reduced = f", on the first {COMPONENTS} principal components of features of length 1"
    return _centred(points), (
        f"t-SNE with perplexity {perplexity:.3g} and seed {seed}, from a start by principal components"
        f"{reduced if d > COMPONENTS else ', on features of length 1'}"
    )


def _embed(components: np.ndarray, start: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    tsne = TSNE(perplexity=perplexity, init=start, learning_rate="auto", max_iter=ITERATIONS, random_state=seed)
    return tsne.fit_transform(components)


def _centred(points: np.ndarray) -> np.ndarray:
    return (points - (points.max(0) + points.min(0)) / 2).astype(np.float32)


def _place(
    features: Tensor, rows: np.ndarray, others: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the places of the other rows, from the places of their nearest neighbours among the laid-out rows.

    A neighbour at distance r has the weight 1 / r^4, so that the nearest decides where neighbours lie apart. (Rows of
    0 have cosine 0 to all, and stand at the mean of any.)
    """
    bank = features[torch.from_numpy(rows)].float()
    placed = np.empty((len(others), 2), np.float32)
    for start in range(0, len(others), 2**16):  # bounds the memory of the queries in float32
        block = slice(start, start + 2**16)
        cosines, neighbours = nearest(bank, features[torch.from_numpy(others[block])].float(), NEIGHBOURS)
        weights = (2 - 2 * cosines.double()).clamp_min(1e-6) ** -2
        weights /= weights.sum(1, keepdim=True)
        placed[block] = np.einsum("mk,mkc->mc", weights.numpy(), points[neighbours.numpy()])
    width = float((points.max(0) - points.min(0)).max())
    return placed + rng.normal(0, JITTER * width, placed.shape).astype(np.float32)
