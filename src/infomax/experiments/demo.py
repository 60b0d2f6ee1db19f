"""The whole story on a laptop: all methods on the embedded digits, and what their encoders are worth."""

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

FEW, DRAWS = (1, 5), 20
RESULTS = "demo.jsonl"
"""File in a run folder with the rows of the demo: the references, and the encoder of this run."""
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
    """Train and judge each method in turn, in a run folder below ``out``; yields a row as each becomes known.

    The first two rows are the references, the raw pixels and the untrained encoder. A row holds the top-1 accuracy of
    k-NN and of a linear classifier with one and five labels a class, averaged over draws, and with all labels.
    """
    source = open_source("digits")
    references: list[dict[str, Any]] = []
    for position, method in enumerate(METHODS):
        start = time.perf_counter()
        run = pretrain(data="digits", method=method, out=Path(out) / method, epochs=epochs, quiet=quiet)
        seconds = time.perf_counter() - start
        trained, untrained, pixels = compare_features(run.path, source)
        if position == 0:  # the encoder's seed is the same in all runs, so one reference serves them all
            references = [{"name": features.name, **_judge(features)} for features in (pixels, untrained)]
            yield from references
        for row in references:
            run.append_row(RESULTS, row)
        row = {"name": method, **_judge(trained), "seconds": seconds, "run": str(run.path)}
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


def _judge(features: Features) -> dict[str, float]:
    scores: dict[str, float] = {}
    for count in FEW:
        for row in few_shot_scores(features, count, draws=DRAWS):
            scores[f"{row['classifier']}_{count}"] = row["top1"]
    classes = features.classes
    knn = knn_scores(features.train, features.train_labels, features.test, classes=classes)
    linear, _ = linear_scores(features.train, features.train_labels, features.test, classes=classes)
    return scores | {"knn_all": top_k(knn, features.test_labels), "linear_all": top_k(linear, features.test_labels)}
