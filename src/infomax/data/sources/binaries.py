"""Reads the named data sets whose images lie in a few large files: CIFAR-10, CIFAR-100 and STL-10.

See ``readers.py`` for the data sets of image files, and for the errors of all readers.
"""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images

# The functions that a pickle may call.
_ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": codecs.encode,
    # The functions by which NumPy rebuilds arrays from pickles of protocols 2 and 5; NumPy 2 renamed their modules.
    **{f"numpy.{core}.multiarray._reconstruct": np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": np.empty(0).__reduce_ex__(5)[0] for core in ("core", "_core")},
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds arrays and Python's own types, and refuses to call any other function."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return _ALLOWED[f"{module}.{name}"]


def _unpickle(path: Path, *keys: str) -> list[Any]:
    """Returns the values at these keys of a pickled dictionary."""
    with path.open("rb") as file:
        try:
            entry = _ArrayUnpickler(file, encoding="latin1").load()
            return [entry[key] for key in keys]
        except Exception as error:  # a damaged file raises errors of any kind
            raise ValueError(f"{path} cannot be read as a pickle with {', '.join(keys)}: {error!r}") from error


def cifar10(root: Path) -> dict[str, Images]:
    """Reads CIFAR-10: five files to train on, and one to test on."""
    train = [f"data_batch_{i}" for i in range(1, 6)]
    return _cifar(root / "cifar-10-batches-py", train, ["test_batch"], "batches.meta", "")


def cifar100(root: Path) -> dict[str, Images]:
    """Reads CIFAR-100, with its 100 fine classes."""
    return _cifar(root / "cifar-100-python", ["train"], ["test"], "meta", "fine_")


def _cifar(folder: Path, train: list[str], test: list[str], meta: str, prefix: str) -> dict[str, Images]:
    """Reads a CIFAR data set.

    Args:
        folder: Folder of the files.
        train: Names of the files to train on.
        test: Names of the files to test on.
        meta: Name of the file with the classes' names.
        prefix: What the keys of labels and names begin with.
    """
    classes = [str(name) for name in _unpickle(folder / meta, f"{prefix}label_names")[0]]

    def read_split(files: list[str]) -> ArrayImages:
        all_pixels, all_labels = [], []
        for file in files:
            pixels, labels = _unpickle(folder / file, "data", f"{prefix}labels")
            if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
                raise ValueError(f"{folder / file} must have an array of bytes [{len(labels)}, 3072]")
            all_pixels.append(pixels)
            all_labels += list(labels)
        images = np.concatenate(all_pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return ArrayImages(np.ascontiguousarray(images), np.asarray(all_labels, np.int64), classes)

    return {"train": read_split(train), "test": read_split(test)}


def stl10(root: Path) -> dict[str, Images]:
    """Reads STL-10, whose pixels stay in their files and are mapped into memory."""
    folder = root / "stl10_binary"
    classes = (folder / "class_names.txt").read_text("utf-8").split()

    def read_split(name: str, *, labelled: bool = True) -> ArrayImages:
        path = folder / f"{name}_X.bin"
        size, image_size = path.stat().st_size, 3 * 96 * 96
        if size == 0 or size % image_size:
            raise ValueError(f"{path} has {size} bytes, want a multiple of {image_size}")
        # Each channel is stored column by column.
        pixels = np.memmap(path, np.uint8, mode="r").reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        labels = np.fromfile(folder / f"{name}_y.bin", np.uint8).astype(np.int64) - 1 if labelled else None
        return ArrayImages(pixels, labels, classes)

    return {
        "train": read_split("train"),
        "test": read_split("test"),
        "unlabelled": read_split("unlabeled", labelled=False),
    }
