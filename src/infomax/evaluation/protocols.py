"""Protocols that judge a run's encoder, each beside the same encoder untrained and the raw pixels."""

import hashlib
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from infomax.arguments import choose_device
from infomax.data.sources import open_source
from infomax.data.splits import Source
from infomax.evaluation.features import Features, compare_features
from infomax.evaluation.knn import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.scores import top_k


def knn(
    folder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: str = "auto",
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Weighted k-NN on the features; see :func:`infomax.evaluation.knn.knn_scores`. One row a representation.

    Args:
        folder: Of the run.
        data: Labelled images, or what names them, as for pretraining.
    """
    if k < 1:
        raise ValueError(f"--k must be at least 1, but is {k}")
    if not temperature > 0:
        raise ValueError(f"--temperature must be above 0, but is {temperature}")

    def judge(f: Features) -> tuple[torch.Tensor, dict[str, Any]]:
        settings = {"k": k, "temperature": temperature}
        return knn_scores(f.train, f.train_labels, f.test, classes=f.classes, **settings), settings

    return _compare("knn", judge, folder, data, device=device, workers=workers)


def linear(
    folder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    device: str = "auto",
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """A linear classifier on the features; see :func:`infomax.evaluation.linear.linear_scores`. Arguments of `knn`."""

    def judge(f: Features) -> tuple[torch.Tensor, dict[str, Any]]:
        scores, penalty = linear_scores(f.train, f.train_labels, f.test, classes=f.classes)
        return scores, {"penalty": penalty}

    return _compare("linear", judge, folder, data, device=device, workers=workers)


def _compare(
    protocol: str,
    judge: Callable[[Features], tuple[torch.Tensor, dict[str, Any]]],
    folder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    device: str,
    workers: int | None,
) -> list[dict[str, Any]]:
    source = data if isinstance(data, Source) else open_source(str(data))
    rows = []
    for features in compare_features(folder, source, device=choose_device(device), workers=workers):
        start = time.perf_counter()
        scores, settings = judge(features)
        rows.append(
            {
                "protocol": protocol,
                **settings,
                "data": source.name,
                "representation": features.name,
                "top1": top_k(scores, features.test_labels, 1),
                "top5": top_k(scores, features.test_labels, 5),
                "classes": features.classes,
                "labelled_images": len(features.train),
                "test_images": len(features.test),
                "seconds": round(time.perf_counter() - start, 3),
                "encoder": hashlib.sha256((Path(folder) / "encoder.safetensors").read_bytes()).hexdigest()[:12],
            }
        )
    return rows
