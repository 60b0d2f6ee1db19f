"""Pairs rows of results that measured the same images under the same conditions, and says how much better one is.

Of each row that classifies images one by one, which of them were right is kept in a file beside the results, with a
hash of the images: their content, their labels and their order; of one that classifies their pixels, how many pixels of
each class were. Rows are compared only if their hashes are equal.
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from infomax.data.splits import LabelledImages
from infomax.evaluation.dense.confusion import compare_mean_ious, image_values, mean_iou, occurring
from infomax.evaluation.intervals import (
    Difference,
    compare_drawn,
    compare_means_per_class,
    compare_seeds_and_images,
    compare_shares,
    mean_per_class,
)
from infomax.evaluation.result_row import Condition, Hits, Outcome, ResultRow, Score, row_fields

PAIRED_METRICS = ("top1", "mean_per_class", "mean_iou")
"""Metrics whose rows are paired. A mean average precision ranks images against each other, and clusters have no right
and wrong: their rows are not."""
ORIGIN = ("representation", "encoder", "recipe", "epoch")
"""Fields that say what is evaluated, and not how."""
NOT_KEPT = "which images were right was not kept"
OTHER_IMAGES = "other images were classified, or classified by"
ONE_IMAGE = "one test image alone"


def hash_images(*parts: LabelledImages) -> str:
    """Returns 16 hexadecimal digits that are equal for equal images with equal labels in the same order.

    Where the images are, and when their files were changed last, does not count: a copy has the same hash. What it
    covers of many large files says :meth:`infomax.data.images.contract.Images.fingerprint`.

    Args:
        parts: The images that are classified by, and those that are classified.
    """
    fingerprints: dict[int, str] = {}  # parts of one data set have its fingerprint, which is computed once
    digest = hashlib.sha256()
    for part in parts:
        if (key := id(part.images)) not in fingerprints:
            fingerprints[key] = part.images.fingerprint()
        digest.update(
            f"{fingerprints[key]} {part.labels.shape} {part.images.classes}\n".encode(errors="surrogateescape")
        )
        digest.update(part.index.astype("<i8").tobytes() + part.labels.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def pack_hits(right: Bool[np.ndarray, " n"], *, labels: Int[np.ndarray, " n"] | None = None, images: str = "") -> Hits:
    """Returns what a row keeps of the images that it got right, a bit for each.

    Args:
        right: Whether each image is right.
        labels: Class of each image, for a metric in which classes count alike.
        images: Hash of the images, of :func:`hash_images`; may be added later.
    """
    hits = Hits(right=_encode(np.packbits(right).tobytes()))
    if labels is not None:
        hits["labels"] = _encode(zlib.compress(labels.astype("<u4").tobytes()))
    if images:
        hits["images"] = images
    return hits


def pack_draws(right: Bool[np.ndarray, "d n"]) -> Hits:
    """Returns what a row keeps of several draws of the labelled images.

    Args:
        right: Whether each test image is right, with each draw.
    """
    counts = zlib.compress(right.sum(0).astype("<u2").tobytes())
    return Hits(draws=tuple(right.mean(1).tolist()), counts=_encode(counts))


def pack_pixels(by_image: Int[np.ndarray, "n 3 classes"], *, images: str) -> Hits:
    """Returns what a row keeps of the pixels that it got right.

    Args:
        by_image: The counts of each image, of :func:`infomax.evaluation.dense.confusion.class_counts`.
        images: Hash of the images and their masks.
    """
    shown = by_image[:, :, occurring(by_image.sum(0))]  # a mean IoU depends on no other class
    return Hits(pixels=_encode(zlib.compress(shown.astype("<u4").tobytes())), images=images)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def unpack_right(hits: Hits, count: int) -> Bool[np.ndarray, " n"] | None:
    """Returns whether each image is right; None if the text is damaged or holds another number of images.

    Args:
        hits: As :func:`pack_hits` returns them.
        count: The number of images.
    """
    try:
        content = base64.b64decode(hits.get("right", ""), validate=True)
    except ValueError:
        return None
    if len(content) != -(-count // 8):
        return None
    return np.unpackbits(np.frombuffer(content, np.uint8), count=count).astype(bool)


def _unpack_labels(hits: Hits, count: int) -> Int[np.ndarray, " n"] | None:
    """Returns the class of each image; None if the text is damaged or holds another number of images."""
    labels = _unpack_numbers(hits.get("labels", ""), "<u4", count)
    return None if labels is None or labels.max(initial=0) >= 1 << 24 else labels


def _unpack_numbers(text: str, dtype: str, count: int) -> Int[np.ndarray, " n"] | None:
    """Returns the numbers of a text; None if it is damaged or holds another number of them."""
    size = np.dtype(dtype).itemsize * count
    content = _decompress(text, size)
    return np.frombuffer(content, dtype).astype(np.int64) if content is not None and len(content) == size else None


def _decompress(text: str, most: int) -> bytes | None:
    """Returns the bytes of a text, with no more memory than ``most`` of them take; None if it is damaged or has
    more."""
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), most + 1)
    except (ValueError, zlib.error):
        return None
    return content if len(content) <= most else None


def shown_conditions(row: ResultRow) -> tuple[str, ...]:
    """Returns the values of the conditions that tell rows of one table apart, and the seed, but for what was chosen."""
    names = [field.name for field in row_fields(type(row)) if isinstance(field.mark, Condition)]
    left_out = chosen_fields(row)
    return tuple(
        f"{name} {getattr(row, name)!r}" for name in [*names, "seed"] if name not in left_out and hasattr(row, name)
    )


def chosen_fields(row: ResultRow) -> set[str]:
    """Returns the names of the settings that the evaluation has chosen among several by images held out."""
    searched = getattr(row, "learning_rates", None) or hasattr(row, "tried")
    return {"learning_rate", "weight_decay"} if searched else set()


def _all_conditions(row: ResultRow) -> dict[str, Any]:
    """Returns all that decides what a row measures, but the encoder."""
    left_out = {*ORIGIN, *chosen_fields(row)}
    fields = (field for field in row_fields(type(row)) if not isinstance(field.mark, Score | Outcome))
    return {field.name: getattr(row, field.name) for field in fields if field.name not in left_out}


def why_not_paired(row: ResultRow, other: ResultRow) -> str:
    """Returns why two rows cannot be compared image by image; empty if they can.

    Args:
        row: A row that has its hits.
        other: Another one.
    """
    for metric in (row.metric, other.metric):
        if metric not in PAIRED_METRICS:
            return f"no right and wrong of single images is behind {metric}"
    first, second = _all_conditions(row), _all_conditions(other)
    differing = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if {"test_images", "labelled_images", "classes"} & {*differing}:
        return OTHER_IMAGES
    if differing:
        return f"measured with another {differing[0].replace('_', ' ')}"
    if not row.hits or not other.hits or not row.hits.get("images") or not other.hits.get("images"):
        return NOT_KEPT
    return OTHER_IMAGES if row.hits.get("images") != other.hits.get("images") else ""


def compare_rows(row: ResultRow, other: ResultRow) -> Difference | str:
    """Compares the main scores of two rows on the same images.

    Args:
        row: The row that is compared, with its hits.
        other: The row that it is compared with.

    Returns:
        How much better the first one is; or a text that says why the two cannot be compared.
    """
    if reason := why_not_paired(row, other):
        return reason
    assert row.hits is not None
    assert other.hits is not None
    if row.hits.get("draws") or other.hits.get("draws"):
        draws, others = _checked_draws(row), _checked_draws(other)
        return (
            NOT_KEPT
            if draws is None or others is None or len(draws[0]) != len(others[0])
            else compare_drawn(draws, others)
        )
    if row.metric == "mean_iou":
        pixels, others = _checked_pixels(row), _checked_pixels(other)
        if pixels is None or others is None or pixels.shape != others.shape:
            return NOT_KEPT
        return ONE_IMAGE if len(pixels) < 2 else compare_mean_ious(pixels, others)
    first, second = (_checked_right(x) for x in (row, other))
    if first is None or second is None:
        return NOT_KEPT
    if row.metric == "top1":
        return compare_shares(first, second)
    labels = _unpack_labels(row.hits, row.test_images)
    return NOT_KEPT if labels is None else compare_means_per_class(first, second, labels)


def compare_over_seeds(pairs: Sequence[tuple[ResultRow, ResultRow]]) -> Difference | str:
    """Compares the main scores of rows on the same images, a pair for each seed of the training.

    Of several seeds, the interval is over the seeds and over the images; of one, over the images alone.

    Args:
        pairs: For each seed the row that is compared, with its hits, and the one that it is compared with.

    Returns:
        How much better the first ones are on average; or a text that says why they cannot be compared.
    """
    if len(pairs) == 1:
        return compare_rows(*pairs[0])
    if reason := next((reason for pair in pairs if (reason := why_not_paired(*pair))), ""):
        return reason
    if len({(row.hits or {}).get("images") for pair in pairs for row in pair}) > 1:
        return OTHER_IMAGES
    gains = []
    for row, other in pairs:
        first, second = _image_values(row), _image_values(other)
        if first is None or second is None:
            return NOT_KEPT
        gains.append(first - second)
    return ONE_IMAGE if len(gains[0]) < 2 else compare_seeds_and_images(np.stack(gains))


def _image_values(row: ResultRow) -> Float[np.ndarray, " n"] | None:
    """Returns a value for each image, the mean of which is a row's score; None if what it got right is damaged."""
    assert row.hits is not None
    if row.metric == "mean_iou":
        pixels = _checked_pixels(row)
        return None if pixels is None else image_values(pixels)
    right = _checked_right(row)
    if right is None or row.metric == "top1":
        return None if right is None else right.astype(float)
    labels = _unpack_labels(row.hits, row.test_images)
    if labels is None:
        return None
    counts = np.bincount(labels)
    return right * (row.test_images / ((counts > 0).sum() * counts[labels]))


def _checked_draws(row: ResultRow) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " n"]] | None:
    """Returns the accuracy with each draw, and the share of the draws in which each image was right; None if that is
    damaged, does not give the row's own score, or there is one draw alone."""
    assert row.hits is not None
    draws = np.array(row.hits.get("draws", ()), float)
    counts = _unpack_numbers(row.hits.get("counts", ""), "<u2", row.test_images)
    if counts is None or len(draws) < 2 or not len(counts):
        return None
    images = counts / len(draws)
    is_own = abs(draws.mean() - row.score) < 1e-6 and abs(images.mean() - row.score) < 1e-6
    return (draws, images) if is_own else None


def _checked_right(row: ResultRow) -> Bool[np.ndarray, " n"] | None:
    """Returns whether each image is right; None if that is damaged, or does not give the row's own score."""
    assert row.hits is not None
    right = unpack_right(row.hits, row.test_images)
    if right is None or not len(right):
        return None
    if row.metric == "top1":
        score = float(right.mean())
    else:
        labels = _unpack_labels(row.hits, row.test_images)
        score = -1.0 if labels is None else mean_per_class(right, labels)
    return right if abs(score - row.score) < 1e-6 else None


def _checked_pixels(row: ResultRow) -> Int[np.ndarray, "n 3 classes"] | None:
    """Returns the pixels of each image; None if they are damaged, or do not give the row's own score."""
    assert row.hits is not None
    of_class = 3 * 4 * row.test_images  # bytes
    content = _decompress(row.hits.get("pixels", ""), row.classes * of_class)
    if not content or len(content) % of_class:
        return None
    pixels = np.frombuffer(content, "<u4").reshape(row.test_images, 3, -1).astype(np.int64)
    return pixels if abs(mean_iou(pixels.sum(0)) - row.score) < 1e-6 else None


def find_partner(row: ResultRow, candidates: Sequence[ResultRow]) -> ResultRow | None:
    """Returns the row among some that was measured under the conditions of another one, as a table shows them.

    Args:
        row: The row that a partner is wanted for.
        candidates: Rows of another encoder, of which the first that can be compared is taken, or else the first.
    """
    alike = [x for x in candidates if type(x) is type(row) and shown_conditions(x) == shown_conditions(row)]
    return next((x for x in alike if not why_not_paired(row, x)), alike[0] if alike else None)
