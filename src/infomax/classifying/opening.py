"""Opens the images of ``infomax classify`` before torch is imported: mistakes are said at once."""

import sys
from dataclasses import replace
from pathlib import Path

from infomax.classifying.labelled import images_to_fit
from infomax.classifying.options import ClassifyFitOptions, ClassifyRunOptions, ClassifyTestOptions
from infomax.classifying.outputs import check_classifier
from infomax.data.sources.lists import open_list
from infomax.data.sources.location import DataLocation, OpenedImages
from infomax.data.splits import Source, describe_splits
from infomax.evaluation.value_range import location_for
from infomax.models.backbone_names import check_encoder_name
from infomax.runtime.text import show


def open_to_fit(options: ClassifyFitOptions) -> OpenedImages:
    """Opens the images that a classifier is to be fitted on, with the range of values of the encoder's own images.

    Raises:
        ValueError: if there is no such encoder, there are no such images, the encoder takes others, or they have no
            labels to fit by.
    """
    check_encoder_name(options.encoder)
    location = location_for(options.encoder, options.given_location())
    source = open_labelled(location, options.labels, download=options.download)
    images_to_fit(source)  # raises ValueError if a classifier cannot be fitted on them
    return OpenedImages(location, source)


def open_to_classify(options: ClassifyRunOptions | ClassifyTestOptions) -> Source:
    """Opens the images that a classifier is to be run or tested on, which are not yet read as it wants them.

    Raises:
        ValueError: if there is no such classifier, or there are no such images.
    """
    check_classifier(options.classifier)
    location = options.location(None)
    if isinstance(options, ClassifyTestOptions):
        return open_labelled(location, options.labels, download=options.download)
    return location.open(download=options.download)


def open_labelled(location: DataLocation, labels: Path | None, *, download: bool = False) -> Source:
    """Opens images with labels, and prints a line for each decision about them.

    Args:
        location: The images.
        labels: CSV with a path below the folder of ``location`` and a class on each line; None takes the images' own.
        download: Whether to download a data set that has a name if it is not there.

    Raises:
        ValueError: if there are no such images, or the CSV is not as described.
    """
    if labels is None:
        source = location.open(download=download)
    else:
        root = Path(location.data).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(f"--labels {labels} names images below --data, which must be a folder, but is {root}")
        try:
            source = location.select(open_list(str(labels), labels, root))
        except (OSError, ValueError) as error:
            raise ValueError(f"--labels {labels}: {error}") from error
        source = replace(source, folders=(root,))
    for line in describe_splits(source, to_train=True, notes_alone=True):
        show(line, file=sys.stderr)
    return source
