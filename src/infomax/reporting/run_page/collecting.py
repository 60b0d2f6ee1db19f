"""Collects what a page is made of: opens the images of the runs, and computes features. Torch is imported here."""

import numpy as np

from infomax.data.pixel_format import PixelFormat
from infomax.data.sources.location import DataLocation
from infomax.data.splits import LabelledImages, Source, labelled_splits
from infomax.data.streams import Stream
from infomax.evaluation.options import ComputeOptions, EvaluationOptions
from infomax.evaluation.representations import baselines, represent
from infomax.methods.base import Method
from infomax.reporting.comparison import Report
from infomax.reporting.options import ReportOptions
from infomax.reporting.run_page.content import Content, ShownEncoder
from infomax.reporting.run_page.decisions import Decisions
from infomax.reporting.run_page.images import (
    THUMBNAIL_SIDE,
    ShownImages,
    choose_images,
    locate,
    open_source,
    why_other_images,
)
from infomax.reporting.run_page.shown_runs import Places, ShownRun
from infomax.runs.trained_method import load_trained_method
from infomax.runtime.options import option_names, pick

MOST_MAPS = 3
"""Runs whose neighbours, map and groups of images are shown: more would make the page too large."""
SMALL_SIDE = 64
"""Longer side of the thumbnails of a page with several maps, in pixels."""


def collect(places: Places, report: Report | None, options: ReportOptions) -> Content:
    """Opens the images and computes the features of the first runs; what is not there is said and left out.

    Args:
        places: The runs.
        report: The tables of results, if there are any.
        options: The options of the page.
    """
    collector = _Collector(options, Decisions())
    for number, shown in enumerate(places.runs):
        collector.add(shown, with_features=number < MOST_MAPS, maps=min(MOST_MAPS, len(places.runs)))
    if len(places.runs) > MOST_MAPS:
        names = ", ".join(shown.name for shown in places.runs[:MOST_MAPS])
        collector.decisions.add(
            f"neighbours, maps and groups of images are shown of the first {MOST_MAPS} runs: {names}"
        )
    return Content(
        places,
        options,
        report,
        collector.sources,
        tuple(collector.encoders),
        collector.missing,
        collector.other_images,
        collector.decisions,
    )


class _Collector:
    """Opens images and computes features, each data set once.

    Args:
        options: The options of the page.
        decisions: Keeps the lines on what was decided.
    """

    def __init__(self, options: ReportOptions, decisions: Decisions):
        self.options, self.decisions = options, decisions
        shared = {name: getattr(options, name) for name in option_names(ComputeOptions)}
        self.evaluation = pick(EvaluationOptions, {**shared, "quiet": False})
        self.sources: dict[str, Source] = {}
        self.missing: dict[str, str] = {}
        self.other_images: dict[str, str] = {}
        self.encoders: list[ShownEncoder] = []
        self._opened: dict[DataLocation, Source | str] = {}
        self._chosen: dict[tuple[int, PixelFormat], ShownImages] = {}

    def add(self, shown: ShownRun, *, with_features: bool, maps: int) -> None:
        """Opens the images of a run, and computes their features if they are wanted."""
        source = self._open(locate(shown.run, self.options.data))
        if isinstance(source, str):
            self._miss(shown, source)
            return
        self.sources[shown.name] = source
        if words := why_other_images(source, shown.run):
            self.other_images[shown.name] = words
            self.decisions.add(f"{shown.name}: {words}")
        if not with_features:
            return
        if shown.trained_steps == 0:
            self._miss(shown, "its folder has no encoder yet")
            return
        try:
            self.encoders.append(self._encode(shown, source, THUMBNAIL_SIDE if maps == 1 else SMALL_SIDE))
        except ValueError as error:  # as of an image that cannot be read, or features that are NaN
            self._miss(shown, str(error))

    def _miss(self, shown: ShownRun, reason: str) -> None:
        self.missing[shown.name] = reason
        self.decisions.add(f"{shown.name}: its images are not shown: {reason}")

    def _open(self, location: DataLocation) -> Source | str:
        """Returns the images at a location, or why they are not there."""
        if location not in self._opened:
            try:
                self._opened[location] = open_source(location, self.decisions)
            except (ValueError, OSError) as error:
                is_gone = self.options.data is None and location.missing_option()
                gone = f"{location.data} is not there any more; --data DIR says where it is now"
                self._opened[location] = gone if is_gone else str(error)
        return self._opened[location]

    def _encode(self, shown: ShownRun, source: Source, side: int) -> ShownEncoder:
        """Returns a run with the features of its images, by its encoder and by the one that it is compared with."""
        pixel_format = shown.recipe.preprocessing.pixel_format
        key = id(source), pixel_format
        if key not in self._chosen:
            most, seed = self.options.max_images, self.options.seed
            self._chosen[key] = choose_images(
                source, most=most, seed=seed, pixel_format=pixel_format, decisions=self.decisions
            )
        images = self._chosen[key]
        trained = represent(shown.run.path, self.evaluation)
        reference, *_ = baselines(shown.run.path, trained, _calibration_images(source), self.evaluation)
        features = trained.features(images.images, f"{shown.name}: {len(images):,} images")
        before = reference.features(images.images, f"{shown.name}: {len(images):,} images")
        seed = self.options.seed
        method = self._open_method(shown)
        return ShownEncoder(shown, images, features.float(), reference.name, before.float(), seed, side, method)

    def _open_method(self, shown: ShownRun) -> Method | None:
        """Returns the method of a run as it was trained; None, and a line says why, if there is no checkpoint of it."""
        try:
            method, reason = load_trained_method(shown.run), "its folder keeps no checkpoint"
        except (ValueError, RuntimeError, OSError) as error:  # as one that another version wrote
            method, reason = None, f"its checkpoint cannot be opened: {' '.join(str(error).split())[:200]}"
        if method is None:
            self.decisions.add(f"{shown.name}: neither prototypes nor embeddings are shown, as {reason}")
        return method


def _calibration_images(source: Source) -> LabelledImages:
    """Returns the images that set the untrained encoder's statistics: those that ``infomax evaluate`` takes."""
    splits = labelled_splits(source)
    if splits is not None:
        return splits[0]
    images = source.train if not isinstance(source.train, Stream) else source.test
    assert images is not None, "a stream without test images has no features"
    return LabelledImages(images, np.arange(len(images)), np.zeros(len(images), np.int64))
