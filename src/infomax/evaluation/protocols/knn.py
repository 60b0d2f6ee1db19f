"""k-NN: a weighted vote of the nearest labelled images, by cosine (MIRA's Table 3)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.result_row import Condition, ResultRow, Score
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Features
    from infomax.papers.published import Column

PUBLISHED = (20, 0.07)
"""k and temperature of all published numbers."""


@dataclass(frozen=True, kw_only=True)
class KnnOptions(ProtocolOptions):
    """Classifies by the weighted vote of the k nearest neighbours, by cosine, as in MIRA's Table 3."""

    k: Annotated[tuple[int, ...], Shown(metavar="N [N ...]")] = (20,)
    """Neighbours that vote; several numbers are evaluated from one search."""
    temperature: Annotated[tuple[float, ...], Shown(metavar="T [T ...]")] = (0.07,)
    """Temperatures T; a neighbour's vote weighs exp(cosine / T)."""
    leave_one_out: bool = False
    """Classify each training image by the others, instead of the test images; without a labelled test split no image
    is held out then."""

    @property
    def holds_out(self) -> bool:
        return not self.leave_one_out

    def __post_init__(self) -> None:
        for k in self.k:
            check_count("--k", k, low=1)
        for temperature in self.temperature:
            check_number("--temperature", temperature, low=0, open_low=True)
        if not self.k or not self.temperature:
            raise ValueError("--k and --temperature want at least one value each")


@dataclass(frozen=True, kw_only=True)
class KnnRow(ResultRow):
    """A frozen dataclass that holds the accuracy of one k and temperature."""

    protocol: str = "knn"
    leave_one_out: Annotated[bool, Condition("leave-one-out")] = False
    k: Annotated[int, Condition("k")]
    temperature: Annotated[float, Condition("T")]
    top1: Annotated[float, Score("top-1")]
    top5: Annotated[float, Score("top-5")]

    def fits(self, column: "Column") -> bool:
        """Returns whether a column of a published table measures what this row does."""
        return super().fits(column) and not self.leave_one_out and (self.k, self.temperature) == PUBLISHED


def run(encoder: EncoderName, source: "Source", options: KnnOptions, evaluation: EvaluationOptions) -> Iterator[KnnRow]:
    """Yields a row for each representation, k and temperature; see :mod:`infomax.features.nearest_neighbours`."""
    from infomax.evaluation.knn_vote import rank_voted, vote
    from infomax.evaluation.representations import evaluate_representations
    from infomax.evaluation.scores import judge
    from infomax.features.nearest_neighbours import nearest

    device = evaluation.torch_device

    def classify(features: "Features") -> Iterable[dict[str, Any]]:
        bank, labels = features.train.to(device), features.train_labels.to(device)
        queries, true_labels = bank, features.train_labels
        if not options.leave_one_out:
            queries, true_labels = features.test.to(device), features.test_labels
        others = len(bank) - options.leave_one_out
        if given := [k for k in options.k if k > others and options.k != KnnOptions.k]:
            raise ValueError(f"--k {given[0]}: there are {others:,} labelled images to choose neighbours from")
        similarity, index = nearest(bank, queries, max(options.k), leave_one_out=options.leave_one_out)
        for k in dict.fromkeys(min(k, others) for k in options.k):  # the default may be more than there are
            for temperature in options.temperature:
                scores = vote(similarity, index, labels, classes=features.classes, k=k, temperature=temperature)
                settings: dict[str, Any] = {"k": k, "temperature": temperature, "leave_one_out": options.leave_one_out}
                if options.leave_one_out:
                    settings["tested_on"] = "the images to classify by, each by the others"
                yield {**settings, **judge(rank_voted(scores).cpu(), true_labels), "test_images": len(true_labels)}

    splits = ["train", "test"] if options.holds_out else ["train"]
    return evaluate_representations(KnnRow, classify, encoder, source, evaluation, splits=splits)


def options_for(column: "Column") -> KnnOptions | None:
    """Returns the options of the published numbers."""
    return KnnOptions() if column.protocol == "knn" else None


PROTOCOL = Protocol(
    name="knn",
    title="k-NN",
    options=KnnOptions,
    rows=(KnnRow,),
    run=run,
    needs_labels=True,
    baselines=True,
    options_for=options_for,
)
