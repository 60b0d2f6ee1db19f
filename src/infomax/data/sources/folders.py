"""Opens folders of image files, and several folders as one.

The list of a folder's files is kept in the cache folder, so that a million files are listed once.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.band_files import BandImages, Bands, group_bands, without_star
from infomax.data.sources.joined import JoinedImages
from infomax.data.sources.split_names import choose_splits, role_of, splits_by_role
from infomax.data.sources.suffixes import IMAGE_SUFFIXES, is_litter, suffix_of
from infomax.data.splits import Source, counted, listed, shown_name
from infomax.runtime.files import cache_folder, write_atomic

MAX_UNUSED_AGE = 60 * 24 * 3600 * 10**9  # nanoseconds after which a kept index that was not used is deleted
# Nanoseconds. A folder that was modified so shortly before it was listed may have been modified once more after it,
# within the resolution of its time stamp, so it is listed again.
TIMESTAMP_MARGIN = 2 * 10**9
# The rule of what is listed, in words that are hashed: an index of another rule is not used.
LISTING_RULE = f"2 {sorted(IMAGE_SUFFIXES)}"
DANGLING, SPECIAL = "link to nothing", "FIFO, socket or device"
FEW_STRAYS = 3  # image files beside class folders that are left out; or 1 % of the images, if that is more


@dataclass(frozen=True)
class FolderIndex:
    """A frozen dataclass that lists the image files below a folder."""

    names: PackedNames
    """Paths relative to the root: the sorted files of a folder, then those of each of its sorted sub-folders."""
    folders: list[tuple[str, int]]
    """Each folder that has images itself, relative to the root, and how many it has; in the order of ``names``."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many files are no images that can be read, by their suffix."""

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
    key = hashlib.sha256(os.fsencode(f"{root.resolve()}\0{start}\0{LISTING_RULE}")).hexdigest()[:16]
    with suppress(OSError):  # a cache that cannot be read is as good as none
        for file in index_dir.glob(f"{key}-*.index"):
            if (index := _load_index(file)) is not None:
                return index
    walked_at, block, folders, left_out = time.time_ns(), bytearray(), [], Counter()
    for folder, modified, names, other in _walk(root, start):
        prefix = f"{folder}/" if folder else ""
        block += "".join(f"{prefix}{name}\0" for name in names).encode(errors="surrogateescape")
        folders.append((folder, modified, len(names)))
        left_out += other
    if not block:
        raise ValueError(f"no images in {root / start}; found {_counts(left_out)}, want .jpg, .png, .tif or others")
    header = {"root": str(root.resolve()), "walked_at": walked_at, "folders": folders, "left_out": left_out}
    names = _keep_index(index_dir, key, json.dumps(header).encode() + b"\n", bytes(block), walked_at)
    return FolderIndex(names, [(folder, count) for folder, _, count in folders if count], left_out)


def _counts(left_out: Counter[str]) -> str:
    """Returns the numbers of files by suffix in words, the most frequent ones first."""
    suffixes = [f"{count} x {suffix}" for suffix, count in left_out.most_common()]
    return listed(suffixes) if suffixes else "nothing"


def _keep_index(index_dir: Path, key: str, header: bytes, block: bytes, walked_at: int) -> PackedNames:
    """Writes an index into the cache folder and deletes old ones; if it cannot be written, it stays in memory.

    Args:
        index_dir: Folder of the kept indices.
        key: Hash of the folder that was listed; the file's name begins with it.
        header: One line of JSON: the root, the time of the listing, each folder's time of modification and number of
            images, and how many files were left out.
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
    """Yields each folder, relative to ``root``: its time of modification, its image files, and counts of the others."""
    waiting: list[tuple[str, tuple]] = [(start, ())]
    while waiting:
        folder, ancestors = waiting.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in ancestors:  # a link may lead back to a folder that it is in
            continue
        ancestors = (*ancestors, (status.st_dev, status.st_ino))
        subfolders, names, left_out = [], [], Counter()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                if kind == "folder":
                    subfolders.append(f"{folder}/{entry.name}" if folder else entry.name)
                elif kind == "image":
                    names.append(entry.name)
                elif kind:
                    left_out[kind] += 1
        waiting += [(name, ancestors) for name in sorted(subfolders, reverse=True)]
        yield folder, status.st_mtime_ns, sorted(names), left_out


def _kind(entry: os.DirEntry) -> str:
    """Returns ``folder`` or ``image``; for another file the words that it is counted by; empty for system litter.

    Nothing is opened, and a file that is no link is not asked for its status, which would take long.
    """
    if is_litter(entry.name):
        return ""
    is_folder = _is_folder(entry)
    if entry.name.startswith("."):
        return "" if is_folder else "hidden"
    if is_folder:
        return "folder"
    try:
        is_file = entry.is_file()
    except OSError:
        is_file = False
    if not is_file:
        return DANGLING if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL
    suffix = suffix_of(entry.name)
    return "image" if suffix in IMAGE_SUFFIXES else suffix


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
        left_out = Counter({str(kind): int(count) for kind, count in header["left_out"].items()})
        if left_out[DANGLING]:  # what a link leads to may have come since, which changes no folder
            return None
        names = PackedNames(np.memmap(file, np.uint8, mode="r", offset=len(header_line)))
        os.utime(file)  # the time of modification says when the index was last used
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    folders = [(folder, count) for folder, _, count in header["folders"] if count]
    return FolderIndex(names, folders, left_out) if sum(count for _, count in folders) == len(names) else None


@dataclass(frozen=True)
class FoundFolder:
    """A frozen dataclass that holds what was found in a folder, before it is known which split is for what."""

    splits: dict[str, FoundSplit]
    """The splits by the names of their folders; one with an empty name if the sub-folders are no splits."""
    notes: list[str]
    """A line for each decision."""
    left_out: Counter[str]
    """How many files are no images that can be read, by their suffix."""


def open_folder(data: str, root: Path, bands: Bands | None = None) -> Source:
    """Opens a folder of images.

    If there is a sub-folder with the name of a training split, or all sub-folders with images have names of splits, the
    sub-folders are splits, and the sub-folders of each are the classes. Else all images are for training, and the
    sub-folders are the classes. A folder that holds nothing but one folder, with folders in it, stands for that one.

    Args:
        data: The source's name.
        root: The folder.
        bands: The bands of an image, if each is a file of its own.

    Raises:
        ValueError: if there are no images to train on, two splits have the same role, or a band is missing.
        OSError: if a folder cannot be read.
    """
    folder = find_splits(root, bands)
    return assemble_source(data, folder.splits, notes=[*folder.notes, *note_left_out(folder.left_out)], folders=(root,))


def find_splits(root: Path, bands: Bands | None = None) -> FoundFolder:
    """Finds out whether the sub-folders of a folder are splits or classes, and lists the images.

    The arguments and errors are those of :func:`open_folder`.
    """
    base, notes = _enter_wrappers(root, "", ())
    subfolders, has_images = _look_into(root, base)
    roles = splits_by_role(name for name in subfolders if role_of(name) and _holds_images(root, _join(base, name)))
    others = [name for name in subfolders if name not in roles.values()]
    splits, left_out = {}, Counter()
    if "train" not in roles and (has_images or any(_holds_images(root, _join(base, name)) for name in others)):
        if roles and not has_images:
            notes.append(f"{listed(list(roles.values()))}: no split, but a class, for there is no folder called train")
        roles = {}
    if "train" in roles:
        unused = [name for name in others[:100] if _holds_images(root, _join(base, name))]
        unused += ["image files beside it"] if has_images else []
        notes += [f"left out: {listed(unused)}; the splits are {listed(list(roles.values()))}"] if unused else []
    classes: list[str] = []
    # The training split is read first: its classes say where the classes of another split are.
    for name in sorted(roles.values(), key=lambda name: role_of(name) != "train") or [""]:
        splits[name], index, split_notes = _read_split(root, _join(base, name), classes, bands)
        classes = classes or splits[name].images.classes
        left_out += index.left_out
        notes += split_notes
    return FoundFolder(splits, notes, left_out)


def note_left_out(left_out: Counter[str]) -> list[str]:
    """Returns a line on the files that are no images that can be read; no line if there are none."""
    count = sum(left_out.values())
    if not count:
        return []
    return [f"left out: {counted(count, 'file')} of kinds that are not read as images: {_counts(left_out)}"]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}".strip("/")


def _look_into(root: Path, folder: str) -> tuple[list[str], bool]:
    """Returns the sorted names of the folders in a folder, and whether it has images itself."""
    subfolders, has_images = [], False
    with os.scandir(root / folder) as entries:
        for entry in entries:
            kind = _kind(entry)
            subfolders += [entry.name] if kind == "folder" else []
            has_images |= kind == "image"
    return sorted(subfolders), has_images


def _holds_images(root: Path, folder: str) -> bool:
    """Returns whether there is an image anywhere in a folder; looks no further than the first."""
    return any(names for _, _, names, _ in _walk(root, folder))


def _enter_wrappers(root: Path, folder: str, classes: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the folder that holds the classes or splits, and a note if it is not the one that was named.

    Args:
        root: The folder that paths are relative to.
        folder: The folder that was named.
        classes: Names of classes, which are not entered.
    """
    inner = folder
    while True:
        subfolders, has_images = _look_into(root, inner)
        with_images: list[str] = []
        for name in subfolders if not has_images else []:
            with_images += [name] if _holds_images(root, _join(inner, name)) else []
            if len(with_images) > 1:
                break
        if len(with_images) != 1 or with_images[0] in classes or (not folder and role_of(with_images[0])):
            break
        below = _join(inner, with_images[0])
        if not any(_holds_images(root, _join(below, name)) for name in _look_into(root, below)[0]):
            break  # a single class
        inner = below
    return inner, [] if inner == folder else [f"{listed([inner])} is taken for the folder of the images, the only one"]


def _read_split(
    root: Path, folder: str, classes: Sequence[str], bands: Bands | None
) -> tuple[FoundSplit, FolderIndex, list[str]]:
    """Lists the images of a split; its sub-folders are their classes.

    Args:
        root: The folder that paths are relative to.
        folder: The split's folder.
        classes: The classes to train on, as far as they are known.
        bands: The bands of an image, if each is a file of its own.

    Returns:
        The split, the list of its files, and notes.
    """
    inner, notes = _enter_wrappers(root, folder, classes) if folder else ("", [])
    index, names_of_bands = index_folder(root, inner), bands.names if bands else ()
    if bands is not None:
        index, band_notes = _group_index(index, bands)
        notes += band_notes
    inner_parts = [part for part in inner.split("/") if part and part not in names_of_bands]
    depth = len(inner_parts)
    strays = index.folders[0][1] if index.folders[0][0] == "/".join(inner_parts) else 0
    in_classes = FolderIndex(index.names, index.folders[1:] if strays else index.folders)
    labels, found_classes = in_classes.classes(depth) or (np.empty(0, int), [])
    if empty := sorted({*_look_into(root, inner)[0]} - {*found_classes, *names_of_bands}) if found_classes else []:
        notes.append(f"folders without images, which are no classes: {listed(empty)}")
    if not strays and len(labels):
        return FoundSplit(_images(root, index.names, labels, found_classes, bands)), index, notes
    unlabelled = _images(root, index.names, None, [], bands)
    if not len(labels):
        reason = f"has no class folders: its images lie in it, as {shown_name(index.names[0])}"
        return FoundSplit(unlabelled, reason), index, notes
    examples = listed(index.names[: min(strays, 3)])
    if len(found_classes) < 2 or not strays <= max(FEW_STRAYS, len(labels) // 100) or strays >= len(labels):
        folders = f"its {len(found_classes)} folders" if len(found_classes) > 1 else f"its folder {found_classes[0]}"
        return FoundSplit(unlabelled, f"has {counted(strays)} beside {folders}, as {examples}"), index, notes
    notes.append(f"left out: {counted(strays, 'image file')} beside the class folders: {examples}")
    names = _without_first(index.names, strays)
    return FoundSplit(_images(root, names, labels, found_classes, bands)), index, notes


def _images(
    root: Path, names: PackedNames, labels: np.ndarray | None, classes: list[str], bands: Bands | None
) -> Images:
    """Returns the images of some names; of bands, each image is several files."""
    if bands is None:
        return FileImages(root, names, labels, classes)
    return BandImages(root, names, labels, classes, bands)


def _group_index(index: FolderIndex, bands: Bands) -> tuple[FolderIndex, list[str]]:
    """Returns a list of images whose bands are files of their own, and notes; a folder that names a band is none."""
    paths, notes = group_bands(index.names, bands)
    folder_of = {path: without_star(path.rpartition("/")[0]) for path in paths}
    paths.sort(key=lambda path: (folder_of[path].split("/"), path))
    counts = Counter(folder_of[path] for path in paths)
    return FolderIndex(PackedNames.pack(paths), list(counts.items()), index.left_out), notes


def _without_first(names: PackedNames, count: int) -> PackedNames:
    """Returns the names but for the first ones; if they are mapped from a file, the result is mapped too."""
    start, block = int(names.ends[count - 1]) + 1, names.block
    if isinstance(block, np.memmap) and block.filename is not None:
        return PackedNames(np.memmap(block.filename, np.uint8, mode="r", offset=block.offset + start))
    return PackedNames(block[start:])


@dataclass(eq=False)
class _JoinedFolders(JoinedImages):
    """The images of several folders; sub-folders of the same name in them are the same class."""

    parts: Sequence[Images]
    roots: Sequence[Path]
    """The folder of each part, which its names are relative to."""

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return f"{self.roots[part]}/{self.parts[part].name(inner)}"


def open_folders(data: str, roots: Sequence[Path], bands: Bands | None = None) -> Source:
    """Opens several folders as one; see :func:`open_folder`.

    Sub-folders of the same name are the same class. There are labels only if the images to train on of all folders have
    labels.

    Args:
        data: The name of the joined source.
        roots: The folders.
        bands: The bands of an image, if each is a file of its own.

    Raises:
        ValueError: if one has no images to train on, two splits of the same role, or an image without a band.
        OSError: if a folder cannot be read.
    """
    notes, parts, left_out = [], [], Counter()
    for root in roots:
        folder = find_splits(root, bands)
        left_out += folder.left_out
        notes += [f"{root}: {note}" for note in folder.notes]
        parts.append((root, folder.splits, choose_splits(list(folder.splits), _labelled(folder.splits))))
    splits: dict[str, FoundSplit] = {}
    for role in ("train", "test", "val", "unlabelled"):
        of_role = [
            (root, folder_splits[name])
            for root, folder_splits, chosen in parts
            if (name := getattr(chosen, role)) is not None
        ]
        names = {getattr(chosen, role) for _, _, chosen in parts} - {None}
        if len(names) > 1:  # as val and valid, which both may be tested on
            names = {role_of(name) or role for name in names}
        if of_role:
            name = names.pop() if len(names) == 1 else role
            splits[role if name in splits else name] = _join_splits(of_role)
    return assemble_source(data, splits, notes=[*notes, *note_left_out(left_out)], folders=roots)


def _labelled(splits: Mapping[str, FoundSplit]) -> list[str]:
    return [name for name, split in splits.items() if split.images.labels is not None]


def _join_splits(parts: Sequence[tuple[Path, FoundSplit]]) -> FoundSplit:
    """Joins the splits of several folders, each with its root; without labels in one, the others lose theirs."""
    images, roots = [split.images for _, split in parts], [root for root, _ in parts]
    for root, split in parts:
        if split.images.labels is None:
            return FoundSplit(_JoinedFolders(images, None, [], roots), f"in {root} {split.no_labels_reason}")
    classes = sorted({name for part in images for name in part.classes})
    numbers = [np.searchsorted(classes, part.classes)[part.labels] for part in images]
    return FoundSplit(_JoinedFolders(images, np.concatenate(numbers), classes, roots))
