"""Clusters beside classes: k-means on the features, and the clusters that a run's own prototypes make."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.rows import ClusterRow
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Features


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(ProtocolOptions):
    """Compares clusters of the test images with their classes: k-means on the features, and a run's own prototypes."""

    clusters: Annotated[int | None, Shown(metavar="N", default="the number of classes")] = None
    """Clusters of k-means."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the starts of k-means."""

    def __post_init__(self) -> None:
        if self.clusters is not None:
            check_count("--clusters", self.clusters, low=2)
        check_count("--seed", self.seed, low=0)


def run(
    encoder: EncoderName, source: "Source", options: ClusterOptions, evaluation: EvaluationOptions
) -> Iterator[ClusterRow]:
    """Yields a row of k-means for each representation, and one of the run's own prototypes, if it has any."""
    from infomax.evaluation.clusters import cluster_scores
    from infomax.evaluation.prototypes import prototype_row
    from infomax.evaluation.representations import evaluate_representations

    def cluster(features: "Features") -> Iterable[dict[str, Any]]:
        clusters = options.clusters or features.classes
        yield cluster_scores(features.test, features.test_labels, clusters=clusters, seed=options.seed)

    yield from evaluate_representations(ClusterRow, cluster, encoder, source, evaluation, splits=["test"])
    if (row := prototype_row(encoder, source, evaluation)) is not None:
        yield row


PROTOCOL = Protocol(
    name="cluster", title="clusters", options=ClusterOptions, rows=(ClusterRow,), run=run, baselines=True
)
