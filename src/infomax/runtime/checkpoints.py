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

from infomax.runtime.files import remove_leftovers, write_atomic
from infomax.runtime.text import note

KEPT = 2
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


def load(file: Path) -> dict[str, Any]:
    """Reads the state in a checkpoint, with all tensors on the CPU.

    Raises:
        ValueError: if the content does not fit the hash in the file's name, or if it holds anything but tensors and
            plain values.
    """
    content = file.read_bytes()
    match = NAME.fullmatch(file.name)
    if match is not None and hashlib.sha256(content).hexdigest()[:8] != match[2]:
        raise ValueError(f"{file} is torn or damaged: its content is not what its name says")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of the same that the error below says
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors if a file is not a checkpoint
        raise ValueError(f"{file} is not a checkpoint of tensors and plain values; nothing of it was run") from error


def newest_readable(folder: Path) -> Path | None:
    """Returns the latest checkpoint that can be read, or None if the folder has no checkpoint.

    A checkpoint that cannot be read is reported on the standard error and renamed to ``.damaged``.

    Raises:
        ValueError: if there are checkpoints, but none can be read.
    """
    files = list_checkpoints(folder)
    for file in files:
        try:
            load(file)
        except (ValueError, OSError) as error:
            note(f"{error}; trying the one before")
            file.rename(file.with_suffix(".damaged"))
        else:
            return file
    if files:
        raise ValueError(f"none of the {len(files)} checkpoints in {folder} can be read")
    return None
