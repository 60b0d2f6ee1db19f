"""The clusters that a method with prototypes has made, beside the classes."""

import time
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from infomax.data.splits import Source
from infomax.evaluation.clusters import compare
from infomax.evaluation.representations import EvaluationOptions, is_run, labelled, represent
from infomax.recipes.building import build_method
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints


@torch.no_grad()
def prototype_row(
    encoder: str | PathLike[str], source: Source, *, how: EvaluationOptions | None = None
) -> dict[str, Any] | None:
    """How well the run's own clusters of the test images agree with their classes; None without prototypes.

    An image's cluster is the prototype that its projection is assigned to with the highest probability.

    Args:
        encoder: A run folder with a checkpoint; of any other encoder nothing is known but its features.
    """
    if not is_run(encoder) or (newest := checkpoints.newest_readable(Path(encoder) / "checkpoints")) is None:
        return None
    start = time.perf_counter()
    method = build_method(Run(Path(encoder)).recipe)
    method.load_state_dict(checkpoints.load(newest)["method"])
    method.eval()
    _, train, test = labelled(source)
    what = represent(encoder, how or EvaluationOptions())
    logits = method.cluster_logits(what.of(test).to(next(method.parameters()).dtype))
    if logits is None:
        return None
    return {
        "protocol": "cluster",
        "data": source.name,
        "representation": "its prototypes",
        "clusters": logits.shape[1],
        **compare(logits.argmax(1).numpy(), test.labels),
        "classes": len(train.images.classes),
        "test_images": len(test.labels),
        "encoder": what.identity,
        "seconds": round(time.perf_counter() - start, 3),
    }
