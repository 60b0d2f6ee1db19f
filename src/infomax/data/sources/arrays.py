"""Opens images that are one array: scikit-learn's digits, .npz and .npy files."""

import gzip
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from infomax.data.images.arrays import ArrayImages
from infomax.data.sources.array_layouts import find_layout, layout_notes, to_images
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.label_values import LabelValues, read_labels
from infomax.data.sources.npy_headers import ArrayHeader, read_array, read_header, read_headers
from infomax.data.sources.split_names import ROLES, role_of
from infomax.data.splits import Source, listed, shown_name

# The words for images and for labels in the names of arrays, which stand before or after the name of a split, or alone:
# ours and MedMNIST's "train_images", Keras's "x_train", "trainX", "data" and "labels".
IMAGE_WORDS = ("images", "image", "imgs", "img", "data", "pixels", "x")
LABEL_WORDS = ("labels", "label", "targets", "target", "classes", "class", "y")
_SPLITS = "|".join(name for names in ROLES.values() for name in sorted(names, key=len, reverse=True))
_KEY = {
    kind: re.compile(f"(?P<before>{_SPLITS})?(?:{'|'.join(words)})(?P<after>{_SPLITS})?")
    for kind, words in (("images", IMAGE_WORDS), ("labels", LABEL_WORDS))
}


def open_digits() -> Source:
    """Opens scikit-learn's 1,797 handwritten digits of 8x8 pixels; every fifth image is for testing."""
    table = _read_digits()
    pixels = (table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    pixels = np.repeat(pixels[..., None], 3, axis=3)
    is_test = np.arange(len(pixels)) % 5 == 4
    labels, classes = table[:, -1].astype(np.int64), [str(digit) for digit in range(10)]
    train, test = (ArrayImages(pixels[rows], labels[rows], classes) for rows in (~is_test, is_test))
    return Source("digits", train, test)


def _read_digits() -> Int[np.ndarray, "n 65"]:
    """Reads scikit-learn's table of digits: in each row 64 numbers from 0 to 16, and the digit.

    Its package has them in a small file. To import it, for its function that reads the file, takes seconds.
    """
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        with suppress(OSError, ValueError, EOFError, zlib.error):
            text = gzip.decompress((Path(folder) / "datasets" / "data" / "digits.csv.gz").read_bytes())
            return np.array(text.replace(b"\n", b",").rstrip(b",").split(b","), np.int64).reshape(-1, 65)
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    digits: Any = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)


def open_npy(data: str, path: Path, layout: str | None = None) -> Source:
    """Opens an .npy file: one array of images, which stays on disk and is mapped into memory.

    Args:
        data: The source's name.
        path: The file, with numbers as :func:`~infomax.data.sources.array_layouts.find_layout` takes them.
        layout: The order of their axes, if the user says it.

    Raises:
        ValueError: if it is no such array.
    """
    with path.open("rb") as file:
        header = read_header(file, "the array", path.stat().st_size)
    layout = find_layout("the array", header.shape, header.dtype, layout)
    numbers = np.load(path, mmap_mode="r", allow_pickle=False)
    images = ArrayImages(to_images(numbers, layout), None, [])
    notes = tuple(layout_notes("the array", header.shape, layout))
    return Source(
        data, images, notes=notes, no_labels_reason="an .npy file holds images alone; an .npz file can hold labels too"
    )


def open_npz(data: str, path: Path, layout: str | None = None) -> Source:
    """Opens an .npz file: arrays of images, and perhaps of labels, for one split or several.

    Args:
        data: The source's name.
        path: The file. Its images are numbers as :func:`~infomax.data.sources.array_layouts.find_layout` takes them.
            Whole numbers and strings are labels, one for each image; other labels are none.
        layout: The order of the axes of the images, if the user says it.

    Raises:
        ValueError: if it has no array of images to train on, or one that is not as described.
    """
    try:
        with zipfile.ZipFile(path) as file:
            headers = read_headers(file)
            chosen, notes = _choose_arrays(headers)
            layouts = {}
            for key, _ in chosen.values():
                title, header = f"array {shown_name(key)}", headers[key]
                layouts[key] = find_layout(title, header.shape, header.dtype, layout)
                notes += layout_notes(title, header.shape, layouts[key])
            splits = {}
            for name, (key, label_key) in chosen.items():
                numbers = to_images(read_array(file, key), layouts[key])
                labels = _labels_of(file, label_key, headers, len(numbers))
                splits[name] = FoundSplit(ArrayImages(numbers, labels.labels, labels.classes), labels.no_labels_reason)
                notes += labels.notes
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"not a readable .npz of plain arrays: {error}") from error
    return assemble_source(data, splits, notes=notes)


def _labels_of(file: zipfile.ZipFile, label_key: str, headers: Mapping[str, ArrayHeader], images: int) -> LabelValues:
    """Returns the labels in the array ``label_key``, which is empty, a reason in words, or the array's name."""
    if label_key not in headers:
        return LabelValues(no_labels_reason=label_key or "has no array of labels")
    title = f"array {shown_name(label_key)}"
    if headers[label_key].dtype.hasobject:
        reason = f"has no labels: {title} holds pickled objects, which are not read, for they can run code"
        return LabelValues(no_labels_reason=f"{reason}; save it as strings or whole numbers")
    return read_labels(title, read_array(file, label_key), images)


def _choose_arrays(headers: Mapping[str, ArrayHeader]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Chooses the arrays of each split by their names.

    Returns:
        For each split, the one to train on first, the array of its images, and that of its labels or why there is none;
        and notes.

    Raises:
        ValueError: if no array, or several, can be the images to train on.
    """
    notes: list[str] = []
    images, labels = _by_split(headers, "images"), _by_split(headers, "labels")
    if not any(name == "" or role_of(name) == "train" for name in images):
        likely = [key for key, header in headers.items() if header.like_images]
        if len(likely) != 1 or images:
            arrays = listed([f"{key} ({header})" for key, header in headers.items()]) or "nothing"
            raise ValueError(
                "needs an array 'images', or 'train_images' and 'test_images' (and 'labels', 'train_labels', "
                f"'test_labels' to evaluate by); found {arrays}"
            )
        images = {"": likely}
        notes.append(f"array {shown_name(likely[0])} is taken for the images, the only one that can be")
    chosen = {}
    for name in sorted(images, key=lambda name: name != "" and role_of(name) != "train"):
        keys = [key for key in images[name] if headers[key].like_images] or images[name]
        if len(keys) > 1:
            raise ValueError(f"has several arrays that can be the images of one split: {listed(keys)}; keep one")
        label_keys = [*labels.get(name, []), *(labels.get("", []) if role_of(name) == "train" else [])]
        chosen[name] = keys[0], _choose_label_key(headers, keys[0], label_keys, alone=len(images) == 1, notes=notes)
    used = {key for pair in chosen.values() for key in pair}
    if unused := [key for key in headers if key not in used]:
        notes.append(f"left out: arrays {listed(unused)}")
    return chosen, notes


def _by_split(headers: Mapping[str, ArrayHeader], kind: str) -> dict[str, list[str]]:
    """Returns the arrays of a kind, by the name of their split; that is empty for ``images`` and ``labels``."""
    by_split: dict[str, list[str]] = {}
    for key in headers:
        match = _KEY[kind].fullmatch(re.sub(r"[-_. ]", "", key.lower()))
        if match and not (match["before"] and match["after"]):
            by_split.setdefault(match["before"] or match["after"] or "", []).append(key)
    to_train = [name for name in by_split if name == "" or role_of(name) == "train"]
    if kind == "images" and len(to_train) > 1:
        keys = listed([key for name in to_train for key in by_split[name]])
        raise ValueError(f"has several arrays that can be the images to train on: {keys}; keep one")
    return by_split


def _choose_label_key(
    headers: Mapping[str, ArrayHeader], image_key: str, label_keys: Sequence[str], *, alone: bool, notes: list[str]
) -> str:
    """Returns the array of the labels of some images, or why there is none.

    Args:
        headers: The headers of all arrays.
        image_key: The array of the images.
        label_keys: The arrays of labels by their names.
        alone: Whether the file has one split; then an array of another name may be taken.
        notes: Gets a line if it is.
    """
    if len(label_keys) == 1:
        return label_keys[0]
    if label_keys:
        return f"has several arrays of labels, {listed(label_keys)}; keep one"
    count = headers[image_key].shape[0]
    likely = [
        key
        for key, header in headers.items()
        if key != image_key and header.dtype.kind in "iubUS" and header.shape in ((count,), (count, 1))
    ]
    if alone and len(likely) == 1:
        notes.append(f"array {shown_name(likely[0])} is taken for the labels, the only one that can be")
        return likely[0]
    return f"has no array of labels; found {listed([key for key in headers if key != image_key]) or 'no other'}"
