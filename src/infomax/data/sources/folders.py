"""Folders of image files, lists of them, and text files that name them; what a folder holds is remembered on disk."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infomax.data.images import FileImages, Images, Names
from infomax.data.sources.joined import Joined
from infomax.data.splits import Source
from infomax.runtime.files import cache_folder, write_atomic

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
TRAIN_NAMES, TEST_NAMES = ("train",), ("test", "val", "valid", "validation")
FORGOTTEN = 60 * 24 * 3600 * 10**9  # nanoseconds after which a list that nobody used is thrown away
UNSURE = 2 * 10**9  # nanoseconds; a folder that changed so shortly before it was listed may have changed after it too


@dataclass(frozen=True)
class Index:
    """The image files below a folder."""

    names: Names
    """Relative to the root: those of a folder in order, then those of its sub-folders in order."""
    folders: list[tuple[str, int]]
    """Each folder with images, relative to the root, and how many are in it alone; in the order of ``names``."""

    def classes(self, depth: int) -> tuple[np.ndarray, list[str]] | None:
        """Labels and classes: the folders at this depth, where every image is in one of them."""
        parts = [folder.split("/") if folder else [] for folder, _ in self.folders]
        if any(len(p) <= depth for p in parts):
            return None
        own = [p[depth] for p in parts]
        classes = sorted(set(own))
        number = {name: i for i, name in enumerate(classes)}
        return np.repeat([number[name] for name in own], [count for _, count in self.folders]), classes


def index_folder(root: Path, start: str = "") -> Index:
    """The image files below ``root/start``; links are followed, hidden files and folders left out.

    The list is kept in ``~/.cache/infomax`` (or under ``XDG_CACHE_HOME``) and used again as long as no folder changed;
    it is mapped into memory, so that all workers share it.

    Raises:
        ValueError: if there are no images, saying what was found instead.
        OSError: if a folder cannot be read.
    """
    home = cache_folder() / "index"
    key = hashlib.sha256(os.fsencode(f"{root.resolve()}\0{start}")).hexdigest()[:16]
    with suppress(OSError):  # a cache that cannot be read is as good as none
        for file in home.glob(f"{key}-*.index"):
            if (index := _remembered(file)) is not None:
                return index
    walked_at, block, folders, others = time.time_ns(), bytearray(), [], Counter()
    for folder, changed, names, unknown in _walk(root, start):
        prefix = f"{folder}/" if folder else ""
        block += "".join(f"{prefix}{name}\0" for name in names).encode(errors="surrogateescape")
        folders.append((folder, changed, len(names)))
        others += unknown
    if not block:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        want = " ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"no images in {root / start}; found {kinds}, want {want}")
    header = json.dumps({"root": str(root.resolve()), "walked_at": walked_at, "folders": folders}).encode() + b"\n"
    file = home / f"{key}-{hashlib.sha256(header + block).hexdigest()[:16]}.index"
    with suppress(OSError, ValueError):
        home.mkdir(parents=True, exist_ok=True)
        write_atomic(file, header + block)
        unused = [old for old in home.iterdir() if walked_at - old.stat().st_mtime_ns > FORGOTTEN]
        former = sorted(home.glob(f"{key}-*.index"), key=os.path.getmtime)[:-2]  # another run may still use the last
        for old in {*unused, *former}:
            old.unlink(missing_ok=True)
        block = np.memmap(file, np.uint8, mode="r", offset=len(header), shape=(len(block),))
    names = Names(block if isinstance(block, np.ndarray) else np.frombuffer(block, np.uint8))
    return Index(names, [(folder, count) for folder, _, count in folders if count])


def _walk(root: Path, start: str) -> Iterator[tuple[str, int, list[str], Counter]]:
    """Each folder, relative to ``root``: when it changed, its image files, and the suffixes of its other files."""
    waiting: list[tuple[str, tuple]] = [(start, ())]
    while waiting:
        folder, above = waiting.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in above:  # a link may lead back to a folder that it is in
            continue
        above = (*above, (status.st_dev, status.st_ino))
        inside, names, others = [], [], Counter()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = entry.name
                suffix = name[name.rfind(".") :].lower() if "." in name else "no suffix"
                if name.startswith("."):
                    others["hidden"] += not _is_folder(entry)
                elif _is_folder(entry):
                    inside.append(f"{folder}/{name}" if folder else name)
                elif suffix in IMAGE_SUFFIXES:
                    names.append(name)
                else:
                    others[suffix] += 1
        waiting += [(name, above) for name in sorted(inside, reverse=True)]
        yield folder, status.st_mtime_ns, sorted(names), others


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # as of a link to itself
        return False


def _remembered(file: Path) -> Index | None:
    """The index that was kept in ``file``, if no folder changed since."""
    try:
        with file.open("rb") as stream:
            header = stream.readline()
        kept = json.loads(header)
        for folder, changed, _ in kept["folders"]:
            now = os.stat(os.path.join(kept["root"], folder)).st_mtime_ns
            if now != changed or now > kept["walked_at"] - UNSURE:
                return None
        names = Names(np.memmap(file, np.uint8, mode="r", offset=len(header)))
        os.utime(file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folders = [(folder, count) for folder, _, count in kept["folders"] if count]
    return Index(names, folders) if sum(count for _, count in folders) == len(names) else None


def open_folder(data: str, root: Path) -> Source:
    """A folder of images; its sub-folders train and test (or val) are splits, sub-folders below that are classes."""
    below = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    train_name = next((below[name] for name in TRAIN_NAMES if name in below), "")
    depth = 1 if train_name else 0
    train = index_folder(root, train_name)
    labels, classes = train.classes(depth) or (None, [])
    if len(classes) < 2 or {name.lower() for name in classes} <= {*TRAIN_NAMES, *TEST_NAMES}:
        labels, classes = None, []  # nothing to tell apart, or splits without one to train on
    images = FileImages(root, train.names, labels, classes)
    # The first whose folders are classes of the training images; where none are, the labels are kept elsewhere.
    for name in [below[name] for name in TEST_NAMES if name in below] if train_name and classes else []:
        test = index_folder(root, name)
        own, names = test.classes(depth) or (None, [])
        if own is not None and set(names) <= set(classes):
            number = np.searchsorted(classes, names)
            return Source(data, images, FileImages(root, test.names, number[own], classes), folders=(root,))
    return Source(data, images, folders=(root,))


@dataclass(eq=False)
class _Folders(Joined):
    """The images of several folders; folders of the same name in them are the same class."""

    parts: Sequence[FileImages]  # pyrefly: ignore[bad-override-mutable-attribute]

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return f"{self.parts[part].root}/{self.parts[part].name(inner)}"


def open_folders(data: str, sources: Sequence[Source]) -> Source:
    """Several folders as one."""

    first = [source.train for source in sources if isinstance(source.train, FileImages)]
    classes = sorted({name for images in first for name in images.classes})
    if any(images.labels is None for images in first):
        classes = []

    def join(images: Sequence[Images | None]) -> _Folders | None:
        parts = [part for part in images if isinstance(part, FileImages)]
        if not parts or (not classes and images is not first):
            return None
        numbers = [np.searchsorted(classes, part.classes)[part.labels] for part in parts if part.labels is not None]
        return _Folders(parts, np.concatenate(numbers) if classes else None, classes)

    train, test = join(first), join([source.test for source in sources])
    assert train is not None
    return Source(data, train, test, folders=tuple(folder for source in sources for folder in source.folders))


def open_list(data: str, file: Path) -> Source:
    """A text file with an image file on each line, relative to the text file; perhaps a tab and its class.

    Raises:
        ValueError: if it names none, or files that are not there.
    """
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    rows = [row for row in rows if row[0].strip()]
    for row in rows[:: max(1, len(rows) // 10)]:  # a look at some; the rest are found out as they are read
        if not (file.parent / row[0]).is_file():
            raise ValueError(f"names {row[0]!r}, which is not a file in {file.parent}")
    if not rows:
        raise ValueError("names no image; want a file on each line")
    classes = sorted({row[1] for row in rows if len(row) > 1})
    labels = None
    if len(classes) > 1 and all(len(row) == 2 for row in rows):
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number[row[1]] for row in rows])
    files = Names.pack(row[0] for row in rows)
    return Source(data, FileImages(file.parent, files, labels, classes if labels is not None else []))
