"""The images of a page: which are shown, what they are called, and their thumbnails. No torch is imported."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.sources.location import DataLocation
from infomax.data.sources.named import NAMED_DATASETS
from infomax.data.splits import Source, describe_splits, preview_images, shown_name
from infomax.data.streams import Stream
from infomax.reporting.pages.gallery import Thumbnail, make_thumbnail, thumbnail_divisor
from infomax.reporting.run_page.decisions import Decisions
from infomax.runs.public_words import public_data_name, without_folders
from infomax.runs.run_folder import Run

THUMBNAIL_SIDE = 96
"""Longer side of a thumbnail on a page of one run, in pixels."""
LEAST_SIDE = 64
"""Longer side up to which images of fewer pixels are enlarged by a whole factor."""
QUALITY = 80
"""Quality of a thumbnail's JPEG: small pictures show its blocks sooner than large ones."""
UNREADABLE = "grey"


@dataclass(frozen=True)
class ShownImages:
    """A frozen dataclass that holds the images of one data set that a page shows."""

    source: Source
    images: Images
    """The images that are shown, in the order of the data set."""
    names: Sequence[str]
    """A name for each, which gives away no folder of the machine."""
    labels: Int[np.ndarray, " n"] | None
    """The class of each; None without labels, or if an image shows several classes."""
    classes: Sequence[str]
    words: str
    """Says which images they are, as ``2,000 of 10,000 test images of cifar10.npz, drawn with seed 0``."""

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> str:
        """Returns the name of an image's class; empty without labels."""
        return "" if self.labels is None else self.class_names[int(self.labels[index])]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes as the page shows them: a number alone would not say what it is."""
        return tuple(f"class {name}" if str(name).isdecimal() else str(name) for name in self.classes)

    def open(self, index: int) -> Image.Image:
        """Decodes an image, large JPEGs at a part of their size; a grey square stands for what cannot be read."""
        try:
            return self.images.show(index, partial(thumbnail_divisor, side=THUMBNAIL_SIDE))
        except ValueError:
            return Image.new("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), UNREADABLE)

    def thumbnail(self, index: int, *details: str, side: int, mistake: str = "") -> Thumbnail:
        """Returns a thumbnail of an image, with its name and its class.

        Args:
            index: The image's number among those that are shown.
            details: Further lines below its name.
            side: Longer side, in pixels.
            mistake: A word that names what is wrong about it; empty if nothing is.
        """
        lines = tuple(filter(None, (self.label(index), *details)))
        return Thumbnail(encode(self.open(index), side), self.names[index], lines, mistake, is_mistake=bool(mistake))


def encode(image: Image.Image, side: int) -> bytes:
    """Returns an image as a JPEG whose longer side has at most ``side`` pixels.

    An image of few pixels, as a digit of 8, is enlarged by a whole factor: each pixel is a square that nobody takes for
    sharp, and JPEG does not mix the colours of neighbours.
    """
    rgb = image.convert("RGB")
    if (factor := LEAST_SIDE // max(rgb.size)) > 1:
        rgb = rgb.resize((factor * rgb.width, factor * rgb.height), Image.Resampling.NEAREST)
    return make_thumbnail(rgb, side=side, quality=QUALITY)


def locate(run: Run, data: str | None) -> DataLocation:
    """Returns where the images of a run are.

    Args:
        run: The run.
        data: Where they are now, or others, if the user says so.
    """
    location = run.location
    if data is None or data == location.data:
        return location
    return replace(location, data=data, data_dir=location.data_dir if data in NAMED_DATASETS else None)


def open_source(location: DataLocation, decisions: Decisions) -> Source:
    """Opens the images at a location, and says what was decided about them.

    Raises:
        ValueError: if they are not there.
    """
    try:
        source = location.open()
    except ValueError:
        if location.classes is None and location.subset is None:
            raise
        source = replace(location, classes=None, subset=None).open()  # others than those that were trained on
        decisions.add(f"{shown_name(source.name)}: all images are shown, for what limited the training fits no more")
    for line in describe_splits(source, to_train=True, notes_alone=True):
        decisions.add(line)
    return source


def why_other_images(source: Source, run: Run) -> str:
    """Returns words for how the images differ from those that a run was trained on; empty if they are the same."""
    config = run.config
    if source.pretraining.fingerprint() == config["fingerprint"]:
        return ""
    count = len(source.pretraining)
    if count != config["images"]:
        return f"it was trained on {config['images']:,} images, and these are {count:,}"
    return "it was trained on images of other names, in another order or with other pixels"


def choose_images(
    source: Source, *, most: int, seed: int, decisions: Decisions, pixel_format: PixelFormat = RGB
) -> ShownImages:
    """Chooses the images that are shown: those to test on if the data set keeps some apart, else those to train on.

    Of more than ``most`` images, so many are drawn from all of them.

    Args:
        source: The data set.
        most: Number of images to show at most.
        seed: Seed of the draw.
        decisions: Gets a line if some are drawn.
        pixel_format: The format in which they are shown, if it is not 8-bit RGB.

    Raises:
        ValueError: if there are none that could be opened by their number, as those of a stream.
    """
    images: Images | Stream = source.train if source.test is None else source.test
    kind = "training" if source.test is None else "test"
    if isinstance(images, Stream):
        raise ValueError("they are a stream, for training, whose images stay in no place")
    index, drawn = np.arange(len(images)), ""
    name = public_data_name(source.name)
    words = f"all {len(images):,} {kind} images of {name}"
    if len(images) > most:
        index = np.sort(np.random.default_rng(seed).choice(len(images), most, replace=False))
        drawn = f", drawn from all of them with seed {seed}"
        words = f"{most:,} of {len(images):,} {kind} images of {name}{drawn}"
        decisions.add(f"shows {words}; --max-images N takes another number")
    single = images.labels is not None and images.labels.ndim == 1 and not source.no_labels_reason
    labels = images.labels if single else None
    chosen = images if len(index) == len(images) else select_images(images, index, labels, images.classes)
    names = [public_image_name(images.name(int(i))) for i in index]
    return ShownImages(
        source, chosen.in_format(pixel_format), names, None if labels is None else labels[index], images.classes, words
    )


def public_image_name(name: str) -> str:
    """Returns what an image is called: by its number, or by its path from the data set's folder.

    Of a file elsewhere, as one that was given by its path, the folders are left out.
    """
    if name.isdecimal():
        return f"image {name}"
    if os.path.isabs(name) or name.startswith(("~", "..")):
        return Path(name).name
    return without_folders(name)


def images_to_train_on(source: Source) -> Images:
    """Returns the images that views are drawn of: those to pretrain on, or the first ones of a stream."""
    return preview_images(source)
