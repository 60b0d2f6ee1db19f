"""Shows the views that a run would be trained on."""

import io
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from infomax.data.shown_pixels import SOFTWARE
from infomax.data.splits import describe_splits, preview_images
from infomax.recipes.customise import check_changes
from infomax.recipes.registry import DEFAULT_METHOD, parse_recipe_choice
from infomax.runtime.devices import choose_device
from infomax.runtime.files import write_atomic
from infomax.runtime.options import pick
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import note, show
from infomax.training.opening import open_measured
from infomax.training.options import ViewsOptions


def views(
    *,
    data: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    bands: str | None = None,
    layout: str | None = None,
    classes: str | PathLike[str] | None = None,
    subset: str | PathLike[str] | None = None,
    value_range: str | None = None,
    max_megapixels: float | None = None,
    channels: int | None = None,
    no_data: float | None = None,
    show: str | None = None,
    method: str | None = None,
    recipe: str | None = None,
    seed: int | None = None,
    views: str | None = None,
    image_size: int | None = None,
    overrides: Sequence[str] = (),
    out: str | PathLike[str] | None = None,
) -> Image.Image:
    """Draws some images beside the views that a run with the same words is trained on, as ``infomax views`` does.

    Args:
        data: Images to train on: a folder of images, or several with commas between; an .npz or .npy of arrays; a .txt
            or .csv of paths; a data set's name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are
            needed.
            Default: the recipe's data set, if it has one.
        data_dir: Folder that holds the data sets that are given by name. Default: INFOMAX_DATA, or
            ~/.cache/infomax/data.
        download: Fetch a named data set that is not there.
        bands: Words in names of files that name the bands, as B02,B03,B04, if each band is a file of its own: files
            whose paths differ only in that word are one image, with these channels in this order. Default: one file is
            one image.
        layout: Order of the axes of arrays of images: NHWC if the channels are last, NCHW if they come before height
            and width. Default: found by the sizes.
        classes: Text file with the classes to keep, one on each line. Default: all.
        subset: Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt; or the word
            1percent or 10percent, for that share of the labelled images. Default: all.
        value_range: Numbers that become black and white in images of more than 8 bits, as 0,4095; or percentiles of the
            data set, as 0.1%,99.9%, which floating-point numbers and those with a sign take. It is one range for all
            images. Default: the format's, or percentiles.
        max_megapixels: Largest number of pixels of an image file, in millions; larger ones are not decoded, as memory
            could end. Default: 120.
        channels: Channels of an image; 3 makes 8-bit RGB of images of one channel, and 1 makes gray of RGB. Default:
            what the images have.
        no_data: Number that stands for no measurement, as -9999; NaN does in any case. Default: what files say.
        show: Channels, counted from 1, that pictures for people show as red, green and blue; or one, in gray. Default:
            the first three.
        method: Method to train with. Default: the recipe's, or mveb.
        recipe: Recipe to start from: digits; small, a small encoder at 32 pixels that a CPU can train; or a paper's, as
            corinfomax/cifar10, most of which need a GPU. infomax recipes lists them. Default: one that suits the images
            and the machine.
        seed: Seed of the weights, the order of the images and the views. Default: the recipe's.
        views: Set of views: byol, simclr, moco, infomin, mira-cifar, dino, dino-wide or swav; the last three add six
            local crops. NAME:G+L has G global crops and L local ones. Default: the recipe's.
        image_size: Side of the global crops, in pixels. Default: the recipe's.
        overrides: Any setting of the recipe, as in --set views.global_crops.0.blur=0.5.
        out: PNG file to write. Default: views.png for the command, none for Python.

    Returns:
        The picture: for each of some images, the image as it is, and beside it its views in the first epochs.

    Raises:
        ValueError: if anything asked for is not possible, or ``out`` is not a file to write.

    Example:
        >>> infomax.views(data="digits", views="dino", image_size=32).show()  # doctest: +SKIP
    """
    return draw_views_of_run(pick(ViewsOptions, locals()))


def draw_views_of_run(options: ViewsOptions) -> Image.Image:
    """Draws the views of a run; see :func:`views` for what it returns and raises."""
    out = options.out
    if out is not None:
        _check_picture(out)
    choice = parse_recipe_choice(options.recipe, options.method)
    check_changes(choice.method or DEFAULT_METHOD, choice.recipe, options.changes())
    location = options.location(choice.data)
    source = open_measured(location, download=options.download)
    for line in describe_splits(source, to_train=True, notes_alone=True):
        show(line, file=sys.stderr)
    with importing_torch():
        from infomax.training.image_size import describe_larger_sizes, typical_side
        from infomax.training.prepare import choose_recipe, picture_of_views

    side, gpu = typical_side(preview_images(source)), choose_device("auto") == "cuda"
    count, pixels = len(source.pretraining), source.measured
    recipe = choose_recipe(options, data=source.name, images=count, side=side, gpu=gpu, pixels=pixels)
    line = None if options.image_size is not None else describe_larger_sizes(recipe, side)
    if line is not None:
        note(line)
    picture = picture_of_views(source, recipe, [] if line is None else [line])
    for error in picture.unreadable:
        note(f"{error}; another image is shown instead")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, picture.png)
    return Image.open(io.BytesIO(picture.png))


def _check_picture(out: Path) -> None:
    """Checks that a picture of views can be written: an earlier one is replaced, and no other file.

    Raises:
        ValueError: if it cannot.
    """
    if not out.name or out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise ValueError(f"--out {out} must be a file to write")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out} must end in .png, for views are a picture of that format")
    if not out.is_file():
        return
    key, software = SOFTWARE
    try:
        with Image.open(out) as picture:
            is_ours = picture.info.get(key) == software
    except (OSError, ValueError, Image.DecompressionBombError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"--out {out} exists and is no picture of views; name another file")
