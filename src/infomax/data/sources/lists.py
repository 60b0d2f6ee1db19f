"""Opens text files that list image files."""

from pathlib import Path

import numpy as np

from infomax.data.images import FileImages, PackedNames
from infomax.data.splits import Source


def open_list(data: str, file: Path) -> Source:
    """Opens a text file that names an image file on each line, relative to the text file.

    A tab and the image's class may follow the path. There are labels if each line has a class, and there are at least
    two classes.

    Args:
        data: The source's name.
        file: The text file.

    Raises:
        ValueError: if it names no image, or one of about ten paths, which are looked at, is not a file.
    """
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    rows = [row for row in rows if row[0].strip()]
    for row in rows[:: max(1, len(rows) // 10)]:  # to look at all would take long; opening the others raises an error
        if not (file.parent / row[0]).is_file():
            raise ValueError(f"names {row[0]!r}, which is not a file in {file.parent}")
    if not rows:
        raise ValueError("names no image; want a file on each line")
    classes = sorted({row[1] for row in rows if len(row) > 1})
    labels = None
    if len(classes) > 1 and all(len(row) == 2 for row in rows):
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number[row[1]] for row in rows])
    files = PackedNames.pack(row[0] for row in rows)
    return Source(data, FileImages(file.parent, files, labels, classes if labels is not None else []))
