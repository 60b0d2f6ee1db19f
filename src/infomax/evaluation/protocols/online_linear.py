"""Online linear: the scores that the linear classifier beside a run's training had at the end (MIRA, appendix A.4.2).

Nothing is trained here: the run has written the scores into its ``metrics.jsonl``, and this makes a row of them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.evaluation.result_row import ResultRow, Score
from infomax.runtime.json_values import shorten

if TYPE_CHECKING:
    from infomax.data.splits import Source
    from infomax.papers.published import Column
    from infomax.runs.run_folder import Run

LEARNING_RATE = 0.1
UNSTATED = "momentum 0.9; cosine by step; learns from the features that the kept encoder has of each global crop"
"""Settings of the online classifier that MIRA's appendix does not state; see the decision mira-online-probe."""


@dataclass(frozen=True, kw_only=True)
class OnlineLinearOptions(ProtocolOptions):
    """Takes the scores of the linear classifier that learned beside a run, at its last epoch, as in MIRA's Table 7 on
    CIFAR."""


@dataclass(frozen=True, kw_only=True)
class OnlineLinearRow(ResultRow):
    """A frozen dataclass that holds the accuracy of a run's online linear classifier on all test images."""

    protocol: str = "online-linear"
    learning_rate: float
    """Learning rate at the start of the run; there is no weight decay."""
    unstated: str
    """Settings of the classifier that the paper does not state."""
    epochs: int
    batch_size: int
    """Images of a step; each global crop of an image is an example."""
    steps: int
    seed: int
    """Seed of the run; the classifier's first weights follow from it."""
    top1: Annotated[float, Score("top-1")]
    top5: Annotated[float, Score("top-5")]

    @property
    def variant(self) -> str:
        """Name of the classifier."""
        return "mira-online"


def run(
    encoder: EncoderName, source: "Source", options: OnlineLinearOptions, evaluation: EvaluationOptions
) -> Iterator[OnlineLinearRow]:
    """Yields one row, of the last line of scores in the run's ``metrics.jsonl``.

    Raises:
        ValueError: if the encoder is not that of a finished run, the images are not those of the run, the run had no
            online classifier, or the classifier started anew after the first step.
    """
    from infomax.models.encoders import fingerprint
    from infomax.models.pretrained import open_encoder
    from infomax.runs.run_folder import Run

    if not (Path(encoder) / "config.json").is_file():
        raise ValueError(f"online-linear is of a run: {encoder} is no run folder, and no classifier learned beside it")
    start, folder = time.perf_counter(), Run(Path(encoder))
    if source.pretraining.fingerprint() != folder.config["fingerprint"]:
        raise ValueError(
            f"the images of {source.name} are not those that {encoder} was trained on; "
            "leave out --data, --classes and --subset"
        )
    values = {
        "protocol": "online-linear",
        "data": source.name,
        "representation": "trained encoder",
        "encoder": fingerprint(open_encoder(encoder)),
        **final_scores(folder),
        "seconds": round(time.perf_counter() - start, 3),
    }
    yield OnlineLinearRow.from_json(values, where=f"{folder.path}/metrics.jsonl")


def final_scores(folder: "Run") -> dict[str, Any]:
    """Returns the fields of a row that follow from a run's settings and the scores at its last epoch.

    Raises:
        ValueError: if the run is not finished, had no online classifier, or the classifier started anew.
    """
    if not folder.finished:
        raise ValueError(f"{folder.path} is not finished: the online classifier counts at the end of the last epoch")
    rows = [row for row in folder.read_rows("metrics.jsonl") if row["step"] == folder.trained_steps]
    scores = next((row for row in reversed(rows) if "linear_test_images" in row), None)
    if scores is None:
        raise ValueError(
            f"{folder.path} has no scores of an online classifier at its last step: the images that it was trained on "
            "have no labels, one for each, or metrics.jsonl lost them"
        )
    if (first_step := scores.get("linear_first_step")) != 0:
        raise ValueError(
            f"the online classifier of {folder.path} started anew at step {shorten(first_step)}, when the run was "
            "resumed: its scores are not those of a whole run"
        )
    recipe = folder.recipe
    return {
        "metric": "top1",
        "top1": scores.get("linear_top1"),
        "top5": scores.get("linear_top5"),
        "classes": scores.get("linear_classes"),
        "labelled_images": scores.get("linear_labelled_images"),
        "test_images": scores.get("linear_test_images"),
        "learning_rate": LEARNING_RATE,
        "unstated": UNSTATED,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "steps": folder.trained_steps,
        "seed": recipe.seed,
    }


def options_for(column: "Column") -> OnlineLinearOptions | None:
    """Returns the options if the column is that of an online classifier."""
    return OnlineLinearOptions() if column.protocol == "online-linear" else None


PROTOCOL = Protocol(
    name="online-linear",
    title="linear classifier of the run",
    options=OnlineLinearOptions,
    rows=(OnlineLinearRow,),
    run=run,
    needs_run=True,
    options_for=options_for,
)
