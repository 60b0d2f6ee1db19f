"""Hugging Face data sets, on this machine or streamed, through the package ``datasets``."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infomax.data.folders import TEST_NAMES, TRAIN_NAMES
from infomax.data.images import Images, Shrink, decode
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLED, Stream, package


@dataclass(eq=False)
class TableImages(Images):
    """A Hugging Face data set on this machine."""

    table: Any
    column: str
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        path = self.table[index][self.column]["path"]
        return f"{index}" if path is None else f"{index} ({os.path.basename(path)})"

    def fingerprint(self) -> str:
        some = np.linspace(0, len(self) - 1, min(len(self), 100)).astype(int)
        content = [hashlib.sha256(_content(self.table[int(i)][self.column])).digest() for i in some]
        return hashlib.sha256(f"{len(self)}".encode() + b"".join(content)).hexdigest()[:12]

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        return decode(BytesIO(_content(self.table[index][self.column])), f"image {index}", shrink)


@dataclass(frozen=True)
class TableStream(Stream):
    """A Hugging Face data set that is read as it comes."""

    data: str
    table: Any
    column: str
    length: int

    def __len__(self) -> int:
        return self.length

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.data} {self.length}".encode()).hexdigest()[:12]

    def _read(self, seed: int, rank: int, world: int) -> Iterator[tuple[str, bytes]]:
        split = package("datasets.distributed").split_dataset_by_node
        table = self.table.shuffle(seed=seed, buffer_size=SHUFFLED)
        for number, row in enumerate(split(table, rank, world) if world > 1 else table):
            image = row[self.column]
            yield image["path"] or f"image {number} of rank {rank}", _content(image)


def _content(image: dict[str, Any]) -> bytes:
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def open_hugging_face(data: str, name: str, *, stream: bool) -> Source:
    """``NAME`` or ``NAME:CONFIG`` of the hub, or a folder of data files or one that ``save_to_disk`` wrote.

    Raises:
        ValueError: if it is not there or has no column of images.
    """
    hugging_face = package("datasets")
    name, _, length = name.partition("#")
    path, _, config = name.partition(":")
    saved = any((Path(path) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            splits = hugging_face.load_from_disk(path)
        else:
            splits = hugging_face.load_dataset(path, config or None, streaming=stream)
    except Exception as error:  # of many kinds, and many lines
        raise ValueError(f"cannot be opened: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    splits = dict(splits) if isinstance(splits, dict) else {"train": splits}

    def find(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in splits), None)

    train = find(TRAIN_NAMES) or next(iter(splits))
    if stream:
        table = splits[train].to_iterable_dataset() if saved else splits[train]
        known = (table.info.splits or {}).get(train)
        size = int(length or (len(splits[train]) if saved else 0) or (known.num_examples if known is not None else 0))
        if not size:
            raise ValueError(f"its number of images is not known; give it at the end, as in {data}#50000")
        column, table, _ = _columns(table)
        return Source(data, TableStream(data, table, column, size))

    def images(split: str | None) -> TableImages | None:
        if split is None:
            return None
        column, table, label = _columns(splits[split])
        if label is None:
            return TableImages(table, column, None, [])
        names = getattr(table.features[label], "names", None)
        labels = np.asarray(table.with_format("numpy")[label][:])
        classes = names or [str(number) for number in np.unique(labels)]
        labels = labels if names else np.searchsorted(np.unique(labels), labels)
        return TableImages(table, column, None if labels.min(initial=0) < 0 else labels.astype(np.int64), classes)

    test = find([name for name in TEST_NAMES if name != train])
    val = find([name for name in TEST_NAMES[1:] if name != test])
    first = images(train)
    assert first is not None
    return Source(data, first, images(test), images(val), images(find(["unlabeled", "unlabelled", "unsupervised"])))


def _columns(table: Any) -> tuple[str, Any, str | None]:
    """The column of images, the table with them as bytes, and the column of labels."""
    hugging_face = package("datasets")
    features = table.features or {}
    column = next((name for name, kind in features.items() if isinstance(kind, hugging_face.Image)), None)
    if column is None:
        raise ValueError(f"has no column of images; found {', '.join(features) or 'no columns'}")
    label = next((name for name, kind in features.items() if isinstance(kind, hugging_face.ClassLabel)), None)
    if label is None:
        plain = {n for n, kind in features.items() if str(getattr(kind, "dtype", "")).startswith(("int", "uint"))}
        label = next((name for name in ("label", "labels", "class") if name in plain), None)
    return column, table.cast_column(column, hugging_face.Image(decode=False)), label
