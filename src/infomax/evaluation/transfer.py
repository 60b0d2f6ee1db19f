"""Transfer: a linear classifier on frozen features of other data sets (MIRA's Table 5, MVEB's Table 4).

The procedure of Kornblith et al. (2019) and Ericsson et al. (2021): multinomial logistic regression, its L2 penalty
chosen among 45 on validation images, fitted again to training and validation images together, and reported on the test
images by the metric of the data set.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.splits import LabelledImages, Source, labelled_splits, why_not_labelled
from infomax.data.streams import Stream
from infomax.evaluation.logistic import logistic_path
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import hash_images
from infomax.evaluation.representations import Representation, represent
from infomax.evaluation.rows import TransferRow
from infomax.evaluation.scores import hits, judge, mean_average_precision, mean_per_class

METRIC = dict.fromkeys(("aircraft", "caltech101", "flowers", "pets"), "mean_per_class") | {"voc2007": "map11"}
MOST_ITERATIONS = 100  # scikit-learn's own limit
Solution = tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"], bool]
"""Weights, biases, and whether the solver came to the optimum."""
PENALTIES = tuple(float(x) for x in np.logspace(-6, 5, 45))


@dataclass(frozen=True)
class Parts:
    """A frozen dataclass that holds the splits that transfer needs."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages


def parts(source: Source, *, seed: int = 0) -> Parts:
    """Returns the data set's splits; without a validation split, a random fifth of the training images is taken for it.

    Args:
        source: The data set.
        seed: Of the fifth, which is the same each time with the same seed.

    Raises:
        ValueError: if there are no labels, or too few images.
    """
    train, val, test = source.train, source.val, source.test
    labels = train.labels if isinstance(train, Images) and not source.no_labels_reason else None
    if isinstance(train, Images) and labels is not None and test is not None and test.labels is not None:
        first = LabelledImages(train, np.arange(len(train)), labels)
        last = LabelledImages(test, np.arange(len(test)), test.labels)
    else:
        splits = labelled_splits(source)
        if splits is None:
            several = labels is not None and labels.ndim > 1
            reason = "there is no labelled test split" if several else why_not_labelled(source)
            raise ValueError(f"--data {source.name} has no labels to evaluate by: {reason}")
        first, last = splits
    if val is not None and val.labels is not None:
        return Parts(first, LabelledImages(val, np.arange(len(val)), val.labels), last)
    order = np.arange(len(first.index))
    np.random.RandomState(seed).shuffle(order)  # with seed 0, as the published results were split
    cut = len(order) // 5
    if cut == 0:
        raise ValueError(f"--data {source.name} has {len(order)} training images; a fifth to validate by is none")
    rows = np.sort(order[:cut]), np.sort(order[cut:])
    validation, rest = (LabelledImages(first.images, first.index[r], first.labels[r]) for r in rows)
    return Parts(rest, validation, last)


def metric_of(source: Source) -> str:
    """Returns the metric that is reported for a data set; see :data:`infomax.evaluation.scores.METRICS`."""
    labels = source.train.labels if not isinstance(source.train, Stream) else None
    if labels is not None and labels.ndim > 1:
        return "map11"
    return METRIC.get(source.name, "top1")


def score(scores: Tensor, labels: np.ndarray, metric: str) -> float:
    """Computes the metric alone, without its interval."""
    if metric == "map11":
        return mean_average_precision(scores.double().cpu().numpy(), labels)
    hit = hits(scores.cpu(), torch.from_numpy(labels)).numpy()
    return mean_per_class(hit, labels) if metric == "mean_per_class" else float(hit.mean())


def transfer(
    encoder: str | PathLike[str] | Representation,
    source: Source,
    *,
    penalties: Sequence[float] = PENALTIES,
    as_published: bool = False,
    seed: int = 0,
    evaluation: EvaluationOptions | None = None,
) -> TransferRow:
    """Returns the test score of the linear classifier whose penalty is best on the validation images.

    Images are resized, by cubic interpolation, until their shorter side is that of the encoder's input, and the centre
    is cropped.

    Args:
        encoder: Name of the encoder, or what :func:`to_transfer` made of it, for several data sets.
        source: The data set.
        penalties: On half the sum of squared weights, beside the sum of cross-entropies; of equally good ones the first
            is taken.
        as_published: Solve with scikit-learn as the published results were, from weak to strong penalty, each from the
            solution before, stopped after 100 iterations: slower, and short of the optimum if penalties are weak.
        seed: Of the random fifth of the training images that validates, if the data set has no validation images.
        evaluation: Device, workers and cache.
    """
    evaluation = evaluation or EvaluationOptions()
    representation = encoder if isinstance(encoder, Representation) else to_transfer(encoder, evaluation)
    split, metric = parts(source, seed=seed), metric_of(source)
    start = time.perf_counter()
    train, val, test = (
        _features(representation, part, f"{name} images", evaluation)
        for part, name in ((split.train, "train"), (split.val, "validation"), (split.test, "test"))
    )
    labels = [torch.from_numpy(part.labels).to(evaluation.torch_device) for part in (split.train, split.val)]
    classes = len(split.train.images.classes)
    solve = _stopped_early if as_published else _exact
    path = solve(train, labels[0], classes=classes, penalties=penalties)
    scores = [score(val.to(weight.dtype) @ weight.T + bias, split.val.labels, metric) for weight, bias, _ in path]
    best = int(np.argmax(scores))
    both = torch.cat([train, val]), torch.cat(labels)
    weight, bias, converged = solve(*both, classes=classes, penalties=[penalties[best]])[0]
    test_scores, test_labels = (test.to(weight.dtype) @ weight.T + bias).cpu(), torch.from_numpy(split.test.labels)
    return TransferRow(
        data=source.name,
        representation=representation.name,
        penalty=penalties[best],
        seed=seed,
        penalties=(min(penalties), max(penalties), len(penalties)),
        validation=scores[best],
        **judge(test_scores, test_labels, metric, images=hash_images(split.train, split.val, split.test)),
        classes=classes,
        train_images=len(train),
        validation_images=len(val),
        test_images=len(test),
        solver="scikit-learn" if as_published else "exact",
        converged=converged and all(done for *_, done in path),
        encoder=representation.identity,
        seconds=round(time.perf_counter() - start, 3),
    )


def to_transfer(encoder: str | PathLike[str], evaluation: EvaluationOptions) -> Representation:
    """Opens an encoder that is shown the whole shorter side of an image, as these protocols do."""
    return represent(encoder, evaluation, change=lambda usual: replace(usual, resize=usual.size, bicubic=True))


def _features(
    representation: Representation, part: LabelledImages, images_words: str, evaluation: EvaluationOptions
) -> Float[Tensor, "n d"]:
    return representation.of(part, images_words).to(evaluation.torch_device).float()


def _exact(x: Tensor, labels: Tensor, *, classes: int, penalties: Sequence[float]) -> list[Solution]:
    path = logistic_path(x, labels, classes=classes, penalties=penalties)
    return [(fit.weight, fit.bias, fit.converged) for fit in path]


def _stopped_early(x: Tensor, labels: Tensor, *, classes: int, penalties: Sequence[float]) -> list[Solution]:
    """Returns scikit-learn's solution for each penalty from the weakest on, each started from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features = x.cpu().numpy()
    targets = [*labels.T.cpu().numpy()] if labels.ndim > 1 else [labels.cpu().numpy()]
    solvers = [LogisticRegression(warm_start=True, max_iter=MOST_ITERATIONS) for _ in targets]
    solutions = []
    for penalty in penalties:
        weight, bias = x.new_zeros(classes, x.shape[1]), x.new_full((classes,), -torch.inf)
        for number, (solver, target) in enumerate(zip(solvers, targets, strict=True)):
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                solver.set_params(C=1 / penalty).fit(features, target)
            plane, shift = (torch.from_numpy(y).to(x) for y in (solver.coef_, solver.intercept_))
            if labels.ndim > 1:
                rows: Any = [number]
            elif len(solver.classes_) == 2:  # one plane for two classes
                rows, plane, shift = (
                    solver.classes_,
                    torch.cat([-plane / 2, plane / 2]),
                    torch.cat([-shift / 2, shift / 2]),
                )
            else:
                rows = solver.classes_
            weight[rows], bias[rows] = plane, shift
        solutions.append((weight, bias, all(int(solver.n_iter_.max()) < MOST_ITERATIONS for solver in solvers)))
    return solutions
