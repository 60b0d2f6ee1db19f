"""Images that lie in memory or in one array file: the embedded digits, .npz and .npy files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from infomax.data.images import ArrayImages
from infomax.data.splits import Source

# Conventions for the arrays of one split: ours and MedMNIST's, Keras's, and the plain ones for a file with one split.
IMAGE_KEYS = ("{}_images", "x_{}", "{}_x", "images{}")
LABEL_KEYS = ("{}_labels", "y_{}", "{}_y", "{}_label", "labels{}")
SPLITS = {"train": ("train", ""), "test": ("test",), "val": ("val", "valid", "validation")}


def open_digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; every fifth image is for testing."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.repeat(pixels[..., None], 3, axis=3)
    is_test = np.arange(len(pixels)) % 5 == 4
    classes = [str(name) for name in digits.target_names]
    labels = digits.target.astype(np.int64)
    train, test = (ArrayImages(pixels[part], labels[part], classes) for part in (~is_test, is_test))
    return Source("digits", train, test)


def open_npy(data: str, path: Path) -> Source:
    """One array of images, which stays on disk and is mapped into memory."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"not a readable .npy of plain numbers: {error}") from error
    pixels, _ = _check("the array", pixels, None)
    return Source(data, ArrayImages(pixels, None, []))


def open_npz(data: str, path: Path) -> Source:
    """Arrays of images and labels, for one split or several."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a readable .npz of plain arrays: {error}") from error

    def split(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None] | None:
        images = next((k for name in names for p in IMAGE_KEYS if (k := p.format(name)) in arrays), None)
        if images is None:
            return None
        labels = next((k for name in names for p in LABEL_KEYS if (k := p.format(name)) in arrays), None)
        return _check(f"array {images!r}", arrays[images], arrays.get(labels or ""))

    train, test, val = (split(names) for names in SPLITS.values())
    if test is None:
        test, val = val, None
    if train is None:
        raise ValueError(
            "needs an array 'images', or 'train_images' and 'test_images' (and 'labels', 'train_labels', "
            f"'test_labels' to evaluate by); found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    known = [labels for part in (train, test, val) if part is not None and (labels := part[1]) is not None]
    classes = np.unique(np.concatenate(known)) if known else np.empty(0, int)
    names = [str(name) for name in classes]

    def images(part: tuple[np.ndarray, np.ndarray | None]) -> ArrayImages:
        pixels, labels = part
        return ArrayImages(pixels, None if labels is None else np.searchsorted(classes, labels), names)

    others: list[Any] = [None if part is None else images(part) for part in (test, val)]
    return Source(data, images(train), *others)


def _check(
    what: str, pixels: np.ndarray, labels: np.ndarray | None
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"] | None]:
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        shape = list(pixels.shape)
        raise ValueError(f"{what} must be bytes (uint8) [n, height, width, 1 or 3], but is {pixels.dtype} {shape}")
    if pixels.shape[3] == 1:  # a view of it: no copy is made
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    if labels is None:
        return pixels, None
    labels = labels.reshape(-1)
    if len(labels) != len(pixels) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what} has {len(pixels)} images, but {len(labels)} labels of type {labels.dtype}; "
            "want one whole number for each image"
        )
    return pixels, None if labels.min() < 0 else labels  # -1 is the usual mark of what has no label
