"""Splits and columns are chosen by their usual names, in any case; what contradicts itself is refused by name."""

import numpy as np
import pytest

from infomax.data.images.arrays import ArrayImages
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.split_names import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SplitChoice,
    choose_column,
    choose_splits,
    role_of,
)
from infomax.data.splits import describe_splits, labelled_splits, listed, why_not_labelled


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN", "training_set", "train_images", "trainset")),
        *((name, "test") for name in ("test", "Testing", "test-set", "test_images")),
        *((name, "val") for name in ("val", "Valid", "validation", "dev", "eval", "validation_set")),
        *((name, "unlabelled") for name in ("unlabeled", "Unlabelled", "unsupervised")),
        *((name, None) for name in ("extra", "cat", "train2", "trains", "data", "set", "", "tests/x")),
    ],
)
def test_usual_names_have_a_role_in_any_case(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("names", "labelled", "choice"),
    [
        (["Testing", "Training"], ["Testing"], SplitChoice("Training", "Testing")),
        (["train", "valid", "test"], ["valid", "test"], SplitChoice("train", "test", "valid")),
        (["train", "valid", "test"], ["valid"], SplitChoice("train", "valid", "test")),
        (["train", "valid", "test"], [], SplitChoice("train", "test", "valid")),
        (["train", "dev"], [], SplitChoice("train", "dev")),
        (["train", "unlabeled", "extra"], [], SplitChoice("train", unlabelled="unlabeled", left_out=("extra",))),
        (["test", "validation"], ["test"], SplitChoice("validation", "test")),
        (["test"], ["test"], SplitChoice("test")),
        (["b", "a"], [], SplitChoice("b", left_out=("a",))),
        ([""], [], SplitChoice("")),
    ],
)
def test_the_first_split_with_usable_labels_is_tested_on(names, labelled, choice):
    assert choose_splits(names, labelled) == choice


@pytest.mark.parametrize("names", [("train", "Training"), ("val", "valid"), ("test", "Test_images", "train")])
def test_two_splits_of_one_role_are_refused_by_name(names):
    with pytest.raises(ValueError, match=f"has {names[0]!r} and {names[1]!r}, which both name a"):
        choose_splits(names)


def test_columns_with_usual_names_come_first_and_the_only_one_needs_none():
    assert choose_column(["mask", "Image"], IMAGE_COLUMNS) == "Image"
    assert choose_column(["img", "image"], IMAGE_COLUMNS) == "image"
    assert choose_column(["blurry", "label"], LABEL_COLUMNS) == "label"
    assert choose_column(["breed"], LABEL_COLUMNS) == "breed"
    assert choose_column([], LABEL_COLUMNS) is None
    with pytest.raises(ValueError, match="blurry, breed are several, and none is called label"):
        choose_column(["blurry", "breed"], LABEL_COLUMNS)
    with pytest.raises(ValueError, match="image, Image have the same name"):
        choose_column(["image", "Image"], IMAGE_COLUMNS)


def found(labels, *classes, reason=""):
    pixels = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return FoundSplit(ArrayImages(pixels, None if reason else np.array(labels), list(classes)), reason)


TRAIN = found([0, 1] * 5, "cat", "dog")


def test_test_images_of_classes_without_training_images_are_left_out_and_named():
    source = assemble_source("x", {"train": TRAIN, "test": found([0, 1, 1, 2], "dog", "emu", "cat")})
    assert source.test.labels.tolist() == [1, 0]
    assert source.test.classes == source.train.classes
    assert source.notes == ("test: 2 images left out, of classes without training images: emu (2)",)
    train = found([0, 1] * 5, "cat", "dog", "emu")  # a class that has a name alone
    source = assemble_source("x", {"train": train, "test": found([0, 2], "cat", "dog", "emu")})
    assert source.test.labels.tolist() == [0]
    assert labelled_splits(source)[1].labels.tolist() == [0]


def test_a_test_split_of_other_classes_is_never_replaced_by_training_images():
    source = assemble_source("x", {"train": TRAIN, "test": found([0, 1], "emu", "gnu")})
    assert source.test.labels is None
    assert labelled_splits(source) is None
    assert why_not_labelled(source) == (
        "test has the classes emu, gnu, none of which is one of those to train on, cat, dog"
    )
    source = assemble_source("x", {"train": TRAIN, "test": found([0], "emu"), "val": found([0], "dog")})
    assert (source.test_split, source.test.labels.tolist(), why_not_labelled(source)) == ("val", [1], "")
    assert any("test is not tested on: it has the classes emu" in note for note in source.notes)


def test_every_cause_has_a_sentence_of_its_own():
    few = found([0, 0, 1], "cat", "dog")
    sources = {
        "train has one class only, cat": {"train": found([0] * 9, "cat")},
        "train has the labels of nobody": {"train": found([0, 0], reason="has the labels of nobody")},
        "no class has the 5 images of which every fifth would be tested on: the largest has 2": {"train": few},
        "an image shows several classes": {
            "train": FoundSplit(ArrayImages(few.images.pixels, np.eye(3, dtype=int), []))
        },
    }
    for cause, splits in sources.items():
        assert cause in why_not_labelled(assemble_source("x", splits))
    assert "every fifth" not in why_not_labelled(assemble_source("x", {"train": few, "test": few}))


def test_lines_say_what_is_trained_on_and_tested_on():
    source = assemble_source("x", {"Training": TRAIN, "Testing": found([0], "cat"), "extra": found([], reason="-")})
    assert describe_splits(source, to_train=True) == [
        "x: trains on Training: 10 images in 2 classes: cat, dog",
        "x: tests on Testing: 1 image",
        "x: left out: extra (0 images); Training is used to train",
    ]
    source = assemble_source("x", {"": TRAIN})
    assert describe_splits(source, to_train=False) == [
        "x: has labels of 10 images in 2 classes: cat, dog",
        "x: tests on every fifth image of each class: 2 images; there is no labelled test split. Photos of another "
        "kind may score lower",
    ]
    seen = "x: tests on every fifth image of each class: 2 images, which {} trained on too, without their labels; there"
    for options, verb in (({"to_train": True}, "are"), ({"to_train": False, "is_trained_on": True}, "were")):
        assert describe_splits(source, **options)[1].startswith(seen.format(verb))
    source = assemble_source("x", {"train": TRAIN, "unlabelled": found([], reason="has no class folders")})
    assert describe_splits(source, to_train=True)[:2] == [
        "x: trains on unlabelled: 0 images",
        "x: labels come from train: 10 images in 2 classes: cat, dog",
    ]


def test_names_of_others_reach_no_terminal_as_they_are():
    assert listed(["a", "b\x1b[31m", "c\nd", "猫"], limit=4) == r"a, b\x1b[31m, c\nd, 猫"
    assert listed(["x"] * 7) == "x, x, x, x, x and 2 more"
    assert len(listed(["x" * 5000])) < 110
