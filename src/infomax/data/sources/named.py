"""Data sets that have a name: where each comes from, and how it is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infomax.data.images import Images
from infomax.data.sources import binaries, readers
from infomax.data.splits import Source

IMAGENET = (
    "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org and unpack them as "
    "imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG"
)


@dataclass(frozen=True)
class NamedDataset:
    """Where a data set comes from."""

    read: Callable[[Path], dict[str, Any]]
    """From the folder that holds data sets to the splits, by the names of :class:`Source`'s fields."""
    size: str
    """Of what is downloaded."""
    fetch: tuple[tuple[str, dict[str, Any]], ...] = ()
    """The classes of torchvision that download it, each with its options."""
    by_hand: str = ""
    """Where to get it and how to lay it out, where no class downloads it."""


NAMED_DATASETS: dict[str, NamedDataset] = {
    "cifar10": NamedDataset(binaries.cifar10, "170 MB", (("CIFAR10", {}),)),
    "cifar100": NamedDataset(binaries.cifar100, "170 MB", (("CIFAR100", {}),)),
    "stl10": NamedDataset(binaries.stl10, "2.6 GB", (("STL10", {}),)),
    "tiny-imagenet": NamedDataset(
        readers.tiny_imagenet,
        "250 MB",
        by_hand="get http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it as tiny-imagenet-200/",
    ),
    "imagenet100": NamedDataset(partial(readers.imagenet, listed="imagenet100.txt"), "145 GB", by_hand=IMAGENET),
    "imagenet": NamedDataset(readers.imagenet, "145 GB", by_hand=IMAGENET),
    "aircraft": NamedDataset(readers.aircraft, "2.8 GB", (("FGVCAircraft", {}),)),
    "caltech101": NamedDataset(readers.caltech101, "140 MB", (("Caltech101", {}),)),
    "cars": NamedDataset(
        readers.cars,
        "2 GB",
        by_hand="the authors' site is gone; https://github.com/pytorch/vision/issues/7545 says where copies are, to be "
        "laid out as stanford_cars/cars_train/*.jpg, stanford_cars/cars_test/*.jpg, stanford_cars/devkit/*.mat and "
        "stanford_cars/cars_test_annos_withlabels.mat",
    ),
    "dtd": NamedDataset(readers.dtd, "630 MB", (("DTD", {}),)),
    "flowers": NamedDataset(readers.flowers, "350 MB", (("Flowers102", {}),)),
    "food101": NamedDataset(readers.food101, "5 GB", (("Food101", {}),)),
    "pets": NamedDataset(readers.pets, "810 MB", (("OxfordIIITPet", {}),)),
    "sun397": NamedDataset(
        readers.sun397,
        "39 GB",
        by_hand="get SUN397.tar.gz and Partitions.zip from https://vision.princeton.edu/projects/2010/SUN and unpack "
        "both into SUN397/, to SUN397/a/abbey/*.jpg and SUN397/Training_01.txt",
    ),
    "voc2007": NamedDataset(
        readers.voc2007,
        "910 MB",
        tuple(("VOCDetection", {"year": "2007", "image_set": part}) for part in ("trainval", "test")),
    ),
}


# Of the papers' data sets, so that a run can be planned where they are not: images to pretrain on, and the shorter side
# of a typical one in pixels.
NOMINAL_SIZES = {
    "cifar10": (50_000, 32),
    "cifar100": (50_000, 32),
    "stl10": (100_000, 96),
    "tiny-imagenet": (100_000, 64),
    "imagenet100": (126_689, 375),
    "imagenet": (1_281_167, 375),
}


def open_named(name: str, root: Path, *, download: bool = False) -> Source:
    """Open a data set by its name.

    Args:
        root: The folder that holds data sets, each in a folder of its own whose name is the authors'.
        download: Let torchvision fetch what cannot be read there.

    Raises:
        ValueError: in one line, if it is not there or not as it should be, saying what was looked for and the way out.
    """
    if name not in NAMED_DATASETS:
        raise ValueError(f"--data {name}: no such data set; those with a name are {', '.join(NAMED_DATASETS)}")
    try:
        return _open(name, root)
    except ValueError:
        if not (download and NAMED_DATASETS[name].fetch):
            raise
    _download(name, root)
    try:
        return _open(name, root)
    except ValueError as error:  # torchvision takes some folders that are there for whole
        raise ValueError(f"{error} (not mended by downloading: remove what there is of it, and try again)") from error


def _open(name: str, root: Path) -> Source:
    named = NAMED_DATASETS[name]
    try:
        splits = named.read(root)
        for split, images in splits.items():
            _check(split, images)
    except FileNotFoundError as error:
        missing = str(error.filename).removeprefix(f"{root}/")
        way = f"--download fetches it ({named.size})" if named.fetch else f"{named.by_hand} ({named.size})"
        raise ValueError(
            f"--data {name}: found no {missing} in {root}; {way}, or --data-dir says where it is"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"--data {name}: {_one_line(error)}") from error
    return Source(name, **splits)


def _check(split: str, images: Images) -> None:
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


def _download(name: str, root: Path) -> None:
    from torchvision import datasets

    try:
        for fetcher, options in NAMED_DATASETS[name].fetch:
            getattr(datasets, fetcher)(root, download=True, **options)
    except Exception as error:  # of many kinds: no network, a full disk, a broken archive
        raise ValueError(f"--data {name}: cannot be downloaded into {root}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
