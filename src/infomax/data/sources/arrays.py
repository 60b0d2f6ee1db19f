"""Opens images that are one array: scikit-learn's digits, .npz and .npy files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from infomax.data.images import ArrayImages
from infomax.data.splits import Source

# Names of the arrays of a split, with {} for the split: ours and MedMNIST's, Keras's, and others that are common. In a
# file with one split, the split's name is empty: "images" and "labels".
IMAGE_KEYS = ("{}_images", "x_{}", "{}_x", "images{}")
LABEL_KEYS = ("{}_labels", "y_{}", "{}_y", "{}_label", "labels{}")
SPLIT_NAMES = {"train": ("train", ""), "test": ("test",), "val": ("val", "valid", "validation")}


def open_digits() -> Source:
    """Opens scikit-learn's 1,797 handwritten digits of 8x8 pixels; every fifth image is for testing."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.repeat(pixels[..., None], 3, axis=3)
    is_test = np.arange(len(pixels)) % 5 == 4
    classes = [str(name) for name in digits.target_names]
    labels = digits.target.astype(np.int64)
    train, test = (ArrayImages(pixels[rows], labels[rows], classes) for rows in (~is_test, is_test))
    return Source("digits", train, test)


def open_npy(data: str, path: Path) -> Source:
    """Opens an .npy file: one array of images, which stays on disk and is mapped into memory.

    Args:
        data: The source's name.
        path: The file, with bytes [n, height, width] or [n, height, width, 1 or 3].

    Raises:
        ValueError: if it is no such array.
    """
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"not a readable .npy of plain numbers: {error}") from error
    pixels, _ = _check_arrays("the array", pixels, None)
    return Source(data, ArrayImages(pixels, None, []))


def open_npz(data: str, path: Path) -> Source:
    """Opens an .npz file: arrays of images, and perhaps of labels, for one split or several.

    Args:
        data: The source's name.
        path: The file. Its images are bytes [n, height, width] or [n, height, width, 1 or 3], its labels whole numbers;
            a negative one says that its split has no labels.

    Raises:
        ValueError: if it has no array of images to train on, or one that is not as described.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a readable .npz of plain arrays: {error}") from error

    def find_split(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None] | None:
        images = next((k for name in names for p in IMAGE_KEYS if (k := p.format(name)) in arrays), None)
        if images is None:
            return None
        labels = next((k for name in names for p in LABEL_KEYS if (k := p.format(name)) in arrays), None)
        return _check_arrays(f"array {images!r}", arrays[images], arrays.get(labels or ""))

    train, test, val = (find_split(names) for names in SPLIT_NAMES.values())
    if test is None:
        test, val = val, None
    if train is None:
        raise ValueError(
            "needs an array 'images', or 'train_images' and 'test_images' (and 'labels', 'train_labels', "
            f"'test_labels' to evaluate by); found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    splits = [split for split in (train, test, val) if split is not None]
    all_labels = [labels for _, labels in splits if labels is not None]
    classes = np.unique(np.concatenate(all_labels)) if all_labels else np.empty(0, int)
    class_names = [str(name) for name in classes]

    def to_images(split: tuple[np.ndarray, np.ndarray | None]) -> ArrayImages:
        pixels, labels = split
        return ArrayImages(pixels, None if labels is None else np.searchsorted(classes, labels), class_names)

    other_splits: list[Any] = [None if split is None else to_images(split) for split in (test, val)]
    return Source(data, to_images(train), *other_splits)


def _check_arrays(
    title: str, pixels: np.ndarray, labels: np.ndarray | None
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"] | None]:
    """Returns the pixels with three channels, and the labels [n], or None if a label is negative.

    Args:
        title: What an error calls the array of images.
        pixels: Bytes [n, h, w] or [n, h, w, 1 or 3].
        labels: Whole numbers, one for each image.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        shape = list(pixels.shape)
        raise ValueError(f"{title} must be bytes (uint8) [n, height, width, 1 or 3], but is {pixels.dtype} {shape}")
    if pixels.shape[3] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))  # refers to the same memory: nothing is copied
    if labels is None:
        return pixels, None
    labels = labels.reshape(-1)
    if len(labels) != len(pixels) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{title} has {len(pixels)} images, but {len(labels)} labels of type {labels.dtype}; "
            "want one whole number for each image"
        )
    return pixels, None if labels.min() < 0 else labels  # -1 usually marks images without a label
