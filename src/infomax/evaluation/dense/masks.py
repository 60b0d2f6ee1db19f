"""Masks that say the class of each pixel, and the source that holds them beside the images. Torch is not imported."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.splits import Source
from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.masks import decode_segmentation

IGNORED = 255
"""The number of a pixel that is neither trained on nor scored."""
MODES = ("P", "L", "1", "I;16", "I")


class Masks(ABC):
    """The masks of the images of a split, in the images' order."""

    @abstractmethod
    def read(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the position of each pixel's class, or :data:`IGNORED`.

        Raises:
            ValueError: naming the mask, if it cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns the words for a mask in a message."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a short hash of the masks and their order, and not of where they are; it covers of many large files
        what that of images does (:meth:`infomax.data.images.contract.Images.fingerprint`)."""


@dataclass(frozen=True)
class PngMasks(Masks):
    """A frozen dataclass that holds masks in PNG files, whose numbers stand for classes."""

    files: FileImages
    positions: UInt8[np.ndarray, "256"]
    """The position of the class of each number."""

    def read(self, index: int) -> UInt8[np.ndarray, "h w"]:
        return self.positions[read_numbers(self.files.root / self.files.files[index])]

    def name(self, index: int) -> str:
        return str(self.files.root / self.files.files[index])

    def fingerprint(self) -> str:
        return f"{self.files.fingerprint()} {self.positions.tolist()}"


@dataclass(frozen=True)
class CocoMasks(Masks):
    """A frozen dataclass that paints the objects of a JSON in COCO's format: crowds first, which are ignored, and then
    from the largest to the smallest object. What no object covers is the background, class 0."""

    objects: CocoObjects

    def read(self, index: int) -> UInt8[np.ndarray, "h w"]:
        width, height = self.objects.size_of_image(index)
        file, positions = self.objects.file, self.objects.of_image(index)
        mask = np.zeros((height, width), np.uint8)
        order = np.lexsort((-file.areas[positions], ~file.crowd[positions]))
        for position in positions[order]:
            if file.has_mask[position]:
                covered = decode_segmentation(file.segmentation(position), width, height) > 0
                mask[covered] = IGNORED if file.crowd[position] else file.object_categories[position] + 1
        return mask

    def name(self, index: int) -> str:
        return f"{self.objects.file.shown} (image {self.objects.file.image_ids[self.objects.image_index[index]]})"

    def fingerprint(self) -> str:
        return self.objects.fingerprint()


@dataclass(frozen=True)
class DenseSource(Source):
    """A frozen dataclass that holds images with a mask each."""

    class_names: tuple[str, ...] = ()
    """Names of the classes, by their positions."""
    class_numbers: tuple[int, ...] = ()
    """The number of each class in the masks; 0 is the background."""
    train_masks: Masks | None = None
    test_masks: Masks | None = None
    masks_state: str = ""
    """Changes with the masks."""

    @property
    def to_train(self) -> tuple[Images, Masks]:
        """Images to train on, and their masks."""
        assert isinstance(self.train, Images)
        assert self.train_masks is not None
        return self.train, self.train_masks

    @property
    def to_test(self) -> tuple[Images, Masks]:
        """Images to test on, and their masks."""
        assert self.test is not None
        assert self.test_masks is not None
        return self.test, self.test_masks

    @cached_property
    def images_hash(self) -> str:
        """16 hexadecimal digits that are equal for equal images with equal masks in the same order, wherever they
        are."""
        parts = [part.fingerprint() for part in (*self.to_train, *self.to_test)]
        return hashlib.sha256(f"{parts} {self.class_names}".encode()).hexdigest()[:16]


def read_numbers(file: Path) -> UInt8[np.ndarray, "h w"]:
    """Returns the numbers in a PNG: those of its palette's colours, or its grays.

    Raises:
        ValueError: naming the file, if it is no such PNG, or has a number above 255.
    """
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.mode not in MODES:
                raise ValueError(
                    f"{file} has colours ({image.mode}), but a mask has numbers of classes: want a palette or gray PNG"
                )
            numbers = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a PNG: {' '.join(str(error).split())[:200]}") from error
    if numbers.max(initial=0) > IGNORED:
        raise ValueError(
            f"{file} has the number {numbers.max()}; classes have numbers from 0 to 254, and 255 is ignored"
        )
    return numbers.astype(np.uint8)


def check_class_count(names: Sequence[str], where: str) -> None:
    """Checks that the positions of all classes fit a mask.

    Raises:
        ValueError: if there are more than 255 classes, or fewer than two.
    """
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(f"{where} has {len(names)} class{'es' * (len(names) != 1)}; want from 2 to {IGNORED}")
