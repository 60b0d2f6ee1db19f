"""Folders in COCO's format: what is left out is said, and each contradiction is one line."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from coco_folders import SIDE, annotation, polygon, toy_content, write_coco
from infomax.data.sources.location import DataLocation
from infomax.evaluation.detection import coco_folder
from infomax.evaluation.detection.coco_folder import open_coco
from infomax.evaluation.detection.coco_json import decoded_length
from infomax.evaluation.detection.loading import load_to_train
from infomax.evaluation.detection.masks import decode_segmentation

BOX = (8, 4, 20, 12)


def opened(folder):
    return open_coco(DataLocation(str(folder)))


def run_lengths(box=BOX, *, compressed: bool):
    """The mask of a box as run lengths, column by column."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    if compressed:
        encoded = oracle.encode(np.asfortranarray(pixels))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = pixels.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [SIDE, SIDE], "counts": np.diff([0, *ends, len(flat)]).tolist()}


def test_polygons_and_both_kinds_of_run_lengths_are_one_mask(tmp_path):
    content = toy_content(1)
    shapes = [[polygon(BOX)], run_lengths(compressed=False), run_lengths(compressed=True)]
    content["annotations"] = [annotation(i + 1, 10, 3, BOX, segmentation=x) for i, x in enumerate(shapes)]
    images, objects = opened(write_coco(tmp_path, content)).to_train
    loaded = load_to_train(images, objects, 0, flip=False)
    expected = np.zeros((SIDE, SIDE))
    expected[4:16, 8:28] = 1
    assert loaded.pixels.shape == (3, SIDE, SIDE)
    assert loaded.labels.tolist() == [1, 1, 1]
    for mask in loaded.masks:
        np.testing.assert_array_equal(mask, expected)
    assert loaded.boxes.tolist() == [[8, 4, 28, 16]] * 3


def test_a_mirrored_image_has_its_objects_mirrored(tmp_path):
    images, objects = opened(write_coco(tmp_path)).to_train
    plain, mirrored = (load_to_train(images, objects, 1, flip=flip) for flip in (False, True))
    assert (plain.pixels.flip(2) == mirrored.pixels).all()
    assert (plain.masks.flip(2) == mirrored.masks).all()
    for (left, top, right, bottom), mask in zip(mirrored.boxes.int().tolist(), mirrored.masks, strict=True):
        assert mask[top:bottom, left:right].all()
        assert mask.sum() == (right - left) * (bottom - top)
    assert not (plain.boxes == mirrored.boxes).all()


def test_whatever_is_left_out_is_said(tmp_path):
    content = toy_content(6)
    objects = content["annotations"]
    objects[0].update(iscrowd=1, segmentation=run_lengths(compressed=False))  # the other object of image 0 stays
    objects[2]["bbox"][2] = 0
    objects[4]["segmentation"] = [[1, 2, 3, 4]]
    content["annotations"] = [x for x in objects if x["image_id"] != 13]
    folder = write_coco(tmp_path, content)
    (folder / "train2017" / "4.png").unlink()
    source = opened(folder)
    assert source.notes == (
        "trains on train2017: 4 images, 5 objects of 2 categories; tests on val2017: 6 images, 10 objects",
        "1 of 6 train images left out, as their files are not there: 4.png",
        "1 object of train left out of the training: a crowd; where crowds are tested on, they are ignored",
        "1 object of train left out of the training: the box has no area within the image",
        "1 object of train left out of the training: there is no mask: the segmentation is empty, or has no polygon of "
        "3 points",
        "1 image of train left out of the training: no object to train on (as in Detectron2)",
    )
    images, trained = source.to_train
    assert [images.name(i) for i in range(len(images))] == ["0.png", "1.png", "2.png", "5.png"]
    loaded = [load_to_train(images, trained, i, flip=False) for i in range(len(images))]
    assert [len(x.boxes) for x in loaded] == [1, 1, 1, 2]
    assert loaded[0].labels.tolist() == [2]
    assert source.categories == ("red", "green")


def break_json(content, folder):
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content)[:-30])


def change(key, value, *, of="annotations"):
    """Changes a key of the first object or image."""

    def apply(content, folder):
        content[of][0][key] = value
        (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))

    return apply


def repeat(of):
    def apply(content, folder):
        content[of].append(content[of][0])
        (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (break_json, "instances_train2017.json is broken: "),
        (change("category_id", 4), "the annotation 0 is of the category 4, which is not in the list"),
        (change("image_id", 4), "the annotation 0 is of the image 4, which is not in the list"),
        (change("bbox", [1, 2, 3]), "the annotation 0 must have a bbox of left, top, width and height, but it is"),
        (change("bbox", [1, 2, -3, 4]), "must have a bbox"),
        (change("bbox", [1, 2, float("nan"), 4]), "must have a bbox"),
        (change("iscrowd", 2), "must have 0 or 1 as iscrowd, but it is 2"),
        (change("area", "x"), "must have an area of at least 0, but it is 'x'"),
        (change("segmentation", [[1, 2, 3]]), "has a polygon that is no list of x and y"),
        (change("segmentation", "x"), "must have polygons or run lengths as segmentation: 'x'"),
        (
            change("segmentation", {"size": [64, 65], "counts": [4160]}),
            r"mask of the size \[64, 65\] .*, but its image has \[64, 64\]",
        ),
        (change("segmentation", {"size": [64, 64], "counts": [1, 2]}), "do not add up to the 4,096 pixels"),
        (change("segmentation", {"size": [64, 64], "counts": "5:Yb0"}), "are not those of 4,096 pixels"),
        (change("width", 0, of="images"), "the image 10 must have a width in pixels, but it is 0"),
        (change("file_name", "../a.png", of="images"), "which leads out of the folder"),
        (change("file_name", None, of="images"), "the image 10 must have a file_name, but it is None"),
        (repeat("images"), "the image id 10 is there twice"),
        (repeat("annotations"), "the annotation 0 is there twice"),
        (change("name", "blue", of="categories"), "must have the same categories, but category 3 is 'blue' in one"),
    ],
)
def test_a_contradiction_is_one_line(tmp_path, mistake, message):
    content = toy_content()
    folder = write_coco(tmp_path, content)
    mistake(content, folder)
    with pytest.raises(ValueError, match=f"^--data {tmp_path}: .*{message}") as error:
        opened(folder)
    assert "\n" not in str(error.value)


def test_an_image_of_another_size_is_named(tmp_path):
    folder = write_coco(tmp_path)
    Image.new("RGB", (SIDE, 32)).save(folder / "train2017" / "2.png")
    images, objects = opened(folder).to_train
    with pytest.raises(ValueError, match=r"2.png has 64 x 32 pixels .*train2017.json says 64 x 64"):
        load_to_train(images, objects, 2, flip=False)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="--data .*nowhere.*want a folder in COCO's format"):
        opened(tmp_path / "nowhere")
    folder = write_coco(tmp_path)
    (folder / "annotations" / "instances_val2017.json").rename(folder / "annotations" / "captions.json")
    with pytest.raises(ValueError, match="there is no JSON of the val images.*; there is annotations/captions.json"):
        opened(folder)
    (folder / "annotations" / "captions.json").rename(folder / "annotations" / "instances_val.json")
    (folder / "annotations" / "instances_val2014.json").write_text("{}")
    with pytest.raises(ValueError, match="several files may be the objects of the val images: .*leave one"):
        opened(folder)
    (folder / "annotations" / "instances_val2014.json").unlink()
    for image in (folder / "val2017").iterdir():
        image.unlink()
    (folder / "val2017").rmdir()
    with pytest.raises(ValueError, match=r"instances_val.json names 0.png, which is in none of the folders val"):
        opened(folder)
    with pytest.raises(ValueError, match="--subset 1percent is not for infomax evaluate detect"):
        open_coco(DataLocation(str(folder), subset="1percent"))


def test_json_beside_the_images_is_found(tmp_path):
    """As roboflow exports folders: train/_annotations.coco.json with the images beside it."""
    folder = write_coco(tmp_path)
    for split, name in (("train", "train"), ("val", "valid")):
        (folder / f"{split}2017").rename(folder / name)
        (folder / "annotations" / f"instances_{split}2017.json").rename(folder / name / "_annotations.coco.json")
    source = opened(folder)
    assert (source.train_split, source.test_split) == ("train", "valid")
    assert len(source.train) == 4


def test_coco_2017_is_known_by_its_images(tmp_path, monkeypatch):
    folder = write_coco(tmp_path / "coco")
    source = opened(folder)
    assert source.name == str(folder)
    by_name = open_coco(DataLocation("coco", data_dir=str(tmp_path)))
    assert by_name.name == str(folder)
    assert "is not all of COCO 2017" in by_name.notes[-1]
    monkeypatch.setattr(coco_folder, "COCO_2017", (4, 4, 2))
    assert opened(folder).name == "coco"
    assert "its results are named coco" in opened(folder).notes[-1]
    (folder / "train2017" / "0.png").unlink()
    assert opened(folder).name == str(folder)


def test_the_length_of_compressed_run_lengths_is_checked():
    """Code that decodes them trusts it."""
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (64, 300)):
        pixels = np.asfortranarray((random.random((height, width)) < 0.3).astype(np.uint8))
        for mask in (pixels, 0 * pixels, 0 * pixels + 1):
            encoded = oracle.encode(np.asfortranarray(mask))
            assert decoded_length(encoded["counts"].decode()) == height * width
            np.testing.assert_array_equal(decode_segmentation(encoded, width, height), mask)
    assert decoded_length("\x00") == -1
    assert decoded_length("o") == -1  # a count that goes on, and ends
    assert decoded_length("ooooooooo0") == -1
