"""Opens Hugging Face data sets, on this machine or streamed, by the package ``datasets``."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infomax.data.decoding import Decoding, DivisorChooser, RefusedImageError, decode, open_regular
from infomax.data.images import Images
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLE_BUFFER, Stream, import_optional, split_image_count

TRAIN_NAMES, TEST_NAMES = ("train",), ("test", "val", "valid", "validation")
VAL_NAMES, UNLABELLED_NAMES = TEST_NAMES[1:], ("unlabeled", "unlabelled", "unsupervised")


@dataclass(eq=False)
class TableImages(Images):
    """The images of a Hugging Face table on this machine."""

    table: Any
    """A ``datasets.Dataset`` whose images are not decoded."""
    column: str
    """Name of the column of images."""
    labels: np.ndarray | None
    classes: list[str]
    decoding: Decoding = Decoding()

    def decoded_by(self, decoding: Decoding) -> "TableImages":
        return replace(self, decoding=decoding)

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        sample = np.linspace(0, len(self) - 1, min(len(self), 100)).astype(int)
        hashes = [hashlib.sha256(_content(self.table[int(row)][self.column])).digest() for row in sample]
        return hashlib.sha256(f"{len(self)}".encode() + b"".join(hashes)).hexdigest()[:12]

    def state(self, index: np.ndarray) -> str:
        digest = hashlib.sha256(self.decoding.identity)
        for row in index:
            digest.update(hashlib.sha256(_content(self.table[int(row)][self.column])).digest())
        return digest.hexdigest()

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        content = BytesIO(_content(self.table[index][self.column]))
        return decode(content, f"image {index}", choose_divisor, self.decoding)


@dataclass(frozen=True)
class TableStream(Stream):
    """A stream of the images of a Hugging Face table."""

    path: str
    """Name of the data set on the hub, or its folder."""
    table: Any
    """A ``datasets.IterableDataset`` whose images are not decoded."""
    column: str
    """Name of the column of images."""
    image_count: int
    """Number of images in an epoch."""
    decoding: Decoding = Decoding()

    def decoded_by(self, decoding: Decoding) -> "TableStream":
        return replace(self, decoding=decoding)

    def __len__(self) -> int:
        return self.image_count

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{os.path.basename(self.path)} {self.image_count}".encode()).hexdigest()[:12]

    def _read(self, seed: int | None, rank: int, world_size: int) -> Iterator[tuple[str, bytes]]:
        split = import_optional("datasets.distributed").split_dataset_by_node
        table = self.table if seed is None else self.table.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        for number, row in enumerate(split(table, rank, world_size) if world_size > 1 else table):
            image = row[self.column]
            yield (image or {}).get("path") or f"image {number} of rank {rank}", _content(image)


def _content(image: dict[str, Any] | None) -> bytes:
    """Returns the encoded image; no bytes if a row has none, or names a file that cannot be read."""
    if image is None or (image["bytes"] is None and image["path"] is None):
        return b""
    try:
        if image["bytes"] is not None:
            return image["bytes"]
        with open_regular(image["path"]) as stream:
            return stream.read()
    except (OSError, RefusedImageError):
        return b""


def open_hugging_face(data: str, name: str, *, stream: bool) -> Source:
    """Opens a Hugging Face data set.

    Args:
        data: The source's name.
        name: ``NAME`` or ``NAME:CONFIG`` of the hub; or a folder of data files, or one that ``save_to_disk`` wrote.
            ``#N`` at the end says that a stream has N images.
        stream: Whether to read the images one after another, instead of keeping the data set on this machine.

    Raises:
        ValueError: if the data set cannot be opened, has no column of images, or is a stream of unknown length.
    """
    hugging_face = import_optional("datasets")
    name, image_count = split_image_count(name)
    path, _, config = name.partition(":")
    if not path:
        raise ValueError("names no data set; want hf:NAME")
    saved = any((Path(path) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            splits = hugging_face.load_from_disk(path)
        else:
            splits = hugging_face.load_dataset(path, config or None, streaming=stream)
    except Exception as error:  # errors of many kinds, some of many lines
        raise ValueError(f"cannot be opened: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    splits = dict(splits) if isinstance(splits, dict) else {"train": splits}
    train = _find_split(splits, TRAIN_NAMES) or next(iter(splits))
    if stream:
        return _open_stream(data, path, splits, train, saved=saved, image_count=image_count)
    return _open_tables(data, splits, train)


def _find_split(splits: dict[str, Any], names: Sequence[str]) -> str | None:
    """Returns the first of the names that a split has."""
    return next((name for name in names if name in splits), None)


def _open_stream(
    data: str, path: str, splits: dict[str, Any], train: str, *, saved: bool, image_count: int | None
) -> Source:
    table = splits[train].to_iterable_dataset() if saved else splits[train]
    split_info = (table.info.splits or {}).get(train)
    stated_count = len(splits[train]) if saved else split_info.num_examples if split_info is not None else 0
    image_count = image_count or stated_count
    if not image_count:
        raise ValueError(f"its number of images is not known; give it at the end, as in {data}#50000")
    column, table, _ = _find_columns(table)
    return Source(data, TableStream(path, table, column, image_count))


def _open_tables(data: str, splits: dict[str, Any], train: str) -> Source:
    test = _find_split(splits, [name for name in TEST_NAMES if name != train])
    val = _find_split(splits, [name for name in VAL_NAMES if name != test])
    names = [train, test, val, _find_split(splits, UNLABELLED_NAMES)]
    columns = {name: _find_columns(splits[name]) for name in names if name is not None}
    labels = {name: _read_labels(table, label_column) for name, (_, table, label_column) in columns.items()}
    all_labels = [values for values, _ in labels.values() if values is not None]
    distinct = np.unique(np.concatenate(all_labels)) if all_labels else np.empty(0, int)

    def to_images(name: str | None) -> Any:
        if name is None:
            return None
        column, table, _ = columns[name]
        values, classes = labels[name]
        if values is not None and classes is None:  # numbered alike in all splits
            values, classes = np.searchsorted(distinct, values), [str(value) for value in distinct]
        return TableImages(table, column, values, classes or [])

    return Source(data, *map(to_images, names))


def _read_labels(table: Any, column: str | None) -> tuple[np.ndarray | None, list[str] | None]:
    """Returns the labels, or None if a row lacks one; and the classes' names, or None if they have none."""
    if column is None:
        return None, None
    values = np.asarray(table.with_format("numpy")[column][:])
    if values.dtype.kind not in "iu" or values.min(initial=0) < 0:
        return None, None
    return values.astype(np.int64), getattr(table.features[column], "names", None)


def _find_columns(table: Any) -> tuple[str, Any, str | None]:
    """Returns the column of images, the table with its images not decoded, and the column of labels, if any."""
    hugging_face = import_optional("datasets")
    features = table.features or {}
    column = next((name for name, kind in features.items() if isinstance(kind, hugging_face.Image)), None)
    if column is None:
        raise ValueError(f"has no column of images; found {', '.join(features) or 'no columns'}")
    label = next((name for name, kind in features.items() if isinstance(kind, hugging_face.ClassLabel)), None)
    if label is None:
        integers = {n for n, kind in features.items() if str(getattr(kind, "dtype", "")).startswith(("int", "uint"))}
        label = next((name for name in ("label", "labels", "class") if name in integers), None)
    return column, table.cast_column(column, hugging_face.Image(decode=False)), label
