"""Writes small folders in COCO's format for tests: coloured boxes on a dark ground."""

import copy
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
CATEGORIES = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
COLOURS = {3: (220, 30, 30), 7: (30, 200, 30)}


def polygon(box):
    """The corners of a box of left, top, width and height."""
    left, top, width, height = box
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def annotation(number, image, category, box, **changes):
    """An object whose mask is its box."""
    own = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0}
    return {**own, "area": box[2] * box[3], "segmentation": [polygon(box)], **changes}


def toy_content(count: int = 4) -> dict:
    """The JSON of images with two boxes each, of other places from image to image."""
    images = [{"id": 10 + i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(count)]
    objects = []
    for i in range(count):
        for j, category in enumerate((3, 7)):
            box = (4 + 3 * i + 24 * j, 6 + 25 * j, 20, 22 + 2 * i)
            objects.append(annotation(2 * i + j, 10 + i, category, box))  # the first one has the id 0
    return {"images": images, "annotations": objects, "categories": copy.deepcopy(CATEGORIES)}


def write_coco(folder: Path, train: dict | None = None, val: dict | None = None) -> Path:
    """Writes the folder with its images; those that both JSONs name are the same files."""
    train = toy_content() if train is None else train
    val = copy.deepcopy(train) if val is None else val
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, content in (("train", train), ("val", val)):
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        (folder / f"{split}2017").mkdir(exist_ok=True)
        for image in content["images"]:
            pixels = np.full((image["height"], image["width"], 3), 40, np.uint8)
            for drawn in content["annotations"]:
                if drawn.get("image_id") == image["id"] and drawn.get("category_id") in COLOURS:
                    left, top, width, height = (round(side) for side in drawn["bbox"])
                    pixels[top : top + height, left : left + width] = COLOURS[drawn["category_id"]]
            Image.fromarray(pixels).save(folder / f"{split}2017" / image["file_name"])
    return folder
