"""Clusters: k-means on the features, beside classes or as lists of images, and those of a run's own prototypes."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.rows import ClusterListsRow, ClusterRow
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown
from infomax.runtime.text import note

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Features


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(ProtocolOptions):
    """Compares clusters of the test images with their classes: k-means on the features, and a run's own prototypes.
    Lists the images of each cluster instead, if they have no labels."""

    clusters: Annotated[
        int | None,
        Shown(metavar="N", default="the number of classes; without labels, the root of half the number of images"),
    ] = None
    """Clusters of k-means."""
    no_labels: bool = False
    """List the images of each cluster, all of the data set's, also if they have labels."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the starts of k-means."""

    @property
    def uses_labels(self) -> bool:
        """Whether clusters are compared with classes, if there are any."""
        return not self.no_labels

    def __post_init__(self) -> None:
        if self.clusters is not None:
            check_count("--clusters", self.clusters, low=2)
        check_count("--seed", self.seed, low=0)


def run(
    encoder: EncoderName, source: "Source", options: ClusterOptions, evaluation: EvaluationOptions
) -> Iterator[ClusterRow | ClusterListsRow]:
    """Yields a row of k-means for each representation, and one of the run's own prototypes, if it has any.

    Of images without labels it yields one row, with the lists of the encoder's clusters. The baselines have none: a
    silhouette does not tell which of two representations is better.
    """
    from infomax.data.splits import why_not_labelled
    from infomax.evaluation.clusters import cluster_scores
    from infomax.evaluation.prototypes import prototype_row
    from infomax.evaluation.representations import evaluate_representations

    reason = "no labels are wanted" if options.no_labels else why_not_labelled(source)
    if reason:
        yield _lists(encoder, source, options, evaluation, reason)
        return

    def cluster(features: "Features") -> Iterable[dict[str, Any]]:
        clusters = options.clusters or features.classes
        yield cluster_scores(features.test, features.test_labels, clusters=clusters, seed=options.seed)

    yield from evaluate_representations(ClusterRow, cluster, encoder, source, evaluation, splits=["test"])
    if (row := prototype_row(encoder, source, evaluation)) is not None:
        yield row


def _lists(
    encoder: EncoderName, source: "Source", options: ClusterOptions, evaluation: EvaluationOptions, reason: str
) -> ClusterListsRow:
    """Returns the row with the images of each cluster.

    Args:
        encoder: Name of the encoder.
        source: The images, all of which are clustered.
        options: The number of clusters, and the seed.
        evaluation: Device, workers and cache.
        reason: Why the clusters are not compared with classes.

    Raises:
        ValueError: if there are fewer than two images, or fewer than clusters; or if the source is a stream.
    """
    import torch

    from infomax.data.splits import all_images
    from infomax.evaluation.clusters import cluster_lists, default_clusters
    from infomax.evaluation.representations import represent
    from infomax.runtime.collectives import rank

    splits, names = all_images(source)
    if len(names) < 2:
        raise ValueError(f"--data {source.name} has one image; clusters are made of at least 2")
    clusters = default_clusters(len(names)) if options.clusters is None else options.clusters
    if clusters > len(names):
        raise ValueError(f"--clusters must be at most the number of images, {len(names)}, but is {clusters}")
    if rank() == 0:
        default = ", the root of half the number of images (--clusters N gives another number)"
        chosen = f"{clusters} clusters{default if options.clusters is None else ''}"
        note(f"{source.name}: {chosen}; they are listed, not compared with classes: {reason}")
    start = time.perf_counter()
    representation = represent(encoder, evaluation)
    features = torch.cat([representation.features(images, "images") for images in splits.values()])
    fields = cluster_lists(features, names, clusters=clusters, seed=options.seed)
    if rank() == 0 and fields["used_clusters"] < clusters:
        note(f"{fields['used_clusters']} of {clusters} clusters have an image, as many images have the same features")
    return ClusterListsRow(
        data=source.name,
        representation=representation.name,
        encoder=representation.identity,
        classes=0,
        test_images=len(names),
        tested_on="all images",
        seconds=round(time.perf_counter() - start, 3),
        **fields,
    )


PROTOCOL = Protocol(
    name="cluster",
    title="clusters",
    options=ClusterOptions,
    rows=(ClusterRow, ClusterListsRow),
    run=run,
    baselines=True,
)
