"""Opens the data sets that have a name, and says where to get each or downloads it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

from infomax.data.images.contract import Images
from infomax.data.sources import binaries, readers
from infomax.data.splits import Source
from infomax.runtime.hub import is_unreached
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import note

IMAGENET_STEPS = (
    "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org and unpack them as "
    "imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG"
)


@dataclass(frozen=True)
class NamedDataset:
    """A frozen dataclass that says how a data set is read, and where it can be got."""

    read: Callable[[Path], dict[str, Any]]
    """Reads the splits from the folder that holds data sets; returns them by the names of :class:`Source`'s fields."""
    download_size: str
    """Size of the download, for people."""
    downloaders: tuple[tuple[str, dict[str, Any]], ...] = ()
    """The classes of ``torchvision.datasets`` that download it, each with its options."""
    manual_steps: str = ""
    """Where to get it and how to lay it out, if no class downloads it."""


NAMED_DATASETS: dict[str, NamedDataset] = {
    "cifar10": NamedDataset(binaries.cifar10, "170 MB", (("CIFAR10", {}),)),
    "cifar100": NamedDataset(binaries.cifar100, "170 MB", (("CIFAR100", {}),)),
    "stl10": NamedDataset(binaries.stl10, "2.6 GB", (("STL10", {}),)),
    "tiny-imagenet": NamedDataset(
        readers.tiny_imagenet,
        "250 MB",
        manual_steps="get http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it as tiny-imagenet-200/",
    ),
    "imagenet100": NamedDataset(
        partial(readers.imagenet, class_list="imagenet100.txt"), "145 GB", manual_steps=IMAGENET_STEPS
    ),
    "imagenet": NamedDataset(readers.imagenet, "145 GB", manual_steps=IMAGENET_STEPS),
    "aircraft": NamedDataset(readers.aircraft, "2.8 GB", (("FGVCAircraft", {}),)),
    "caltech101": NamedDataset(readers.caltech101, "140 MB", (("Caltech101", {}),)),
    "cars": NamedDataset(
        readers.cars,
        "2 GB",
        manual_steps="the authors' site is gone; https://github.com/pytorch/vision/issues/7545 says where copies are, "
        "to be laid out as stanford_cars/cars_train/*.jpg, stanford_cars/cars_test/*.jpg, stanford_cars/devkit/*.mat "
        "and stanford_cars/cars_test_annos_withlabels.mat",
    ),
    "dtd": NamedDataset(readers.dtd, "630 MB", (("DTD", {}),)),
    "flowers": NamedDataset(readers.flowers, "350 MB", (("Flowers102", {}),)),
    "food101": NamedDataset(readers.food101, "5 GB", (("Food101", {}),)),
    "pets": NamedDataset(readers.pets, "810 MB", (("OxfordIIITPet", {}),)),
    "sun397": NamedDataset(
        readers.sun397,
        "39 GB",
        manual_steps="get SUN397.tar.gz and Partitions.zip from https://vision.princeton.edu/projects/2010/SUN and "
        "unpack both into SUN397/, to SUN397/a/abbey/*.jpg and SUN397/Training_01.txt",
    ),
    "voc2007": NamedDataset(
        readers.voc2007,
        "910 MB",
        tuple(("VOCDetection", {"year": "2007", "image_set": part}) for part in ("trainval", "test")),
    ),
}


# The number of images to pretrain on and the shorter side of a typical image in pixels, for the papers' data sets: a
# run on one can then be planned on a machine that does not have it.
NOMINAL_SIZES = {
    "cifar10": (50_000, 32),
    "cifar100": (50_000, 32),
    "stl10": (100_000, 96),
    "tiny-imagenet": (100_000, 64),
    "imagenet100": (126_689, 375),
    "imagenet": (1_281_167, 375),
}


def open_named(name: str, root: Path, *, download: bool = False) -> Source:
    """Opens a data set by its name.

    Args:
        name: A key of ``NAMED_DATASETS``.
        root: The folder that holds data sets, each in the sub-folder that its authors gave it.
        download: Whether torchvision downloads the data set if it cannot be read.

    Raises:
        ValueError: in one line, if the data set is not there or is damaged, saying what is missing and what to do.
    """
    if name not in NAMED_DATASETS:
        raise ValueError(f"--data {name}: no such data set; those with a name are {', '.join(NAMED_DATASETS)}")
    try:
        return _open(name, root)
    except ValueError as error:
        if not (download and NAMED_DATASETS[name].downloaders):
            raise
        missing = _missing(error.__cause__, root)
    _download(name, root, missing)
    try:
        return _open(name, root)
    except ValueError as error:  # torchvision may take an incomplete folder for a complete one
        raise ValueError(f"{error} (not mended by downloading: remove what there is of it, and try again)") from error


def _open(name: str, root: Path) -> Source:
    """Reads a data set and turns each error into one line that says what to do."""
    dataset = NAMED_DATASETS[name]
    try:
        splits = dataset.read(root)
        for split, images in splits.items():
            _check_labels(split, images)
    except FileNotFoundError as error:
        missing = _missing(error, root)
        remedy = "--download fetches it" if dataset.downloaders else dataset.manual_steps
        remedy = f"{remedy} ({dataset.download_size}), or --data-dir says where it is"
        raise ValueError(f"--data {name}: found no {missing} in {root}; {remedy}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"--data {name}: {_one_line(error)}") from error
    return Source(name, **splits)


def _missing(error: BaseException | None, root: Path) -> str:
    """Returns the path in the folder of data sets of the file that an error says is missing; empty if it says none."""
    return str(error.filename).removeprefix(f"{root}/") if isinstance(error, FileNotFoundError) else ""


def _check_labels(split: str, images: Images) -> None:
    """Raises ValueError if the split has no images, or labels that do not fit its images or classes."""
    labels = images.labels
    if len(images) == 0:
        raise ValueError(f"the {split} split has no images")
    if labels is None:
        return
    if len(labels) != len(images):
        raise ValueError(f"the {split} split has {len(images)} images, but {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(images.classes):
        raise ValueError(
            f"the {split} split has labels from {labels.min()} to {labels.max()}, of {len(images.classes)} classes"
        )


def _download(name: str, root: Path, missing: str) -> None:
    """Downloads a data set by torchvision, after a line that says so.

    Args:
        name: A key of ``NAMED_DATASETS``.
        root: The folder that holds data sets.
        missing: The first file that was not found there; empty if the data set is damaged.
    """
    note(f"downloading {name} ({NAMED_DATASETS[name].download_size}) into {root}")
    with importing_torch():
        from torchvision import datasets

    try:
        for class_name, options in NAMED_DATASETS[name].downloaders:
            getattr(datasets, class_name)(root, download=True, **options)
    except Exception as error:  # errors of many kinds: no network, a full disk, a broken archive
        if is_unreached(error):
            raise ValueError(_describe_unreached(name, root, missing, error)) from error
        raise ValueError(f"--data {name}: cannot be downloaded into {root}: {_one_line(error)}") from error


def _describe_unreached(name: str, root: Path, missing: str, error: Exception) -> str:
    """Returns one line on a server that was not reached, and how to get the data set on another machine."""
    calls = NAMED_DATASETS[name].downloaders
    program = "from torchvision.datasets import " + ", ".join(dict.fromkeys(class_name for class_name, _ in calls))
    for class_name, options in calls:
        words = "".join(f", {key}={value!r}" for key, value in options.items())
        program += f"; {class_name}('data', download=True{words})"
    place = f"put what is then in data/ into {root}" + (f" (there is no {missing})" if missing else "")
    reason = _one_line(error.reason if isinstance(error, URLError) else error)
    return (
        f"--data {name}: the server that torchvision downloads it from was not reached: there is no network here, or "
        f'it does not answer ({reason}). Fetch it on a machine with a network, by python -c "{program}", and {place}, '
        "or name the folder by --data-dir"
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
