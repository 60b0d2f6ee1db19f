"""Files of features: Parquet, .npz and .npy, with the images' names and labels and what the features came from.

A file is written in parts, so that features of any number of images need not fit into memory.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from infomax.data.augmentation.views import Preprocessing
from infomax.data.splits import listed
from infomax.runtime.extras import how_to_install
from infomax.runtime.files import open_atomic, write_atomic
from infomax.runtime.json_values import parse_json, parse_value
from infomax.runtime.near_names import missing_path, nearest, nearest_path
from infomax.runtime.output_files import check_output_file

KEY = "infomax"
"""Name under which a file holds what its features came from: a key of Parquet's metadata, an array of an .npz."""
SUFFIXES = (".parquet", ".npz", ".npy")
DTYPES = {"32": np.dtype(np.float32), "16": np.dtype(np.float16)}
"""Types of features, by their precision in bits."""


@dataclass(frozen=True, kw_only=True)
class FeatureOrigin:
    """A frozen dataclass that says what the features in a file came from."""

    images: int
    """Number of images, which is that of rows."""
    dimension: int
    """Number of features of an image."""
    precision: str
    """Bits of each value: ``32`` or ``16``."""
    encoder: str
    """Name by which the encoder was opened; a path is absolute."""
    encoder_hash: str
    """Hash of the encoder's architecture and weights."""
    preprocessing: Preprocessing
    """Says how an image became the encoder's input."""
    data: dict[str, str | float]
    """Where the images are: the parts of a :class:`~infomax.data.sources.location.DataLocation`."""
    version: str
    """Version of infomax that wrote the file."""
    training: str = ""
    """How far the encoder's training was, as ``unfinished: 58 of 4000 steps``; empty if at its end, or not known."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why each image that has no features cannot be read, by its name."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns lines for those who use the features: on an encoder that is unfinished, and images left out."""
        training = f"The encoder that the features are of is {self.training}." if self.training else ""
        count, names = len(self.left_out), listed(list(self.left_out))
        words = "1 image has no features, for it" if count == 1 else f"{count:,} images have no features, for they"
        left_out = f"{words} could not be read: {names}." if count else ""
        return tuple(filter(None, (training, left_out)))


@dataclass(frozen=True)
class FeatureTable:
    """A frozen dataclass that holds the features of some images, and the images' names and labels."""

    features: Float[np.ndarray, "n d"]
    """A row for each image, in float32 or float16."""
    names: Sequence[str]
    """A name for each image: its path below the folder of the data, or its number."""
    labels: Sequence[str] | None
    """The name of each image's class; of an image with several, these with ``|`` between. None without labels."""
    origin: FeatureOrigin
    """What the features came from."""

    def label(self, row: int) -> str:
        """Returns the name of an image's class; empty without labels."""
        return "" if self.labels is None else self.labels[row]


def open_table(features: str | PathLike[str] | FeatureTable) -> FeatureTable:
    """Returns features that are given as a file's name or as the table itself.

    Raises:
        ValueError: as :func:`read_features`.
    """
    return features if isinstance(features, FeatureTable) else read_features(Path(features))


def row_of_query(query: str, names: Sequence[str]) -> int | None:
    """Returns the row of the image that a query names; None if its features are to be computed, or are in a file.

    Args:
        query: What the user named: one of the images, a file, a folder, or other data.
        names: The names of the images whose features are searched.

    Raises:
        ValueError: if it is written as a path, and is neither there nor one of the names.
    """
    if os.path.exists(query):
        return None
    if query in names:
        return names.index(query)
    if os.sep not in query and "." not in query:
        return None  # as digits, which --data takes
    near = nearest(query, names) or nearest_path(query)
    hint = f"; did you mean {near}?" if near is not None else ""
    raise ValueError(f"--query {query} is no file here, and no name of an image among the features{hint}")


def check_feature_file(file: Path, *, overwrite: bool = False) -> None:
    """Checks, before anything is computed, that features can be written to a file.

    Raises:
        ValueError: if its suffix is not one of :data:`SUFFIXES`, it exists, its folder does not, or pyarrow is missing.
    """
    check_output_file(file, SUFFIXES, overwrite=overwrite)
    if file.suffix == ".parquet":
        import_pyarrow(file)


def write_features(
    file: Path,
    parts: Iterable[np.ndarray],
    names: Sequence[str],
    labels: Sequence[str] | None,
    origin: Callable[[int], FeatureOrigin],
) -> FeatureOrigin:
    """Writes a file of features, part by part; the file is there when all of it is written, and not before.

    Args:
        file: The file, whose suffix is one of :data:`SUFFIXES`.
        parts: The features of the images in their order, some rows at a time.
        names: A name for each image.
        labels: The name of each image's class; None without labels.
        origin: Returns what the features came from, of their number for an image.

    Returns:
        What the file says that its features came from.

    Raises:
        OSError: if it could not be written; nothing is then left of it.
    """
    remaining = iter(parts)
    first = next(remaining)
    described = origin(first.shape[1])
    content = _Content(_with_first(first, remaining), names, labels, described)
    with open_atomic(file) as out:
        _WRITERS[file.suffix](out, content)
        if file.suffix == ".npy":  # before the features, which are then never there without it
            table = {"names": list(names), "labels": None if labels is None else list(labels)}
            write_atomic(_beside(file), json.dumps({KEY: asdict(described), **table}).encode())
    return described


@dataclass(frozen=True)
class _Content:
    """A frozen dataclass that holds what is to be written."""

    parts: Iterator[np.ndarray]
    names: Sequence[str]
    labels: Sequence[str] | None
    origin: FeatureOrigin

    @property
    def dtype(self) -> np.dtype:
        return DTYPES[self.origin.precision]

    @property
    def shape(self) -> tuple[int, int]:
        return self.origin.images, self.origin.dimension


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _write_parquet(out: BinaryIO, content: _Content) -> None:
    """Writes a row group for each part: ``name``, ``label`` if there are labels, and ``features``, a list of fixed
    length."""
    pa, pq = import_pyarrow(), import_module("pyarrow.parquet")
    row = pa.list_(pa.from_numpy_dtype(content.dtype), content.origin.dimension)
    columns = [("name", pa.string()), *([("label", pa.string())] if content.labels is not None else [])]
    schema = pa.schema([*columns, ("features", row)], metadata={KEY: json.dumps(asdict(content.origin))})
    start = 0
    # Features hardly get smaller; a dictionary of them would only cost time.
    with pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=["label"]) as writer:
        for part in content.parts:
            stop = start + len(part)
            texts = [content.names[start:stop], *([content.labels[start:stop]] if content.labels is not None else [])]
            values = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(part)), type=row)
            writer.write_table(pa.table([*(pa.array(list(text), pa.string()) for text in texts), values], schema))
            start = stop


def _write_npz(out: BinaryIO, content: _Content) -> None:
    """Writes the arrays ``features``, ``names``, ``labels`` if there are any, and what they came from."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            _write_rows(file, content)
        texts = {"names": content.names, "labels": content.labels, KEY: [json.dumps(asdict(content.origin))]}
        for name, values in texts.items():
            if values is not None:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.array(list(values), np.str_), allow_pickle=False)


def _write_rows(out: Any, content: _Content) -> None:
    """Writes all features as one array of numpy's format."""
    header = {"descr": content.dtype.str, "fortran_order": False, "shape": content.shape}
    np.lib.format.write_array_header_2_0(out, header)
    for part in content.parts:
        out.write(np.ascontiguousarray(part, content.dtype).data)


_WRITERS: dict[str, Callable[[BinaryIO, _Content], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".npy": _write_rows,
}


def read_features(file: Path) -> FeatureTable:
    """Reads a file that :func:`write_features` wrote. Features in an .npy stay on disk until they are used.

    Raises:
        ValueError: naming the file, if it is not there, is damaged, or has no features by ``infomax embed``.
    """
    if not file.is_file():
        reason = "is a folder" if file.is_dir() else missing_path(file)
        raise ValueError(f"there are no features: {file}: {reason}; infomax embed writes them")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} must be a file of features by infomax embed, which ends in {', '.join(SUFFIXES)}")
    try:
        features, names, labels, origin = _READERS[file.suffix](file)
        described = parse_value(parse_json(origin, KEY), FeatureOrigin, KEY)
    except _NoFeaturesError as error:
        raise ValueError(f"{file} {error}; infomax embed writes such a file") from error
    except Exception as error:  # of many kinds, by each library for its format
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} cannot be read as features by infomax embed: {reason}") from error
    shape = (described.images, described.dimension)
    texts = [names, *([] if labels is None else [labels])]
    if features.shape != shape or any(len(text) != len(features) for text in texts):
        raise ValueError(f"{file} is damaged: {features.shape} features and {len(names)} names, said to be {shape}")
    return FeatureTable(features, names, labels, described)


def is_feature_file(file: Path) -> bool:
    """Returns whether a file is one that ``infomax embed`` wrote, not an array of images that has the same suffix."""
    if file.suffix == ".npz":
        try:
            with zipfile.ZipFile(file) as archive:
                return f"{KEY}.npy" in archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False
    return file.suffix == ".parquet" or (file.suffix == ".npy" and _beside(file).is_file())


class _NoFeaturesError(ValueError):
    """Says what a file of another origin lacks."""


def _read_parquet(file: Path) -> tuple[np.ndarray, list[str], list[str] | None, bytes]:
    pq = import_module(f"{import_pyarrow(file).__name__}.parquet")
    with pq.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        for column in ("name", "features"):
            if column not in schema.names:
                raise _NoFeaturesError(f"has no column {column}, but {', '.join(schema.names) or 'none'}")
        origin = (schema.metadata or {}).get(KEY.encode())
        if origin is None:
            raise _NoFeaturesError("does not say which encoder its features are of")
        table = opened.read([name for name in ("name", "label", "features") if name in schema.names])
    rows = table["features"].combine_chunks()
    features = rows.values.to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    labels = table["label"].to_pylist() if "label" in table.column_names else None
    return features, table["name"].to_pylist(), labels, origin


def _read_npz(file: Path) -> tuple[np.ndarray, list[str], list[str] | None, bytes]:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        for name in ("features", "names", KEY):
            if name not in arrays.files:
                raise _NoFeaturesError(f"has no array {name}, but {', '.join(arrays.files) or 'none'}")
        labels = arrays["labels"].tolist() if "labels" in arrays.files else None
        return arrays["features"], arrays["names"].tolist(), labels, str(arrays[KEY][0]).encode()


def _read_npy(file: Path) -> tuple[np.ndarray, list[str], list[str] | None, bytes]:
    if not _beside(file).is_file():
        raise _NoFeaturesError(f"has no {_beside(file).name} beside it, which says what its rows are")
    table = parse_value(parse_json(_beside(file).read_bytes(), _beside(file).name), dict[str, Any], _beside(file).name)
    names = parse_value(table.get("names"), list[str], "names")
    labels = parse_value(table.get("labels"), list[str] | None, "labels")
    return np.load(file, mmap_mode="r", allow_pickle=False), names, labels, json.dumps(table.get(KEY)).encode()


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, list[str], list[str] | None, bytes]]] = {
    ".parquet": _read_parquet,
    ".npz": _read_npz,
    ".npy": _read_npy,
}


def _beside(file: Path) -> Path:
    """Returns the file beside an .npy that names its rows."""
    return file.with_name(f"{file.name}.json")


def import_pyarrow(file: Path | None = None, *, instead: str = ".npz") -> Any:
    """Returns the package pyarrow.

    Args:
        file: The file that needs it, for the message.
        instead: Ending of a file that needs it not, for the message.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return import_module("pyarrow")
    except ImportError as error:
        where = "Parquet" if file is None else str(file)
        raise ValueError(f"{where} needs the package pyarrow: {how_to_install('parquet')}; or use {instead}") from error
