"""Images that are given one by one: paths of files, PIL images, arrays; their names, classes and errors."""

import numpy as np
import pytest
import torch
from PIL import Image

import infomax
from infomax.data.decoding.options import Decoding
from infomax.data.images.pillow import PillowImages
from infomax.data.sources.given import open_given
from infomax.data.sources.location import DataLocation, open_source
from infomax.data.splits import labelled_splits


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Makes a folder of two classes, and the working folder the one that it is in."""
    monkeypatch.chdir(tmp_path)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (9, 8), (i, ord(label[0]), 0)).save(tmp_path / "photos" / label / f"{i}.png")
    return tmp_path / "photos"


def files(folder, pattern="*/*.png"):
    return sorted(str(path) for path in folder.glob(pattern))


def names(images):
    return [images.name(i) for i in range(len(images))]


def test_files_are_what_their_folder_is(photos):
    listed, folder = open_given(files(photos)), open_source("photos")
    assert names(listed.train) == files(photos)
    assert listed.train.classes == folder.train.classes == ["cat", "dog"]
    for a, b in zip(labelled_splits(listed), labelled_splits(folder), strict=True):
        assert a.index.tolist() == b.index.tolist()
        assert a.labels.tolist() == b.labels.tolist()
    assert listed.train.fingerprint() == folder.train.fingerprint()
    everything = np.arange(12)
    assert listed.train.state(everything) == folder.train.state(everything)  # so that features of either are kept once
    assert listed.notes == ("the classes are the folders in photos: cat, dog",)
    assert listed.name == "12 files in photos"


def test_names_are_paths_as_they_were_given(photos, tmp_path, monkeypatch):
    given = ["photos/dog/1.png", photos / "cat" / "0.png", "photos/../photos/cat/2.png"]
    source = open_given(iter(given), in_order=True)
    assert names(source.train) == [str(path) for path in given]
    monkeypatch.chdir(photos)  # the files are still found
    assert source.train.open(0).getpixel((0, 0)) == (1, ord("d"), 0)
    assert names(open_source("cat/1.png,dog/0.png").train) == ["cat/1.png", "dog/0.png"]
    assert names(open_source("cat/1.png").train) == ["cat/1.png"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_given(["~/photos/cat/3.png"]).train.open(0).getpixel((0, 0))[0] == 3


def test_a_file_that_is_given_twice_counts_once_unless_order_matters(photos):
    twice = ["photos/cat/0.png", "photos/dog/0.png", str(photos / "cat" / "0.png")]
    assert names(open_given(twice, in_order=True).train) == twice
    source = open_given(twice)
    assert names(source.train) == twice[:2]
    assert source.notes[0] == f"left out: 1 file given twice, as {twice[2]}"


def test_folders_with_names_of_splits_are_splits(photos, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / split).symlink_to(photos)
    source = open_given(files(tmp_path / "all", "*/*/*.png"))
    assert (len(source.train), len(source.test)) == (12, 12)
    assert (source.train_split, source.test_split) == ("train", "test")
    assert source.test.classes == ["cat", "dog"]
    assert source.test.name(0).endswith("all/test/cat/0.png")
    source = open_given(files(tmp_path / "all", "*/*/*.png"), in_order=True)
    assert (len(source.train), source.test) == (24, None)


def test_without_folders_or_targets_there_are_no_labels_and_the_reason_says_why(photos):
    image = Image.new("RGB", (8, 8))
    image.save("photos/stray.png")
    for data, reason in (
        (files(photos / "cat", "*.png"), "no class folders: its 6 files lie in one folder, as .*0.png; targets="),
        (["photos/cat/0.png"], "the data is one file, which has no class; targets="),
        ([*files(photos), "photos/stray.png"], "has 1 file beside its class folders, as photos/stray.png; targets="),
        (image, "images in memory come without classes; targets="),
        (np.zeros((5, 8, 8, 3), np.uint8), "images in memory come without classes; targets="),
    ):
        source = open_given(data)
        assert source.train.labels is None
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(source.no_labels_reason)


def test_targets_are_the_classes_of_what_they_are_given_with(photos):
    targets = ["b", "a", "b"]
    paths = files(photos)[:3]
    for data in (paths, [Image.open(path) for path in paths], np.zeros((3, 8, 8), np.uint8)):
        source = open_given(data, targets)
        assert (source.train.classes, source.train.labels.tolist()) == (["a", "b"], [1, 0, 1])
        assert open_given(data, np.array([4, 4, 2])).train.classes == ["2", "4"]
        with pytest.raises(ValueError, match=r"^targets is of shape \[2\], for 3 images"):
            open_given(data, targets[:2])
    assert open_given([*paths, paths[0]], [*targets, "b"]).train.labels.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="targets are for files, and these are folders"):
        open_given(["photos"], targets)


def test_folders_in_a_list_are_folders(photos):
    assert names(open_given(["photos/cat", photos / "dog"]).train)[5:7] == ["photos/cat/5.png", f"{photos}/dog/0.png"]


def test_pil_images_are_decoded_as_their_files_are(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (8, 12, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = {
        "turned.jpg": (Image.fromarray(pixels[..., :3]), {"exif": exif}),
        "turned.tif": (Image.fromarray(pixels[..., :3]), {"exif": exif}),
        "transparent.png": (Image.fromarray(pixels), {}),
        "palette.gif": (Image.fromarray(pixels[..., :3]).quantize(8), {}),
        "deep.png": (Image.fromarray(rng.integers(0, 65535, (8, 12)).astype(np.uint16)), {}),
        "gray.png": (Image.fromarray(pixels[..., 0]), {}),
        "cmyk.jpg": (Image.fromarray(pixels[..., :3]).convert("CMYK"), {}),
    }
    for name, (image, options) in saved.items():
        image.save(tmp_path / name, **options)
    paths = [tmp_path / name for name in saved]
    opened = [Image.open(path) for path in paths]
    in_memory, on_disk = open_given(opened).train, open_given(paths, in_order=True).train
    for i, name in enumerate(saved):
        for _ in range(2):  # the second time gives the same
            a, b = in_memory.open(i), on_disk.open(i)
            assert (a.mode, a.size, a.tobytes()) == (b.mode, b.size, b.tobytes()), name
    assert names(in_memory) == [str(i) for i in range(len(saved))]
    for image in opened:
        image.close()


def test_numbers_without_black_and_white_need_a_range():
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    images = open_given([image]).train
    with pytest.raises(ValueError, match="image 0 cannot be read: its numbers .* --value-range"):
        images.open(0)
    source = DataLocation("", value_range="0,1").select(open_given([image]))
    assert source.train.open(0).getpixel((7, 7)) == (255, 255, 255)
    assert source.train.decoding == Decoding((0.0, 1.0), 120)
    assert isinstance(source.train, PillowImages)
    assert source.train.fingerprint() != open_given([Image.new("RGB", (8, 8))]).train.fingerprint()


def test_an_image_without_a_suffix_is_one_by_its_first_bytes(photos):
    (photos / "cat" / "0.png").rename("scan")
    assert open_given(["scan"]).train.open(0).size == (9, 8)
    assert open_source("scan").train.open(0).size == (9, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [],
            "data: is empty, as the list of files that match a pattern is if none does; want paths of",
        ),
        (["photos/cat/0.png", "photos/no.png", "no.png"], "data: no such file: photos/no.png, no.png$"),
        (["photos/cat/0.png", "photos"], "data: photos is a folder, and others are files; want either"),
        (["photos/cat/0.png", "notes.md"], "data: notes.md is no image that can be read, as .jpg, .png and .tif are"),
        (["photos/cat/0.png", None], "data: must be paths .*, all of one kind, but item 1 is of type NoneType"),
        ([Image.new("L", (2, 2)), "photos/cat/0.png"], "all of one kind, but item 1 is of type str"),
        (b"photos", "data: must be paths of image files, PIL images, or an array .*, but is of type bytes"),
        (7, "but is of type int"),
        ({"a": 1}, "but is of type dict"),
        (torch.zeros(2, 3, 8, 8), "item 0 is of type Tensor"),
        (np.zeros((2, 8, 8, 3), np.int64), r"data: the array must be numbers \(uint8, .*but is int64 .*astype"),
        (np.zeros((8, 8, 3), np.uint8), r"it looks like one image in colour, which \[None\] makes an array of"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(photos, data, message):
    (photos.parent / "notes.md").write_text("# notes")
    with pytest.raises(ValueError, match=message) as caught:
        open_given(data)
    assert "\n" not in str(caught.value)


def test_an_image_whose_file_was_closed_is_named_by_its_number(photos):
    image = Image.open("photos/cat/0.png")
    image.close()
    with pytest.raises(ValueError, match="data: image 1 cannot be read: "):
        open_given([Image.new("RGB", (8, 8)), image])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("photos/cat/0.png,photos/no.png", "no such folder or file: .*photos/no.png"),
        ("photos/cat/0.png,photos", "0.png is no folder, as others are; want folders, or image files alone"),
        ("notes.md", "a file must be an image, an .npz or .npy of arrays, or a .txt or .csv of paths"),
    ],
)
def test_files_of_the_command_are_refused_in_one_line_too(photos, data, message):
    (photos.parent / "notes.md").write_text("# notes")
    with pytest.raises(ValueError, match=f"^--data {data}: .*{message}"):
        open_source(data)


@pytest.mark.parametrize("name", ["pretrain", "views", "plan"])
def test_functions_that_take_the_name_of_images_alone_say_so(photos, name):
    with pytest.raises(ValueError, match="^data= must name images, as a folder does, but is of type list; .* file"):
        getattr(infomax, name)(data=files(photos), **({"out": "x"} if name == "pretrain" else {}))
