"""Hashes image files by their names, sizes and content, in little time even if there are millions."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int

LARGE = 2**28  # bytes; of more than that, some images at equal distances are read instead of all
MAX_STATUSES = 50_000  # files whose sizes and times are all read; of more, those of SAMPLED_STATUSES
SAMPLED_STATUSES = 10_000
SAMPLED_CONTENTS = 200
SAMPLED_BYTES = LARGE // SAMPLED_CONTENTS  # of each sampled file, from its beginning
THREADS, CHUNK = 16, 500  # files are read by several threads, because a network disk answers slowly
Result = TypeVar("Result")


def hash_files(root: Path, names: Sequence[str], names_hash: str) -> tuple[str, str | None]:
    """Returns a short hash of files, and one of their times of change; all in one pass over the folder.

    The first changes if a file is renamed, added or removed, or if another one replaces it. All names count; the sizes
    of all files, or of 10,000 at equal distances if there are more than 50,000; and the bytes of all files if they take
    less than 256 MB together, otherwise the first 1.3 MB of 200 at equal distances. The folder's own name and the times
    of change do not count, so that a copy elsewhere has the same hash.

    Args:
        root: The folder that the names start from.
        names: Paths of the files, in their order.
        names_hash: A hash of the names, which takes long if they are a list of millions.

    Returns:
        The hash, and that of the times of change; instead of the latter None if all bytes are in the former.
    """
    digest = hashlib.sha256(names_hash.encode())
    statuses = _statuses(root, names)
    digest.update(statuses[:, 0].tobytes())
    is_whole = _reads_all(statuses, len(names))
    index = np.arange(len(names)) if is_whole else _sample(len(names), SAMPLED_CONTENTS)
    limit = LARGE if is_whole else SAMPLED_BYTES
    for content_hash in _map_in_threads(lambda i: _hash_content(os.path.join(root, names[i]), limit), index):
        digest.update(content_hash)
    times = None if is_whole else hashlib.sha256(statuses[:, 1].tobytes()).hexdigest()[:12]
    return digest.hexdigest()[:12], times


def _sample(count: int, size: int) -> Int[np.ndarray, " n"]:
    """Returns ``size`` indices at equal distances, or all if there are no more."""
    return np.arange(count) if count <= size else np.linspace(0, count - 1, size).astype(int)


def _statuses(root: Path, names: Sequence[str]) -> Int[np.ndarray, "n 2"]:
    """Returns the size and the time of change, in nanoseconds, of all files or of those that stand for them."""
    index = _sample(len(names), MAX_STATUSES if len(names) <= MAX_STATUSES else SAMPLED_STATUSES)
    rows = list(_map_in_threads(lambda i: _status(os.path.join(root, names[i])), index))
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _reads_all(statuses: Int[np.ndarray, "n 2"], count: int) -> bool:
    """Returns whether all files together, judged by those whose sizes are known, take less than :data:`LARGE`."""
    return float(statuses[:, 0].clip(0).sum()) * count < LARGE * max(1, len(statuses))


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # the error is raised when the image is opened
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _hash_content(path: str, limit: int) -> bytes:
    """Returns a hash of the first ``limit`` bytes of a file, or of nothing if it is no file or unreadable."""
    content = hashlib.sha256()
    try:
        # To open a pipe without O_NONBLOCK would wait for its writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = os.open(path, flags)
        try:
            status = os.fstat(file)
            wanted = min(limit, status.st_size) if stat.S_ISREG(status.st_mode) else 0
            while wanted and (part := os.read(file, wanted)):
                content.update(part)
                wanted -= len(part)
        finally:
            os.close(file)
    except OSError:
        return hashlib.sha256().digest()  # the error is raised when the image is opened
    return content.digest()


def _map_in_threads(function: Callable[[int], Result], index: Int[np.ndarray, " n"]) -> Iterable[Result]:
    """Yields the function's result for each index, in their order; some threads compute them."""
    chunks = np.array_split(index, max(1, -(-len(index) // CHUNK)))
    with ThreadPoolExecutor(THREADS) as threads:
        for results in threads.map(lambda chunk: [function(int(i)) for i in chunk], chunks):
            yield from results
