"""Fine-tuning: encoder and classifier are trained together, on few labels or on another data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.protocols.transfer import TRANSFER_SETS, TransferScores
from infomax.evaluation.result_row import Condition, ResultRow, Score
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(ProtocolOptions):
    """Trains encoder and classifier together, on few labels (--subset) or on another data set."""

    setting: Annotated[str, Shown(metavar="NAME")] = "mira-10"
    """Setting of a paper: mira-1, mira-10, corinfomax-1, corinfomax-10, mveb-1 or mveb-10, for 1 and 10 % of ImageNet's
    labels; or transfer, MVEB's Table 4: 20 pairs of learning rate and weight decay, one chosen on validation images, on
    --data as for infomax evaluate transfer."""
    epochs: Annotated[int | None, Shown(metavar="N", default="the setting's")] = None
    """Passes over the labelled images."""
    steps: Annotated[int | None, Shown(metavar="N", default="5000")] = None
    """Steps of each run of transfer."""
    batch_size: Annotated[int | None, Shown(metavar="N", default="the setting's")] = None
    """Images of a step, over all ranks."""
    budget: Annotated[int | None, Shown(metavar="N", default="all 20")] = None
    """Pairs that transfer tries."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the classifier, the order of the images and their crops."""

    def __post_init__(self) -> None:
        check_count("--seed", self.seed, low=0)
        if self.setting == "transfer":
            if self.epochs is not None:
                raise ValueError(f"--epochs {self.epochs} is not for --setting transfer, whose runs have --steps")
            return
        for word, value in (("--steps", self.steps), ("--budget", self.budget)):
            if value is not None:
                raise ValueError(f"{word} {value} is for --setting transfer")


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
    """What a search found with one pair of learning rate and weight decay."""

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
    tried: tuple[Trial, ...]
    grid: int
    """Number of pairs of the whole grid."""
    steps: int
    batch_size: int
    batch_size_asked_for: int | None = None
    """The setting's batch size, if there are fewer images."""
    seed: int
    precision: str
    ranks: int


def run(
    encoder: EncoderName, source: "Source", options: FinetuneOptions, evaluation: EvaluationOptions
) -> Iterator[FinetuneRow | TransferFinetuneRow]:
    """Yields one row; see :func:`infomax.evaluation.finetune.finetune` and
    :func:`infomax.evaluation.search.transfer_finetune`."""
    if options.setting == "transfer":
        from infomax.evaluation.search import transfer_finetune

        yield transfer_finetune(
            encoder,
            source,
            steps=options.steps,
            batch_size=options.batch_size,
            budget=options.budget,
            seed=options.seed,
            evaluation=evaluation,
        )
        return
    from infomax.evaluation.finetune import finetune

    yield finetune(
        encoder,
        source,
        setting=options.setting,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        evaluation=evaluation,
    )


PROTOCOL = Protocol(
    name="finetune",
    title="fine-tuning",
    options=FinetuneOptions,
    rows=(FinetuneRow, TransferFinetuneRow),
    run=run,
    default_data=lambda options: TRANSFER_SETS if options.setting == "transfer" else (),
)
