"""Masks of objects: polygons and run lengths become pixels, and detections become run lengths, by faster-coco-eval."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from infomax.runtime.extras import how_to_install

PACKAGES = ("pycocotools", "faster_coco_eval")


def check_packages(protocol: str = "detect", packages: Sequence[str] = PACKAGES) -> None:
    """Checks that what a protocol needs for COCO's format is installed.

    Args:
        protocol: Name of the protocol.
        packages: Names of the modules that it needs.

    Raises:
        ValueError: in a line that says how it is installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(f"infomax evaluate {protocol} needs {missing[0]}: {how_to_install('detection')}")


def encode_segmentation(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """Returns the compressed run lengths of an object's polygons or run lengths.

    Args:
        segmentation: Polygons, compressed or uncompressed run lengths, as :mod:`.coco_json` has checked them.
        width: Width of the image.
        height: Height of the image.
    """
    mask = _mask_functions()
    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask.frPyObjects(segmentation, height, width)
    return segmentation


def decode_segmentation(segmentation: Any, width: int, height: int) -> UInt8[np.ndarray, "h w"]:
    """Returns the pixels of an object, 1 where it is; see :func:`encode_segmentation`."""
    return _mask_functions().decode(encode_segmentation(segmentation, width, height))


def _mask_functions() -> Any:
    """Returns functions of masks; those of pycocotools 2.0.11 warn that numpy will refuse them."""
    from faster_coco_eval.core import mask

    return mask


def encode_masks(masks: Bool[np.ndarray, "n h w"]) -> list[dict[str, Any]]:
    """Returns the compressed run lengths of masks, with text that JSON can hold."""
    encoded = _mask_functions().encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [{"size": list(x["size"]), "counts": x["counts"].decode()} for x in encoded]
