"""Row classes of the protocols that compute in files of their own, which make the rows; without torch.

A protocol that computes in its own file has its row class there too.
"""

import csv
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypedDict

from infomax.evaluation.result_row import Condition, Outcome, ResultRow, Score
from infomax.runtime.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class LinearRow(ResultRow):
    """A frozen dataclass that holds the accuracy of one linear classifier, solved or trained by a probe."""

    protocol: str = "linear"
    probe: Annotated[str | None, Condition("probe")] = None
    """Name of the probe; None for logistic regression."""
    learning_rate: Annotated[float | None, Condition("rate")] = None
    """Learning rate of the probe, the best one if several were trained."""
    penalty: Annotated[float | None, Outcome()] = None
    """Penalty of logistic regression on half the squared weights, beside the mean cross-entropy."""
    learning_rates: tuple[float, ...] | None = None
    """All that were trained, if there are several."""
    held_out_top1: Annotated[float | None, Outcome()] = None
    """Accuracy on the images that the learning rate was chosen on."""
    augmentation: bool | None = None
    """Whether the probe saw random crops."""
    epochs: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    seed: int | None = None
    top1: Annotated[float, Score("top-1")]
    top5: Annotated[float, Score("top-5")]

    @property
    def variant(self) -> str:
        """Name of the probe, or logistic regression."""
        return self.probe or "logistic regression"


@dataclass(frozen=True, kw_only=True)
class ClusterRow(ResultRow):
    """A frozen dataclass that says how well clusters agree with classes; see
    :func:`infomax.evaluation.clusters.compare`."""

    protocol: str = "cluster"
    clusters: Annotated[int, Condition("clusters")]
    used_clusters: Annotated[int, Outcome()]
    """Clusters that have an image."""
    seed: int | None = None
    """Seed of k-means; None for a run's own prototypes."""
    nmi: Annotated[float, Score("NMI")]
    ari: Annotated[float, Score("ARI")]
    accuracy: Annotated[float, Score("matched")]


@dataclass(frozen=True, kw_only=True)
class ClusterListsRow(ResultRow):
    """A frozen dataclass that holds the clusters of images without labels; see
    :func:`infomax.evaluation.clusters.cluster_lists`.

    The lists are too long for a line of results: they are kept in a file beside it, and a row that is read has none.
    """

    protocol: str = "cluster-lists"
    clusters: int
    used_clusters: Annotated[int, Outcome()]
    """Clusters that have an image."""
    seed: int
    """Seed of k-means."""
    silhouette: Annotated[float, Score("silhouette", scale="-1 to 1")]
    """From -1 to 1: how much nearer an image is to those of its cluster than to those of the next one."""
    lists: Annotated[tuple[tuple[str, ...], ...] | None, Outcome()] = field(default=None, compare=False, repr=False)
    """Names of each cluster's images, the nearest to its centre first; the largest cluster first."""
    distances: Annotated[tuple[tuple[float, ...], ...] | None, Outcome()] = field(
        default=None, compare=False, repr=False
    )
    """Distance of each to the centre, of features at unit length."""

    @property
    def image_counts(self) -> dict[str, int]:
        """The number of images by the word for them."""
        return {"unlabelled": self.test_images}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain values for a line of JSON, without the lists."""
        return {name: value for name, value in super().to_json().items() if name not in ("lists", "distances")}

    @property
    def words_beside(self) -> str:
        """What the file holds that :meth:`write_beside` returns."""
        return "the images of each cluster are listed in"

    def write_beside(self, results: Path) -> Path | None:
        """Writes the lists as a table of file, cluster from 1, and distance, and returns the table's path.

        Args:
            results: The file of results; that of the lists has its name, with ``.clusters.csv`` at the end.

        Raises:
            OSError: if it cannot be written.
        """
        if self.lists is None or self.distances is None:
            return None
        text = StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["file", "cluster", "distance"])
        for cluster, (names, distances) in enumerate(zip(self.lists, self.distances, strict=True), start=1):
            rows = zip(names, distances, strict=True)
            writer.writerows([name, cluster, f"{distance:.6g}"] for name, distance in rows)
        table = results.with_suffix(".clusters.csv")
        write_atomic(table, text.getvalue().encode(errors="surrogateescape"))
        return table


@dataclass(frozen=True, kw_only=True)
class TransferScores(ResultRow):
    """A frozen dataclass that holds a result by the metric of the data set, and the images it was chosen by."""

    validation: Annotated[float, Outcome()]
    """The metric on the validation images, by which the settings were chosen."""
    train_images: int
    validation_images: int
    top1: Annotated[float | None, Score("top-1")] = None
    mean_per_class: Annotated[float | None, Score("per class")] = None
    map11: Annotated[float | None, Score("mAP")] = None
    top5: Annotated[float | None, Score("top-5")] = None

    @property
    def image_counts(self) -> dict[str, int]:
        """Numbers of images by the word for them; those to train on are labelled."""
        return {"labelled": self.train_images, "test": self.test_images}


@dataclass(frozen=True, kw_only=True)
class TransferRow(TransferScores):
    """A frozen dataclass that holds the score of the penalty that is best on the validation images."""

    protocol: str = "transfer"
    penalty: Annotated[float, Outcome()]
    """On half the sum of squared weights, beside the sum of cross-entropies."""
    penalties: tuple[float, float, int]
    """The least and the largest that were tried, and how many."""
    seed: int = 0
    """Seed of the random fifth of the training images that validates, if the data set has no validation images."""
    solver: str
    """``exact`` or ``scikit-learn``."""
    converged: Annotated[bool, Outcome()]
    """Whether the solver came to the optimum with every penalty."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRow(ResultRow):
    """A frozen dataclass that holds the accuracy after the last epoch of one fine-tuning."""

    protocol: str = "finetune"
    setting: Annotated[str, Condition("setting")]
    epochs: int | None = None
    """None if the setting counts steps."""
    steps: int
    batch_size: int
    batch_size_asked_for: int | None = None
    """The setting's batch size, if there are fewer images."""
    backbone_rate: float
    head_rate: float
    schedule: str
    weight_decay: float
    seed: int
    precision: str
    ranks: int
    top1: Annotated[float, Score("top-1")]
    top5: Annotated[float, Score("top-5")]

    @property
    def variant(self) -> str:
        """Name of the setting."""
        return self.setting


class Trial(TypedDict):
    """A typed dictionary that holds the result of one pair of learning rate and weight decay in a search."""

    learning_rate: float
    weight_decay: float
    validation: float | None
    """The metric on the validation images; None if the training diverged."""
    diverged: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TransferFinetuneRow(TransferScores):
    """A frozen dataclass that holds the score of the pair that is best on the validation images."""

    protocol: str = "transfer-finetune"
    learning_rate: Annotated[float, Condition("rate")]
    setting: Annotated[str, Condition("setting")]
    weight_decay: float
    tried: Annotated[tuple[Trial, ...], Outcome()]
    grid: int
    """Number of pairs of the whole grid."""
    steps: int
    batch_size: int
    batch_size_asked_for: int | None = None
    """The setting's batch size, if there are fewer images."""
    seed: int
    precision: str
    ranks: int
