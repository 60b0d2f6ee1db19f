"""Checkpoints: written whole, verified when read, and the last two kept.

A file is named after its step and the SHA-256 of its content, ``step-00000300-5f0c1d2e.ckpt``, so that a torn or
damaged one is recognised whatever a clock or a file system says. Loading one never runs code from it.
"""

import hashlib
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from infomax.runtime.files import write_atomic

KEPT = 2
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{8})\.ckpt")


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write a state, whose ``step`` names it, and drop all but the last two.

    Raises:
        OSError: if it could not be written; the ones before are then still there.
    """
    content = to_bytes(state)
    file = folder / f"step-{state['step']:08d}-{hashlib.sha256(content).hexdigest()[:8]}.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".step-*.partial"):  # of a process that was killed while it wrote
        partial.unlink(missing_ok=True)
    write_atomic(file, content)
    for old in [old for old in found(folder) if old != file][KEPT - 1 :]:
        old.unlink(missing_ok=True)
    return file


def to_bytes(content: dict[str, Any]) -> bytes:
    """Tensors and plain values as :func:`load` reads them from a file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the latest step first; by their names alone."""
    named = [file for file in folder.glob("*.ckpt") if NAME.fullmatch(file.name)]
    return sorted(named, key=step_of, reverse=True)


def step_of(file: Path) -> int:
    """The step that a checkpoint's name tells."""
    match = NAME.fullmatch(file.name)
    return int(match[1]) if match is not None else 0


def load(file: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        ValueError: if the file is not what was written, or holds more than tensors and plain values.
    """
    content = file.read_bytes()
    match = NAME.fullmatch(file.name)
    if match is not None and hashlib.sha256(content).hexdigest()[:8] != match[2]:
        raise ValueError(f"{file} is torn or damaged: its content is not what its name says")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the refusal says anyway
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds at what is no checkpoint
        raise ValueError(f"{file} is not a checkpoint of tensors and plain values; nothing of it was run") from error


def newest(folder: Path) -> Path | None:
    """The latest checkpoint that can be read; a damaged one is named and set aside. None without any.

    Raises:
        ValueError: if there are checkpoints, and none can be read.
    """
    files = found(folder)
    for file in files:
        try:
            load(file)
        except (ValueError, OSError) as error:
            print(f"infomax: {error}; trying the one before", file=sys.stderr)
            file.rename(file.with_suffix(".damaged"))
        else:
            return file
    if files:
        raise ValueError(f"none of the {len(files)} checkpoints in {folder} can be read")
    return None
