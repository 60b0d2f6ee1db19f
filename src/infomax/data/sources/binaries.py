"""Readers of the named data sets whose images lie in few large files: CIFAR and STL-10; see ``readers.py``."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images import ArrayImages, Images

_CALLS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": codecs.encode,
    # How NumPy rebuilds arrays of pickles' protocols 2 and 5, before and since NumPy 2.
    **{f"numpy.{core}.multiarray._reconstruct": np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": np.empty(0).__reduce_ex__(5)[0] for core in ("core", "_core")},
}


class _Restricted(pickle.Unpickler):
    """Builds arrays and what Python is made of, and calls nothing else that the file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _CALLS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return _CALLS[f"{module}.{name}"]


def _unpickle(path: Path, *keys: str) -> list[Any]:
    with path.open("rb") as file:
        try:
            entry = _Restricted(file, encoding="latin1").load()
            return [entry[key] for key in keys]
        except Exception as error:  # of any kind, where the file is cut off
            raise ValueError(f"{path} cannot be read as a pickle with {', '.join(keys)}: {error!r}") from error


def cifar10(root: Path) -> dict[str, Images]:
    """Five batches to train on, and one to test on."""
    train = [f"data_batch_{i}" for i in range(1, 6)]
    return _cifar(root / "cifar-10-batches-py", train, ["test_batch"], "batches.meta", "")


def cifar100(root: Path) -> dict[str, Images]:
    """The 100 fine classes."""
    return _cifar(root / "cifar-100-python", ["train"], ["test"], "meta", "fine_")


def _cifar(folder: Path, train: list[str], test: list[str], meta: str, prefix: str) -> dict[str, Images]:
    classes = [str(name) for name in _unpickle(folder / meta, f"{prefix}label_names")[0]]

    def split(batches: list[str]) -> ArrayImages:
        parts, labels = [], []
        for batch in batches:
            pixels, numbers = _unpickle(folder / batch, "data", f"{prefix}labels")
            if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(numbers), 3072):
                raise ValueError(f"{folder / batch} must have an array of bytes [{len(numbers)}, 3072]")
            parts.append(pixels)
            labels += list(numbers)
        whole = np.concatenate(parts).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return ArrayImages(np.ascontiguousarray(whole), np.asarray(labels, np.int64), classes)

    return {"train": split(train), "test": split(test)}


def stl10(root: Path) -> dict[str, Images]:
    """Plain bytes, which stay in the files until they are looked at."""
    folder = root / "stl10_binary"
    classes = (folder / "class_names.txt").read_text("utf-8").split()

    def split(name: str, *, labelled: bool = True) -> ArrayImages:
        path = folder / f"{name}_X.bin"
        size, each = path.stat().st_size, 3 * 96 * 96
        if size == 0 or size % each:
            raise ValueError(f"{path} has {size} bytes, want a multiple of {each}")
        # Each channel is stored column by column.
        pixels = np.memmap(path, np.uint8, mode="r").reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        labels = np.fromfile(folder / f"{name}_y.bin", np.uint8).astype(np.int64) - 1 if labelled else None
        return ArrayImages(pixels, labels, classes)

    return {"train": split("train"), "test": split("test"), "unlabelled": split("unlabeled", labelled=False)}
