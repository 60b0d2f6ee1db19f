"""Features that are computed once: kept on disk by what they were computed from."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from infomax.data.images import Images, Subset
from infomax.data.inference import BATCH
from infomax.data.views import Preprocessing
from infomax.distributed import largest, rank, world_size
from infomax.encoders import Encoder
from infomax.evaluation.features import encoded
from infomax.progress import progress
from infomax.storage import cache_folder, write_whole

CHUNK = 16 * BATCH  # images whose features are one file: what an interrupted process loses at most


def features_folder() -> Path:
    """Where features are kept: ``features`` in the cache folder. It may be removed at any time."""
    return cache_folder() / "features"


def cached_features(
    encoder: Encoder,
    identity: str,
    images: Images,
    how: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
    keep: bool = True,
    quiet: bool = True,
) -> Float[Tensor, "n d"]:
    """Features of all ``images``, in their order, on the CPU: from disk where they are there already.

    They are kept some thousand images a file, whose name is a hash of the encoder, the preprocessing, the precision and
    the images themselves (pixels; or names, sizes and times of change of files), so that what changed is computed anew
    and what was interrupted goes on. On several ranks each computes a share, none twice; the folder is then theirs
    together.

    Args:
        identity: Of the encoder's architecture and weights.
        dtype: float32, or float16 at half the memory.
        keep: Whether to keep them, and to use what was kept.
        quiet: No progress bar.

    Raises:
        ValueError: if an image cannot be read, if features are infinite or NaN, or if ranks do not share the folder.
    """
    key = hashlib.sha256(f"{identity} {how} {dtype}".encode()).hexdigest()[:16]
    folder = features_folder() / f"{identity}-{key}"
    if world_size() > 1 and not keep:
        raise ValueError("--no-cache: several ranks pass features to each other through the cache; leave it out")
    whole = _pieces(images.base, folder, images.index) if keep and isinstance(images, Subset) else []
    if whole and all(file.is_file() for file, _ in whole):  # of the whole data set, computed before
        return torch.cat([_load(file, images)[rows % CHUNK] for file, rows in whole])
    pieces = _pieces(images, folder, np.arange(len(images)))
    mine = [piece for piece in pieces if not (keep and piece[0].is_file())][rank() :: world_size()]
    if keep and mine:
        folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, Tensor] = {}
    with progress("features", sum(len(rows) for _, rows in mine), quiet=quiet) as bar:
        chunks = _chunks(encoder, images, [rows for _, rows in mine], how, device, workers, dtype, bar)
        for (file, _), chunk in zip(mine, chunks, strict=True):
            made[file] = chunk
            if keep:
                content = BytesIO()
                np.save(content, chunk.numpy())
                write_whole(file, content.getvalue())
    largest(0, torch.device(device))  # until all ranks have written theirs
    return torch.cat([made.pop(file) if file in made else _load(file, images) for file, _ in pieces])


def _pieces(images: Images, folder: Path, index: np.ndarray) -> list[tuple[Path, np.ndarray]]:
    """The files that hold the features of the images at ``index``, which rises, and which of these each holds."""
    pieces = []
    for start in range(0, len(images), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(images)))
        if len(wanted := index[(index >= start) & (index < start + CHUNK)]):
            pieces.append((folder / f"{images.state(rows)[:32]}.npy", wanted))
    return pieces


def _load(file: Path, images: Images) -> Tensor:
    try:
        return torch.from_numpy(np.load(file))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"features of {len(images)} images: {file} cannot be read ({error}); remove it to compute it anew, and "
            "where there are several ranks let XDG_CACHE_HOME name a folder that they share"
        ) from error


def _chunks(
    encoder: Encoder,
    images: Images,
    wanted: list[np.ndarray],
    how: Preprocessing,
    device: torch.device | str,
    workers: int | None,
    dtype: torch.dtype,
    bar: tqdm,
) -> Iterator[Float[Tensor, "n d"]]:
    """The features of the images at each of the wanted rows."""
    if not wanted:
        return
    index, done, ready = np.concatenate(wanted), 0, torch.empty(0)
    for part in encoded(encoder, images, index, how, device=device, workers=workers):
        half = part.to(dtype)
        if not half.isfinite().all():
            name = images.name(int(index[done + int((~half.isfinite().all(1)).nonzero()[0])]))
            limit = "; --feature-precision 32 may hold them" if part.isfinite().all() else ""
            raise ValueError(f"the encoder's features of image {name} are infinite or NaN{limit}")
        done += len(part)
        bar.update(len(part))
        ready = torch.cat([ready.to(dtype), half]) if len(ready) else half
        while wanted and len(ready) >= len(wanted[0]):
            yield ready[: len(wanted[0])]
            ready = ready[len(wanted.pop(0)) :]
