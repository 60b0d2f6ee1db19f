"""Reads the data sets that have a name, from the files that their authors published to labelled splits.

The layout of the files and the order of the classes are those of torchvision's classes, which may have downloaded a
data set. Checksums are not compared: a copy whose archive was packed again is as good.

Each reader takes the folder that holds data sets. It raises FileNotFoundError if a file or folder is missing, which
``named.py`` turns into a message, and a ValueError that names a file whose content is wrong. Whether each image file is
there shows only when it is opened.
"""

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.images.selection import Subset
from infomax.data.sources.folders import index_folder
from infomax.data.sources.suffixes import is_litter
from infomax.data.splits import shown_name

Splits = dict[str, Images]
CALTECH_TRAIN = 30  # training images of each class


def _first_existing(root: Path, *paths: str) -> str:
    """Returns the first of these paths, relative to ``root``, that exists.

    Raises:
        FileNotFoundError: naming all paths, if none exists.
    """
    for path in paths:
        if (root / path).exists():
            return path
    raise FileNotFoundError(2, "no such file", " or ".join(paths))


def _read_rows(path: Path, min_words: int = 1, max_splits: int = -1) -> list[list[str]]:
    """Returns the words of each line that is not empty.

    Args:
        path: A text file.
        min_words: Words that each line must have at least.
        max_splits: A line is split at blanks at most so many times; -1 splits it at every blank.

    Raises:
        ValueError: naming the file and the line, if it has too few words.
    """
    lines = path.read_text("utf-8", "surrogateescape").splitlines()
    rows = [row for line in lines if (row := line.strip().split(maxsplit=max_splits))]
    for row in rows:
        if len(row) < min_words:
            raise ValueError(f"{path} has a line {' '.join(row)!r}, want {min_words} words in each")
    return rows


def _packaged_lines(file: str) -> list[str]:
    """Returns the lines of a text file of this package."""
    return (files("infomax.data.sources") / file).read_text("utf-8").splitlines()


def _class_numbers(path: Path, names: Sequence[str], classes: list[str]) -> list[int]:
    """Returns the index in ``classes`` of each of these class names.

    Raises:
        ValueError: if one is not among the classes, naming it and ``path``, the file that it comes from.
    """
    number = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in names if name not in number]:
        raise ValueError(f"{path} has {unknown[0]!r}, which is none of the {len(classes)} classes")
    return [number[name] for name in names]


def _read_mat(path: Path, key: str) -> np.ndarray:
    """Returns one variable of a MATLAB file.

    Raises:
        ValueError: naming the file, if it cannot be read or lacks the variable.
    """
    from scipy.io import loadmat

    with path.open("rb") as file:
        try:
            return np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=[key])[key])
        except Exception as error:  # a damaged file raises errors of many kinds
            raise ValueError(f"{path} cannot be read as a MATLAB file with {key!r}: {error}") from error


def _read_json(path: Path) -> dict[str, list[str]]:
    """Returns lists of images by class from a JSON file.

    Raises:
        ValueError: naming the file, if it does not hold such lists.
    """
    try:
        lists = json.loads(path.read_bytes())
        return {name: [str(image) for image in images] for name, images in lists.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as lists of images in JSON: {error}") from error


def _images_in(root: Path, folder: str, names: Sequence[str], labels: Any, classes: list[str]) -> FileImages:
    """Returns the images of these names in a folder; whether each file is there shows when it is opened.

    Raises:
        FileNotFoundError: if the folder is not there.
    """
    os.stat(root / folder)
    return FileImages(
        root, PackedNames.pack(f"{folder}/{name}" for name in names), np.asarray(labels, np.int64), classes
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_litter(name)


def _class_folders(path: Path) -> list[str]:
    """Returns the sorted names of the folders in a folder.

    Raises:
        ValueError: naming the folder, if it has none.
    """
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))
    if not names:
        raise ValueError(f"{path} has no class folders: its images must be sorted into one folder for each class")
    return names


def _images_by_class(root: Path, folder: str, classes: list[str]) -> Images:
    """Returns the images in the class folders of a folder; class folders that are not in ``classes`` are left out.

    Raises:
        ValueError: if an image is outside of the class folders, or a class has no image.
    """
    index = index_folder(root, folder)
    labels, folder_names = index.classes(folder.count("/") + 1) or (None, [])
    if labels is None:
        stray = index.names[0]  # a folder's own files come before those in its sub-folders
        raise ValueError(f"{root / folder} has images outside of its class folders, as {shown_name(stray)}")
    if missing := sorted(set(classes) - set(folder_names)):
        raise ValueError(f"no images in {root / folder / missing[0]}")
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number.get(name, -1) for name in folder_names])[labels]
    images, kept = FileImages(root, index.names, labels, classes), np.flatnonzero(labels >= 0)
    return images if len(kept) == len(labels) else Subset(images, kept, labels[kept], classes)


def imagenet(root: Path, class_list: str = "") -> Splits:
    """Reads ImageNet; the validation images are for testing, as in all papers.

    The classes are the sorted wnids. torchvision numbers them alike, and calls them by their English names.

    Args:
        root: The folder that holds data sets.
        class_list: Text file of this package with the wnids to read; all without one.
    """
    train = _first_existing(root, "imagenet/train", "ILSVRC2012/train", "train")
    folders = {"train": train, "test": train.removesuffix("train") + "val"}
    names_by_folder = {folder: set(_class_folders(root / folder)) for folder in folders.values()}
    classes = sorted(_packaged_lines(class_list) if class_list else set().union(*names_by_folder.values()))
    for folder, names in names_by_folder.items():
        if missing := sorted(set(classes) - names):
            raise ValueError(f"{root / folder} lacks {len(missing)} of {len(classes)} class folders, as {missing[0]}")
    return {split: _images_by_class(root, folder, classes) for split, folder in folders.items()}


def tiny_imagenet(root: Path) -> Splits:
    """Reads Tiny ImageNet; the validation images are for testing, as the test images have no labels."""
    folder = "tiny-imagenet-200"
    classes = _class_folders(root / folder / "train")
    path = root / folder / "val" / "val_annotations.txt"
    rows = _read_rows(path, 2)
    labels = _class_numbers(path, [wnid for _, wnid, *_ in rows], classes)
    test = _images_in(root, f"{folder}/val/images", [name for name, *_ in rows], labels, classes)
    return {"train": _images_by_class(root, f"{folder}/train", classes), "test": test}


def aircraft(root: Path) -> Splits:
    """Reads FGVC-Aircraft, whose classes are the 100 variants of aircraft."""
    data = "fgvc-aircraft-2013b/data"
    classes = [name for (name,) in _read_rows(root / data / "variants.txt", max_splits=0)]

    def split(name: str) -> FileImages:
        path = root / data / f"images_variant_{name}.txt"
        rows = _read_rows(path, 2, max_splits=1)
        labels = _class_numbers(path, [variant.strip() for _, variant in rows], classes)
        return _images_in(root, f"{data}/images", [f"{image}.jpg" for image, _ in rows], labels, classes)

    return {name: split(name) for name in ("train", "val", "test")}


def caltech101(root: Path) -> Splits:
    """Reads Caltech-101; with BACKGROUND_Google it has 102 classes, which torchvision leaves out and papers count.

    There is no official split. As usual, 30 random images of each class are for training and the others for testing.
    ``numpy.random.default_rng(0)`` draws them from the sorted files of each class, one class after another.
    """
    folder = _first_existing(root, "caltech101/101_ObjectCategories", "101_ObjectCategories")
    whole = _images_by_class(root, folder, _class_folders(root / folder))
    rng, labels = np.random.default_rng(0), np.asarray(whole.labels)
    is_train = np.zeros(len(whole), bool)
    for label in range(len(whole.classes)):
        of_class = np.flatnonzero(labels == label)
        is_train[rng.choice(of_class, min(CALTECH_TRAIN, len(of_class)), replace=False)] = True

    def split(is_in_split: np.ndarray) -> FileImages:
        names = PackedNames.pack(whole.name(i) for i in np.flatnonzero(is_in_split).tolist())
        return FileImages(root, names, labels[is_in_split], whole.classes)

    return {"train": split(is_train), "test": split(~is_train)}


def cars(root: Path) -> Splits:
    """Reads Stanford Cars; its files number the classes from 1."""
    folder, annotated = "stanford_cars", "cars_test_annos_withlabels.mat"
    classes = [str(name) for name in _read_mat(root / folder / "devkit" / "cars_meta.mat", "class_names")]

    def split(name: str, path: str) -> FileImages:
        rows = _read_mat(root / path, "annotations")
        if not {"fname", "class"} <= set(rows.dtype.names or ()):
            raise ValueError(f"{root / path} must have an fname and a class for each image")
        labels = rows["class"].astype(np.int64) - 1
        return _images_in(root, f"{folder}/cars_{name}", rows["fname"].tolist(), labels, classes)

    return {
        "train": split("train", f"{folder}/devkit/cars_train_annos.mat"),
        "test": split("test", _first_existing(root, f"{folder}/{annotated}", f"{folder}/devkit/{annotated}")),
    }


def dtd(root: Path) -> Splits:
    """Reads the Describable Textures Dataset: the first of its ten official partitions."""
    labels = _first_existing(root, "dtd/dtd/labels", "dtd/labels")  # torchvision unpacks it into one more folder
    splits = ("train", "val", "test")
    names_by_split = {name: [image for image, *_ in _read_rows(root / labels / f"{name}1.txt")] for name in splits}
    classes = sorted({image.split("/")[0] for images in names_by_split.values() for image in images})

    def split(names: list[str]) -> FileImages:
        numbers = [classes.index(name.split("/")[0]) for name in names]
        return _images_in(root, labels.removesuffix("labels") + "images", names, numbers, classes)

    return {name: split(images) for name, images in names_by_split.items()}


def flowers(root: Path) -> Splits:
    """Reads Flowers-102; its files number the images and the classes from 1."""
    folder, path = "flowers-102", root / "flowers-102" / "setid.mat"
    classes = _packaged_lines("flowers102.txt")
    labels = _read_mat(root / folder / "imagelabels.mat", "labels").astype(np.int64) - 1

    def split(key: str) -> FileImages:
        numbers = _read_mat(path, key).astype(np.int64)
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise ValueError(f"{path} has an image that is none of the {len(labels)} in imagelabels.mat")
        names = [f"image_{number:05d}.jpg" for number in numbers]
        return _images_in(root, f"{folder}/jpg", names, labels[numbers - 1], classes)

    return {"train": split("trnid"), "val": split("valid"), "test": split("tstid")}


def food101(root: Path) -> Splits:
    """Reads Food-101, whose splits are two JSON files that list the images of each class."""
    meta = root / "food-101" / "meta"
    lists = {split: _read_json(meta / f"{split}.json") for split in ("train", "test")}
    classes = sorted(lists["train"])

    def split(name: str) -> FileImages:
        numbers = _class_numbers(meta / f"{name}.json", list(lists[name]), classes)
        labels = np.repeat(numbers, [len(images) for images in lists[name].values()])
        images = [f"{image}.jpg" for images in lists[name].values() for image in images]
        return _images_in(root, "food-101/images", images, labels, classes)

    return {name: split(name) for name in lists}


def pets(root: Path) -> Splits:
    """Reads Oxford-IIIT Pet; its lists number the classes from 1.

    A class is named after its image files, without the number at the end of their names.
    """
    folder = root / "oxford-iiit-pet" / "annotations"
    rows = {split: _read_rows(folder / f"{split}.txt", 2) for split in ("trainval", "test")}
    breeds = {number: image.rpartition("_")[0] for image, number, *_ in rows["trainval"]}
    numbers = [str(i + 1) for i in range(len(breeds))]

    def split(name: str) -> FileImages:
        images = [f"{image}.jpg" for image, *_ in rows[name]]
        labels = _class_numbers(folder / f"{name}.txt", [number for _, number, *_ in rows[name]], numbers)
        classes = [breeds[number].replace("_", " ").title() for number in numbers]
        return _images_in(root, "oxford-iiit-pet/images", images, labels, classes)

    return {"train": split("trainval"), "test": split("test")}


def sun397(root: Path) -> Splits:
    """Reads SUN397: the first of its official partitions.

    The lists of images may lie in the folder of the images or beside it.
    """
    folder = "SUN397"

    def lines(name: str) -> tuple[Path, list[str]]:
        path = root / _first_existing(root, f"{folder}/{name}.txt", f"{name}.txt")
        return path, [line.lstrip("/") for (line,) in _read_rows(path, max_splits=0)]

    classes = [line[2:] for line in lines("ClassName")[1]]  # without "a/" of a/abbey; an image is a/abbey/sun_x.jpg

    def split(name: str) -> FileImages:
        path, images = lines(f"{name}_01")
        labels = _class_numbers(path, [image[2:].rpartition("/")[0] for image in images], classes)
        return _images_in(root, folder, images, labels, classes)

    return {"train": split("Training"), "test": split("Testing")}


def voc2007(root: Path) -> Splits:
    """Reads PASCAL VOC 2007, whose images can show several classes.

    An image that shows a class only in objects marked as difficult counts as not showing it. The test split is a
    separate download, into the same folder.
    """
    folder, classes = "VOCdevkit/VOC2007", _packaged_lines("voc2007.txt")
    lists = root / folder / "ImageSets" / "Main"

    def split(name: str) -> FileImages:
        images = [image for image, *_ in _read_rows(lists / f"{name}.txt")]
        labels = np.zeros((len(images), len(classes)), np.int64)
        for column, category in enumerate(classes):
            rows = _read_rows(lists / f"{category}_{name}.txt", 2)
            shows = {image for image, shown, *_ in rows if shown == "1"}
            labels[:, column] = [image in shows for image in images]
        return _images_in(root, f"{folder}/JPEGImages", [f"{image}.jpg" for image in images], labels, classes)

    return {name: split(name) for name in ("train", "val", "test")}
