"""Keeps what a long evaluation has computed in a folder, so that the process after a killed one repeats nothing."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from infomax.data.splits import LabelledImages
from infomax.runtime import checkpoints
from infomax.runtime.collectives import broadcast_from_rank0, rank
from infomax.runtime.files import PARTIAL, cache_folder, write_atomic
from infomax.runtime.identity import specification_hash
from infomax.runtime.json_lines import append_json_line, read_json_lines
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.locks import LOCK_FILE, FolderLock, LockedError
from infomax.runtime.text import note

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SPECIFICATION = "specification.json"
FINISHED = "finished.jsonl"
_locks: WeakValueDictionary[str, FolderLock] = WeakValueDictionary()


class ResumableWork:
    """A folder with the finished parts of an evaluation, a row each, and checkpoints of the part under way.

    On several ranks the folder is one that they share, and the first rank writes.

    Args:
        specification: A frozen dataclass of plain values that holds all that decides the results.
        folder: The folder, which need not exist; None keeps nothing. It is locked until the work is discarded or
            forgotten.
        without_if_locked: Whether nothing is kept, as a line says, if another process writes the folder.

    Raises:
        ValueError: if the folder was begun with another specification, or holds something else, or another process
            writes it.
    """

    def __init__(self, specification: "DataclassInstance", folder: Path | None, *, without_if_locked: bool = False):
        self.folder = folder
        self._lock: FolderLock | None = None
        if folder is not None:
            is_kept = broadcast_from_rank0(lambda: self._claim(folder, specification, without_if_locked))
            self.folder = folder if is_kept else None

    @classmethod
    def in_cache(cls, specification: "DataclassInstance") -> Self:
        """Returns the work in the cache folder that has this specification, whose hash names its folder."""
        folder = cache_folder() / "unfinished" / specification_hash(specification)
        try:
            return cls(specification, folder, without_if_locked=True)
        except OSError as error:
            note(f"unfinished work is not kept, because {folder} cannot be written ({error.strerror or error})")
            return cls(specification, None)

    def _claim(self, folder: Path, specification: "DataclassInstance", without_if_locked: bool) -> bool:
        """Locks the folder on the first rank; returns False if another process has it and this one does without."""
        is_begun = (folder / SPECIFICATION).is_file() or not folder.exists()
        if not is_begun and not (folder.is_dir() and all(_is_left_by_killed(file) for file in folder.iterdir())):
            raise ValueError(f"work: {folder} exists and is not a folder of unfinished work; name another")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = _lock_of_this_process(folder)
        except LockedError as error:
            if not without_if_locked:
                raise
            note(f"{error}: the same evaluation; this one keeps no unfinished work")
            return False
        _write_or_compare(folder, specification)
        return True

    @property
    def resume_hint(self) -> str | None:
        """The words that tell a user how to resume the work; None if nothing is kept."""
        return None if self.folder is None else "the same command goes on from there"

    def finished_row(self, name: str) -> dict[str, Any] | None:
        """Returns the row of a finished part, as :meth:`finish` was given it; None if the part is not finished."""
        if (folder := self.folder) is None:
            return None
        file = folder / FINISHED
        rows = broadcast_from_rank0(lambda: read_json_lines(file) if file.is_file() else [])
        row = next((row.get("row") for row in rows if row.get("name") == name), None)
        return None if row is None else parse_value(row, dict[str, Any], f"{file}: row")

    def finish(self, name: str, row: dict[str, Any]) -> None:
        """Keeps the row of a part, and removes its checkpoints.

        Raises:
            ValueError: if the name is no name of a folder, as a path: another folder would be removed.
        """
        if Path(name).name != name:
            raise ValueError(f"a part of the work must have the name of a folder, not {name!r}")
        if self.folder is not None and rank() == 0:
            try:
                append_json_line(self.folder / FINISHED, {"name": name, "row": row})
            except OSError as error:
                note(f"{self.folder / FINISHED} cannot be written ({error.strerror or error}): it lacks {name}")
                return
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keeps the state of a part, whose ``step`` numbers it; see :func:`infomax.runtime.checkpoints.save`."""
        if self.folder is not None and rank() == 0:
            checkpoints.save(self.folder / name, state)

    def newest_state(self, name: str) -> dict[str, Any] | None:
        """Returns the state of a part that was kept last, on the CPU; None if there is none."""
        if (folder := self.folder) is None:
            return None
        file = broadcast_from_rank0(lambda: checkpoints.newest_readable(folder / name, set_aside=True))
        return None if file is None else checkpoints.load(file)

    def discard(self) -> None:
        """Removes the folder, when its results are kept elsewhere."""
        if self.folder is not None and rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._lock is not None:
                self._lock.release()


def _lock_of_this_process(folder: Path) -> FolderLock:
    """Locks a folder, or returns the lock if this process has it, as for work that Ctrl-C stopped in a notebook."""
    lock = _locks.get(path := os.path.realpath(folder))
    if lock is None or not lock.is_held:
        lock = _locks[path] = FolderLock(folder)
    return lock


def _is_left_by_killed(file: Path) -> bool:
    """Returns whether a file is one that a process leaves if it is killed before it has written its specification."""
    return file.suffix == PARTIAL or file.name.startswith(LOCK_FILE)


def _write_or_compare(folder: Path, specification: "DataclassInstance") -> None:
    """Writes the specification into a new folder, or checks that of the folder that is there."""
    file, fields = folder / SPECIFICATION, json.loads(json.dumps(asdict(specification)))
    if not file.is_file():
        write_atomic(file, json.dumps(fields, indent=1).encode())
        return
    fields_there = parse_value(read_json(file), dict[str, Any], str(file))
    before, now = dict(_flatten(fields_there)), dict(_flatten(fields))
    differences = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise ValueError(f"work: {folder} was begun with other settings: {'; '.join(differences)}. Name another folder")


def _flatten(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the fields of nested dictionaries by names with dots."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def hash_labelled_images(images: LabelledImages) -> str:
    """Returns 16 hexadecimal digits that change with the images, their labels or their order."""
    digest = hashlib.sha256(images.images.state(images.index).encode())
    digest.update(images.index.tobytes() + images.labels.tobytes())
    return digest.hexdigest()[:16]
