"""Transfer: a linear classifier on frozen features of other data sets (MIRA's Table 5, MVEB's Table 4)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.rows import TransferRow
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Representation
    from infomax.papers.published import Column

TRANSFER_SETS = (
    "aircraft",
    "caltech101",
    "cars",
    "cifar10",
    "cifar100",
    "dtd",
    "flowers",
    "food101",
    "pets",
    "sun397",
    "voc2007",
)


@dataclass(frozen=True, kw_only=True)
class TransferData(EvaluationData):
    """A frozen dataclass that says to which data sets an encoder is transferred."""

    data: Annotated[str | None, Shown(metavar="NAME,NAME|DIR", default="those of the 11 that are in --data-dir")] = None
    """Data sets by name with commas between: aircraft, caltech101, cars, cifar10, cifar100, dtd, flowers, food101,
    pets, sun397, voc2007; or any images with labels."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions(ProtocolOptions):
    """Classifies frozen features of other data sets by a linear classifier, as in MIRA's Table 5 and MVEB's Table 4."""

    as_published: bool = False
    """Solve with scikit-learn and stop it after 100 iterations, as the published results were; much slower."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the random fifth of the training images that validates, if the data set has no validation images."""

    def __post_init__(self) -> None:
        check_count("--seed", self.seed, low=0)


def run(
    encoder: "EncoderName | Representation", source: "Source", options: TransferOptions, evaluation: EvaluationOptions
) -> Iterator[TransferRow]:
    """Yields the row of one data set; see :func:`infomax.evaluation.transfer.transfer`."""
    from infomax.evaluation.transfer import transfer

    yield transfer(encoder, source, as_published=options.as_published, seed=options.seed, evaluation=evaluation)


def open_encoder(encoder: EncoderName, options: TransferOptions, evaluation: EvaluationOptions) -> "Representation":
    """Opens the encoder as it is shown the images of all data sets."""
    from infomax.evaluation.transfer import to_transfer

    return to_transfer(encoder, evaluation)


def options_for(column: "Column") -> TransferOptions | None:
    """Returns the options of the published numbers; an average of several data sets is none."""
    return TransferOptions() if column.protocol == "transfer" and column.data != "average" else None


PROTOCOL = Protocol(
    name="transfer",
    title="transfer by a linear classifier",
    options=TransferOptions,
    rows=(TransferRow,),
    run=run,
    needs_labels=True,
    data=TransferData,
    default_data=lambda _: TRANSFER_SETS,
    open_encoder=open_encoder,
    options_for=options_for,
)
