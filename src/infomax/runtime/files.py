"""Writes files atomically, and names the cache folder."""

import os
import secrets
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from infomax.runtime.locks import is_file_at, try_exclusive, unlock

PARTIAL = ".partial"  # suffix of a file that is being written
MOST_KEPT = 4096  # files of which what was read is kept, by each function that keeps it
OLD = 86400.0  # seconds; nobody writes a file of this age any more


def cache_folder() -> Path:
    """Returns the folder for files that can be computed again: ``infomax`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home if os.path.isabs(home) else tempfile.gettempdir()) / "infomax"


def state_of(file: Path) -> tuple[int, int, int]:
    """Returns what changes if a file is replaced or appended to, by which what was read of it can be kept."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def write_atomic(file: Path, content: bytes) -> None:
    """Writes a file so that at any time it has either its old content or all of the new one.

    Raises:
        OSError: if it could not be written; ``file`` is then as it was.
    """
    with open_atomic(file) as out:
        out.write(content)


@contextmanager
def open_atomic(file: Path) -> Generator[BinaryIO]:
    """Opens a file to be written in parts; at any time it has either its old content or all of the new one.

    The content is first written to a hidden file beside it, forced to the disk, and then moved when the block ends
    without an error. The hidden file's name is used once, by no other process, thread or machine, and the file is
    locked until it is moved: :func:`remove_leftovers` so tells it from one whose process was killed.

    Raises:
        OSError: if it could not be written; ``file`` is then as it was.
    """
    out = _open_partial(file)
    partial = Path(out.name)
    try:
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
            partial.replace(file)  # while it is open, and so locked
            unlock(out.fileno())  # a process that was forked meanwhile would keep the lock
        folder = os.open(file.parent, os.O_RDONLY)  # the move is stored in the folder, which has to reach the disk too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _open_partial(file: Path) -> BinaryIO:
    """Opens and locks a new hidden file beside ``file``."""
    while True:
        partial = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(6)}{PARTIAL}")
        out = partial.open("xb")
        # A process that removes leftovers may have locked it, and perhaps removed it, before it was locked here.
        if try_exclusive(out.fileno()) is not False and is_file_at(out.fileno(), partial):
            return out
        out.close()
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Deletes the hidden files that killed processes have left in a folder while they wrote.

    A file that a living process writes is locked, and stays. On a file system without locks, files stay for a day.
    """
    for partial in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError), partial.open("r+b") as file:
            is_unlocked = try_exclusive(file.fileno())
            if is_unlocked is None:
                is_unlocked = time.time() - partial.stat().st_mtime > OLD
            if is_unlocked:
                partial.unlink(missing_ok=True)
