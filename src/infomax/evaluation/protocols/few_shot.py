"""Few-shot classification: k-NN and a linear classifier with a few labels of each class."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.result_row import Condition, ResultRow, Score
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown
from infomax.runtime.text import note

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Features


@dataclass(frozen=True, kw_only=True)
class FewShotOptions(ProtocolOptions):
    """Classifies by k-NN and a linear classifier with a few labels of each class, over many draws of the labelled
    images."""

    labels: Annotated[tuple[int, ...], Shown(metavar="N [N ...]")] = (1, 5, 10)
    """Labelled images of each class; one number or several."""
    draws: Annotated[int, Shown(metavar="N")] = 20
    """Draws of the labelled images; the interval is that of their mean."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        for count in self.labels:
            check_count("--labels", count, low=1)
        check_count("--draws", self.draws, low=2)
        check_count("--seed", self.seed, low=0)


@dataclass(frozen=True, kw_only=True)
class FewShotRow(ResultRow):
    """A frozen dataclass that holds the mean accuracy of one classifier with so many labels of each class."""

    protocol: str = "few-shot"
    labels_per_class: Annotated[int, Condition("labels a class")]
    classifier: Annotated[str, Condition("classifier")]
    """``knn`` or ``linear``."""
    draws: int
    seed: int
    top1: Annotated[float, Score("top-1")]


def run(
    encoder: EncoderName, source: "Source", options: FewShotOptions, evaluation: EvaluationOptions
) -> Iterator[FewShotRow]:
    """Yields a row for each representation, number of labels and classifier; see :mod:`infomax.evaluation.few_shot`."""
    from infomax.evaluation.few_shot import few_shot_scores
    from infomax.evaluation.representations import evaluate_representations

    device = evaluation.torch_device
    lines_said: set[str] = set()

    def classify(features: "Features") -> Iterable[dict[str, Any]]:
        for line in check_labels(features.train_labels.bincount().tolist(), options.labels):
            if line not in lines_said:  # once, and not for each representation
                lines_said.add(line)
                note(line)
        for count in options.labels:
            for scores in few_shot_scores(features, count, draws=options.draws, seed=options.seed, device=device):
                yield {**scores, "draws": options.draws, "seed": options.seed}

    return evaluate_representations(FewShotRow, classify, encoder, source, evaluation)


def check_labels(class_sizes: list[int], labels: tuple[int, ...]) -> list[str]:
    """Checks that there are classes with so many labelled images, and returns lines on those that have fewer.

    Args:
        class_sizes: Number of labelled images of each class.
        labels: Labelled images of each class that are asked for.

    Raises:
        ValueError: if no class has as many.
    """
    lines = []
    for count in labels:
        if count > max(class_sizes):
            raise ValueError(
                f"--labels {count} is more than there are: the largest class has {max(class_sizes)} labelled images"
            )
        smaller = [size for size in class_sizes if 0 < size < count]
        if smaller:
            lines.append(
                f"--labels {count}: {len(smaller)} of {len(class_sizes)} classes have fewer "
                f"labelled images, at least {min(smaller)}, and give all of them"
            )
    return lines


PROTOCOL = Protocol(
    name="few-shot",
    title="few-shot",
    options=FewShotOptions,
    rows=(FewShotRow,),
    run=run,
    needs_labels=True,
    baselines=True,
)
