"""Opens Hugging Face data sets, on this machine or streamed, by the package ``datasets``.

Nothing of a data set is run: since version 4 ``datasets`` refuses those with a script, and :func:`open_hugging_face`
refuses names of kinds of files, which it would look for in the working folder.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from infomax.data.decoding.decoder import decode, decode_pixels
from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser, open_regular
from infomax.data.decoding.options import Decoding
from infomax.data.fingerprints import LARGE, SAMPLED_BYTES, SAMPLED_CONTENTS, hash_files
from infomax.data.images.contract import Images
from infomax.data.images.packed_names import PackedNames
from infomax.data.number_files import file_kind, read_numbers
from infomax.data.numbers import NumberKind, Numbers
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.label_values import LabelValues, read_labels
from infomax.data.sources.split_names import IMAGE_COLUMNS, LABEL_COLUMNS, choose_column, choose_splits, role_of
from infomax.data.splits import Source, counted, listed, shown_name
from infomax.data.streams import SHUFFLE_BUFFER, Stream, import_optional, split_image_count
from infomax.runtime.hub import hub_or_cache

MAX_CLASS_NAME = 256  # characters; longer strings are captions, and no names of classes
DATA_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".tar", ".zip")


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
        return self.hashes()[0]

    def hashes(self) -> tuple[str, str | None]:
        sizes, files = self._sizes_and_files()
        times = None
        digest = hashlib.sha256(sizes.tobytes())
        if sizes.sum() < LARGE:
            for content, _ in self._encoded():
                digest.update(b"".join(content.drop_null().to_pylist()))
        else:
            for row in np.linspace(0, len(self) - 1, min(len(self), SAMPLED_CONTENTS)).astype(int):
                if sizes[row] > 0:
                    digest.update(_content(self.table[int(row)][self.column])[:SAMPLED_BYTES])
        if files:  # their folders do not count, so that a copy elsewhere has the same hash
            names_hash = PackedNames.pack(map(os.path.basename, files)).fingerprint()
            files_hash, times = hash_files(Path("/"), files, names_hash)
            digest.update(files_hash.encode())
        return digest.hexdigest()[:12], times

    def _sizes_and_files(self) -> tuple[Int[np.ndarray, " n"], list[str]]:
        """Returns the number of bytes of each row's image, -1 without any, and the files that other rows name."""
        compute = import_optional("pyarrow.compute")
        sizes, files = [np.empty(0, np.int64)], []
        for rows in self.table.select_columns([self.column]).with_format("arrow").iter(10_000):
            for images in rows.column(0).chunks:  # to combine them would read and copy all the images
                content = compute.struct_field(images, "bytes")
                paths = compute.struct_field(images, "path").filter(compute.is_null(content)).drop_null().to_pylist()
                files += [os.path.abspath(path) for path in paths if "\0" not in path]
                lengths = compute.binary_length(content).fill_null(-1).to_numpy(zero_copy_only=False)
                sizes.append(lengths.astype(np.int64))
        return np.concatenate(sizes), files

    def _encoded(self) -> Iterator[tuple[Any, Any]]:
        """Yields the bytes and the paths of some rows after another, as arrays of ``pyarrow``."""
        compute = import_optional("pyarrow.compute")
        for rows in self.table.select_columns([self.column]).with_format("arrow").iter(1000):
            images = rows.column(0).combine_chunks()
            yield compute.struct_field(images, "bytes"), compute.struct_field(images, "path")

    def state(self, index: np.ndarray) -> str:
        digest = hashlib.sha256(self.decoding.identity)
        for row in index:
            digest.update(hashlib.sha256(_content(self.table[int(row)][self.column])).digest())
        return digest.hexdigest()

    def kind(self, index: int) -> NumberKind:
        return file_kind(BytesIO(_content(self.table[index][self.column])), f"image {index}", self.decoding)

    def read(self, index: int) -> Numbers:
        return read_numbers(BytesIO(_content(self.table[index][self.column])), f"image {index}", self.decoding)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        content = BytesIO(_content(self.table[index][self.column]))
        return decode(content, f"image {index}", choose_divisor, self.decoding)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        content = BytesIO(_content(self.table[index][self.column]))
        return decode_pixels(content, f"image {index}", choose_divisor, self.decoding, buffer)


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
    except (OSError, ValueError):  # no file, not a regular one, or a path with a NUL
        return b""


class _Columns(NamedTuple):
    """The columns of a table that are used."""

    image: str
    """Name of the column of images."""
    table: Any
    """The table, with its images not decoded."""
    label: str | None
    """Name of the column of labels; None if there is none."""
    no_labels_reason: str
    """Why there is none, as words that follow the split's name."""
    note: str
    """Which columns are used and which are not, as words that follow the split's name."""


def open_hugging_face(data: str, name: str, *, stream: bool) -> Source:
    """Opens a Hugging Face data set.

    Args:
        data: The source's name.
        name: ``NAME`` or ``NAME:CONFIG`` of the hub; or a folder of data files, or one that ``save_to_disk`` wrote.
            ``#N`` at the end says that a stream has N images.
        stream: Whether to read the images one after another, instead of keeping the data set on this machine.

    Raises:
        ValueError: if the data set cannot be opened, its column of images or its splits are not clear, or it is a
            stream of unknown length.
    """
    with hub_or_cache(needed=not Path(name.partition("#")[0]).exists()):
        hugging_face = import_optional("datasets")
    name, image_count = split_image_count(name)
    path, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
    if not path:
        raise ValueError("names no data set; want hf:NAME")
    if path in import_optional("datasets.packaged_modules")._PACKAGED_DATASETS_MODULES:
        # it would read what lies in the working folder; the one called pandas, pickles, which can run code
        raise ValueError(f"{path} is a kind of files to the package datasets, and no data set; want hf:./{path}")
    saved = any((Path(path) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        with hub_or_cache(needed=not Path(path).exists()):
            if saved:
                splits = hugging_face.load_from_disk(path)
            else:
                splits = hugging_face.load_dataset(path, config or None, streaming=stream)
    except Exception as error:  # errors of many kinds, some of many lines
        raise ValueError(f"cannot be opened: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(splits, dict):
        splits = {str(splits.split or ""): splits}
    splits = {str(split): table for split, table in splits.items()}
    if not splits:
        raise ValueError("has no splits")
    if not saved and not config:
        _check_splits_of_folder(Path(path), list(splits))
    if stream:
        return _open_stream(data, path, splits, saved=saved, image_count=image_count)
    return _open_tables(data, splits)


def _check_splits_of_folder(folder: Path, splits: list[str]) -> None:
    """Raises ValueError if a folder has names of splits that ``datasets`` does not know, and so puts into another one.

    It takes ``Training`` and ``Testing`` with their capitals for parts of one split.
    """
    readme = folder / "README.md"  # one with data_files says what the splits are
    if not folder.is_dir() or (readme.is_file() and "data_files" in readme.read_text("utf-8", errors="replace")):
        return
    entries = [path for path in folder.iterdir() if path.is_dir() or path.suffix.lower() in DATA_SUFFIXES]
    names = {path.name: role for path in sorted(entries) if (role := role_of(path.stem.partition("-0")[0]))}
    merged = [name for name, role in names.items() if role not in set(map(role_of, splits))]
    if merged:
        raise ValueError(
            f"has {listed(merged)}, but the package datasets sees the splits {listed(splits)} alone; rename them in "
            f"small letters, as train and test, or leave out the prefix for a folder of images: --data {folder}"
        )


def _open_stream(data: str, path: str, splits: dict[str, Any], *, saved: bool, image_count: int | None) -> Source:
    choice = choose_splits(list(splits))
    table = splits[choice.train]
    if saved:  # a stream cannot have the format that a saved table says, and needs none
        table = table.with_format(None).to_iterable_dataset()
    split_info = (table.info.splits or {}).get(choice.train)
    stated_count = len(splits[choice.train]) if saved else split_info.num_examples if split_info is not None else 0
    notes = []
    if image_count and stated_count and image_count != stated_count:
        notes.append(f"an epoch is {image_count} images, as # says; the data set states {stated_count}")
    image_count = image_count or stated_count
    if not image_count:
        raise ValueError(f"its number of images is not known; give it at the end, as in {data}#50000")
    columns = _find_columns(table)
    if columns.note:
        notes.append(f"{shown_name(choice.train)}: {columns.note}" if choice.train else columns.note)
    notes.append("no labels of streams are used")
    if others := [split for split in splits if split != choice.train]:
        notes.append(f"left out: splits {listed(others)}; {shown_name(choice.train)} is trained on")
    images = TableStream(path, columns.table, columns.image, image_count)
    return Source(data, images, train_split=choice.train, notes=tuple(notes))


def _open_tables(data: str, splits: dict[str, Any]) -> Source:
    found_splits, notes, splits_by_line = {}, [], {}
    for name, table in splits.items():
        try:
            columns = _find_columns(table)
        except ValueError as error:
            if name == choose_splits(list(splits)).train or role_of(name) is not None:
                raise ValueError(f"split {shown_name(name)} {error}" if name else str(error)) from error
            notes.append(f"left out: {shown_name(name)}, which has no column of images")
            continue
        labels = _read_labels(columns)
        images = TableImages(columns.table, columns.image, labels.labels, labels.classes)
        found_splits[name] = FoundSplit(images, labels.no_labels_reason)
        for line in [*([columns.note] if columns.note else []), *labels.notes]:
            splits_by_line.setdefault(line, []).append(name)
    notes += [f"{listed(names)}: {line}" if names[0] else line for line, names in splits_by_line.items()]
    return assemble_source(data, found_splits, notes=notes)


def _read_labels(columns: _Columns) -> LabelValues:
    """Returns the labels of a table, or why there are none; a ``ClassLabel`` has the names of its classes."""
    if columns.label is None:
        return LabelValues(no_labels_reason=columns.no_labels_reason)
    pyarrow, compute = import_optional("pyarrow"), import_optional("pyarrow.compute")
    title, kind = f"column {shown_name(columns.label)}", columns.table.features[columns.label]
    values = columns.table.select_columns([columns.label]).with_format("arrow")[:].column(0)
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pyarrow.types.is_string_view(values.type):
        values = values.cast(pyarrow.large_string())
    if values.null_count:
        first = int(np.argmax(compute.is_null(values).to_numpy()))
        missing = counted(values.null_count)
        return LabelValues(no_labels_reason=f"has no labels: {title} lacks those of {missing}, as of image {first}")
    if pyarrow.types.is_nested(values.type) or pyarrow.types.is_binary(values.type):
        return LabelValues(no_labels_reason=f"has no labels: {title} holds {values.type}; one class an image is wanted")
    if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
        longest = compute.max(compute.utf8_length(values)).as_py() or 0
        if longest > MAX_CLASS_NAME:
            reason = f"has no labels: {title} holds texts of up to {longest} characters, which are no names of classes"
            return LabelValues(no_labels_reason=reason)
        return read_labels(title, np.array(values.to_pylist(), dtype=np.str_), len(columns.table))
    numbers = values.to_numpy()
    names = getattr(kind, "names", None)
    if names is None or (numbers < 0).any():
        return read_labels(title, numbers, len(columns.table))
    if numbers.max(initial=0) >= len(names):
        reason = f"has no labels: {title} has class {numbers.max()}, but there are names of {len(names)} classes"
        return LabelValues(no_labels_reason=reason)
    return LabelValues(numbers.astype(np.int64), list(names))


def _find_columns(table: Any) -> _Columns:
    """Finds the columns of images and of labels by their usual names, else by their kinds.

    Raises:
        ValueError: if there is no column of images, or several of which none has a usual name.
    """
    hugging_face = import_optional("datasets")
    features = table.features or {}
    images = [name for name, kind in features.items() if isinstance(kind, hugging_face.Image)]
    is_binary = not images
    if is_binary:  # images in their file formats, whose column does not say so
        binary = [name for name, kind in features.items() if "binary" in str(getattr(kind, "dtype", ""))]
        images = [name for name in binary if name.lower() in IMAGE_COLUMNS]
    if not images:
        raise ValueError(f"has no column of images; found {listed(list(features), limit=10) or 'no columns'}")
    try:
        image = choose_column(images, IMAGE_COLUMNS)
    except ValueError as error:
        raise ValueError(f"has several columns of images: {error}; rename or remove all but one") from error
    assert image is not None
    others = [name for name in features if name != image]
    named = [name for name in others if name.lower() in LABEL_COLUMNS]
    labels = named or [name for name in others if isinstance(features[name], hugging_face.ClassLabel)]
    label, reason = None, f"has no column of labels; found {listed(others, limit=10) or 'no other column'}"
    try:
        label = choose_column(labels, LABEL_COLUMNS)
    except ValueError as error:
        reason = f"has no labels: of its columns of classes, {error}"
    undecoded = table.with_format(None) if hasattr(table, "with_format") else table
    undecoded = undecoded.cast_column(image, hugging_face.Image(decode=False))
    notes = [f"column {shown_name(image)} holds bytes, which are read as image files"] if is_binary else []
    unused = [name for name in others if name != label]
    if unused or image.lower() not in IMAGE_COLUMNS or (label and label.lower() not in LABEL_COLUMNS):
        used = f"images are column {shown_name(image)}" + (f", labels {shown_name(label)}" if label else "")
        notes.append(f"{used}; left out: {listed(unused)}" if unused else used)
    return _Columns(image, undecoded, label, reason, "; ".join(notes))
