"""Trains all methods on the embedded digits, and evaluates their encoders: the demo."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infomax.data.sources.location import open_source
from infomax.evaluation.few_shot import few_shot_scores
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.representations import Features, compare_features
from infomax.evaluation.scores import top_k
from infomax.recipes.registry import METHODS
from infomax.reporting.tables import Cell, Table, make_table
from infomax.training.pretrain import pretrain

LABELS = (1, 5)
"""Labels a class of the few-shot scores."""
DRAWS = 20
"""Draws of which images have them."""
RESULTS = "demo.jsonl"
"""File in a run folder with the rows of the demo: the baselines, and the encoder of this run."""
SCORES = {
    "knn_1": "1 label: kNN",
    "linear_1": "linear",
    "knn_5": "5 labels: kNN",
    "linear_5": "linear",
    "knn_all": "all: kNN",
    "linear_all": "linear",
}
"""Names of the columns, by the keys of a row."""


def demo(out: str | Path, *, epochs: int | None = None, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """Trains and evaluates each method in turn, and yields a row as soon as it is known.

    The first two rows are the baselines, the raw pixels and the untrained encoder. A row holds the top-1 accuracy of
    k-NN and of a linear classifier with one and five labels a class, averaged over draws, and with all labels.

    Args:
        out: Folder for the run folders, one for each method.
        epochs: Epochs of each run; None takes those of the recipes.
        quiet: Whether no progress bars are shown.
    """
    source = open_source("digits")
    baselines: list[dict[str, Any]] = []
    for position, method in enumerate(METHODS):
        start = time.perf_counter()
        run = pretrain(data="digits", method=method, out=Path(out) / method, epochs=epochs, quiet=quiet)
        seconds = time.perf_counter() - start
        trained, untrained, pixels = compare_features(run.path, source)
        if position == 0:  # the encoder's seed is the same in all runs, so the baselines of one serve them all
            baselines = [{"name": features.name, **_evaluate(features)} for features in (pixels, untrained)]
            yield from baselines
        for row in baselines:
            run.append_row(RESULTS, row)
        row = {"name": method, **_evaluate(trained), "seconds": seconds, "run": str(run.path)}
        run.append_row(RESULTS, row)
        yield row


def demo_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Makes the table of the demo from its rows."""
    cells = [
        [
            row["name"],
            *(Cell.per_cent(row[score]) for score in SCORES),
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        for row in rows
    ]
    title = f"Top-1 accuracy in %; labels are for each class, and 1 and 5 the mean over {DRAWS} draws of them."
    return make_table(["", *SCORES.values(), "seconds"], cells, title=title)


def _evaluate(features: Features) -> dict[str, float]:
    """Returns the scores of one representation."""
    scores: dict[str, float] = {}
    for count in LABELS:
        for row in few_shot_scores(features, count, draws=DRAWS):
            scores[f"{row['classifier']}_{count}"] = row["top1"]
    classes = features.classes
    knn = knn_scores(features.train, features.train_labels, features.test, classes=classes)
    linear, _ = linear_scores(features.train, features.train_labels, features.test, classes=classes)
    return scores | {"knn_all": top_k(knn, features.test_labels), "linear_all": top_k(linear, features.test_labels)}
