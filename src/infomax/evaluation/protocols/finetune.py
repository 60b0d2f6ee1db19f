"""Fine-tuning: encoder and classifier are trained together, on few labels or on another data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.protocols.transfer import TRANSFER_SETS
from infomax.evaluation.rows import FinetuneRow, TransferFinetuneRow
from infomax.runtime.checks import check_count, choose
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Representation
    from infomax.papers.published import Column


SETTING_NAMES = ("mira-1", "mira-10", "corinfomax-1", "corinfomax-10", "mveb-1", "mveb-10", "transfer")
"""The settings of the papers, by name."""


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
        choose("--setting", self.setting, SETTING_NAMES)
        for word in ("epochs", "steps", "batch_size", "budget"):
            if (value := getattr(self, word)) is not None:
                check_count(f"--{word.replace('_', '-')}", value, low=1)
        if self.setting == "transfer":
            if self.epochs is not None:
                raise ValueError(f"--epochs {self.epochs} is not for --setting transfer, whose runs have --steps")
            return
        for word, value in (("--steps", self.steps), ("--budget", self.budget)):
            if value is not None:
                raise ValueError(f"{word} {value} is for --setting transfer")


def run(
    encoder: "EncoderName | Representation", source: "Source", options: FinetuneOptions, evaluation: EvaluationOptions
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


def open_encoder(
    encoder: EncoderName, options: FinetuneOptions, evaluation: EvaluationOptions
) -> "EncoderName | Representation":
    """Opens the encoder as it is shown the images of all data sets, if it is to be transferred to several."""
    if options.setting != "transfer":
        return encoder
    from infomax.evaluation.transfer import to_transfer

    return to_transfer(encoder, evaluation)


def options_for(column: "Column") -> FinetuneOptions | None:
    """Returns the options of the paper's own setting; an average of several data sets has none."""
    if column.protocol == "transfer-finetune":
        return None if column.data == "average" else FinetuneOptions(setting="transfer")
    return FinetuneOptions(setting=column.finetuning) if column.protocol == "finetune" and column.finetuning else None


PROTOCOL = Protocol(
    name="finetune",
    title="fine-tuning",
    options=FinetuneOptions,
    rows=(FinetuneRow, TransferFinetuneRow),
    run=run,
    needs_labels=True,
    default_data=lambda options: TRANSFER_SETS if options.setting == "transfer" else (),
    open_encoder=open_encoder,
    options_for=options_for,
)
