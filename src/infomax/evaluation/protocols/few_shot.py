"""Few-shot classification: k-NN and a linear classifier with a few labels of each class."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.result_row import Condition, ResultRow, Score
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown

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

    def classify(features: "Features") -> Iterable[dict[str, Any]]:
        for count in options.labels:
            for scores in few_shot_scores(features, count, draws=options.draws, seed=options.seed, device=device):
                yield {**scores, "draws": options.draws, "seed": options.seed}

    return evaluate_representations(FewShotRow, classify, encoder, source, evaluation)


PROTOCOL = Protocol(
    name="few-shot", title="few-shot", options=FewShotOptions, rows=(FewShotRow,), run=run, baselines=True
)
