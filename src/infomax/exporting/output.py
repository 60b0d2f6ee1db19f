"""Checks where an export may be written, and moves one that is a file to its place with its model card."""

import os
from pathlib import Path

CARD = "README.md"
DESCRIPTION = "infomax.json"
"""The file by which a folder is known for an export, which may be overwritten."""


def card_beside(file: Path) -> Path:
    """Returns the path of the model card of an export that is one file."""
    return file.with_name(f"{file.name}.md")


def check_output(out: Path, suffix: str, *, overwrite: bool) -> None:
    """Checks that an export may be written to ``out``.

    Args:
        out: The folder or file.
        suffix: Suffix of the format's file; empty for a folder.
        overwrite: Whether an export that is there may be replaced.

    Raises:
        ValueError: if something is there that may not be replaced, or the suffix is another.
    """
    if out.name in ("", ".."):
        raise ValueError(f"--out {out} must name a new folder or file")
    if suffix and out.suffix != suffix:
        raise ValueError(f"--out {out}: the format is one file, whose name must end in {suffix}")
    if not suffix and out.suffix in (".onnx", ".pt2", ".safetensors", ".pth", ".pt", ".bin"):
        raise ValueError(f"--out {out}: the format is a folder, whose name must not end in {out.suffix}")
    if os.path.lexists(out.parent) and not out.parent.is_dir():
        raise ValueError(f"--out {out}: {out.parent} is no folder")
    places = [out, card_beside(out)] if suffix else [out]
    for place in places:
        if not os.path.lexists(place) or (not suffix and _is_empty_folder(place)):
            continue
        if place.is_dir() if suffix else not (place / DESCRIPTION).is_file():
            raise ValueError(f"--out {out}: {place} exists and is no export of infomax; choose another")
        if not overwrite:
            raise ValueError(f"--out {out}: {place} exists; choose another, or --overwrite to replace it")


def _is_empty_folder(place: Path) -> bool:
    return place.is_dir() and not any(place.iterdir())


def move_file(written: Path, card: Path, out: Path) -> None:
    """Moves a file and then its model card to their places."""
    written.replace(out)
    card.replace(card_beside(out))
