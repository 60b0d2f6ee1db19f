"""Opens a folder of images and masks: PNGs beside the images, or a JSON of objects in COCO's format.

Every file is looked at before anything is computed, and whatever is left out is said. Torch is not imported.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from infomax.data.decoding.image_files import FORMATS
from infomax.data.decoding.orientation import ORIENTATION, TRANSPOSED
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources.location import DataLocation
from infomax.data.sources.suffixes import IMAGE_SUFFIXES, is_litter, suffix_of
from infomax.data.splits import counted, listed
from infomax.evaluation.dense.masks import IGNORED, CocoMasks, DenseSource, PngMasks, check_class_count, read_numbers
from infomax.evaluation.detection import coco_folder
from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.coco_json import read_coco_json
from infomax.evaluation.detection.masks import check_packages
from infomax.runtime.near_names import missing_path
from infomax.runtime.stages import Stage
from infomax.runtime.threads import core_count

SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
IMAGE_WORDS = ("images", "img", "JPEGImages")
MASK_WORDS = ("masks", "annotations", "labels", "SegmentationClass")
VOC_LISTS = "ImageSets/Segmentation"
CLASSES_FILE = "classes.txt"
LAYOUT = "train/images and train/masks, val/images and val/masks, or a JSON in COCO's format for train and val"


@dataclass(frozen=True)
class _Pairs:
    """A frozen dataclass that holds the images of a split that have a mask, and their masks."""

    split: str
    images: FileImages
    masks: FileImages


def open_dense(location: DataLocation) -> DenseSource:
    """Opens the folder of images and masks that a location names.

    Args:
        location: The folder. Classes and subsets cannot be chosen.

    Raises:
        ValueError: in one line, if it has none of the layouts, or a mask cannot be taken.
    """
    for word, value in (("--classes", location.classes), ("--subset", location.subset)):
        if value is not None:
            raise ValueError(f"{word} {value} is not for infomax evaluate dense, which takes all masks of a folder")
    folder = Path(os.path.expanduser(location.data))
    if not folder.is_dir():
        raise ValueError(f"--data {location.data}: {missing_path(folder)}; want a folder with {LAYOUT}")
    try:
        with Stage(f"reading {folder}"):
            source = _open_pngs(location.data, folder) or _open_coco(location.data, folder)
    except ValueError as error:
        raise ValueError(f"--data {location.data}: {error}") from error
    if source is None:
        raise ValueError(f"--data {location.data} has no masks for train and val; want {LAYOUT}")
    images = {split: getattr(source, split).decoded_by(location.decoding()) for split in ("train", "test")}
    return replace(source, **images)


def _open_pngs(name: str, folder: Path) -> DenseSource | None:
    """Opens a folder with masks in PNG files; returns None if it has no folders of them."""
    notes: list[str] = []
    train, val = (_find_pairs(folder, split, notes) for split in SPLIT_WORDS)
    if train is None and val is None:
        return None
    if train is None or val is None:
        raise ValueError(f"there are masks for {'val' if train is None else 'train'} alone; want {LAYOUT}")
    counts = {pairs.split: _count_numbers(pairs) for pairs in (train, val)}
    numbers, names = _find_classes(folder, counts, notes)
    _describe_numbers(counts, numbers, names, notes)
    positions = np.full(256, IGNORED, np.uint8)
    positions[list(numbers)] = np.arange(len(numbers))
    sizes = f"trains on {train.split}: {counted(len(train.images))}; tests on {val.split}: {counted(len(val.images))}"
    states = "".join(p.masks.state(np.arange(len(p.masks))) for p in (train, val))
    return DenseSource(
        name=name,
        train=train.images,
        test=val.images,
        folders=(folder,),
        train_split=train.split,
        test_split=val.split,
        notes=(f"{sizes}; {len(names)} classes: {listed(names)}", *notes),
        no_labels_reason="an image has a mask, which infomax evaluate dense takes",
        class_names=names,
        class_numbers=numbers,
        train_masks=PngMasks(train.masks, positions),
        test_masks=PngMasks(val.masks, positions),
        masks_state=states,
    )


def _find_pairs(folder: Path, split: str, notes: list[str]) -> _Pairs | None:
    """Returns the images and masks of a split; None if there are no such folders.

    Raises:
        ValueError: if several folders may be meant, or no image has a mask.
    """
    pairs = [pair for pair in _places(folder, split) if all(place.is_dir() for place in pair[:2])]
    if len(pairs) > 1:
        shown = listed([str(masks.relative_to(folder)) for _, masks, _ in pairs])
        raise ValueError(f"several folders may be the masks of the {split} images: {shown}; leave one of them there")
    if pairs:
        image_root, mask_root, word = pairs[0]
        images, masks = _list_files(image_root, IMAGE_SUFFIXES), _list_files(mask_root, {".png"})
    else:
        image_root, mask_root, word = folder / "JPEGImages", folder / "SegmentationClass", split
        names = folder / VOC_LISTS / f"{split}.txt"
        if not (image_root.is_dir() and mask_root.is_dir() and names.is_file()):
            return None
        wanted = set(names.read_text().split())
        listings = _list_files(image_root, IMAGE_SUFFIXES), _list_files(mask_root, {".png"})
        images, masks = ({stem: file for stem, file in x.items() if stem in wanted} for x in listings)
    shared = sorted(images.keys() & masks.keys())
    for lacking, reason in ((images, "without a mask"), (masks, "whose image is not there")):
        if left_out := sorted(lacking.keys() - set(shared)):
            word_of = "image" if lacking is images else "mask"
            files = listed([lacking[stem] for stem in left_out], limit=3)
            notes.append(f"{counted(len(left_out), word_of)} of {word} left out, {reason}: {files}")
    if not shared:
        raise ValueError(f"no image in {image_root} has a mask of the same name in {mask_root}, as a.png for a.jpg")
    packed = (PackedNames.pack(files[stem] for stem in shared) for files in (images, masks))
    files = [FileImages(root, names, None, []) for root, names in zip((image_root, mask_root), packed, strict=True)]
    return _Pairs(word, files[0], files[1])


def _places(folder: Path, split: str) -> Iterator[tuple[Path, Path, str]]:
    """Yields the folders that the images and the masks of a split may be in, and the word for the split."""
    for word, images, masks in product(SPLIT_WORDS[split], IMAGE_WORDS, MASK_WORDS):
        yield folder / word / images, folder / word / masks, word
        yield folder / images / word, folder / masks / word, word


def _list_files(root: Path, suffixes: set[str] | frozenset[str]) -> dict[str, str]:
    """Returns the files below a folder with one of some suffixes, by their paths without it.

    Raises:
        ValueError: if two differ in nothing but their suffix.
    """
    found: dict[str, str] = {}
    for place, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if suffix_of(name) in suffixes and not is_litter(name):
                file = Path(place, name).relative_to(root).as_posix()
                stem = file[: -len(Path(name).suffix)]
                if stem in found:
                    raise ValueError(f"{root} has {found[stem]} and {file}, of which one has the mask; leave one there")
                found[stem] = file
    return found


def _count_numbers(pairs: _Pairs) -> dict[int, tuple[int, str]]:
    """Returns how many pixels have each number in the masks of a split, and the first mask with it.

    Raises:
        ValueError: naming the file, if a mask cannot be read or is not as large as its image.
    """

    def count(index: int) -> np.ndarray:
        numbers = read_numbers(pairs.masks.root / pairs.masks.files[index])
        width, height = _size_of(pairs.images, index)
        if numbers.shape != (height, width):
            raise ValueError(
                f"{pairs.masks.files[index]} has {numbers.shape[1]} x {numbers.shape[0]} pixels, but its image "
                f"{pairs.images.files[index]} has {width} x {height}, turned upright"
            )
        return np.bincount(numbers.ravel(), minlength=256)

    totals, first = np.zeros(256, np.int64), np.full(256, -1)
    with ThreadPoolExecutor(min(core_count(), 8)) as pool:
        for index, counts in enumerate(pool.map(count, range(len(pairs.masks)))):
            first[(counts > 0) & (first < 0)] = index
            totals += counts
    return {int(n): (int(totals[n]), pairs.masks.files[int(first[n])]) for n in np.flatnonzero(totals)}


def _size_of(images: FileImages, index: int) -> tuple[int, int]:
    """Returns the width and the height of an image when it is turned upright; most files say it at their beginning."""
    try:
        with Image.open(images.root / images.files[index], formats=FORMATS) as image:
            (width, height), orientation = image.size, image.getexif().get(ORIENTATION)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        height, width = images.open_pixels(index).shape[:2]
        return width, height
    return (height, width) if orientation in TRANSPOSED else (width, height)


def _find_classes(
    folder: Path, counts: dict[str, dict[int, tuple[int, str]]], notes: list[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns the numbers and the names of the classes.

    Raises:
        ValueError: if a mask has a number that no class of ``classes.txt`` has.
    """
    file, found = folder / CLASSES_FILE, sorted({n for split in counts.values() for n in split} - {IGNORED})
    if not file.is_file():
        names = tuple(str(number) for number in found)
        check_class_count(names, "the masks together")
        notes.append(f"there is no {CLASSES_FILE}: the classes are the {len(found)} numbers in the masks")
        return tuple(found), names
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{CLASSES_FILE} is no text in UTF-8") from error
    check_class_count(names, CLASSES_FILE)
    if len(set(names)) < len(names):
        raise ValueError(f"{CLASSES_FILE} names {next(n for n in names if names.count(n) > 1)} twice")
    for split in counts.values():
        for number, (_, mask) in split.items():
            if number != IGNORED and number >= len(names):
                last = f"{CLASSES_FILE} has {len(names)} lines, for the numbers 0 to {len(names) - 1}"
                raise ValueError(f"{mask} has the number {number}, which is no class: {last}; 255 is ignored")
    notes.append(f"the classes are the lines of {CLASSES_FILE}, for the numbers from 0 to {len(names) - 1}")
    return tuple(range(len(names))), names


def _describe_numbers(
    counts: dict[str, dict[int, tuple[int, str]]], numbers: tuple[int, ...], names: tuple[str, ...], notes: list[str]
) -> None:
    """Adds notes on what is ignored and on classes that a split lacks.

    Raises:
        ValueError: if a split has no pixel with a class.
    """
    for split, by_number in counts.items():
        total, ignored = sum(n for n, _ in by_number.values()), by_number.get(IGNORED, (0, ""))[0]
        if ignored == total:
            raise ValueError(f"the masks of {split} have no pixel with a class: all have the number {IGNORED}")
        if ignored:
            notes.append(f"{ignored / total:.1%} of the pixels of {split} are ignored: their number is {IGNORED}")
        missing = [name for number, name in zip(numbers, names, strict=True) if number not in by_number]
        if missing:
            notes.append(f"{split} has no pixel of {len(missing)} of {len(names)} classes: {listed(missing)}")


def _open_coco(name: str, folder: Path) -> DenseSource | None:
    """Opens a folder in COCO's format, whose objects become masks; returns None if it has no JSON."""
    if not (any(folder.glob("*.json")) or any(folder.glob("*/*.json"))):
        return None
    check_packages("dense", ("faster_coco_eval",))
    files = {split: coco_folder.find_json(folder, split) for split in coco_folder.SPLIT_WORDS}
    train, val = (read_coco_json(file, shown=file.relative_to(folder)) for file in files.values())
    coco_folder.check_same_categories(train, val)
    notes: list[str] = []
    train_images, train_objects = coco_folder.open_split(folder, "train", train, notes)
    test_images, test_objects = coco_folder.open_split(folder, "val", val, notes)
    for split, objects in (("train", train_objects), ("val", test_objects)):
        _describe_objects(split, objects, notes)
    names = ("background", *train.category_names)
    check_class_count(names, "the JSON, with the background,")
    notes.append("what no object covers is class 0, background; of objects that overlap, the smaller one is on top")
    sizes = f"trains on train: {counted(len(train_images))}; tests on val: {counted(len(test_images))}"
    return DenseSource(
        name=name,
        train=train_images,
        test=test_images,
        folders=(folder,),
        train_split="train",
        test_split="val",
        notes=(f"{sizes}; {len(names)} classes: {listed(names)}", *notes),
        no_labels_reason="an image has a mask, which infomax evaluate dense takes",
        class_names=names,
        class_numbers=tuple(range(len(names))),
        train_masks=CocoMasks(train_objects),
        test_masks=CocoMasks(test_objects),
        masks_state="".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()),
    )


def _describe_objects(split: str, objects: CocoObjects, notes: list[str]) -> None:
    """Adds notes on crowds and on objects without a mask.

    Raises:
        ValueError: if no image of the split has an object with a mask.
    """
    file, order = objects.file, objects.order
    crowds, painted = file.crowd[order], file.has_mask[order] & ~file.crowd[order]
    if not painted.any():
        raise ValueError(f"{file.shown} has no object with a mask in an image that is there")
    if count := int(crowds.sum()):
        notes.append(f"the pixels of {counted(count, 'crowd')} of {split} are ignored, where no other object is on top")
    if count := int((~file.has_mask[order] & ~crowds).sum()):
        notes.append(f"{counted(count, 'object')} of {split} without a mask left out: their pixels are background")
