"""Readers of the data sets that have a name: from the files that their authors published to labelled splits.

The layouts are those of torchvision's classes, which may have fetched a set, and so is the order of the classes.
Checksums are not looked at: a copy that was packed anew is as good.

A file that is not there raises FileNotFoundError, which ``named.py`` puts into words; one that is not as it should be,
a ValueError that names it. Whether each image file is there is found out when it is read.
"""

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images import FileImages, Images, PackedNames, Subset
from infomax.data.sources.folders import index_folder

Splits = dict[str, Images]
CALTECH_TRAIN = 30  # images of each class


def _first(root: Path, *places: str) -> str:
    """The first of these that is there, relative to ``root``."""
    for place in places:
        if (root / place).exists():
            return place
    raise FileNotFoundError(2, "no such file", " or ".join(places))


def _lines(path: Path, words: int = 1, most: int = -1) -> list[list[str]]:
    """The words of each line that is not empty, split at most ``most`` times."""
    lines = path.read_text("utf-8", "surrogateescape").splitlines()
    rows = [row for line in lines if (row := line.strip().split(maxsplit=most))]
    for row in rows:
        if len(row) < words:
            raise ValueError(f"{path} has a line {' '.join(row)!r}, want {words} words in each")
    return rows


def _listed(file: str) -> list[str]:
    """The lines of a text file of this package."""
    return (files("infomax.data.sources") / file).read_text("utf-8").splitlines()


def _numbers(path: Path, names: Sequence[str], classes: list[str]) -> list[int]:
    """The classes' numbers of the images that ``path`` lists."""
    number = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in names if name not in number]:
        raise ValueError(f"{path} has {unknown[0]!r}, which is none of the {len(classes)} classes")
    return [number[name] for name in names]


def _mat(path: Path, key: str) -> np.ndarray:
    """One variable of a MATLAB file."""
    from scipy.io import loadmat

    with path.open("rb") as file:
        try:
            return np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=[key])[key])
        except Exception as error:  # of many kinds, where the file is cut off
            raise ValueError(f"{path} cannot be read as a MATLAB file with {key!r}: {error}") from error


def _json(path: Path) -> dict[str, list[str]]:
    try:
        lists = json.loads(path.read_bytes())
        return {name: [str(image) for image in images] for name, images in lists.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as lists of images in JSON: {error}") from error


def _below(root: Path, folder: str, names: Sequence[str], labels: Any, classes: list[str]) -> FileImages:
    """The images ``names`` of a folder, which must be there; whether they are is found out when they are read."""
    os.stat(root / folder)
    return FileImages(
        root, PackedNames.pack(f"{folder}/{name}" for name in names), np.asarray(labels, np.int64), classes
    )


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise ValueError(f"{path} has no class folders: its images must be sorted into one folder for each class")
    return found


def _by_class(root: Path, folder: str, classes: list[str]) -> Images:
    """The images in the class folders of a folder; in those of ``classes`` alone, if there are others."""
    index = index_folder(root, folder)
    labels, found = index.classes(folder.count("/") + 1) or (None, [])
    if labels is None:
        raise ValueError(f"{root / folder} has images outside of its class folders")
    if missing := sorted(set(classes) - set(found)):
        raise ValueError(f"no images in {root / folder / missing[0]}")
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number.get(name, -1) for name in found])[labels]
    images, kept = FileImages(root, index.names, labels, classes), np.flatnonzero(labels >= 0)
    return images if len(kept) == len(labels) else Subset(images, kept, labels[kept], classes)


def imagenet(root: Path, listed: str = "") -> Splits:
    """ImageNet, or its classes in a text file of this package; the validation images are for testing, as everywhere.

    The classes are the sorted wnids, which torchvision numbers alike and calls by their English names.
    """
    train = _first(root, "imagenet/train", "ILSVRC2012/train", "train")
    folders = {"train": train, "test": train.removesuffix("train") + "val"}
    found = {folder: set(_folders(root / folder)) for folder in folders.values()}
    classes = sorted(_listed(listed) if listed else set().union(*found.values()))
    for folder, names in found.items():
        if missing := sorted(set(classes) - names):
            raise ValueError(f"{root / folder} lacks {len(missing)} of {len(classes)} class folders, as {missing[0]}")
    return {split: _by_class(root, folder, classes) for split, folder in folders.items()}


def tiny_imagenet(root: Path) -> Splits:
    """The validation images are for testing, as the test images have no labels."""
    folder = "tiny-imagenet-200"
    classes = _folders(root / folder / "train")
    path = root / folder / "val" / "val_annotations.txt"
    rows = _lines(path, 2)
    labels = _numbers(path, [wnid for _, wnid, *_ in rows], classes)
    test = _below(root, f"{folder}/val/images", [name for name, *_ in rows], labels, classes)
    return {"train": _by_class(root, f"{folder}/train", classes), "test": test}


def aircraft(root: Path) -> Splits:
    """The classes are the 100 variants."""
    data = "fgvc-aircraft-2013b/data"
    classes = [name for (name,) in _lines(root / data / "variants.txt", most=0)]

    def split(name: str) -> FileImages:
        path = root / data / f"images_variant_{name}.txt"
        rows = _lines(path, 2, most=1)
        labels = _numbers(path, [variant.strip() for _, variant in rows], classes)
        return _below(root, f"{data}/images", [f"{image}.jpg" for image, _ in rows], labels, classes)

    return {name: split(name) for name in ("train", "val", "test")}


def caltech101(root: Path) -> Splits:
    """102 classes with BACKGROUND_Google, as published results count them and torchvision does not.

    There is no official split. The usual one is 30 images of each class at random to train on, and the rest to test
    on: here drawn by ``numpy.random.default_rng(0)`` from the sorted files of each class in turn.
    """
    folder = _first(root, "caltech101/101_ObjectCategories", "101_ObjectCategories")
    whole = _by_class(root, folder, _folders(root / folder))
    rng, labels = np.random.default_rng(0), np.asarray(whole.labels)
    is_train = np.zeros(len(whole), bool)
    for label in range(len(whole.classes)):
        own = np.flatnonzero(labels == label)
        is_train[rng.choice(own, min(CALTECH_TRAIN, len(own)), replace=False)] = True

    def split(part: np.ndarray) -> FileImages:
        names = PackedNames.pack(whole.name(i) for i in np.flatnonzero(part).tolist())
        return FileImages(root, names, labels[part], whole.classes)

    return {"train": split(is_train), "test": split(~is_train)}


def cars(root: Path) -> Splits:
    """Classes are numbered from 1 in the files."""
    folder, annotated = "stanford_cars", "cars_test_annos_withlabels.mat"
    classes = [str(name) for name in _mat(root / folder / "devkit" / "cars_meta.mat", "class_names")]

    def split(name: str, path: str) -> FileImages:
        rows = _mat(root / path, "annotations")
        if not {"fname", "class"} <= set(rows.dtype.names or ()):
            raise ValueError(f"{root / path} must have an fname and a class for each image")
        labels = rows["class"].astype(np.int64) - 1
        return _below(root, f"{folder}/cars_{name}", rows["fname"].tolist(), labels, classes)

    return {
        "train": split("train", f"{folder}/devkit/cars_train_annos.mat"),
        "test": split("test", _first(root, f"{folder}/{annotated}", f"{folder}/devkit/{annotated}")),
    }


def dtd(root: Path) -> Splits:
    """Partition 1 of the 10 official ones."""
    labels = _first(root, "dtd/dtd/labels", "dtd/labels")  # torchvision unpacks it in a folder more
    rows = {split: [name for name, *_ in _lines(root / labels / f"{split}1.txt")] for split in ("train", "val", "test")}
    classes = sorted({name.split("/")[0] for names in rows.values() for name in names})

    def split(names: list[str]) -> FileImages:
        numbers = [classes.index(name.split("/")[0]) for name in names]
        return _below(root, labels.removesuffix("labels") + "images", names, numbers, classes)

    return {name: split(names) for name, names in rows.items()}


def flowers(root: Path) -> Splits:
    """Numbered from 1 in the files, images as well as classes."""
    folder, path = "flowers-102", root / "flowers-102" / "setid.mat"
    classes = _listed("flowers102.txt")
    labels = _mat(root / folder / "imagelabels.mat", "labels").astype(np.int64) - 1

    def split(key: str) -> FileImages:
        numbers = _mat(path, key).astype(np.int64)
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise ValueError(f"{path} has an image that is none of the {len(labels)} in imagelabels.mat")
        names = [f"image_{number:05d}.jpg" for number in numbers]
        return _below(root, f"{folder}/jpg", names, labels[numbers - 1], classes)

    return {"train": split("trnid"), "val": split("valid"), "test": split("tstid")}


def food101(root: Path) -> Splits:
    """Lists of each class's images in two JSON files."""
    meta = root / "food-101" / "meta"
    lists = {split: _json(meta / f"{split}.json") for split in ("train", "test")}
    classes = sorted(lists["train"])

    def split(name: str) -> FileImages:
        numbers = _numbers(meta / f"{name}.json", list(lists[name]), classes)
        labels = np.repeat(numbers, [len(images) for images in lists[name].values()])
        images = [f"{image}.jpg" for images in lists[name].values() for image in images]
        return _below(root, "food-101/images", images, labels, classes)

    return {name: split(name) for name in lists}


def pets(root: Path) -> Splits:
    """Numbered from 1 in the lists; the classes' names are those of their files, without the number at the end."""
    folder = root / "oxford-iiit-pet" / "annotations"
    rows = {split: _lines(folder / f"{split}.txt", 2) for split in ("trainval", "test")}
    breeds = {number: image.rpartition("_")[0] for image, number, *_ in rows["trainval"]}
    numbers = [str(i + 1) for i in range(len(breeds))]

    def split(name: str) -> FileImages:
        images = [f"{image}.jpg" for image, *_ in rows[name]]
        labels = _numbers(folder / f"{name}.txt", [number for _, number, *_ in rows[name]], numbers)
        classes = [breeds[number].replace("_", " ").title() for number in numbers]
        return _below(root, "oxford-iiit-pet/images", images, labels, classes)

    return {"train": split("trainval"), "test": split("test")}


def sun397(root: Path) -> Splits:
    """The first of the official partitions, whose lists may lie in the folder of the images or beside it."""
    folder = "SUN397"

    def lines(name: str) -> tuple[Path, list[str]]:
        path = root / _first(root, f"{folder}/{name}.txt", f"{name}.txt")
        return path, [line.lstrip("/") for (line,) in _lines(path, most=0)]

    classes = [line[2:] for line in lines("ClassName")[1]]  # a class a/abbey, an image a/abbey/sun_x.jpg

    def split(name: str) -> FileImages:
        path, images = lines(f"{name}_01")
        labels = _numbers(path, [image[2:].rpartition("/")[0] for image in images], classes)
        return _below(root, folder, images, labels, classes)

    return {"train": split("Training"), "test": split("Testing")}


def voc2007(root: Path) -> Splits:
    """An image can be of several classes; one that shows a class only in a way that is hard to see counts as without.

    The test split is a download of its own, into the same folder.
    """
    folder, classes = "VOCdevkit/VOC2007", _listed("voc2007.txt")
    lists = root / folder / "ImageSets" / "Main"

    def split(name: str) -> FileImages:
        images = [image for image, *_ in _lines(lists / f"{name}.txt")]
        labels = np.zeros((len(images), len(classes)), np.int64)
        for column, category in enumerate(classes):
            rows = _lines(lists / f"{category}_{name}.txt", 2)
            shows = {image for image, shown, *_ in rows if shown == "1"}
            labels[:, column] = [image in shows for image in images]
        return _below(root, f"{folder}/JPEGImages", [f"{image}.jpg" for image in images], labels, classes)

    return {name: split(name) for name in ("train", "val", "test")}
