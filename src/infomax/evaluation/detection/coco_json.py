"""Reads and checks a JSON in COCO's format; each contradiction is one line that names the file and the object."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from infomax.runtime.json_values import shorten

MAX_SIDE = 100_000
"""Pixels of a side of an image; more are a mistake."""


@dataclass(frozen=True)
class CocoFile:
    """A frozen dataclass that holds a JSON in COCO's format, as arrays."""

    shown: Path
    """The file, relative to the folder of the data set."""
    image_ids: Int[np.ndarray, " images"]
    file_names: tuple[str, ...]
    sizes: Int[np.ndarray, "images 2"]
    """Width and height of each image."""
    category_ids: Int[np.ndarray, " categories"]
    """Rising numbers of the categories."""
    category_names: tuple[str, ...]
    object_ids: Int[np.ndarray, " objects"]
    object_images: Int[np.ndarray, " objects"]
    """Position of each object's image in ``image_ids``."""
    object_categories: Int[np.ndarray, " objects"]
    """Position of each object's category in ``category_ids``."""
    boxes: Float64[np.ndarray, "objects 4"]
    """Left, top, width and height, in pixels."""
    areas: Float64[np.ndarray, " objects"]
    """Area of each object, by which scores tell small from large ones."""
    crowd: Bool[np.ndarray, " objects"]
    """Whether each object is a crowd."""
    has_mask: Bool[np.ndarray, " objects"]
    segmentations: tuple[bytes, ...]
    """Each object's segmentation as JSON: its valid polygons, or a run-length encoding; ``[]`` if there is none."""

    def segmentation(self, position: int) -> Any:
        """Returns an object's polygons, or its run-length encoding."""
        return json.loads(self.segmentations[position])


def read_coco_json(file: Path, *, shown: Path) -> CocoFile:
    """Reads a JSON in COCO's format.

    Args:
        file: The file.
        shown: The file as messages name it.

    Raises:
        ValueError: naming the file and what is wrong.
        OSError: if it cannot be read.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} is broken: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{shown} must hold an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{shown} has no list of {key}, and is not in COCO's format for objects")
    images, categories = _by_id(content["images"], shown, "image"), _by_id(content["categories"], shown, "category")
    if not images or not categories:
        raise ValueError(f"{shown} has no {'images' if not images else 'categories'}")
    files, sizes = zip(*(_check_image(image, shown) for image in images.values()), strict=True)
    numbers = sorted(categories)
    objects = _Objects(shown, images, numbers, np.array(sizes))
    for annotation in content["annotations"]:
        objects.add(annotation)
    return CocoFile(
        shown=shown,
        image_ids=np.array(list(images)),
        file_names=files,
        sizes=np.array(sizes),
        category_ids=np.array(numbers),
        category_names=tuple(_name(categories[number], shown) for number in numbers),
        **objects.arrays(),
    )


def _by_id(items: Iterable[Any], shown: Path, word: str) -> dict[int, Mapping[str, Any]]:
    """Returns images or categories by their numbers."""
    found: dict[int, Mapping[str, Any]] = {}
    for item in items:
        number: Any = item.get("id") if isinstance(item, dict) else None
        if not _is_whole(number):
            raise ValueError(f"{shown}: each {word} must have a whole number as id, but one is {shorten(item)}")
        if number in found:
            raise ValueError(f"{shown}: the {word} id {number} is there twice")
        found[number] = item
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _name(category: Mapping[str, Any], shown: Path) -> str:
    name = category.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{shown}: the category {category['id']} must have a name, but it is {shorten(name)}")
    return name


def _check_image(image: Mapping[str, Any], shown: Path) -> tuple[str, tuple[int, int]]:
    """Returns the file name of an image, and its width and height."""
    name, where = image.get("file_name"), f"{shown}: the image {image['id']}"
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{where} must have a file_name, but it is {shorten(name)}")
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{where} has the file_name {shorten(name)}, which leads out of the folder")
    size: Any = image.get("width"), image.get("height")
    for word, side in zip(("width", "height"), size, strict=True):
        if not _is_whole(side) or not 1 <= side <= MAX_SIDE:
            raise ValueError(f"{where} must have a {word} in pixels, but it is {shorten(side)}")
    return name, size


class _Objects:
    """Checks annotations one by one, and collects them as columns."""

    def __init__(self, shown: Path, images: Iterable[int], categories: Iterable[int], sizes: np.ndarray):
        self.shown, self.sizes = shown, sizes
        self.images = {number: i for i, number in enumerate(images)}
        self.categories = {number: i for i, number in enumerate(categories)}
        self.ids: dict[int, None] = {}
        self.columns: list[tuple[int, int, list[float], float, bool]] = []
        self.segmentations: list[bytes] = []

    def add(self, annotation: Any) -> None:
        """Checks one annotation and keeps it."""
        number: Any = annotation.get("id") if isinstance(annotation, dict) else None
        if not _is_whole(number):
            raise ValueError(f"{self.shown}: each annotation must have a whole number as id: {shorten(annotation)}")
        where = f"{self.shown}: the annotation {number}"
        if number in self.ids:
            raise ValueError(f"{where} is there twice")
        self.ids[number] = None
        image, category, crowd = (annotation.get(key) for key in ("image_id", "category_id", "iscrowd"))
        for word, value, known in (("image", image, self.images), ("category", category, self.categories)):
            if not _is_whole(value) or value not in known:
                raise ValueError(f"{where} is of the {word} {shorten(value)}, which is not in the list of them")
        if crowd not in (None, 0, 1):
            raise ValueError(f"{where} must have 0 or 1 as iscrowd, but it is {shorten(crowd)}")
        box = annotation.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and min(box[2:]) >= 0):
            raise ValueError(f"{where} must have a bbox of left, top, width and height, but it is {shorten(box)}")
        position = self.images[image]
        segmentation = self._check_segmentation(annotation.get("segmentation"), position, where)
        area = annotation.get("area", box[2] * box[3])
        if not _is_number(area) or area < 0:
            raise ValueError(f"{where} must have an area of at least 0, but it is {shorten(area)}")
        self.columns.append((position, self.categories[category], box, float(area), crowd == 1))
        self.segmentations.append(json.dumps(segmentation, separators=(",", ":")).encode())

    def _check_segmentation(self, segmentation: Any, image: int, where: str) -> Any:
        """Returns a segmentation without polygons of fewer than 3 points, which enclose nothing."""
        if segmentation is None:
            return []
        if isinstance(segmentation, dict):
            return self._check_run_lengths(segmentation, image, where)
        if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
            raise ValueError(f"{where} must have polygons or run lengths as segmentation: {shorten(segmentation)}")
        for polygon in segmentation:
            if len(polygon) % 2 or not all(map(_is_number, polygon)):
                raise ValueError(f"{where} has a polygon that is no list of x and y: {shorten(polygon)}")
        return [polygon for polygon in segmentation if len(polygon) >= 6]

    def _check_run_lengths(self, encoding: dict[str, Any], image: int, where: str) -> dict[str, Any]:
        """Returns a run-length encoding, compressed or not, if it is of the image's size."""
        counts, size = encoding.get("counts"), encoding.get("size")
        width, height = self.sizes[image].tolist()
        if size != [height, width]:
            raise ValueError(
                f"{where} has a mask of the size {shorten(size)} (height, width), but its image has {[height, width]}"
            )
        if isinstance(counts, list):
            if not all(_is_whole(count) and count >= 0 for count in counts) or sum(counts) != width * height:
                raise ValueError(f"{where} has run lengths that do not add up to the {width * height:,} pixels")
        elif not isinstance(counts, str) or decoded_length(counts) != width * height:
            raise ValueError(f"{where} has compressed run lengths that are not those of {width * height:,} pixels")
        return {"counts": counts, "size": size}

    def arrays(self) -> dict[str, Any]:
        """Returns the columns by their names in :class:`CocoFile`."""
        images, categories, boxes, areas, crowd = zip(*self.columns, strict=True) if self.columns else ((),) * 5
        return {
            "object_ids": np.array(list(self.ids), np.int64),
            "object_images": np.array(images, np.int64),
            "object_categories": np.array(categories, np.int64),
            "boxes": np.array(boxes, np.float64).reshape(-1, 4),
            "areas": np.array(areas, np.float64),
            "crowd": np.array(crowd, bool),
            "has_mask": np.array([x != b"[]" for x in self.segmentations], bool),
            "segmentations": tuple(self.segmentations),
        }


def decoded_length(counts: str) -> int:
    """Returns the number of pixels that compressed run lengths are of; -1 if the text is none.

    A count is written in 5 bits a character, from code 48 on, the sixth bit saying that more follow; from the
    fourth on as the difference to the one before the last. Code that reads it without this check trusts it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return -1
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return -1
        value = shift = 0
    return sum(runs) if shift == 0 else -1
