"""Checks the folders that ``infomax classify`` is to make, before anything is computed. No torch is imported."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from infomax.data.splits import shown_name
from infomax.runtime.near_names import missing_path

CLASSIFIER = "classifier.json"
"""The file by which a folder is known for a classifier, which may be overwritten."""
TEST = "test.json"
"""The file by which a folder is known for a test of a classifier, which may be overwritten."""
PAGE_SUFFIX = ".html"
"""Suffix of ``--out`` by which a page is written in place of a folder or a table."""


def check_classifier(folder: str | PathLike[str]) -> None:
    """Raises ValueError, with the reason, unless a folder is one that ``infomax classify fit`` wrote."""
    place = Path(folder)
    if not (place / CLASSIFIER).is_file():
        reason = f"it has no {CLASSIFIER}" if place.is_dir() else "it is a file" if place.exists() else ""
        reason = reason or missing_path(place)
        raise ValueError(f"{shown_name(str(place))} is no classifier: {reason}; infomax classify fit makes one")


def check_new_folder(out: Path, marker: str, *, overwrite: bool) -> None:
    """Checks that a folder can be made.

    Args:
        out: The folder that ``--out`` names.
        marker: Name of the file by which a folder of this kind is known.
        overwrite: Whether a folder of this kind may be replaced.

    Raises:
        ValueError: if something is there that may not be replaced, or the place cannot hold a folder.
    """
    if out.name in ("", ".."):
        raise ValueError(f"--out {out} must name a new folder")
    if os.path.lexists(out.parent) and not out.parent.is_dir():
        raise ValueError(f"--out {out}: {out.parent} is no folder")
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / marker).is_file():
        kind = "classifier" if marker == CLASSIFIER else "test of a classifier"
        raise ValueError(f"--out {out} exists and is no {kind}; name another folder")
    if not overwrite:
        raise ValueError(f"--out {out} exists; name another folder, or give --overwrite")


def check_outside(out: Path, folders: Sequence[Path], data: str) -> None:
    """Raises ValueError if a folder would be made inside of one all of whose images belong to the data."""
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--out {out} is inside --data {data}, whose images are read; name another folder")
