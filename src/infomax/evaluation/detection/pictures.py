"""Pictures of a few test images for a page: true objects and detected ones, with their masks drawn over the image."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from infomax.data.images.contract import Images
from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.detect_row import DrawnImage
from infomax.evaluation.detection.loading import open_checked
from infomax.evaluation.detection.masks import decode_segmentation
from infomax.evaluation.detection.scoring import Detection

MOST_IMAGES = 12
LEAST_SCORE = 0.5
"""Score of a detection from which on it is drawn."""
LONGER_SIDE = 360
QUALITY = 80
OPACITY = 0.45
COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (255, 255, 255)),
)
"""Colours that people with any colour vision tell apart (Okabe and Ito), in turn for the objects of an image."""


@dataclass(frozen=True)
class _Drawn:
    """A frozen dataclass that holds an object to draw."""

    words: str
    box: Sequence[float]
    mask: Any


def draw_images(
    images: Images, objects: CocoObjects, detections: Iterable[Detection], *, count: int = MOST_IMAGES
) -> tuple[DrawnImage, ...]:
    """Returns pictures of images at equal distances among those that show an object.

    Args:
        images: The test images.
        objects: Their true objects.
        detections: What was detected in all of them; those with a score of 0.5 are drawn, the best ones on top.
        count: Number of images, at most.
    """
    with_objects = np.flatnonzero(np.diff(objects.starts))
    rows = np.linspace(0, len(with_objects) - 1, min(count, len(with_objects))).astype(int)
    chosen = with_objects[rows].tolist()
    found: dict[int, list[Detection]] = {image: [] for image in chosen}
    for detection in detections:
        if detection.image in found and detection.score >= LEAST_SCORE:
            found[detection.image].append(detection)
    return tuple(_draw_image(images, objects, image, found[image]) for image in chosen)


def _draw_image(images: Images, objects: CocoObjects, image: int, found: list[Detection]) -> DrawnImage:
    """Returns the pictures of one image."""
    file, pixels = objects.file, open_checked(images, objects, image)
    names = file.category_names
    true = [
        _Drawn(names[file.object_categories[p]], file.boxes[p].tolist(), file.segmentation(p) or None)
        for p in objects.of_image(image)
    ]
    detected = [
        _Drawn(f"{names[x.category]} {x.score:.2f}", x.box, x.mask) for x in sorted(found, key=lambda x: x.score)
    ]
    return {
        "name": images.name(image),
        "true": base64.b64encode(_draw(pixels, true)).decode(),
        "detected": base64.b64encode(_draw(pixels, detected)).decode(),
        "true_objects": len(true),
        "detected_objects": len(detected),
    }


def _draw(pixels: np.ndarray, objects: list[_Drawn]) -> bytes:
    """Returns an image with objects drawn over it, as a JPEG."""
    height, width = pixels.shape[:2]
    canvas = pixels.astype(np.float32)
    for number, drawn in enumerate(objects):
        if drawn.mask is not None:
            inside = decode_segmentation(drawn.mask, width, height).astype(bool)
            canvas[inside] += OPACITY * (np.array(COLOURS[number % len(COLOURS)], np.float32) - canvas[inside])
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    scale = LONGER_SIDE / max(width, height)  # small images are enlarged, or their words would cover them
    picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for number, drawn in enumerate(objects):
        left, top, wide, high = (scale * side for side in drawn.box)
        colour = COLOURS[number % len(COLOURS)]
        pen.rectangle((left, top, left + wide, top + high), outline=colour, width=2)
        _write(pen, drawn.words, left, top, colour)
    content = BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def _write(pen: ImageDraw.ImageDraw, words: str, left: float, top: float, colour: tuple[int, int, int]) -> None:
    """Writes words on a ground of the object's colour, at the corner of its box."""
    words = words.encode("ascii", "replace").decode()  # Pillow's own font has no other letters
    place = (max(0, left), max(0, top))
    pen.rectangle(pen.textbbox(place, words), fill=colour)
    pen.text(place, words, fill=(0, 0, 0))
