"""The clusters that a method with prototypes has made, beside the classes."""

import time
from os import PathLike
from pathlib import Path

import torch

from infomax.data.splits import Source
from infomax.evaluation.clusters import compare
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import is_run, labelled, represent
from infomax.evaluation.rows import ClusterRow
from infomax.runs.run_folder import Run
from infomax.runs.trained_method import load_trained_method


@torch.no_grad()
def prototype_row(
    encoder: str | PathLike[str], source: Source, evaluation: EvaluationOptions | None = None
) -> ClusterRow | None:
    """Returns how well the run's own clusters of the test images agree with their classes; None without prototypes.

    An image's cluster is the prototype that its projection is assigned to with the highest probability.

    Args:
        encoder: A run folder with a checkpoint; of any other encoder nothing is known but its features.
        source: The labelled images.
        evaluation: Device, workers and cache.
    """
    if not is_run(encoder) or (method := load_trained_method(Run(Path(encoder)))) is None:
        return None
    start = time.perf_counter()
    _, train, test = labelled(source)
    representation = represent(encoder, evaluation or EvaluationOptions())
    logits = method.cluster_logits(representation.of(test, "test images").to(next(method.parameters()).dtype))
    if logits is None:
        return None
    return ClusterRow(
        data=source.name,
        representation="its prototypes",
        clusters=logits.shape[1],
        **compare(logits.argmax(1).numpy(), test.labels),
        classes=len(train.images.classes),
        test_images=len(test.labels),
        encoder=representation.identity,
        seconds=round(time.perf_counter() - start, 3),
    )
