"""Opens folders of image files, several folders as one, and text files that list image files.

The list of a folder's files is kept in the cache folder, so that a million files are listed once.
"""

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

from infomax.data.images import FileImages, PackedNames
from infomax.data.sources.joined import JoinedImages
from infomax.data.splits import Source
from infomax.runtime.files import cache_folder, write_atomic

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
TRAIN_NAMES, TEST_NAMES = ("train",), ("test", "val", "valid", "validation")
MAX_UNUSED_AGE = 60 * 24 * 3600 * 10**9  # nanoseconds after which a kept index that was not used is deleted
# Nanoseconds. A folder that was modified so shortly before it was listed may have been modified once more after it,
# within the resolution of its time stamp, so it is listed again.
TIMESTAMP_MARGIN = 2 * 10**9


@dataclass(frozen=True)
class FolderIndex:
    """A frozen dataclass that lists the image files below a folder."""

    names: PackedNames
    """Paths relative to the root: the sorted files of a folder, then those of each of its sorted sub-folders."""
    folders: list[tuple[str, int]]
    """Each folder that has images itself, relative to the root, and how many it has; in the order of ``names``."""

    def classes(self, depth: int) -> tuple[np.ndarray, list[str]] | None:
        """Returns the label of each image and the sorted names of the classes.

        Args:
            depth: Depth below the root, from 0, of the folders that are the classes.

        Returns:
            Labels and names; None if an image is not in any folder at this depth.
        """
        path_parts = [folder.split("/") if folder else [] for folder, _ in self.folders]
        if any(len(parts) <= depth for parts in path_parts):
            return None
        class_of_folder = [parts[depth] for parts in path_parts]
        classes = sorted(set(class_of_folder))
        number = {name: i for i, name in enumerate(classes)}
        return np.repeat([number[name] for name in class_of_folder], [count for _, count in self.folders]), classes


def index_folder(root: Path, start: str = "") -> FolderIndex:
    """Lists the image files below ``root/start``; follows links, and leaves out hidden files and folders.

    The index is kept in ``~/.cache/infomax`` (or under ``XDG_CACHE_HOME``) and used again until a folder changes. It is
    mapped into memory, so that all workers share it.

    Args:
        root: The folder that paths are relative to.
        start: The sub-folder to list; all of ``root`` by default.

    Raises:
        ValueError: if there are no images, saying what was found instead.
        OSError: if a folder cannot be read.
    """
    index_dir = cache_folder() / "index"
    key = hashlib.sha256(os.fsencode(f"{root.resolve()}\0{start}")).hexdigest()[:16]
    with suppress(OSError):  # a cache that cannot be read is as good as none
        for file in index_dir.glob(f"{key}-*.index"):
            if (index := _load_index(file)) is not None:
                return index
    walked_at, block, folders, other_suffixes = time.time_ns(), bytearray(), [], Counter()
    for folder, modified, names, other in _walk(root, start):
        prefix = f"{folder}/" if folder else ""
        block += "".join(f"{prefix}{name}\0" for name in names).encode(errors="surrogateescape")
        folders.append((folder, modified, len(names)))
        other_suffixes += other
    if not block:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in other_suffixes.most_common(5)) or "nothing"
        want = " ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"no images in {root / start}; found {kinds}, want {want}")
    header = json.dumps({"root": str(root.resolve()), "walked_at": walked_at, "folders": folders}).encode() + b"\n"
    names = _keep_index(index_dir, key, header, bytes(block), walked_at)
    return FolderIndex(names, [(folder, count) for folder, _, count in folders if count])


def _keep_index(index_dir: Path, key: str, header: bytes, block: bytes, walked_at: int) -> PackedNames:
    """Writes an index into the cache folder and deletes old ones; if it cannot be written, it stays in memory.

    Args:
        index_dir: Folder of the kept indices.
        key: Hash of the folder that was listed; the file's name begins with it.
        header: One line of JSON: the root, the time of the listing, and each folder's time of modification and number
            of images.
        block: The names, each followed by a NUL.
        walked_at: Time of the listing, in nanoseconds.

    Returns:
        The names, mapped from the file if it was written.
    """
    file = index_dir / f"{key}-{hashlib.sha256(header + block).hexdigest()[:16]}.index"
    with suppress(OSError, ValueError):
        index_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(file, header + block)
        unused = [old for old in index_dir.iterdir() if walked_at - old.stat().st_mtime_ns > MAX_UNUSED_AGE]
        # Of this folder's indices the last two stay: another run may still have mapped the one before this.
        outdated = sorted(index_dir.glob(f"{key}-*.index"), key=os.path.getmtime)[:-2]
        for old in {*unused, *outdated}:
            old.unlink(missing_ok=True)
        return PackedNames(np.memmap(file, np.uint8, mode="r", offset=len(header), shape=(len(block),)))
    return PackedNames(np.frombuffer(block, np.uint8))


def _walk(root: Path, start: str) -> Iterator[tuple[str, int, list[str], Counter]]:
    """Yields each folder, relative to ``root``: its time of modification, its image files, and its other suffixes."""
    waiting: list[tuple[str, tuple]] = [(start, ())]
    while waiting:
        folder, ancestors = waiting.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in ancestors:  # a link may lead back to a folder that it is in
            continue
        ancestors = (*ancestors, (status.st_dev, status.st_ino))
        subfolders, names, other_suffixes = [], [], Counter()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = entry.name
                suffix = name[name.rfind(".") :].lower() if "." in name else "no suffix"
                if name.startswith("."):
                    other_suffixes["hidden"] += not _is_folder(entry)
                elif _is_folder(entry):
                    subfolders.append(f"{folder}/{name}" if folder else name)
                elif suffix in IMAGE_SUFFIXES:
                    names.append(name)
                else:
                    other_suffixes[suffix] += 1
        waiting += [(name, ancestors) for name in sorted(subfolders, reverse=True)]
        yield folder, status.st_mtime_ns, sorted(names), other_suffixes


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for example
        return False


def _load_index(file: Path) -> FolderIndex | None:
    """Returns the index that is kept in a file; None if a folder has changed since, or the file is damaged."""
    try:
        with file.open("rb") as stream:
            header_line = stream.readline()
        header = json.loads(header_line)
        for folder, modified_then, _ in header["folders"]:
            modified = os.stat(os.path.join(header["root"], folder)).st_mtime_ns
            if modified != modified_then or modified > header["walked_at"] - TIMESTAMP_MARGIN:
                return None
        names = PackedNames(np.memmap(file, np.uint8, mode="r", offset=len(header_line)))
        os.utime(file)  # the time of modification says when the index was last used
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folders = [(folder, count) for folder, _, count in header["folders"] if count]
    return FolderIndex(names, folders) if sum(count for _, count in folders) == len(names) else None


def open_folder(data: str, root: Path) -> Source:
    """Opens a folder of images.

    Without a sub-folder ``train``, all images are for training, and the sub-folders of ``root`` are their classes. With
    one, its images are for training and its sub-folders are the classes; ``test`` or ``val`` beside it is the test
    split if its sub-folders are among these classes.

    Args:
        data: The source's name.
        root: The folder.

    Raises:
        ValueError: if there are no images to train on.
        OSError: if a folder cannot be read.
    """
    subfolders = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    train_name = next((subfolders[name] for name in TRAIN_NAMES if name in subfolders), "")
    depth = 1 if train_name else 0
    train = index_folder(root, train_name)
    labels, classes = train.classes(depth) or (None, [])
    are_splits = {name.lower() for name in classes} <= {*TRAIN_NAMES, *TEST_NAMES}
    if len(classes) < 2 or are_splits:
        labels, classes = None, []
    images = FileImages(root, train.names, labels, classes)
    if not (train_name and classes):
        return Source(data, images, folders=(root,))
    for test_name in [subfolders[name] for name in TEST_NAMES if name in subfolders]:
        test = index_folder(root, test_name)
        test_labels, test_classes = test.classes(depth) or (None, [])
        # ImageNet's test images, for example, lie in one folder, as their labels are not public: try the next name.
        if test_labels is not None and set(test_classes) <= set(classes):
            numbers = np.searchsorted(classes, test_classes)
            return Source(data, images, FileImages(root, test.names, numbers[test_labels], classes), folders=(root,))
    return Source(data, images, folders=(root,))


@dataclass(eq=False)
class _JoinedFolders(JoinedImages):
    """The images of several folders; sub-folders of the same name in them are the same class."""

    parts: Sequence[FileImages]  # pyrefly: ignore[bad-override-mutable-attribute]

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return f"{self.parts[part].root}/{self.parts[part].name(inner)}"


def open_folders(data: str, sources: Sequence[Source]) -> Source:
    """Joins the sources of several folders into one.

    Args:
        data: The name of the joined source.
        sources: What :func:`open_folder` returned for each folder. There are labels only if all of them have labels.
    """
    train_images = [source.train for source in sources if isinstance(source.train, FileImages)]
    classes = sorted({name for images in train_images for name in images.classes})
    if any(images.labels is None for images in train_images):
        classes = []

    def join(parts: Sequence[FileImages]) -> _JoinedFolders:
        numbers = [np.searchsorted(classes, part.classes)[part.labels] for part in parts if part.labels is not None]
        return _JoinedFolders(parts, np.concatenate(numbers) if classes else None, classes)

    test_images = [source.test for source in sources if isinstance(source.test, FileImages)]
    test = join(test_images) if test_images and classes else None
    folders = tuple(folder for source in sources for folder in source.folders)
    return Source(data, join(train_images), test, folders=folders)


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
