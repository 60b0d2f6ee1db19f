"""Opens images that are given one by one: image files by their paths, PIL images, and an array in memory."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.images.files import GivenFiles
from infomax.data.images.packed_names import PackedNames
from infomax.data.images.pillow import PillowImages
from infomax.data.number_files import begins_as_image
from infomax.data.sources.array_layouts import find_layout, layout_notes, to_images
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.band_files import STAR, BandImages, Bands, group_bands
from infomax.data.sources.folders import open_folders
from infomax.data.sources.label_values import read_labels
from infomax.data.sources.split_names import role_of, splits_by_role
from infomax.data.sources.suffixes import IMAGE_SUFFIXES, suffix_of
from infomax.data.splits import Source, counted, listed, shown_name

GivenImages = Image.Image | np.ndarray | Iterable[str | PathLike[str] | Image.Image]
"""Images that are given themselves: a PIL image, an array of numbers, or paths of files or PIL images one by one."""
HINT = "targets=[...] gives the class of each"
WANTED = "paths of image files, PIL images, or an array [n, height, width, channels]"


def open_given(
    data: Any,
    targets: Any = None,
    *,
    in_order: bool = False,
    bands: str | None = None,
    layout: str | None = None,
) -> Source:
    """Opens images that are given themselves, not by the name of a folder, a file or a data set.

    Args:
        data: :data:`GivenImages`. Paths of folders alone are opened as folders.
        targets: The class of each image, whole numbers or strings, in the images' order; None takes those of the
            folders that files lie in, as :func:`open_files` does.
        in_order: Whether all images form one split in the given order, also files that are given twice. There are no
            labels then.
        bands: Words in names of files that name the bands of an image, if each is a file of its own; the images are
            then in the order of their first files.
        layout: ``NHWC`` or ``NCHW``, the order of the axes of an array; None finds it.

    Raises:
        ValueError: if there are no images, some are not what they are said to be, or there is not one target for each.
    """
    is_array = isinstance(data, np.ndarray) and data.dtype.kind not in "OUS"
    if layout is not None and not is_array:
        raise ValueError(f"--layout {layout} is for an array of images, which data is not")
    if bands is not None and (is_array or isinstance(data, Image.Image)):
        raise ValueError(f"--bands {bands} is for paths of files, which data are not")
    try:
        if isinstance(data, Image.Image):
            return _with_targets("a PIL image", PillowImages([data], None, []), targets)
        if is_array:
            layout = find_layout("the array", data.shape, data.dtype, layout)
            images = ArrayImages(to_images(data, layout), None, [])
            source = _with_targets(f"an array of {counted(len(data))}", images, targets)
            return replace(source, notes=(*source.notes, *layout_notes("the array", data.shape, layout)))
        if isinstance(data, bytes | Mapping) or not isinstance(data, Iterable):
            raise ValueError(f"must be {WANTED}, but is of type {type(data).__name__}")
        return _open_each(list(data), targets, in_order, None if bands is None else Bands.parse(bands))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith("targets") else f"data: {message}") from error


def _open_each(items: list[Any], targets: Any, in_order: bool, bands: Bands | None) -> Source:
    """Opens paths or PIL images, all of one kind; the arguments are those of :func:`open_given`."""
    if not items:
        raise ValueError(f"is empty, as the list of files that match a pattern is if none does; want {WANTED}")
    kind = str | PathLike if isinstance(items[0], str | PathLike) else Image.Image
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise ValueError(f"must be {WANTED}, all of one kind, but item {number} is of type {type(item).__name__}")
    if kind is Image.Image:
        if bands is not None:
            raise ValueError("must be paths of files if there are bands, not PIL images")
        return _with_targets(counted(len(items), "PIL image"), PillowImages(items, None, []), targets)
    paths = [fspath(item) for item in items]
    if all(os.path.isdir(os.path.expanduser(path)) for path in paths):
        if targets is not None:
            raise ValueError("targets are for files, and these are folders, whose sub-folders are the classes")
        return open_folders(",".join(paths), [Path(os.path.expanduser(path)) for path in paths], bands)
    source = open_files(None, paths, targets=targets, in_order=in_order, bands=bands)
    if source.no_labels_reason:
        source = replace(source, no_labels_reason=f"{source.no_labels_reason}; {HINT}")
    return source


def _with_targets(data: str, images: Images, targets: Any) -> Source:
    """Returns a source of images that lie in no folder, with the classes that are given or else without."""
    if targets is None:
        return Source(data, images, no_labels_reason=f"images in memory come without classes; {HINT}")
    images.labels, images.classes = _read_targets(targets, len(images))
    return assemble_source(data, {"": FoundSplit(images)})


def _read_targets(targets: Any, count: int) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Returns the number of each image's class, and the names of the classes.

    Raises:
        ValueError: if the targets are not one class for each image.
    """
    values = targets if isinstance(targets, np.ndarray) and targets.dtype != object else np.asarray(list(targets))
    column = read_labels("targets", values, count)
    if column.labels is None:
        raise ValueError(column.no_labels_reason.removeprefix("has no labels: "))
    return column.labels, column.classes


def open_files(
    data: str | None,
    given: Sequence[str],
    *,
    targets: Any = None,
    in_order: bool = False,
    bands: Bands | None = None,
) -> Source:
    """Opens image files by their paths, as the folder that they have in common would be opened.

    The sub-folders of that folder are the classes, or the splits if all of them have names of splits. If a file lies
    beside the sub-folders, there are no classes. A file that is given twice counts once.

    Args:
        data: The source's name; None makes one of their number and their folder.
        given: Paths of the files, which stay the names of the images.
        targets: The class of each file; None takes those of the folders.
        in_order: As in :func:`open_given`.
        bands: The bands of an image, if each is a file of its own. Then the images are in the order of their first
            files, and have no targets.

    Raises:
        ValueError: if a path is not that of an image file.
    """
    if bands is not None and targets is not None:
        raise ValueError("targets are one for each file, and with bands an image is several files; put it into folders")
    paths = [os.path.abspath(os.path.expanduser(path)) for path in given]
    _check_files(given, paths)
    notes: list[str] = []
    number_of = {path: number for number, path in reversed(list(enumerate(paths)))}  # the first of a path's numbers
    kept = np.arange(len(paths)) if in_order else np.array(sorted(number_of.values()))
    if repeated := len(paths) - len(kept):
        example = next(given[number] for number, path in enumerate(paths) if number_of[path] != number)
        notes.append(f"left out: {counted(repeated, 'file')} given twice, as {shown_name(example)}")
    root = _common_folder(paths)
    prefix = os.path.join(root, "")
    relative = [paths[number].removeprefix(prefix).replace(os.sep, "/") for number in kept]
    kept_names = [given[int(number)] for number in kept]
    if bands is not None:
        relative, kept_names, band_notes = _group_given(relative, kept_names, bands)
        notes += band_notes
    files = _Files(root, relative, kept_names, bands)
    data = data or (given[0] if len(given) == 1 else f"{counted(len(relative), 'file')} in {_shown_folder(root)}")
    if in_order:
        return Source(data, files.images(range(len(relative))))
    if targets is not None:
        numbers, classes = _read_targets(targets, len(paths))
        images = files.images(range(len(relative)), numbers[kept], classes)
        return assemble_source(data, {"": FoundSplit(images)}, notes=notes)
    splits = _split_by_folder(files)
    if any(split.images.labels is not None for split in splits.values()):
        classes = listed(sorted({name for split in splits.values() for name in split.images.classes}))
        notes.append(f"the classes are the folders in {_shown_folder(root)}: {classes}")
    return assemble_source(data, splits, notes=notes)


class _Files:
    """Image files of one folder.

    Args:
        root: The folder.
        relative: Their paths from there, with slashes.
        given: Their paths as the user wrote them.
        bands: The bands of an image, if each is a file of its own.
    """

    def __init__(self, root: str, relative: Sequence[str], given: Sequence[str], bands: Bands | None):
        self.root, self.relative, self.given, self.bands = root, relative, given, bands

    def folders(self) -> list[list[str]]:
        """Returns the folders that each file lies in, without those that name a band."""
        return [[part for part in name.split("/")[:-1] if part != STAR] for name in self.relative]

    def images(
        self, index: Iterable[int], labels: Int[np.ndarray, " n"] | None = None, classes: Sequence[str] = ()
    ) -> Images:
        """Returns the files at ``index``, in this order."""
        numbers = list(index)
        names, given = (PackedNames.pack(names[i] for i in numbers) for names in (self.relative, self.given))
        if self.bands is not None:
            return BandImages(Path(self.root), names, labels, list(classes), self.bands, given=given)
        return GivenFiles(Path(self.root), names, labels, list(classes), given=given)


def _group_given(relative: Sequence[str], given: Sequence[str], bands: Bands) -> tuple[list[str], list[str], list[str]]:
    """Returns the paths of the images whose bands are files, how the user would write them, and notes."""
    images, notes = group_bands(relative, bands)
    as_given: dict[str, str] = {}
    for path, name in zip(relative, given, strict=True):
        split = bands.split(path)
        if split is not None:
            in_name = bands.split(name.replace(os.sep, "/"))
            as_given.setdefault(split[0], in_name[0] if in_name else split[0])
    return images, [as_given[path] for path in images], notes


def _check_files(given: Sequence[str], paths: Sequence[str]) -> None:
    """Raises ValueError if a path is not that of an image file; a file with the suffix of an image is not opened."""
    missing = [name for name, path in zip(given, paths, strict=True) if not os.path.exists(path)]
    if missing:
        raise ValueError(f"no such file: {listed(missing)}")
    folders = [name for name, path in zip(given, paths, strict=True) if os.path.isdir(path)]
    if folders:
        raise ValueError(f"{listed(folders)} is a folder, and others are files; want either folders or image files")
    for name, path in zip(given, paths, strict=True):
        if suffix_of(os.path.basename(path)) not in IMAGE_SUFFIXES and not begins_as_image(path):
            raise ValueError(f"{shown_name(name)} is no image that can be read, as .jpg, .png and .tif are")


def _common_folder(paths: Sequence[str]) -> str:
    """Returns the deepest folder that all files are in or below; empty if they lie on different drives."""
    try:
        return os.path.commonpath({os.path.dirname(path) for path in paths})
    except ValueError:
        return ""


def _shown_folder(root: str) -> str:
    """Returns a folder as messages show it: from the working folder if it is below."""
    inside = root.removeprefix(os.path.join(os.getcwd(), ""))
    return shown_name("this folder" if root == os.getcwd() else inside)


def _split_by_folder(files: _Files) -> dict[str, FoundSplit]:
    """Returns the splits of some files by their names; one with an empty name if their folders are no splits."""
    folders = files.folders()
    tops = sorted({parts[0] if parts else "" for parts in folders})
    if not all(role_of(top) for top in tops):
        return {"": _labelled_by_folder(files, range(len(folders)), 0)}
    splits_by_role(tops)  # refuses two splits of one role
    index: dict[str, list[int]] = {}
    for number, parts in enumerate(folders):
        index.setdefault(parts[0], []).append(number)
    return {name: _labelled_by_folder(files, index[name], 1) for name in tops}


def _labelled_by_folder(files: _Files, index: Sequence[int], depth: int) -> FoundSplit:
    """Returns some files with the names of the folders at a depth, from 0, as their classes."""
    all_folders = files.folders()
    folders = [all_folders[i] for i in index]
    strays = [files.given[i] for i, parts in zip(index, folders, strict=True) if len(parts) <= depth]
    if not strays:
        classes, labels = np.unique([parts[depth] for parts in folders], return_inverse=True)
        return FoundSplit(files.images(index, labels, [str(name) for name in classes]))
    reason = f"has no class folders: its {len(index)} files lie in one folder, as {shown_name(strays[0])}"
    if len(index) == 1:
        reason = "is one file, which has no class"
    if len(strays) < len(index):
        reason = f"has {counted(len(strays), 'file')} beside its class folders, as {listed(strays, 3)}"
    return FoundSplit(files.images(index), reason)
