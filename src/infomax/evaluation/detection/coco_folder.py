"""Opens a folder in COCO's format: images, and a JSON with objects for each split; whatever is left out is said.

Torch is not imported, so that mistakes are found before seconds are spent.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources.location import DataLocation, default_data_dir
from infomax.data.splits import Source, counted, listed
from infomax.evaluation.detection.coco_json import CocoFile, read_coco_json
from infomax.evaluation.detection.schedule import COCO_NAME
from infomax.runtime.near_names import missing_path
from infomax.runtime.stages import Stage

COCO_2017 = (118_287, 5_000, 80)
"""Training images, validation images and categories of COCO 2017, by which its folder is recognised."""
LEAST_SIDE = 0.01
"""Pixels of a box; a thinner one has no area."""
SPLIT_WORDS = {"train": ("train",), "val": ("val", "valid", "validation")}


@dataclass(frozen=True)
class CocoObjects:
    """A frozen dataclass that holds the objects of the images that are there, in the images' order."""

    file: CocoFile
    image_index: Int[np.ndarray, " images"]
    """Position of each image that is there in ``file.image_ids``."""
    starts: Int[np.ndarray, " images_and_one"]
    """Where the objects of each image begin in ``order``; the last number is their end."""
    order: Int[np.ndarray, " objects"]
    """Positions of the objects in the arrays of ``file``, image by image."""

    def of_image(self, image: int) -> Int[np.ndarray, " n"]:
        """Returns the positions of an image's objects in the arrays of ``file``."""
        return self.order[self.starts[image] : self.starts[image + 1]]

    def size_of_image(self, image: int) -> tuple[int, int]:
        """Returns the width and the height of an image, as the JSON says."""
        width, height = self.file.sizes[self.image_index[image]]
        return int(width), int(height)

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that change with the objects, their order or the names of their categories."""
        file, digest = self.file, hashlib.sha256()
        for array in (file.boxes, file.areas, file.crowd, file.object_categories, self.order, self.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b"".join(file.segmentations) + repr(file.category_names).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class CocoSource(Source):
    """A frozen dataclass that holds the images of a folder in COCO's format, and the objects in them."""

    train_objects: CocoObjects | None = None
    """Objects to train on; images that have none are left out of ``train``."""
    test_objects: CocoObjects | None = None
    """Objects to score by, crowds among them, in all images of ``test``."""

    @property
    def to_train(self) -> tuple[Images, CocoObjects]:
        """Images to train on, and their objects."""
        assert isinstance(self.train, Images)
        assert self.train_objects is not None
        return self.train, self.train_objects

    @property
    def to_test(self) -> tuple[Images, CocoObjects]:
        """Images to test on, and their objects."""
        assert self.test is not None
        assert self.test_objects is not None
        return self.test, self.test_objects

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, by rising number of the category."""
        return self.to_train[1].file.category_names


def open_coco(location: DataLocation) -> CocoSource:
    """Opens the folder in COCO's format that a location names.

    Args:
        location: The folder; ``coco`` is that folder below ``data_dir``. Classes and subsets cannot be chosen.

    Raises:
        ValueError: in one line, if a file is missing, no JSON of objects, or contradicts itself.
    """
    for word in ("classes", "subset", "bands", "layout"):
        if (value := getattr(location, word)) is not None:
            raise ValueError(
                f"--{word} {value} is not for infomax evaluate detect, which takes all objects of a folder"
            )
    decoding, data = location.decoding(), location.data
    folder = Path(os.path.expanduser(data))
    if data == COCO_NAME and (location.data_dir is not None or not folder.is_dir()):
        folder = Path(os.path.expanduser(location.data_dir or default_data_dir())) / COCO_NAME
    if not folder.is_dir():
        raise ValueError(
            f"--data {data}: {missing_path(folder)}; want a folder in COCO's format, with images and annotations/"
            "instances_train2017.json and instances_val2017.json, or the like; infomax does not download COCO"
        )
    try:
        with Stage(f"reading {folder}"):
            source = _open_folder(data, folder)
    except ValueError as error:
        raise ValueError(f"--data {data}: {error}") from error
    images = {split: getattr(source, split).decoded_by(decoding) for split in ("train", "test")}
    return replace(source, **images)


def _open_folder(name: str, folder: Path) -> CocoSource:
    """Opens the two splits of a folder."""
    files = {split: find_json(folder, split) for split in SPLIT_WORDS}
    train, val = (read_coco_json(files[split], shown=files[split].relative_to(folder)) for split in SPLIT_WORDS)
    check_same_categories(train, val)
    notes: list[str] = []
    train_images, train_objects = open_split(folder, "train", train, notes)
    test_images, test_objects = open_split(folder, "val", val, notes)
    if not len(test_objects.order):
        raise ValueError(f"{val.shown} has no object in an image that is there, so that nothing can be scored")
    sizes = (len(train_images), len(test_images), len(train.category_ids))
    is_coco = sizes == COCO_2017
    train_images, train_objects = _to_train_on(train_images, train_objects, notes)
    if is_coco and name != COCO_NAME:
        notes.append(f"is COCO 2017 by its {sizes[0]:,} and {sizes[1]:,} images: its results are named {COCO_NAME}")
    elif not is_coco and name == COCO_NAME:
        name = str(folder)
        notes.append(f"is not all of COCO 2017: its results are named {name}, and stand beside no paper's")
    splits = [_split_name(file) for file in (train, val)]
    notes.insert(
        0,
        f"trains on {splits[0]}: {counted(len(train_images))}, {counted(len(train_objects.order), 'object')} of "
        f"{_categories(len(train.category_ids))}; tests on {splits[1]}: {counted(len(test_images))}, "
        f"{counted(len(test_objects.order), 'object')}",
    )
    return CocoSource(
        name=COCO_NAME if is_coco else name,
        train=train_images,
        test=test_images,
        folders=(folder,),
        train_split=splits[0],
        test_split=splits[1],
        notes=tuple(notes),
        no_labels_reason="an image shows several objects, which infomax evaluate detect takes",
        train_objects=train_objects,
        test_objects=test_objects,
    )


def _categories(count: int) -> str:
    return f"{count} categor{'y' if count == 1 else 'ies'}"


def _split_name(file: CocoFile) -> str:
    """Returns the name of a split, as ``val2017`` of ``instances_val2017.json``; else that of its folder."""
    stem = file.shown.stem.removeprefix("instances_")
    return stem if not stem.startswith("_") else file.shown.parent.name


def find_json(folder: Path, split: str) -> Path:
    """Returns the JSON of a split: below the folder, in ``annotations``, or in the folder of the split.

    Raises:
        ValueError: if there is none, or several that may be meant.
    """
    words = SPLIT_WORDS[split]
    beside = [f for place in (folder / "annotations", folder) if place.is_dir() for f in sorted(place.glob("*.json"))]
    found = [file for file in beside if _names_split(file.stem, split)]
    if not found:
        found = sorted({file for word in words for file in folder.glob(f"{word}*/*.json")})
    named = [file for file in found if file.stem.startswith("instances")] or found
    if len(named) == 1:
        return named[0]
    if not named:
        there = listed([str(file.relative_to(folder)) for file in beside]) or "no JSON at all"
        raise ValueError(
            f"there is no JSON of the {split} images, as annotations/instances_{split}2017.json; there is {there}"
        )
    names = listed([str(file.relative_to(folder)) for file in named])
    raise ValueError(f"several files may be the objects of the {split} images: {names}; leave one of them there")


def _names_split(stem: str, split: str) -> bool:
    """Returns whether a file's name has the word of a split, perhaps with numbers, as ``instances_val2017``."""
    words = stem.lower().replace("-", "_").replace(".", "_").split("_")
    return any(word.rstrip("0123456789") in SPLIT_WORDS[split] for word in words)


def check_same_categories(train: CocoFile, val: CocoFile) -> None:
    """Checks that two JSONs have the same categories.

    Raises:
        ValueError: naming the first one that differs.
    """
    ours, theirs = (dict(zip(x.category_ids.tolist(), x.category_names, strict=True)) for x in (train, val))
    if ours != theirs:
        number = next(i for i in sorted({*ours, *theirs}) if ours.get(i) != theirs.get(i))
        raise ValueError(
            f"{train.shown} and {val.shown} must have the same categories, but category {number} is "
            f"{ours.get(number, 'missing')!r} in one and {theirs.get(number, 'missing')!r} in the other"
        )


def open_split(folder: Path, split: str, file: CocoFile, notes: list[str]) -> tuple[FileImages, CocoObjects]:
    """Returns the images of a JSON that are there, and all their objects.

    Args:
        folder: The folder of the data set.
        split: Name of the split, ``train`` or ``val``.
        file: The JSON.
        notes: A line is added for images that are not there.
    """
    root = _image_root(folder, split, file)
    is_there = _files_there(root, file.file_names)
    missing = np.flatnonzero(~is_there)
    if len(missing):
        names = listed([file.file_names[i] for i in missing], limit=3)
        count = f"{len(missing):,} of {len(is_there):,} {split} images"
        notes.append(f"{count} left out, as their files are not there: {names}")
    index = np.flatnonzero(is_there)
    images = FileImages(root, PackedNames.pack(file.file_names[i] for i in index), None, [])
    return images, _objects_of(file, index)


def _objects_of(file: CocoFile, image_index: np.ndarray, keep: np.ndarray | None = None) -> CocoObjects:
    """Returns the objects of some images of a JSON, image by image in the order of the JSON.

    Args:
        file: The JSON.
        image_index: Positions of the images in the JSON.
        keep: Whether each object of the JSON is taken; None takes all.
    """
    position = np.full(len(file.image_ids), -1)
    position[image_index] = np.arange(len(image_index))
    image = position[file.object_images]
    taken = image >= 0 if keep is None else (image >= 0) & keep
    order = np.flatnonzero(taken)
    order = order[np.argsort(image[order], kind="stable")]
    starts = np.searchsorted(image[order], np.arange(len(image_index) + 1))
    return CocoObjects(file, image_index, starts, order)


def _image_root(folder: Path, split: str, file: CocoFile) -> Path:
    """Returns the folder in which the first image of a JSON is that is found.

    Raises:
        ValueError: if none of the usual folders has one of the first images.
    """
    name = _split_name(file)
    candidates = [
        *(folder / part / word for part in ("", "images") for word in (name, split, *SPLIT_WORDS[split])),
        (folder / file.shown).parent,
        folder / "images",
        folder,
    ]
    for root in dict.fromkeys(candidates):
        if any((root / image).is_file() for image in file.file_names[:20]):
            return root
    shown = listed([str(root.relative_to(folder)) for root in dict.fromkeys(candidates)], limit=8)
    raise ValueError(f"{file.shown} names {file.file_names[0]}, which is in none of the folders {shown}")


def _files_there(root: Path, names: tuple[str, ...]) -> np.ndarray:
    """Returns whether each image is there; each folder is listed once."""
    parents: dict[str, set[str]] = {}
    there = np.zeros(len(names), bool)
    for i, name in enumerate(names):
        parent, _, last = name.rpartition("/")
        if parent not in parents:
            try:
                parents[parent] = {entry.name for entry in os.scandir(root / parent)}
            except OSError:
                parents[parent] = set()
        there[i] = last in parents[parent]
    return there


def _to_train_on(images: FileImages, objects: CocoObjects, notes: list[str]) -> tuple[FileImages, CocoObjects]:
    """Leaves out what cannot be trained on: crowds, boxes without area, and images without any other object.

    Raises:
        ValueError: if nothing is left.
    """
    file = objects.file
    x, y, width, height = file.boxes.T
    sizes = file.sizes[file.object_images]
    inside_width = np.minimum(x + width, sizes[:, 0]) - np.maximum(x, 0)
    inside_height = np.minimum(y + height, sizes[:, 1]) - np.maximum(y, 0)
    flat = ~file.crowd & (np.minimum(inside_width, inside_height) < LEAST_SIDE)
    without_mask = ~file.crowd & ~flat & ~file.has_mask
    for is_left_out, words in (
        (file.crowd, "a crowd; where crowds are tested on, they are ignored"),
        (flat, "the box has no area within the image"),
        (without_mask, "there is no mask: the segmentation is empty, or has no polygon of 3 points"),
    ):
        if count := int(is_left_out[objects.order].sum()):
            notes.append(f"{counted(count, 'object')} of train left out of the training: {words}")
    trained = _objects_of(file, objects.image_index, ~(file.crowd | flat | without_mask))
    if not len(trained.order):
        raise ValueError(f"{file.shown} has no object with a box and a mask to train on")
    has_objects = np.flatnonzero(np.diff(trained.starts))
    if left_out := len(images) - len(has_objects):
        notes.append(f"{counted(left_out)} of train left out of the training: no object to train on (as in Detectron2)")
    names = PackedNames.pack(images.files[int(i)] for i in has_objects)
    kept = objects.image_index[has_objects]
    return replace(images, files=names), _objects_of(file, kept, ~(file.crowd | flat | without_mask))
