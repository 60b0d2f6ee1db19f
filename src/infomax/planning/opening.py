"""Opens the images that a run is planned for, before torch is imported: mistakes are said at once."""

import sys
from dataclasses import dataclass

from infomax.data.sources.location import DataLocation
from infomax.data.sources.named import NOMINAL_SIZES
from infomax.data.splits import Source, describe_splits
from infomax.planning.gpus import GPUS
from infomax.planning.options import PlanOptions
from infomax.recipes.customise import check_changes
from infomax.recipes.registry import DEFAULT_METHOD, parse_recipe_choice
from infomax.runtime.checks import check_count, choose
from infomax.runtime.text import show
from infomax.training.opening import open_measured


@dataclass(frozen=True)
class PlannedImages:
    """A frozen dataclass that holds the images of a plan, as far as they are known."""

    source: Source | None
    """The images; None if they are not opened."""
    data: str
    """Name of the data set."""
    images: int
    """Number of images in it."""


def open_images(options: PlanOptions) -> PlannedImages:
    """Opens the images of a plan, unless their number is known without them.

    Raises:
        ValueError: if there is no such recipe or GPU, no recipe that may be chosen can be changed so, or the images
            cannot be opened.
    """
    for name in options.gpu:
        choose("--gpu", name, GPUS)
    choice = parse_recipe_choice(options.recipe, options.method)
    check_changes(choice.method or DEFAULT_METHOD, choice.recipe, options.changes())
    unseen = None if options.images is None else "images"
    location = options.location(choice.data or unseen)
    source = _open(location, options.download) if options.images is None else None
    if source is not None:
        for line in describe_splits(source, to_train=True, notes_alone=True):
            show(line, file=sys.stderr)
        return PlannedImages(source, source.name, len(source.pretraining))
    images = NOMINAL_SIZES[location.data][0] if options.images is None else options.images
    check_count("--images", images, low=2)
    return PlannedImages(None, location.data, images)


def _open(location: DataLocation, download: bool) -> Source | None:
    """Returns the images; None if they are not on this machine, but their number is known.

    Raises:
        ValueError: if the images cannot be opened and their number is not known.
    """
    try:
        return open_measured(location, download=download)
    except ValueError:
        if location.data in NOMINAL_SIZES and not (
            download or location.data_dir or location.classes or location.subset
        ):
            return None
        raise
