"""Tells images that are like none of those that a classifier was fitted on, by the distance of their features.

The distance is Mahalanobis's to the nearest class (Lee et al. 2018), in the covariance that all classes share, over the
root of the number of features: about 1 for usual images. What it is for images that were held out says what is usual.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SKETCH = 8
"""Numbers by which an image is known again."""
SAME = 1e-3
"""Largest distance of the sketches of one image, which are about 1 long in each number."""


@dataclass(frozen=True)
class ClassShapes:
    """A frozen dataclass that holds where the features of each class lie, and how they spread.

    Attributes:
        means: Mean features of each class.
        whitening: Matrix by which features are multiplied so that a class has a covariance of about 1.
    """

    means: Float[Tensor, "c d"]
    whitening: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int) -> "ClassShapes":
        """Returns the shapes of classes, each of which has an image."""
        x = features.float()
        counts = torch.bincount(labels, minlength=classes).clamp_min(1)
        means = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x) / counts[:, None]
        values, axes = torch.linalg.eigh(shrunk_covariance(x - means[labels]))
        inverse = values.clamp_min(1e-12 * max(float(values.max()), 1e-12)).rsqrt()
        return cls(means, (axes * inverse).float())

    def distances(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Returns the distance of features to the nearest class."""
        placed, centres = features.float() @ self.whitening, self.means @ self.whitening
        return torch.cdist(placed, centres).amin(1) / math.sqrt(features.shape[1])


def shrunk_covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Returns the covariance of rows whose mean is 0, shrunk towards a multiple of the identity (Ledoit and Wolf 2004).

    With fewer images than features the plain one has no inverse.
    """
    n, d = x.shape
    plain = (x.T @ x).double() / n
    mean = plain.trace() / d
    identity = torch.eye(d, dtype=torch.float64)
    spread = (plain - mean * identity).square().sum()
    noise = (x.double().square().sum(1).square().sum() / n - plain.square().sum()) / n
    share = min(max(float(noise / spread), 0.0), 1.0) if spread > 0 else 0.0
    return (1 - share) * plain + share * mean * identity


@dataclass(frozen=True)
class KnownFeatures:
    """A frozen dataclass that holds what is known of the features of the images that a classifier was fitted on.

    Attributes:
        shapes: Where the classes lie.
        held_out: Distances of images that the shapes were not made of, in rising order; none if there were none.
        sketches: A few numbers of each image, by which it is known again.
    """

    shapes: ClassShapes
    held_out: Float[Tensor, " h"]
    sketches: Float[Tensor, "n s"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        classes: int,
        folds: Sequence[Int[np.ndarray, " m"]],
    ) -> "KnownFeatures":
        """Returns what is known of images, each of whose folds is held out once.

        Args:
            features: Features of the images.
            labels: Their classes.
            classes: Number of classes.
            folds: Numbers of the images of each fold; the others of all classes have an image.
        """
        distances = [torch.empty(0)]
        for rows in folds:
            rest = torch.ones(len(features), dtype=torch.bool)
            rest[rows] = False
            distances.append(ClassShapes.of(features[rest], labels[rest], classes).distances(features[rows]))
        shapes = ClassShapes.of(features, labels, classes)
        return cls(shapes, torch.cat(distances).sort().values, sketch(features))

    @classmethod
    def of_split(
        cls,
        features: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        classes: int,
        held_out: Float[Tensor, "h d"],
    ) -> "KnownFeatures":
        """Returns what is known of images on which the encoder was trained too, beside others that were held out."""
        shapes = ClassShapes.of(features, labels, classes)
        return cls(shapes, shapes.distances(held_out).sort().values, sketch(torch.cat([features, held_out])))

    def threshold(self, share: float) -> tuple[float, float]:
        """Returns the distance above which an image is none of these, and the share of usual images that it expects.

        A further usual image lies above the r-th of h distances with a probability of at most (h + 1 - r) / (h + 1)
        (conformal prediction). So with h images no share below 1 / (h + 1) is possible: then the largest distance is
        taken.

        Args:
            share: The share that is wanted; at 0, and if no image was held out, the threshold is infinite.
        """
        count = len(self.held_out)
        if share == 0 or count == 0:
            return math.inf, 0.0
        place = max(min(math.ceil((count + 1) * (1 - share) - 1e-9), count), 1)
        return float(self.held_out[place - 1]), (count + 1 - place) / (count + 1)

    def are_fitted(self, features: Float[Tensor, "m d"]) -> Bool[np.ndarray, " m"]:
        """Returns which of these features are those of an image that was fitted on, up to rounding."""
        from scipy.spatial import KDTree

        distances, _ = KDTree(self.sketches.numpy()).query(sketch(features).numpy(), distance_upper_bound=SAME)
        return np.isfinite(distances)


def sketch(features: Float[Tensor, "n d"]) -> Float[Tensor, "n s"]:
    """Returns a few numbers of each row that differ if the rows do: products of the row, at unit length, with the same
    random vectors each time."""
    vectors = torch.randn(features.shape[1], SKETCH, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(features.float(), dim=1) @ vectors
