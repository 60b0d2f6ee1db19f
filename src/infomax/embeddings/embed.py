"""Features of all images of a data set, with their names, for use outside of infomax."""

import sys
from collections.abc import Mapping
from os import PathLike, fspath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.loading.unreadable import UnreadableImageError, describe_unreadable
from infomax.data.range_notes import note_range
from infomax.data.sources.given import GivenImages, open_given
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, all_images, describe_splits
from infomax.embeddings.readable import ReadableImages, leave_out_unreadable
from infomax.evaluation.value_range import check_pixel_options, trained_value_range
from infomax.features.extraction import encode_batches
from infomax.models.encoders import Encoder
from infomax.models.pretrained import open_encoder
from infomax.runs.run_folder import describe_unfinished
from infomax.runtime.checks import check_number
from infomax.runtime.devices import choose_device
from infomax.runtime.progress import ProgressBar
from infomax.runtime.stages import Stage, stages_shown
from infomax.runtime.text import note, show
from infomax.runtime.threads import threads_within_quota


@threads_within_quota()
def embed(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source | GivenImages,
    *,
    device: str = "auto",
    workers: int | None = None,
    bands: str | None = None,
    layout: str | None = None,
    value_range: str | None = None,
    max_megapixels: float | None = None,
    skip_unreadable: float = 0.0,
    quiet: bool = False,
) -> tuple[Float[Tensor, "n d"], list[str]]:
    """Computes the features of all images of ``data``, and returns them with the name of each image.

    ``data`` is what ``--data`` takes, as the name of a folder or of one image file; or the images themselves: a list or
    another iterable of paths or of PIL images, one PIL image, or an array. Features and names are then in its order.

    A name is the path of a file as it was given, or relative to the folder that was; or the image's number in a list or
    array, after the name of the split if there are two. Of a data set with splits, the images to test on follow the
    training images: those of the test split, or of a validation split where that one alone has usable labels. Lines on
    stderr say what was decided about the data, as images left out.

    Args:
        encoder: A run folder, or anything else that :func:`infomax.models.pretrained.open_encoder` takes.
        data: What ``--data`` takes; paths of image files; PIL images; an array of numbers [n, height, width, channels];
            or an opened source.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``, which takes a CUDA GPU if there is one.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        bands: Words in names of files that name the bands of an image, as ``B02,B03,B04``, if each is a file of its
            own.
        layout: ``NHWC`` or ``NCHW``, the order of the axes of an array of images; None finds it.
        value_range: ``LOW,HIGH``, the numbers that become black and white in image files of one channel with more than
            8 bits. None takes what the run was trained with, and of another encoder the format's.
        max_megapixels: Largest number of pixels of an image file, in millions; None is 120.
        skip_unreadable: Share of the images, from 0 to 1, that may be damaged or missing: they have no features, and a
            line names them.
        quiet: Whether not to show how far it is. What was decided about the data is said in any case.

    Raises:
        ValueError: if ``data`` is a stream, whose images have no numbers; if there are no images; or naming those
            that cannot be read.

    Example:
        >>> import infomax
        >>> features, names = infomax.embed("runs/a", ["cat.jpg", "dogs/1.png"])  # doctest: +SKIP
        >>> names  # doctest: +SKIP
        ['cat.jpg', 'dogs/1.png']
    """
    check_number("skip_unreadable", skip_unreadable, low=0, high=1, open_high=False)
    with stages_shown(not quiet), Stage("opening the encoder", slow_only=True):
        network, device = open_encoder(encoder), choose_device(device)
    if isinstance(data, Source):
        source = data
    else:
        check_pixel_options(encoder, value_range=value_range)
        value_range = value_range or trained_value_range(encoder)
        if isinstance(data, str | PathLike):
            decoded = {"value_range": value_range, "max_megapixels": max_megapixels}
            with stages_shown(not quiet):
                source = DataLocation(fspath(data), bands=bands, layout=layout, **decoded).open()
        else:
            location = DataLocation("", value_range=value_range, max_megapixels=max_megapixels)
            source = location.select(open_given(data, in_order=True, bands=bands, layout=layout))
        source = note_range(source, network.preprocessing.pixel_format)
        for line in describe_splits(source, to_train=True, notes_alone=True):
            show(line, file=sys.stderr)
    splits, names = all_images(source)
    if training := describe_unfinished(encoder):
        note(f"{fspath(encoder)} is {training}")
    pixel_format = network.preprocessing.pixel_format
    try:
        return features_of_splits(network, splits, device=device, workers=workers, quiet=quiet), names
    except UnreadableImageError:
        readable = leave_out_unreadable(ReadableImages(splits, names), pixel_format, skip_unreadable)
        if not readable.left_out:
            raise
    note(f"left out: {describe_unreadable(readable.left_out, len(names))}")
    features = features_of_splits(network, readable.splits, device=device, workers=workers, quiet=quiet)
    return features, readable.names


def features_of_splits(
    network: Encoder, splits: Mapping[str, Images], *, device: str, workers: int | None = None, quiet: bool = True
) -> Float[Tensor, "n d"]:
    """Returns the features of the images of all splits, one split after the other.

    Args:
        network: The encoder, with its ``preprocessing``.
        splits: The images of each split, by the split's name.
        device: Where the encoder computes.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        quiet: Whether not to show how far it is.
    """
    batches = []
    with ProgressBar("images", sum(map(len, splits.values())), quiet=quiet) as bar:
        for images in splits.values():
            index, options = np.arange(len(images)), {"device": device, "workers": workers}
            for batch in encode_batches(network, images, index, network.preprocessing, **options):
                batches.append(batch)
                bar.update(len(batch))
    return torch.cat(batches)
