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

from infomax.data.images import Images, Shrink, decode
from infomax.data.sources.folders import TEST_NAMES, TRAIN_NAMES
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLED, Stream, counted, package


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
        return str(index)

    def fingerprint(self) -> str:
        some = np.linspace(0, len(self) - 1, min(len(self), 100)).astype(int)
        content = [hashlib.sha256(_content(self.table[int(i)][self.column])).digest() for i in some]
        return hashlib.sha256(f"{len(self)}".encode() + b"".join(content)).hexdigest()[:12]

    def state(self, index: np.ndarray) -> str:
        known = hashlib.sha256()
        for row in index:
            known.update(hashlib.sha256(_content(self.table[int(row)][self.column])).digest())
        return known.hexdigest()

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        return decode(BytesIO(_content(self.table[index][self.column])), f"image {index}", shrink)


@dataclass(frozen=True)
class TableStream(Stream):
    """A Hugging Face data set that is read as it comes."""

    path: str
    table: Any
    column: str
    length: int

    def __len__(self) -> int:
        return self.length

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{os.path.basename(self.path)} {self.length}".encode()).hexdigest()[:12]

    def _read(self, seed: int | None, rank: int, world: int) -> Iterator[tuple[str, bytes]]:
        split = package("datasets.distributed").split_dataset_by_node
        table = self.table if seed is None else self.table.shuffle(seed=seed, buffer_size=SHUFFLED)
        for number, row in enumerate(split(table, rank, world) if world > 1 else table):
            image = row[self.column]
            yield (image or {}).get("path") or f"image {number} of rank {rank}", _content(image)


def _content(image: dict[str, Any] | None) -> bytes:
    """The encoded image; nothing where a row has none, or names a file that cannot be read."""
    if image is None or (image["bytes"] is None and image["path"] is None):
        return b""
    try:
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    except OSError:
        return b""


def open_hugging_face(data: str, name: str, *, stream: bool) -> Source:
    """``NAME`` or ``NAME:CONFIG`` of the hub, or a folder of data files or one that ``save_to_disk`` wrote.

    Raises:
        ValueError: if it is not there or has no column of images.
    """
    hugging_face = package("datasets")
    name, length = counted(name)
    path, _, config = name.partition(":")
    if not path:
        raise ValueError("names no data set; want hf:NAME")
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
        size = length or (len(splits[train]) if saved else known.num_examples if known is not None else 0)
        if not size:
            raise ValueError(f"its number of images is not known; give it at the end, as in {data}#50000")
        column, table, _ = _columns(table)
        return Source(data, TableStream(path, table, column, size))
    test = find([name for name in TEST_NAMES if name != train])
    val = find([name for name in TEST_NAMES[1:] if name != test])
    parts = [train, test, val, find(["unlabeled", "unlabelled", "unsupervised"])]
    columns = {part: _columns(splits[part]) for part in parts if part is not None}
    labels = {part: _labels(table, label) for part, (_, table, label) in columns.items()}
    known = [numbers for numbers, _ in labels.values() if numbers is not None]
    values = np.unique(np.concatenate(known)) if known else np.empty(0, int)  # numbered alike in all splits

    def images(part: str | None) -> Any:
        if part is None:
            return None
        column, table, _ = columns[part]
        numbers, names = labels[part]
        if numbers is not None and names is None:
            numbers, names = np.searchsorted(values, numbers), [str(value) for value in values]
        return TableImages(table, column, numbers, names or [])

    return Source(data, *map(images, parts))


def _labels(table: Any, label: str | None) -> tuple[np.ndarray | None, list[str] | None]:
    """The labels, if every row has one, and the names of the classes, if they have any."""
    if label is None:
        return None, None
    numbers = np.asarray(table.with_format("numpy")[label][:])
    if numbers.dtype.kind not in "iu" or numbers.min(initial=0) < 0:
        return None, None
    return numbers.astype(np.int64), getattr(table.features[label], "names", None)


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
