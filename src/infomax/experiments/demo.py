"""The whole story on a laptop: all methods on the embedded digits, and what their encoders are worth."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infomax.data.sources.location import open_source
from infomax.evaluation.few_shot import few_shot_scores
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.representations import Features, compare_features
from infomax.evaluation.scores import top_k
from infomax.recipes.registry import METHODS
from infomax.training.pretrain import pretrain

FEW, DRAWS = (1, 5), 20


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
            run.append_row("results.jsonl", {"protocol": "demo", **row})
        row = {"name": method, **_judge(trained), "seconds": seconds, "run": str(run.path)}
        run.append_row("results.jsonl", {"protocol": "demo", **row})
        yield row


def _judge(features: Features) -> dict[str, float]:
    scores: dict[str, float] = {}
    for count in FEW:
        for row in few_shot_scores(features, count, draws=DRAWS):
            scores[f"{row['classifier']}_{count}"] = row["top1"]
    classes = features.classes
    knn = knn_scores(features.train, features.train_labels, features.test, classes=classes)
    linear, _ = linear_scores(features.train, features.train_labels, features.test, classes=classes)
    return scores | {"knn_all": top_k(knn, features.test_labels), "linear_all": top_k(linear, features.test_labels)}
