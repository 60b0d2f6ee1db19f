"""Checkpoints: written atomically, verified when they are read, and the last two kept.

A file is named after its step and the SHA-256 of its content, as ``step-00000300-5f0c1d2e.ckpt``, so that a truncated
or damaged one is recognised without trusting a clock or a file system. Loading a checkpoint never runs code from it.
"""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from infomax.runtime.failures import MachineError, describe_machine_failure
from infomax.runtime.files import remove_leftovers, write_atomic
from infomax.runtime.text import note

KEPT = 2
DAMAGED = ".damaged"  # suffix of a checkpoint that was set aside
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{8})\.ckpt")


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Writes a state as a checkpoint, and deletes all checkpoints of the folder but the last two.

    Args:
        folder: It is made if it does not exist.
        state: Tensors and plain values; ``state["step"]``, an integer, goes into the file's name.

    Returns:
        The file.

    Raises:
        OSError: if the file could not be written; the earlier checkpoints are then still there.
    """
    content = to_bytes(state)
    file = folder / f"step-{state['step']:08d}-{hashlib.sha256(content).hexdigest()[:8]}.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_atomic(file, content)
    for old in [old for old in list_checkpoints(folder) if old != file][KEPT - 1 :]:
        old.unlink(missing_ok=True)
    return file


def to_bytes(state: dict[str, Any]) -> bytes:
    """Serializes tensors and plain values to the bytes of a file that :func:`load` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def list_checkpoints(folder: Path) -> list[Path]:
    """Lists the checkpoints in a folder, the latest step first, by their names; their content is not read."""
    files = [file for file in folder.glob("*.ckpt") if NAME.fullmatch(file.name)]
    return sorted(files, key=step_of, reverse=True)


def step_of(file: Path) -> int:
    """Returns the step in a checkpoint's name; 0 if the name is not a checkpoint's."""
    match = NAME.fullmatch(file.name)
    return int(match[1]) if match is not None else 0


class DamagedError(ValueError):
    """An error that says that a file is no checkpoint, or no longer the one that was written."""


def load(file: Path) -> dict[str, Any]:
    """Reads the state in a checkpoint, with all tensors on the CPU.

    Raises:
        DamagedError: if the content does not fit the hash in the file's name, or if it holds anything but tensors and
            plain values.
        OSError: if the disk cannot be read.
        MachineError: if there is too little memory.
    """
    match = NAME.fullmatch(file.name)
    try:
        content = file.read_bytes()
        if match is not None and hashlib.sha256(content).hexdigest()[:8] != match[2]:
            raise DamagedError(f"{file} is torn or damaged: its content is not what its name says")
        with warnings.catch_warnings(action="ignore"):  # torch warns of the same that the error below says
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, DamagedError):
        raise
    except Exception as error:  # torch raises many kinds of errors if a file is not a checkpoint
        if (failure := describe_machine_failure(error, "free some")) is not None:
            raise MachineError(f"{file} could not be read: {failure}") from error
        raise DamagedError(f"{file} is not a checkpoint of tensors and plain values; nothing of it was run") from error


def newest_readable(folder: Path, *, set_aside: bool = False) -> Path | None:
    """Returns the latest checkpoint that can be read, or None if the folder never had one.

    A damaged checkpoint is reported on the standard error, and the one before it is tried. If memory or the disk fails
    while a checkpoint is read, that says nothing about the checkpoint: then everything stays as it is.

    Args:
        folder: The folder of checkpoints, which need not exist.
        set_aside: Whether a damaged checkpoint is renamed to ``.damaged``; only the process that writes the folder may.

    Raises:
        ValueError: if there are checkpoints, but all are damaged.
        OSError: if the disk cannot be read.
        MachineError: if there is too little memory.
    """
    for file in list_checkpoints(folder):
        try:
            load(file)
        except DamagedError as error:
            note(f"{error}; trying the one before")
            if set_aside:
                file.rename(file.with_suffix(DAMAGED))
        except FileNotFoundError:
            if set_aside:
                raise
            return newest_readable(folder)  # a run that is being trained has written newer ones meanwhile
        else:
            return file
    if damaged := [*list_checkpoints(folder), *folder.glob(f"*{DAMAGED}")]:
        raise ValueError(f"none of the {len(damaged)} checkpoints in {folder} can be read; remove them to start anew")
    return None
