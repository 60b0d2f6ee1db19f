"""Measures the folders of caches, for no longer than a user waits."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from infomax.diagnosis.entries import Entry, Section, anonymous, describe_size

PATIENCE = 2.0
"""Seconds after which a folder's size is said as far as it was counted."""


class FolderSize(NamedTuple):
    """The size of a folder."""

    size: int
    """Bytes of the files in it, links not followed."""
    files: int
    is_whole: bool
    """Whether all files were counted."""


def describe_caches(folders: Mapping[str, Path]) -> Section:
    """Returns where caches are and how large."""
    return Section("caches", [_cache(name, folder) for name, folder in folders.items()])


def _cache(name: str, folder: Path) -> Entry:
    path = anonymous(folder)
    if not folder.is_dir():
        return Entry(name, f"{path}, not there yet", {"path": path, "bytes": 0, "files": 0, "complete": True})
    size = folder_size(folder)
    at_least = "" if size.is_whole else "at least "
    text = f"{path}, {at_least}{describe_size(size.size)} in {size.files:,} file{'s' * (size.files != 1)}"
    return Entry(name, text, {"path": path, "bytes": size.size, "files": size.files, "complete": size.is_whole})


def folder_size(folder: Path, *, patience: float = PATIENCE) -> FolderSize:
    """Returns the size of a folder; what cannot be read counts as nothing.

    Args:
        folder: The folder.
        patience: Seconds after which counting ends.
    """
    until, size, files, waiting = time.monotonic() + patience, 0, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
                        files += 1
        except OSError:
            pass
        if time.monotonic() > until:
            return FolderSize(size, files, not waiting)
    return FolderSize(size, files, True)
