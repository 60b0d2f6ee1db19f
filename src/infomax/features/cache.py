"""Features that are computed once: kept on disk by what they were computed from."""

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.images import Images, Subset
from infomax.data.loading.evaluation import BATCH_SIZE
from infomax.runtime.collectives import barrier, broadcast_from_rank0, rank, world_size
from infomax.runtime.files import cache_folder, write_atomic
from infomax.runtime.progress import progress_bar

CHUNK = 16 * BATCH_SIZE  # images whose features are one file: what an interrupted process loses at most
Encode = Callable[[Images, np.ndarray], Iterator[Tensor]]
"""Features of the images at some index, some at a time, on the CPU."""


def features_folder() -> Path:
    """Where features are kept: ``features`` in the cache folder. It may be removed at any time."""
    return cache_folder() / "features"


def cached_features(
    encode: Encode,
    identity: str,
    images: Images,
    *,
    dtype: torch.dtype = torch.float32,
    keep: bool = True,
    quiet: bool = True,
) -> Float[Tensor, "n d"]:
    """Features of all ``images``, in their order, on the CPU: from disk where they are there already.

    They are kept some thousand images a file, whose name is a hash of what made them, the precision and the images
    themselves (pixels; or names, sizes and times of change of files), so that what changed is computed anew and what
    was interrupted goes on. On several ranks each computes a share, none twice; the folder is then theirs together.

    Args:
        encode: Computes what is missing.
        identity: Of all that decides what ``encode`` makes of an image.
        dtype: float32, or float16 at half the memory.
        keep: Whether to keep them, and to use what was kept.
        quiet: No progress bar.

    Raises:
        ValueError: if an image cannot be read, if features are infinite or NaN, or if ranks do not share the folder.
    """
    if world_size() > 1 and not keep:
        raise ValueError("--no-cache: several ranks pass features to each other through the cache; leave it out")
    folder = features_folder() / hashlib.sha256(f"{identity} {dtype}".encode()).hexdigest()[:16]
    whole = _pieces(images.base, folder, images.index) if keep and isinstance(images, Subset) else []
    if whole and broadcast_from_rank0(
        lambda: all(file.is_file() for file, _ in whole)
    ):  # of the whole data set, before
        return _together([(file, rows % CHUNK) for file, rows in whole], {}, images)
    pieces = _pieces(images, folder, np.arange(len(images)))
    # What is missing is seen by one rank, before any of them writes.
    missing = broadcast_from_rank0(lambda: [i for i, (file, _) in enumerate(pieces) if not (keep and file.is_file())])
    mine = [pieces[i] for i in missing[rank() :: world_size()]]
    if keep and mine:
        folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, Tensor] = {}
    with progress_bar("features", sum(len(rows) for _, rows in mine), quiet=quiet or rank() > 0) as bar:
        chunks = _chunks(encode, images, [rows for _, rows in mine], dtype, bar.update)
        for (file, _), chunk in zip(mine, chunks, strict=True):
            if not keep:
                made[file] = chunk
                continue
            content = BytesIO()
            np.save(content, chunk.numpy())
            write_atomic(file, content.getvalue())
    barrier()  # and have written theirs
    return _together([(file, slice(None)) for file, _ in pieces], made, images)


def _pieces(images: Images, folder: Path, index: np.ndarray) -> list[tuple[Path, np.ndarray]]:
    """The files that hold the features of the images at ``index``, which rises, and which of these each holds."""
    pieces = []
    for start in range(0, len(images), CHUNK):
        first, last = np.searchsorted(index, (start, start + CHUNK))
        if first < last:
            state = images.state(np.arange(start, min(start + CHUNK, len(images))))
            pieces.append((folder / f"{state[:32]}.npy", index[first:last]))
    return pieces


def _together(
    pieces: list[tuple[Path, np.ndarray | slice]], made: dict[Path, Tensor], images: Images
) -> Float[Tensor, "n d"]:
    """Some rows of each piece, in one tensor that is filled piece by piece."""
    out, done = torch.empty(0), 0
    for file, rows in pieces:
        part = made.pop(file)[rows] if file in made else torch.from_numpy(_load(file, images)[rows].copy())
        if not done:
            out = torch.empty(len(images), part.shape[1], dtype=part.dtype)
        out[done : done + len(part)] = part
        done += len(part)
    return out


def _load(file: Path, images: Images) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"features of {len(images)} images: {file} cannot be read ({error}); remove it to compute it anew, and "
            "where there are several ranks let XDG_CACHE_HOME name a folder that they share"
        ) from error


def _chunks(
    encode: Encode, images: Images, wanted: list[np.ndarray], dtype: torch.dtype, count: Callable[[int], object]
) -> Iterator[Float[Tensor, "n d"]]:
    """The features of the images at each of the wanted rows.

    Args:
        count: Is told how many are done.
    """
    if not wanted:
        return
    index, done, ready = np.concatenate(wanted), 0, torch.empty(0)
    for part in encode(images, index):
        half = part.to(dtype)
        if not half.isfinite().all():
            name = images.name(int(index[done + int((~half.isfinite().all(1)).nonzero()[0])]))
            limit = "; --feature-precision 32 may hold them" if part.isfinite().all() else ""
            raise ValueError(f"the encoder's features of image {name} are infinite or NaN{limit}")
        done += len(part)
        count(len(part))
        ready = torch.cat([ready.to(dtype), half]) if len(ready) else half
        while wanted and len(ready) >= len(wanted[0]):
            yield ready[: len(wanted[0])]
            ready = ready[len(wanted.pop(0)) :]
