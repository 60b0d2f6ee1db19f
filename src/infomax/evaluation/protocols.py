"""Protocols on features that stay as they are: k-NN, a linear classifier, few labels, clusters.

Each takes the encoder by any of its names (a run folder, ``timm:resnet50``, a checkpoint file; see
:func:`infomax.models.pretrained.open_encoder`) and labelled images, and gives a row for each representation, as
``results.jsonl`` keeps them: shares in [0, 1], ``interval`` the 95 % bootstrap interval of the row's ``metric`` over
test images. Rows come as they are found: ``list(knn(...))`` has them all.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

from infomax.data.splits import Source
from infomax.evaluation.clusters import cluster_scores
from infomax.evaluation.few_shot import few_shot_scores
from infomax.evaluation.knn_vote import vote
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.representations import EvaluationOptions, Features, compare_features
from infomax.evaluation.scores import judge
from infomax.features.nearest_neighbours import nearest
from infomax.runtime.checks import check_count, check_number

Row = dict[str, Any]
Data = str | PathLike[str] | Source
MOST_SCORES = 200_000_000  # images times classes: about 20 GB


def knn(
    encoder: str | PathLike[str],
    data: Data,
    *,
    k: Sequence[int] = (20,),
    temperature: Sequence[float] = (0.07,),
    leave_one_out: bool = False,
    how: EvaluationOptions | None = None,
) -> Iterator[Row]:
    """Weighted vote of the nearest neighbours (MIRA's Table 3); see :mod:`infomax.features.nearest_neighbours`.

    Args:
        k: Neighbours that vote; several are judged from one search.
        temperature: A neighbour's vote weighs exp(cosine / temperature); one or several.
        leave_one_out: Classify each training image by the others, and leave the test split alone.
    """
    for one in k:
        check_count("--k", one, low=1)
    for one in temperature:
        check_number("--temperature", one, low=0, open_low=True)
    if not k or not temperature:
        raise ValueError("--k and --temperature want at least one value each")
    device = (how or EvaluationOptions()).torch_device

    def votes(f: Features) -> Iterable[Row]:
        bank = f.train.to(device)
        queries, labels = (bank, f.train_labels) if leave_one_out else (f.test.to(device), f.test_labels)
        similarity, index = nearest(bank, queries, max(k), leave_one_out=leave_one_out)
        for some in k:
            for t in temperature:
                scores = vote(similarity, index, f.train_labels.to(device), classes=f.classes, k=some, temperature=t)
                settings = {"k": some, "temperature": t, "leave_one_out": leave_one_out}
                yield {**settings, **judge(scores.cpu(), labels), "test_images": len(labels)}

    return _compare("knn", votes, encoder, data, how, ["train"] if leave_one_out else ["train", "test"])


def linear(encoder: str | PathLike[str], data: Data, *, how: EvaluationOptions | None = None) -> Iterator[Row]:
    """A linear classifier solved to its optimum; see :func:`infomax.evaluation.linear.linear_scores`."""
    device = (how or EvaluationOptions()).torch_device

    def classify(f: Features) -> Iterable[Row]:
        if len(f.train) * f.classes > MOST_SCORES:
            raise ValueError(
                f"{len(f.train)} images of {f.classes} classes are too many for logistic regression, which keeps the "
                f"class scores of all, of which {MOST_SCORES:,} fit; --probe trains a linear classifier by batches"
            )
        train, labels, test = (x.to(device) for x in (f.train, f.train_labels, f.test))
        scores, penalty = linear_scores(train, labels, test, classes=f.classes)
        yield {"penalty": penalty, **judge(scores.cpu(), f.test_labels)}

    return _compare("linear", classify, encoder, data, how)


def few(
    encoder: str | PathLike[str],
    data: Data,
    *,
    labels: Sequence[int] = (1, 5, 10),
    draws: int = 20,
    seed: int = 0,
    how: EvaluationOptions | None = None,
) -> Iterator[Row]:
    """Accuracy with a few labels of each class, over draws of which; see :mod:`infomax.evaluation.few_shot`.

    Args:
        labels: Of each class; one or several.
        draws: Of the labelled images; the interval is that of the mean over them.
        seed: Of the draws.
    """
    for one in labels:
        check_count("--labels", one, low=1)
    check_count("--draws", draws, low=2)
    check_count("--seed", seed, low=0)

    device = (how or EvaluationOptions()).torch_device

    def classify(f: Features) -> Iterable[Row]:
        for count in labels:
            for row in few_shot_scores(f, count, draws=draws, seed=seed, device=device):
                yield {**row, "draws": draws, "seed": seed}

    return _compare("few", classify, encoder, data, how)


def cluster(
    encoder: str | PathLike[str],
    data: Data,
    *,
    clusters: int | None = None,
    seed: int = 0,
    how: EvaluationOptions | None = None,
) -> Iterator[Row]:
    """k-means on the features of the test images beside their classes; see :mod:`infomax.evaluation.clusters`.

    Args:
        clusters: How many; None takes the number of classes.
        seed: Of the starts.
    """
    if clusters is not None:
        check_count("--clusters", clusters, low=2)
    check_count("--seed", seed, low=0)

    def compare(f: Features) -> Iterable[Row]:
        yield cluster_scores(f.test, f.test_labels, clusters=clusters or f.classes, seed=seed)

    return _compare("cluster", compare, encoder, data, how, ["test"])


def _compare(
    protocol: str,
    judged: Callable[[Features], Iterable[Row]],
    encoder: str | PathLike[str],
    data: Data,
    how: EvaluationOptions | None,
    splits: Sequence[str] = ("train", "test"),
) -> Iterator[Row]:
    """The rows of a protocol for each representation, with what they all say."""
    name = data.name if isinstance(data, Source) else str(data)
    for features in compare_features(encoder, data, how, splits=splits):
        common = {
            "protocol": protocol,
            "data": name,
            "representation": features.name,
            "classes": features.classes,
            **({"labelled_images": len(features.train)} if "train" in splits else {}),
            **({"test_images": len(features.test)} if "test" in splits else {}),
            "encoder": features.encoder,
        }
        start = time.perf_counter()
        for row in judged(features):
            yield {**common, **row, "seconds": round(time.perf_counter() - start, 3)}
            start = time.perf_counter()
        del features  # before the next ones are there
