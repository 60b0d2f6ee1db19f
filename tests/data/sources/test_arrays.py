"""Arrays: their usual names, labels of any type, and headers that lie."""

import io
import resource
import struct
import zipfile

import numpy as np
import pytest

from infomax.data.images.arrays import ArrayImages, is_mapped
from infomax.data.numbers import RGB_KIND, kind_of_array
from infomax.data.sources.array_layouts import find_layout
from infomax.data.sources.given import open_given
from infomax.data.sources.location import open_source
from infomax.data.splits import describe_splits, labelled_splits, why_not_labelled

IMAGES = np.arange(12 * 6 * 5 * 3, dtype=np.uint32).astype(np.uint8).reshape(12, 6, 5, 3)
LABELS = np.arange(12) % 2


@pytest.fixture
def open_arrays(tmp_path):
    def open_npz(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return open_source(str(tmp_path / "x.npz"))

    return open_npz


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "y_train", "X_test", "y_test"),
        ("Train_Images", "Train_Labels", "Testing_Images", "Testing_Labels"),
        ("images_train", "labels_train", "images_test", "labels_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("train_data", "train_targets", "test_data", "test_targets"),
        ("train_x", "train_y", "valid_x", "valid_y"),
        ("images", "labels", "test_images", "test_labels"),
    ],
)
def test_usual_names_of_two_splits(open_arrays, names):
    source = open_arrays(**dict(zip(names, (IMAGES, LABELS, IMAGES[:3], LABELS[:3]), strict=True)))
    assert (len(source.train), len(source.test)) == (12, 3)
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == (LABELS.tolist(), [0, 1, 0])
    assert source.notes == ()


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("data", "labels"), []),
        (("X", "y"), []),
        (("imgs", "targets"), []),
        (("image", "class"), []),
        (("arr_0", "arr_1"), ["arr_0 is taken for the images", "arr_1 is taken for the labels"]),
        (("scans", "y"), ["scans is taken for the images"]),
    ],
)
def test_usual_names_of_one_split_and_arrays_that_are_the_only_ones_that_can_be(open_arrays, names, taken):
    source = open_arrays(**dict(zip(names, (IMAGES, LABELS), strict=True)))
    assert labelled_splits(source)[1].labels.tolist() == [0, 1]
    assert len(source.notes) == len(taken)
    assert all(f"array {words}" in note for words, note in zip(taken, source.notes, strict=True))


def test_two_arrays_for_one_purpose_are_refused_for_images_and_named_for_labels(open_arrays):
    with pytest.raises(ValueError, match="several arrays that can be the images to train on: images, train_images"):
        open_arrays(images=IMAGES, train_images=IMAGES)
    with pytest.raises(ValueError, match="several arrays that can be the images of one split: X, images"):
        open_arrays(X=IMAGES, images=IMAGES)
    with pytest.raises(ValueError, match="has 'val' and 'valid', which both name a val split"):
        open_arrays(train_x=IMAGES, val_x=IMAGES, valid_x=IMAGES)
    source = open_arrays(images=IMAGES, y=LABELS, labels=LABELS)
    assert why_not_labelled(source) == "the data has several arrays of labels, y, labels; keep one"
    source = open_arrays(images=IMAGES, y=LABELS, masks=IMAGES)
    assert source.notes == ("left out: arrays masks",)


STRINGS = np.array(["dog", "cat "])[LABELS]


@pytest.mark.parametrize(
    ("labels", "classes", "note"),
    [
        (STRINGS, ["cat", "dog"], "array labels holds strings, which are taken for the names of classes"),
        (STRINGS.astype("S"), ["cat", "dog"], "array labels holds strings"),
        (LABELS.astype(np.float32) + 9, ["9", "10"], "array labels holds float32 that are whole"),
        (LABELS[:, None].astype(bool), ["False", "True"], None),
        (LABELS.astype(np.uint64), ["0", "1"], None),
    ],
)
def test_strings_and_whole_floats_are_classes(open_arrays, labels, classes, note):
    source = open_arrays(images=IMAGES, labels=labels)
    assert source.train.classes == classes
    assert [source.train.classes[i] for i in source.train.labels] == [
        str(x).strip() for x in np.ravel(as_names(labels))
    ]
    assert [note in line for line in source.notes] == ([True] if note else [])


def as_names(labels):
    """Returns the labels as the names of their classes are written."""
    if labels.dtype.kind == "S":
        return np.char.decode(labels)
    return labels.astype(int) if labels.dtype.kind == "f" else labels


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        (np.eye(2)[LABELS], r"is one-hot, of shape \[12, 2\]; argmax\(1\)"),
        (np.ones((12, 14), np.uint8), r"marks several classes an image, of shape \[12, 14\]"),
        (np.full((12, 4), 7), r"is of shape \[12, 4\]; one label for each image"),
        (LABELS + 0.5, "is not of whole numbers, as 0.5 for image 0"),
        (np.where(LABELS, np.nan, 1), "is not of whole numbers, as nan for image 1"),
        (np.where(np.arange(12) == 3, -1, LABELS), "lacks those of 1 image, as of image 3, which has -1"),
        (np.where(np.arange(12) == 3, "", "a"), "lacks those of 1 image, as of image 3, which has ''"),
        (LABELS[:11], r"is of shape \[11\], for 12 images"),
        (np.array(5), r"is of shape \[\], for 12 images"),
        (LABELS.astype("M8[s]"), r"holds datetime64\[s\], which is no label"),
        (LABELS * 1j, "holds complex128, which is no label"),
        (LABELS.astype(object), "holds pickled objects, which are not read, for they can run code"),
    ],
)
def test_other_labels_are_none_and_training_goes_on(open_arrays, labels, cause):
    source = open_arrays(images=IMAGES, labels=labels)
    assert len(source.train) == 12
    assert source.train.labels is None
    with pytest.raises(AssertionError, match=f"the data has no labels: array labels {cause}"):
        raise AssertionError(why_not_labelled(source))


def test_labels_of_one_class_and_no_labels_have_a_cause(open_arrays):
    assert why_not_labelled(open_arrays(images=IMAGES, labels=LABELS * 0)) == "the data has one class only, 0"
    assert why_not_labelled(open_arrays(images=IMAGES)) == "the data has no array of labels; found no other"
    assert "found info" in why_not_labelled(open_arrays(images=IMAGES, info=np.zeros(3)))


def test_a_labelled_validation_split_is_tested_on_if_the_test_split_has_no_labels(open_arrays):
    splits = {"train_x": IMAGES, "train_y": LABELS, "val_x": IMAGES[:5], "val_y": LABELS[:5], "test_x": IMAGES[:2]}
    for more in ({}, {"test_y": np.full(2, -1)}):
        source = open_arrays(**splits, **more)
        assert (source.test_split, source.val) == ("val", None)
        assert any(note.startswith("test is not tested on: it has no") for note in source.notes)
        assert len(labelled_splits(source)[1].index) == 5
        assert any(line.endswith("tests on val: 5 images") for line in describe_splits(source, to_train=True))
    source = open_arrays(**splits, test_y=LABELS[:2])
    assert (source.test_split, source.val_split) == ("test", "val")


def test_a_pickle_of_labels_is_not_run(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=np.array([Bomb(tmp_path / "ran")] * 12, dtype=object))
    assert "pickled objects" in why_not_labelled(open_source(str(tmp_path / "x.npz")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("images", "cure"),
    [
        (IMAGES.astype(np.int64), r"is int64 .*\.astype\('int32'\)"),
        (IMAGES > 7, r"is bool .*\.astype\('uint8'\) \* 255"),
        (IMAGES.astype(">f8"), r"\.astype\('float32'\) puts its bytes in order"),
        (IMAGES[0, ..., 0], r"one image in gray, which \[None\]"),
        (np.zeros((4, 2, 8, 8, 3), np.uint8), r"must be numbers .* but is uint8 \[4, 2, 8, 8, 3\]$"),
        (np.zeros((4, 6, 5, 4), np.uint8), r"nothing tells whether its channels stand last \(4\) or .* \(6\)"),
        (IMAGES[0], r"one image in colour, which \[None\]"),
    ],
)
def test_arrays_that_are_not_read_say_how_they_would_be(open_arrays, tmp_path, images, cure):
    with pytest.raises(ValueError, match=cure):
        open_arrays(images=images)
    np.save(tmp_path / "x.npy", images)
    with pytest.raises(ValueError, match=cure):
        open_source(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_numbers_of_any_type_are_read_with_channels_first_or_last_or_none(open_arrays, tmp_path, dtype, channels):
    images = np.arange(4 * 12 * 10 * channels).reshape(4, 12, 10, channels).astype(dtype)
    is_rgb = dtype == "uint8" and channels in (1, 3)
    expected = np.broadcast_to(images, (4, 12, 10, 3)) if is_rgb else images
    ways = [images, images.transpose(0, 3, 1, 2), *([images[..., 0]] if channels == 1 else [])]
    for number, array in enumerate(ways):
        np.save(tmp_path / "x.npy", array)
        for source in (open_arrays(images=array), open_source(str(tmp_path / "x.npy")), open_given(array)):
            assert source.train.kind(0) == (RGB_KIND if is_rgb else kind_of_array(np.dtype(dtype), channels))
            for index in range(4):
                np.testing.assert_array_equal(source.train.read(index).values, expected[index])
            notes = [
                note for note in source.notes if f"{channels} channels of 12 x 10 pixels, the channels first" in note
            ]
            assert len(notes) == (number == 1 and channels != 1) or channels == 1


def test_a_mapped_array_stays_on_disk_with_its_channels_first(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 5, 12, 10), np.uint16))
    pixels = open_source(str(tmp_path / "x.npy")).train.pixels
    assert is_mapped(pixels)
    assert pixels.shape == (4, 12, 10, 5)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((9, 28, 28, 1), "NHWC"),
        ((9, 1, 28, 28), "NCHW"),
        ((9, 3, 4, 5), "NCHW"),
        ((9, 4, 5, 3), "NHWC"),
        ((9, 3, 9, 3), "NHWC"),
        ((9, 13, 64, 64), "NCHW"),
        ((9, 64, 80, 13), "NHWC"),
        ((9, 120, 300, 200), None),
        ((9, 9, 9, 200), None),
        ((9, 9, 11, 200), None),
        ((9, 8, 8, 8), None),
    ],
)
def test_channels_are_found_where_there_is_no_doubt(shape, layout):
    if layout is None:
        with pytest.raises(ValueError, match=f"the array is uint16 .*stand last .{shape[3]}. or .* .{shape[1]}."):
            find_layout("the array", shape, np.dtype("uint16"))
    else:
        assert find_layout("the array", shape, np.dtype("uint16")) == layout


@pytest.mark.parametrize(("shape", "dtype"), [((64, 48, 4), "uint8"), ((64, 48, 5), "float32"), ((64, 48, 3), "int16")])
def test_one_image_is_told_from_images_of_one_channel(shape, dtype):
    with pytest.raises(
        ValueError, match=r"like one image in colour, which \[None\] .*; if .* of one channel, \[..., None\]"
    ):
        find_layout("the array", shape, np.dtype(dtype))
    assert find_layout("the array", (*shape, 1), np.dtype(dtype)) == "NHWC"


def npy(shape, descr="|u1", body=b"1234"):
    header = str({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + body


LIES = {
    "negative": npy((-1, 4, 4)),
    "two negative": npy((-2, -2, 4)),
    "enormous": npy((10**12, 4, 4)),
    "overflow": npy((2**62, 2**62, 4)),
    "short": npy((2, 4, 4)),
    "no tuple": npy([2, 4, 4]),
    "not whole": npy((2.5, 4, 4)),
    "nothing": b"\x93NUMPY\1\0\xff\xff",
    "nested": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 8999 + b"\n",
    "other version": b"\x93NUMPY\7\0" + npy((2, 4, 4))[8:],
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_headers_that_lie_are_one_line_and_take_no_memory(tmp_path, lie, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(LIES[lie])
    if suffix == "npz":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("images.npy", LIES[lie])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"--data .*(says that it is uint8 \[|has no header of an array)") as error:
        open_source(str(path))
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_zip_file_that_claims_more_than_it_can_hold_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", npy((10**12, 4, 4)))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    at = content.rindex(b"PK\1\2")  # the size in the directory at the end of the file
    content[at + 24 : at + 28] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="array images is damaged or made to fill the memory: .* 4000000000"):
        open_source(str(tmp_path / "x.npz"))


def test_members_of_other_kinds_and_damaged_ones_are_no_arrays(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("README.md", "# Hello")
        file.writestr("images.npy", buffer.getvalue())
    assert isinstance(open_source(str(tmp_path / "x.npz")).train, ArrayImages)
    content = (tmp_path / "x.npz").read_bytes()
    middle = content.index(IMAGES[5].tobytes())
    (tmp_path / "x.npz").write_bytes(content[:middle] + b"\0\0\0" + content[middle + 3 :])
    with pytest.raises(ValueError, match="not a readable .npz of plain arrays: Bad CRC-32"):
        open_source(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path, save):
    save(tmp_path / "x.npz", images=IMAGES[..., 0], labels=STRINGS)
    content, rng = (tmp_path / "x.npz").read_bytes(), np.random.default_rng(0)
    refusals = []
    for _ in range(200):
        changed = bytearray(content)
        for position in rng.integers(len(changed), size=rng.integers(1, 5)):
            changed[position] = rng.integers(256)
        (tmp_path / "y.npz").write_bytes(changed[: rng.integers(1, 2 * len(changed))])
        try:
            open_source(str(tmp_path / "y.npz"))
        except ValueError as error:
            refusals.append(str(error))
    assert refusals
    assert not [line for line in refusals if "\n" in line]
