"""Where images come from: the embedded digits, a folder of image files, or arrays in an .npz file."""

import hashlib
import os
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
TRAIN_NAMES, TEST_NAMES = ("train",), ("test", "val", "valid", "validation")
# Conventions for the arrays of one split: ours and MedMNIST's, Keras's, and the plain ones for a file with one split.
IMAGE_KEYS = ("{}_images", "x_{}", "{}_x", "images{}")
LABEL_KEYS = ("{}_labels", "y_{}", "{}_y", "{}_label", "labels{}")


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size, in memory."""

    pixels: UInt8[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, " n"] | None
    """Numbers from 0 that stand for ``classes``."""
    classes: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        """Of the images and their order: equal for equal data, and different for data that changed."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()[:12]

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@dataclass(frozen=True)
class FolderImages:
    """Image files below a folder; the names of its sub-folders are the classes."""

    root: Path
    files: list[str]
    labels: Int[np.ndarray, " n"] | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def fingerprint(self) -> str:
        """Of the files' names and their order."""
        return hashlib.sha256("\n".join(self.files).encode()).hexdigest()[:12]

    def open(self, index: int) -> Image.Image:
        """The decoded image in RGB, turned as its EXIF orientation says, on white where it is transparent.

        Raises:
            ValueError: naming the file, if it cannot be decoded.
        """
        path = self.root / self.files[index]
        try:
            with Image.open(path) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error


Images = ArrayImages | FolderImages


def readable(images: Images, start: int) -> tuple[int, Image.Image]:
    """The first image from ``start`` on that can be read, and its index, in at most 20 tries.

    Raises:
        ValueError: naming the image at ``start``, if none can.
    """
    failure = None
    for index in range(start, start + 20):
        try:
            return index % len(images), images.open(index % len(images))
        except ValueError as error:
            failure = failure or error
    raise failure or ValueError("no images")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which convert() would cut off at 255
        values = np.asarray(image, dtype=np.float64)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Source:
    """What ``--data`` named: images to train on, and images to judge by where the data set has them apart."""

    name: str
    train: Images
    test: Images | None


def locate(data: str) -> str:
    """``data`` as it can be opened from any folder: paths absolute, names as they are."""
    return data if data == "digits" else str(Path(data).expanduser().resolve())


def open_source(data: str) -> Source:
    """Open ``digits``, an .npz file, or a folder.

    A folder with the sub-folders train and test (or val) has two splits, as has a file with such arrays. Sub-folders
    below that are classes, whatever is nested in them. No labels are needed to train.

    Raises:
        ValueError: if there are no images, saying what was found instead.
    """
    if data == "digits":
        return _digits()
    path = Path(data).expanduser()
    if path.is_dir():
        return _folder(data, path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _arrays(data, path)
    if path.exists():
        raise ValueError(f"--data {data}: a file must be an .npz of arrays; for images, name their folder")
    raise ValueError(f"--data {data}: no such folder or file; it can be a folder of images, an .npz file, or 'digits'")


def _digits() -> Source:
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


def _folder(data: str, root: Path) -> Source:
    below = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    train_name = next((below[name] for name in TRAIN_NAMES if name in below), "")
    depth = 1 if train_name else 0
    files = _find(data, root, train_name)
    classes = _classes(files, depth)
    if {name.lower() for name in classes} <= {*TRAIN_NAMES, *TEST_NAMES}:  # splits without one to train on
        classes = []
    train = _folder_images(root, files, classes if len(classes) > 1 else [], depth)
    # The first whose folders are classes of the training images; where none are, the labels are kept elsewhere.
    for name in [below[name] for name in TEST_NAMES if name in below] if train_name and train.classes else []:
        files = _find(data, root, name)
        if (own := _classes(files, depth)) and set(own) <= set(classes):
            return Source(data, train, _folder_images(root, files, classes, depth))
    return Source(data, train, None)


def _find(data: str, root: Path, start: str) -> list[str]:
    """The image files below ``root/start``, relative to ``root``; links are followed, hidden files left out."""
    files, others, seen = [], Counter(), set()

    def unreadable(error: OSError) -> None:
        raise ValueError(f"--data {data}: {error}") from error

    for folder, folders, names in os.walk(root / start, followlinks=True, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        inside = Path(folder).relative_to(root)
        for name in sorted(names):
            suffix = Path(name).suffix
            if suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                files.append((inside / name).as_posix())
            else:
                others[suffix or "no suffix"] += 1
    if not files:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        want = " ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"--data {data}: no images in {root / start}; found {kinds}, want {want}")
    return files


def _classes(files: list[str], depth: int) -> list[str]:
    """The folders at this depth, where every image is in one of them."""
    if any(file.count("/") <= depth for file in files):
        return []
    return sorted({file.split("/")[depth] for file in files})


def _folder_images(root: Path, files: list[str], classes: list[str], depth: int) -> FolderImages:
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[file.split("/")[depth]] for file in files]) if classes else None
    return FolderImages(root, files, labels, classes)


def _arrays(data: str, path: Path) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"--data {data}: not a readable .npz of plain arrays: {error}") from error

    def split(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None] | None:
        images = next((k for name in names for p in IMAGE_KEYS if (k := p.format(name)) in arrays), None)
        if images is None:
            return None
        labels = next((k for name in names for p in LABEL_KEYS if (k := p.format(name)) in arrays), None)
        return _check_arrays(f"--data {data}: array {images!r}", arrays[images], arrays.get(labels or ""))

    train, test = split((*TRAIN_NAMES, "")), split(TEST_NAMES)
    if train is None:
        raise ValueError(
            f"--data {data}: needs an array 'images', or 'train_images' and 'test_images' (and 'labels', "
            f"'train_labels', 'test_labels' to evaluate by); found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    known = [labels for part in (train, test) if part is not None and (labels := part[1]) is not None]
    classes = np.unique(np.concatenate(known)) if known else np.empty(0, int)
    names = [str(name) for name in classes]

    def images(pixels: np.ndarray, labels: np.ndarray | None) -> ArrayImages:
        return ArrayImages(pixels, None if labels is None else np.searchsorted(classes, labels), names)

    return Source(data, images(*train), None if test is None else images(*test))


def _check_arrays(
    what: str, pixels: np.ndarray, labels: np.ndarray | None
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"] | None]:
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        shape = list(pixels.shape)
        raise ValueError(f"{what} must be bytes (uint8) [n, height, width, 1 or 3], but is {pixels.dtype} {shape}")
    if pixels.shape[3] == 1:
        pixels = np.repeat(pixels, 3, axis=3)
    if labels is None:
        return pixels, None
    labels = labels.reshape(-1)
    if len(labels) != len(pixels) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what} has {len(pixels)} images, but {len(labels)} labels of type {labels.dtype}; "
            "want one whole number for each image"
        )
    return pixels, None if labels.min() < 0 else labels  # -1 is the usual mark of what has no label


@dataclass(frozen=True)
class Labelled:
    """Some of the images of a data set, and their labels."""

    images: Images
    index: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]

    def evenly(self, most: int) -> "Labelled":
        """All of them, or ``most`` at equal distances."""
        if len(self.index) <= most:
            return self
        chosen = np.linspace(0, len(self.index) - 1, most).astype(int)
        return Labelled(self.images, self.index[chosen], self.labels[chosen])


def labelled_splits(source: Source) -> tuple[Labelled, Labelled] | None:
    """What to classify by, and what to classify; None where there are no labels, or too few to set any apart.

    Without a labelled test split of its own, every fifth image of each class is for testing.
    """
    train, test = source.train, source.test
    if train.labels is None:
        return None
    if test is not None and test.labels is not None:
        return (
            Labelled(train, np.arange(len(train)), train.labels),
            Labelled(test, np.arange(len(test)), test.labels),
        )
    is_test = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        is_test[np.flatnonzero(train.labels == label)[4::5]] = True
    if not is_test.any():
        return None
    first, second = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return Labelled(train, first, train.labels[first]), Labelled(train, second, train.labels[second])
