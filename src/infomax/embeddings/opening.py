"""Opens the images whose features are to be written, before torch is imported: mistakes are said at once."""

from dataclasses import replace
from typing import Any

from infomax.data.sources.location import DataLocation, OpenedImages
from infomax.embeddings.options import EmbedOptions
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.value_range import PIXEL_OPTIONS, check_pixel_options, location_for
from infomax.models.backbone_names import check_encoder_name
from infomax.runs.run_folder import run_of
from infomax.runtime.options import pick


def open_images(options: EmbedOptions) -> OpenedImages:
    """Opens the images to compute features of.

    Raises:
        ValueError: if there is no such encoder or data set.
    """
    check_encoder_name(options.encoder)
    location = _location(options)
    return OpenedImages(location, location.open(download=options.download))


def evaluation_options(options: EmbedOptions) -> EvaluationOptions:
    """Returns the device, the workers and the cache of a command, with progress bars shown."""
    return pick(EvaluationOptions, {**vars(options), "quiet": False})


def _location(options: EmbedOptions) -> DataLocation:
    """Returns where the images are: as the user says, or those that the run was trained on."""
    run = run_of(options.encoder)
    given: dict[str, Any] = options.given_location()
    if "data" in given:
        return location_for(options.encoder, given)
    if run is None:
        raise ValueError(
            f"--data is wanted: {options.encoder} is not a run folder, which would say what it was trained on"
        )
    check_pixel_options(options.encoder, **{key: given.get(key) for key in PIXEL_OPTIONS})
    return replace(run.location, **given)
