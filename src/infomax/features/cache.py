"""Caches features on disk, in files named by a hash of the encoder, the preprocessing and the images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.contract import Images
from infomax.data.images.selection import Subset
from infomax.data.loading.evaluation import BATCH_SIZE
from infomax.runtime.collectives import barrier, broadcast_from_rank0, rank, world_size
from infomax.runtime.files import cache_folder, remove_leftovers, write_atomic
from infomax.runtime.identity import specification_hash
from infomax.runtime.progress import ProgressBar
from infomax.runtime.text import note

CHUNK = 16 * BATCH_SIZE  # images whose features are one file, the most that an interrupted process has to compute again
Encode = Callable[[Images, np.ndarray], Iterator[Tensor]]
"""A function that yields the features of the images at an index, batch by batch, on the CPU."""
DTYPES = {"32": torch.float32, "16": torch.float16}
"""Types of features, by their precision in bits."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpecification:
    """A frozen dataclass that holds all that decides the features of an image, beside the image itself."""

    encoder: str
    """Hash of the encoder's architecture and weights; empty for raw pixels."""
    preprocessing: Preprocessing
    """Says how an image becomes the encoder's input."""
    precision: str = "32"
    """Bits of a number: ``32``, or ``16`` for files and memory of half the size."""
    rounding: str = "torchvision"
    """Rule by which the sides of a resized image and the place of its centre are rounded."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the features."""
        return DTYPES[self.precision]


def features_folder() -> Path:
    """Returns the folder of cached features: ``features`` in the cache folder. It may be deleted at any time."""
    return cache_folder() / "features"


def cached_features(
    encode: Encode,
    specification: FeatureSpecification,
    images: Images,
    *,
    keep: bool = True,
    task: str = "features",
    quiet: bool = True,
) -> Float[Tensor, "n d"]:
    """Returns the features of all ``images``, in their order, on the CPU; those in the cache are not computed again.

    A file holds the features of some thousand images. Its folder is named by a hash of the specification, and the file
    itself by a hash of these images (their pixels; or their names, sizes and times of change). So features of changed
    images are computed anew, and an interrupted computation goes on. On several ranks each computes a share of the
    missing files, and all read them from the folder, which they must share. A damaged file is computed anew. If the
    folder cannot be written, a line says so, and one process goes on without it.

    Args:
        encode: Computes what is missing.
        specification: Says which features ``encode`` computes.
        images: The images.
        keep: Whether to read from the cache and write to it.
        task: The words in front of the progress bar, as ``train images, trained encoder``.
        quiet: Whether to show no progress bar.

    Raises:
        ValueError: if an image cannot be read, if features are infinite or NaN, or if ranks do not share the folder.
        OSError: if the folder cannot be written, and several ranks need it.
    """
    parts = cached_feature_parts(encode, specification, images, keep=keep, task=task, quiet=quiet)
    out, done = torch.empty(0), 0
    for part in parts:
        if not done:  # the number of features is first known here
            out = torch.empty(len(images), part.shape[1], dtype=part.dtype)
        out[done : done + len(part)] = part
        done += len(part)
    return out


def cached_feature_parts(
    encode: Encode,
    specification: FeatureSpecification,
    images: Images,
    *,
    keep: bool = True,
    task: str = "features",
    quiet: bool = True,
) -> Iterator[Float[Tensor, "m d"]]:
    """Yields the features of all ``images`` in their order, at most :data:`CHUNK` images at a time.

    So the features of any number of images can be written elsewhere without all of them in memory. With a cache, all of
    them are in it before the first part is yielded; without one, each part is yielded as soon as it is computed.

    The arguments and the errors are those of :func:`cached_features`.
    """
    if world_size() > 1 and not keep:
        raise ValueError("--no-cache: several ranks pass features to each other through the cache; leave it out")
    folder = features_folder() / specification_hash(specification)
    if keep and isinstance(images, Subset):  # the features of the data set that it is a part of may be there
        base_chunks = _chunks(images.base, folder, images.index)
        dtype = specification.dtype
        if base_chunks and broadcast_from_rank0(lambda: all(_is_readable(chunk, dtype) for chunk in base_chunks)):
            yield from (_load(chunk.file, images)[chunk.index % CHUNK] for chunk in base_chunks)
            return
    chunks = _chunks(images, folder, np.arange(len(images)))
    if not keep:
        with ProgressBar(task, len(images), quiet=quiet) as bar:
            index = [chunk.index for chunk in chunks]
            yield from _encode_chunks(encode, images, index, specification.dtype, bar.update)
        return
    computed = _compute_missing(encode, specification, images, chunks, task=task, quiet=quiet)
    for chunk in chunks:
        yield computed.pop(chunk.file) if chunk.file in computed else _load(chunk.file, images)


def _compute_missing(
    encode: Encode,
    specification: FeatureSpecification,
    images: Images,
    chunks: "list[_Chunk]",
    *,
    task: str,
    quiet: bool,
) -> dict[Path, Tensor]:
    """Computes the files of features that are not there, and returns those features that could not be written."""
    # One rank lists the missing files for all, before any rank writes one.
    missing = broadcast_from_rank0(
        lambda: [i for i, chunk in enumerate(chunks) if not _is_readable(chunk, specification.dtype)]
    )
    own_chunks = [chunks[i] for i in missing[rank() :: world_size()]]
    is_writable = not own_chunks or _make_folder(features_folder() / specification_hash(specification))
    computed: dict[Path, Tensor] = {}
    total = sum(len(chunk.index) for chunk in own_chunks)
    with ProgressBar(task, total, quiet=quiet or rank() > 0) as bar:
        chunk_features = _encode_chunks(
            encode, images, [chunk.index for chunk in own_chunks], specification.dtype, bar.update
        )
        for chunk, features in zip(own_chunks, chunk_features, strict=True):
            is_writable = is_writable and _write(chunk.file, features)
            if not is_writable:
                computed[chunk.file] = features
    barrier()  # the other ranks have now written their files
    return computed


class _Chunk(NamedTuple):
    """A file of features."""

    file: Path
    index: np.ndarray
    """Numbers of the images that are wanted of it, in rising order."""
    rows: int
    """Number of images whose features it holds."""


def _make_folder(folder: Path) -> bool:
    """Makes the folder of cached features; returns whether it can be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    except OSError as error:
        return _go_on_without(folder, error)
    return True


def _write(file: Path, features: Tensor) -> bool:
    """Writes features to a file; returns whether the folder can be used further."""
    content = BytesIO()
    np.save(content, features.numpy())
    try:
        write_atomic(file, content.getvalue())
    except OSError as error:
        return _go_on_without(file.parent, error)
    return True


def _go_on_without(folder: Path, error: OSError) -> bool:
    """Says that features are not kept, and returns False; raises the error if other ranks wait for the features."""
    if world_size() > 1:
        raise error
    note(f"features are not kept, because {folder} cannot be written ({error.strerror or error})")
    return False


def _is_readable(chunk: _Chunk, dtype: torch.dtype) -> bool:
    """Returns whether a file of features is there and is what it should be; says so if it is damaged."""
    try:
        if not chunk.file.is_file():
            return False
    except OSError:  # a folder that may not be looked into
        return False
    try:
        features = np.load(chunk.file, mmap_mode="r", allow_pickle=False)
        wanted = torch.empty(0, dtype=dtype).numpy().dtype
        if features.ndim == 2 and len(features) == chunk.rows and features.dtype == wanted:
            return True
        reason = f"it holds {features.dtype} of shape {features.shape}"
    except Exception as error:  # a damaged header makes numpy raise errors of many kinds
        reason = " ".join(str(error).split())[:200]
    note(f"{chunk.file} is damaged, and its features are computed anew ({reason})")
    return False


def _chunks(images: Images, folder: Path, index: np.ndarray) -> list[_Chunk]:
    """Returns the files that hold the features of the images at ``index``, each with the part of the index it holds.

    Args:
        images: All images; file i holds those from i * CHUNK on.
        folder: The folder of the files.
        index: Numbers of images, in rising order.
    """
    chunks = []
    for start in range(0, len(images), CHUNK):
        first, last = np.searchsorted(index, (start, start + CHUNK))
        if first < last:
            numbers = np.arange(start, min(start + CHUNK, len(images)))
            chunks.append(_Chunk(folder / f"{images.state(numbers)[:32]}.npy", index[first:last], len(numbers)))
    return chunks


def _load(file: Path, images: Images) -> Tensor:
    """Returns the features of a file; their memory is a copy of its own."""
    try:
        return torch.from_numpy(np.load(file))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"features of {len(images)} images: {file} cannot be read ({error}); remove it to compute it anew, and "
            "if there are several ranks let XDG_CACHE_HOME name a folder that they share"
        ) from error


def _encode_chunks(
    encode: Encode,
    images: Images,
    chunk_indices: list[np.ndarray],
    dtype: torch.dtype,
    report_done: Callable[[int], object],
) -> Iterator[Float[Tensor, "n d"]]:
    """Yields the features of the images of each chunk. All chunks are encoded in one go, so that batches stay full.

    Args:
        encode: Computes the features.
        images: All images.
        chunk_indices: Numbers of the images of each chunk.
        dtype: Type of the result.
        report_done: Is called with the number of images of each batch after it is encoded.

    Raises:
        ValueError: naming the first image whose features are infinite or NaN in ``dtype``.
    """
    if not chunk_indices:
        return
    index, done, ready = np.concatenate(chunk_indices), 0, torch.empty(0)
    for batch in encode(images, index):
        converted = batch.to(dtype)
        if not converted.isfinite().all():
            name = images.name(int(index[done + int((~converted.isfinite().all(1)).nonzero()[0])]))
            cure = "; --feature-precision 32 may hold them" if batch.isfinite().all() else ""
            raise ValueError(f"the encoder's features of image {name} are infinite or NaN{cure}")
        done += len(batch)
        report_done(len(batch))
        ready = torch.cat([ready.to(dtype), converted]) if len(ready) else converted
        while chunk_indices and len(ready) >= len(chunk_indices[0]):
            yield ready[: len(chunk_indices[0])]
            ready = ready[len(chunk_indices.pop(0)) :]
