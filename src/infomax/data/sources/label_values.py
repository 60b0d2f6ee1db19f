"""Turns the values of an array or a column into labels, if they name one class for each image."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from infomax.data.splits import counted, shown_name


@dataclass(frozen=True)
class LabelValues:
    """A frozen dataclass that holds labels, or why the values are none."""

    labels: Int[np.ndarray, " n"] | None = None
    """Index into ``classes`` for each image; None if the values are no labels."""
    classes: list[str] = field(default_factory=list)
    """Names of the classes that have an image: strings in alphabetical order, or numbers in rising order."""
    no_labels_reason: str = ""
    """Why there are no labels, as words that follow the split's name."""
    notes: tuple[str, ...] = ()
    """A line for each decision."""


def read_labels(title: str, values: np.ndarray, images: int) -> LabelValues:
    """Returns labels for whole numbers, floats that are whole, truth values and strings, one for each image.

    Args:
        title: What messages call the values, as ``array y_train``.
        values: The values, [n] or [n, 1].
        images: The number of images.
    """
    if reason := _why_not_one_each(values, images):
        return LabelValues(no_labels_reason=f"has no labels: {title} {reason}")
    flat, notes = values.reshape(-1), ()
    if flat.dtype.kind in "US":
        strings = np.char.decode(flat, "utf-8", "backslashreplace") if flat.dtype.kind == "S" else flat
        flat = np.char.strip(strings)
        missing = np.flatnonzero(flat == "")
        notes = (f"{title} holds strings, which are taken for the names of classes",)
    else:
        numbers: Any = flat
        if flat.dtype.kind == "f":
            numbers = flat.astype(np.float64)  # half precision has no 2**53
            fractions = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.round(numbers)) | (abs(numbers) > 2**53))
            if len(fractions):
                example = f"{numbers[fractions[0]]:g} for image {fractions[0]}"
                return LabelValues(no_labels_reason=f"has no labels: {title} is not of whole numbers, as {example}")
            notes = (f"{title} holds {flat.dtype} that are whole, which are taken for classes",)
            flat = numbers.astype(np.int64)
        missing = np.flatnonzero(numbers < 0)
    if len(missing):
        example = f"image {missing[0]}, which has {shown_name(str(flat[missing[0]]))}"
        reason = f"has no labels: {title} lacks those of {counted(len(missing))}, as of {example}"
        return LabelValues(no_labels_reason=reason)
    distinct, labels = np.unique(flat, return_inverse=True)
    return LabelValues(labels.astype(np.int64), [str(value) for value in distinct], notes=notes)


def _why_not_one_each(values: np.ndarray, images: int) -> str:
    """Returns why values are not one label for each image, as words that follow their title; empty if they are."""
    shape = list(values.shape)
    if values.dtype.kind not in "iubfUS":
        return f"holds {values.dtype}, which is no label"
    if values.ndim == 0 or len(values) != images:
        return f"is of shape {shape}, for {images} images"
    if values.size == images:
        return ""
    if values.ndim == 2 and values.dtype.kind in "iubf" and np.isin(values, (0, 1)).all():
        if (values.sum(axis=1) == 1).all():
            return f"is one-hot, of shape {shape}; argmax(1) makes one label of each row"
        return f"marks several classes an image, of shape {shape}; one for each is wanted"
    return f"is of shape {shape}; one label for each image is wanted"
