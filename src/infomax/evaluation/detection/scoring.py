"""Average precision of boxes and masks, by pycocotools; faster-coco-eval computes the same for the tests on the way."""

import contextlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.masks import encode_segmentation

Kind = Literal["bbox", "segm"]
KINDS: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
METRICS = ("ap", "ap50", "ap75")


@dataclass(frozen=True)
class Detection:
    """A frozen dataclass that holds one detected object."""

    image: int
    """Index of the image in the split."""
    category: int
    """Position of its category, from 0."""
    score: float
    box: tuple[float, float, float, float]
    """Left, top, width and height, in pixels."""
    mask: dict[str, Any]
    """Compressed run lengths."""


def true_objects(objects: CocoObjects) -> dict[str, Any]:
    """Returns the objects of a split as the content of a JSON in COCO's format.

    Images, categories and objects are numbered from 1: an object of the number 0 would count as not found.
    """
    file = objects.file
    sizes = [objects.size_of_image(image) for image in range(len(objects.image_index))]
    annotations = []
    for image, (width, height) in enumerate(sizes):
        for position in objects.of_image(image):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(file.object_categories[position]) + 1,
                    "bbox": file.boxes[position].tolist(),
                    "area": float(file.areas[position]),
                    "iscrowd": int(file.crowd[position]),
                    "segmentation": _true_mask(file.segmentation(position), width, height),
                }
            )
    return {
        "info": {},
        "images": [{"id": i + 1, "width": width, "height": height} for i, (width, height) in enumerate(sizes)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(file.category_names)],
        "annotations": annotations,
    }


def _true_mask(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """Returns the run lengths of a true object; those of no pixel, if it has no mask."""
    if not segmentation:
        segmentation = {"size": [height, width], "counts": [width * height]}
    return encode_segmentation(segmentation, width, height)


def results(detections: Iterable[Detection], kind: Kind) -> list[dict[str, Any]]:
    """Returns detections as COCO's format for results has them, for boxes or for masks.

    Those for masks have no box, so that small and large ones are told apart by the area of the mask.
    """
    own = {"bbox": lambda x: {"bbox": list(x.box)}, "segm": lambda x: {"segmentation": dict(x.mask)}}[kind]
    return [{"image_id": x.image + 1, "category_id": x.category + 1, "score": x.score, **own(x)} for x in detections]


def average_precision(truth: Mapping[str, Any], detections: list[Detection], *, fast: bool = False) -> dict[str, float]:
    """Returns the average precision of boxes and masks, from 0 to 1.

    Args:
        truth: What :func:`true_objects` returned; it is not changed.
        detections: What was detected in all images, at most 100 in each.
        fast: Whether faster-coco-eval computes it, instead of pycocotools.

    Returns:
        ``box_ap``, ``box_ap50``, ``box_ap75``, ``mask_ap``, ``mask_ap50`` and ``mask_ap75``: the mean over IoUs from
        0.5 to 0.95 and over the categories that have a true object, and that at an IoU of 0.5 and of 0.75.
    """
    scores: dict[str, float] = {}
    for kind, word in KINDS.items():
        stats = _evaluate(truth, results(detections, kind), kind, fast=fast) if detections else (0.0,) * 3
        scores |= {f"{word}_{metric}": float(value) for metric, value in zip(METRICS, stats, strict=False)}
    return scores


def _evaluate(truth: Mapping[str, Any], found: list[dict[str, Any]], kind: Kind, *, fast: bool) -> Any:
    """Returns the statistics of COCO's evaluation; the first three are AP, AP50 and AP75."""
    coco, coco_eval = _scorer_classes(fast=fast)
    with contextlib.redirect_stdout(io.StringIO()):  # both print how long they took
        true = coco()
        # COCO's code writes into annotations, and shares them with the dataset that it is given.
        true.dataset = {**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]}
        true.createIndex()
        evaluation = coco_eval(true, true.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def _scorer_classes(*, fast: bool) -> tuple[Any, Any]:
    """Returns the classes of true objects and of their evaluation."""
    if fast:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def scorer() -> str:
    """Returns the name and version of what computes the scores of a row."""
    return f"pycocotools {version('pycocotools')}"
