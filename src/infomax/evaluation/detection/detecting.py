"""Applies a detector to all test images: each rank to its share, and every rank gets what all have detected."""

from collections.abc import Iterator

import torch
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.loading import open_checked, read_ahead
from infomax.evaluation.detection.masks import encode_masks
from infomax.evaluation.detection.model import Detector
from infomax.evaluation.detection.scoring import Detection
from infomax.evaluation.tuning import Compute
from infomax.runtime.collectives import gather_objects, rank, world_size
from infomax.runtime.progress import ProgressBar

IMAGES_AT_ONCE = 4
MASK_THRESHOLD = 0.5


@torch.no_grad()
def detect_all(detector: Detector, images: Images, objects: CocoObjects, compute: Compute) -> list[Detection]:
    """Returns what a detector finds in all images of a split, in their order; the same on all ranks.

    Images pass the network one by one, so that none is padded by another.

    Args:
        detector: The detector, which is put in evaluation mode, and back in training mode if it was in it.
        images: The images.
        objects: Their objects, of which only the sizes of the images are read.
        compute: What it computes on.

    Raises:
        ValueError: naming the image, if it cannot be read, or is of another size.
        FloatingPointError: if a score is NaN.
    """
    first, last = (r * len(images) // world_size() for r in (rank(), rank() + 1))
    was_training, found = detector.training, []
    detector.eval()
    bar = ProgressBar("detects", last - first, quiet=compute.quiet or rank() > 0)
    with bar:
        for index, pixels in _read(images, objects, range(first, last), compute):
            image = pixels.to(compute.device, non_blocking=True).float() / 255
            with compute.cast():
                (detections,) = detector([image])
            found += _of_image(index, detections)
            bar.update()
    detector.train(was_training)
    return [detection for part in gather_objects(found) for detection in part]


def _read(images: Images, objects: CocoObjects, indices: range, compute: Compute) -> Iterator[tuple[int, Tensor]]:
    """Yields the index and the pixels of each image, [3, h, w]."""

    def read(index: int) -> tuple[int, Tensor]:
        pixels = open_checked(images, objects, index).transpose(2, 0, 1).copy()
        return index, torch.from_numpy(pixels)

    groups = (indices[i : i + IMAGES_AT_ONCE] for i in range(0, len(indices), IMAGES_AT_ONCE))
    calls = ([lambda index=index: read(index) for index in group] for group in groups)
    for group in read_ahead(calls, workers=compute.workers):
        yield from group


def _of_image(index: int, detections: dict[str, Tensor]) -> Iterator[Detection]:
    """Yields the detections of one image."""
    boxes, scores = detections["boxes"].double().cpu(), detections["scores"].double().cpu()
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise FloatingPointError("detections became infinite or NaN; a smaller --learning-rate is the usual cure")
    if not len(boxes):
        return
    masks = encode_masks((detections["masks"][:, 0] > MASK_THRESHOLD).cpu().numpy())
    boxes[:, 2:] -= boxes[:, :2]
    columns = (detections["labels"].tolist(), scores.tolist(), boxes.tolist(), masks)
    for label, score, box, mask in zip(*columns, strict=True):
        yield Detection(index, label - 1, score, (box[0], box[1], box[2], box[3]), mask)
