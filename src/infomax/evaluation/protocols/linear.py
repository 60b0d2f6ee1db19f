"""Linear classifiers on frozen features: logistic regression, or a paper's own probe, trained by gradient descent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.rows import LinearRow
from infomax.runtime.checks import check_count, choose
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.evaluation.representations import Features
    from infomax.papers.published import Column

MAX_SCORES = 200_000_000  # images times classes: about 20 GB
SEARCHED_RATES = {"mira": (0.2, 0.3, 0.4, 0.8, 1.2, 1.6)}
"""Learning rates that are tried for a published column, by the probes whose papers chose theirs on held-out images.

MIRA (Sec. 4.2) does so, and says which was best for one encoder: 0.075 times batch / 256. The rates are this one and
the five of BYOL's linear evaluation, which it follows: 0.05, 0.1, 0.2, 0.3 and 0.4 times batch / 256.
"""


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ProtocolOptions):
    """Classifies the frozen features by a linear classifier: solved to its optimum, or trained as a paper trains its
    own."""

    probe: Annotated[
        str | None, Shown(metavar="NAME", default="logistic regression, its penalty chosen on a fifth")
    ] = None
    """Paper's classifier to train: mira, mira-lars, corinfomax, corinfomax-imagenet, mveb, mveb-cifar or carl. These
    evaluate the encoder alone."""
    learning_rate: Annotated[tuple[float, ...], Shown(metavar="X [X ...]", default="the probe's")] = ()
    """Learning rates of the probe; several are trained in one pass, and one is chosen on a tenth of the training
    images."""
    epochs: Annotated[int | None, Shown(metavar="N", default="the probe's")] = None
    """Passes of the probe over the training images."""
    batch_size: Annotated[int | None, Shown(metavar="N", default="the probe's")] = None
    """Images of a step of the probe, over all ranks."""
    no_augmentation: bool = False
    """Train the probe on features that are computed once, not on random crops: about a hundred times faster."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the probe's weights, the order of the images and their crops."""

    def __post_init__(self) -> None:
        check_count("--seed", self.seed, low=0)
        if self.probe is not None:
            from infomax.papers.published import tables  # not before: it reads files

            probes = dict.fromkeys(column.probe for table in tables() for column in table.columns if column.probe)
            choose("--probe", self.probe, probes)
        else:
            for name, unset in (
                ("learning_rate", ()),
                ("epochs", None),
                ("batch_size", None),
                ("no_augmentation", False),
                ("seed", 0),
            ):
                if getattr(self, name) != unset:
                    word = name.replace("_", "-")
                    raise ValueError(f"--{word} is for a trained classifier; name it with --probe")


def run(
    encoder: EncoderName, source: "Source", options: LinearOptions, evaluation: EvaluationOptions
) -> Iterator[LinearRow]:
    """Yields a row for each representation, or one of the encoder if a probe is trained.

    See :func:`infomax.evaluation.linear.linear_scores` and :func:`infomax.evaluation.probing.probe`.
    """
    if options.probe is None:
        yield from _solve(encoder, source, evaluation)
        return
    from infomax.evaluation.probing import probe

    yield probe(
        encoder,
        source,
        name=options.probe,
        learning_rates=options.learning_rate or None,
        no_augmentation=options.no_augmentation,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        evaluation=evaluation,
    )


def _solve(encoder: EncoderName, source: "Source", evaluation: EvaluationOptions) -> Iterator[LinearRow]:
    from infomax.evaluation.linear import linear_scores
    from infomax.evaluation.representations import evaluate_representations
    from infomax.evaluation.scores import judge

    device = evaluation.torch_device

    def classify(features: "Features") -> Iterable[dict[str, Any]]:
        if len(features.train) * features.classes > MAX_SCORES:
            raise ValueError(
                f"{len(features.train)} images of {features.classes} classes are too many for logistic regression, "
                f"which keeps the class scores of all, of which {MAX_SCORES:,} fit; --probe trains a linear "
                "classifier by batches"
            )
        train, labels, test = (x.to(device) for x in (features.train, features.train_labels, features.test))
        scores, penalty = linear_scores(train, labels, test, classes=features.classes)
        yield {"penalty": penalty, **judge(scores.cpu(), features.test_labels)}

    return evaluate_representations(LinearRow, classify, encoder, source, evaluation)


def options_for(column: "Column") -> LinearOptions | None:
    """Returns the options of the paper's own probe, or those of logistic regression if its probe is not known.

    If the paper chose the learning rate by images that it held out of training, several rates are tried.
    """
    if column.protocol != "linear":
        return None
    return LinearOptions(probe=column.probe or None, learning_rate=SEARCHED_RATES.get(column.probe, ()))


PROTOCOL = Protocol(
    name="linear",
    title="linear classifier",
    options=LinearOptions,
    rows=(LinearRow,),
    run=run,
    needs_labels=True,
    baselines=True,
    options_for=options_for,
)
