"""Sources: splits and labels of folders and arrays, conversion to RGB, and errors for what cannot be opened."""

import numpy as np
import pytest
from PIL import Image

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.sources.location import open_source
from infomax.data.splits import labelled_splits, why_not_labelled


def save(path, mode="RGB", size=(12, 10), value=100, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = tuple([value] * len(Image.new(mode, (1, 1)).getbands()))
    Image.new(mode, size, shade if len(shade) > 1 else value).save(path, **options)


def pixels(images, index=0):
    return np.asarray(images.open(index))


def test_digits_are_those_of_scikit_learns_own_reader():
    from sklearn.datasets import load_digits

    digits, source = load_digits(), open_source("digits")
    is_test = np.arange(1797) % 5 == 4
    for images, rows in ((source.train, ~is_test), (source.test, is_test)):
        expected = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
        np.testing.assert_array_equal(images.pixels, np.repeat(expected[..., None], 3, 3))
        np.testing.assert_array_equal(images.labels, digits.target[rows])
    assert source.train.fingerprint() == "b02065adad57"  # runs of earlier versions are resumed


def test_digits_have_two_splits_and_all_classes():
    source = open_source("digits")
    assert len(source.train) + len(source.test) == 1797
    assert source.train.open(0).size == (8, 8)
    assert sorted(set(source.test.labels)) == list(range(10)) == sorted(set(source.train.labels))
    assert source.train.pixels.max() == 255


def test_a_flat_folder_needs_no_labels(tmp_path):
    save(tmp_path / "b.PNG")
    save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    source = open_source(str(tmp_path))
    assert isinstance(source.train, FileImages)
    assert source.train.files == ["a.jpg", "b.PNG"]
    assert source.train.labels is None
    assert labelled_splits(source) is None


def test_sub_folders_are_classes_whatever_is_nested_in_them(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "cat/deep/2.png"):
        save(tmp_path / name)
    train = open_source(str(tmp_path)).train
    assert train.files == ["cat/1.png", "cat/deep/2.png", "dog/1.png"]
    assert [train.classes[i] for i in train.labels] == ["cat", "cat", "dog"]


def test_a_few_images_beside_class_folders_are_left_out_and_named(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "stray.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source.train.files == ["cat/1.png", "dog/1.png"]
    assert source.train.labels.tolist() == [0, 1]
    assert source.notes == ("left out: 1 image file beside the class folders: stray.png",)


def test_many_images_beside_class_folders_are_trained_on_without_labels(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "a.png", "b.png", "c.png", "d.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert len(source.train) == 6
    assert source.train.labels is None
    assert source.no_labels_reason == "the data has 4 images beside its 2 folders, as a.png, b.png, c.png"


@pytest.mark.parametrize("name", ["test", "val", "Test"])
def test_train_and_test_folders_are_splits(tmp_path, name):
    for split, count in (("train", 3), (name, 2)):
        for label in ("a", "b"):
            for i in range(count):
                save(tmp_path / split / label / f"{i}.png")
    source = open_source(str(tmp_path))
    bank, queries = labelled_splits(source)
    assert (len(bank.index), len(queries.index)) == (6, 4)
    assert list(queries.labels) == [0, 0, 1, 1]
    assert source.test.files[0] == f"{name}/a/0.png"


def test_a_test_folder_without_labels_is_not_tested_on(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/1.png", "val/b/1.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source.test.files == ["val/b/1.png"]
    (tmp_path / "val/b/1.png").rename(tmp_path / "val/1.png")
    source = open_source(str(tmp_path))
    assert source.test.labels is None
    assert len(source.train) == 2
    assert why_not_labelled(source).startswith("there is no labelled test split")


def test_a_train_folder_alone_has_classes(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "other/1.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source.train.files == ["train/a/1.png", "train/b/1.png"]
    assert source.train.classes == ["a", "b"]
    (tmp_path / "train/b/1.png").rename(tmp_path / "train/a/2.png")
    assert open_source(str(tmp_path)).train.labels is None


def test_names_of_splits_are_not_classes(tmp_path):
    for name in ("val/a/1.png", "val/b/1.png", "test/b/1.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source.train.classes == ["a", "b"]
    assert source.test.files == ["test/b/1.png"]
    assert source.notes == ("there is no split called train: val takes its place; not trained on: test (1 image)",)


def test_classes_of_fewer_than_five_images_have_no_labelled_splits(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save(tmp_path / name)
    assert labelled_splits(open_source(str(tmp_path))) is None


def test_a_link_back_to_its_parent_is_walked_once(tmp_path):
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert open_source(str(tmp_path)).train.files == ["a/1.png"]


def test_fingerprints_follow_the_data(tmp_path):
    save(tmp_path / "1.png")
    first = open_source(str(tmp_path)).train.fingerprint()
    assert open_source(str(tmp_path)).train.fingerprint() == first
    save(tmp_path / "2.png")
    assert open_source(str(tmp_path)).train.fingerprint() != first
    arrays = [ArrayImages(np.full((2, 4, 4, 3), value, np.uint8), None, []) for value in (0, 0, 1)]
    assert arrays[0].fingerprint() == arrays[1].fingerprint() != arrays[2].fingerprint()


def test_labels_are_numbered_as_those_to_train_on_and_minus_one_means_no_labels(tmp_path):
    x = np.zeros((4, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=x, labels=[7, 3_000_000, 7, 7], test_images=x, test_labels=[9, 7, 7, 7])
    source = open_source(str(tmp_path / "a.npz"))
    assert source.train.classes == source.test.classes == ["7", "3000000"]
    assert (list(source.train.labels), list(source.test.labels)) == ([0, 1, 0, 0], [0, 0, 0])
    assert source.notes == ("test: 1 image left out, of classes without training images: 9 (1)",)
    np.savez(tmp_path / "b.npz", images=x, labels=[-1, 0, 1, 0])
    assert open_source(str(tmp_path / "b.npz")).train.labels is None


def test_a_class_that_one_split_lacks_keeps_its_number_in_the_other(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png"):
        save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source.train.classes == source.test.classes == ["a", "b", "c"]
    assert list(source.test.labels) == [2]


def test_links_are_followed_and_hidden_folders_are_not(tmp_path):
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "images" / ".thumbnails" / "1.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    assert open_source(str(tmp_path / "images")).train.files == ["linked/1.png"]


def test_without_a_test_split_every_fifth_image_of_a_class_is_one(tmp_path):
    labels = np.repeat([0, 1], [10, 5])
    np.savez(tmp_path / "x.npz", images=np.zeros((15, 4, 4), np.uint8), labels=labels)
    bank, queries = labelled_splits(open_source(str(tmp_path / "x.npz")))
    assert list(queries.index) == [4, 9, 14]
    assert sorted([*bank.index, *queries.index]) == list(range(15))
    assert list(bank.labels) == list(labels[bank.index])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        Image.fromarray(np.full((10, 12), 100 * 257, np.uint16)).save(tmp_path / f"x.{suffix}")
    elif mode == "P":
        Image.new("RGB", (12, 10), (100, 100, 100)).quantize(4).save(tmp_path / f"x.{suffix}")
    else:
        save(tmp_path / f"x.{suffix}", mode, value=1 if mode == "1" else 155 if mode == "CMYK" else 100)
    x = pixels(open_source(str(tmp_path)).train)
    assert x.shape == (10, 12, 3)
    assert x.dtype == np.uint8
    if mode in ("L", "RGB", "P", "I;16"):
        assert abs(x.astype(int) - 100).max() <= 1
    if mode == "1":
        assert (x == 255).all()


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert (pixels(open_source(str(tmp_path)).train) == 255).all()


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "x.jpg", size=(20, 10), exif=exif)
    assert pixels(open_source(str(tmp_path)).train).shape == (20, 10, 3)


def test_a_damaged_file_is_named(tmp_path):
    save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image"):
        open_source(str(tmp_path)).train.open(0)


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_x", "train_label", "test_x", "test_label"),
    ],
)
def test_common_names_of_arrays(tmp_path, names):
    x = np.arange(2 * 3 * 4 * 4 * 3).reshape(6, 4, 4, 3).astype(np.uint8)
    y = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    np.savez(tmp_path / "x.npz", **dict(zip(names, (x, y[:, None], x[:2], y[:2]), strict=True)))
    source = open_source(str(tmp_path / "x.npz"))
    assert isinstance(source.train, ArrayImages)
    assert np.array_equal(source.train.pixels, x)
    assert list(source.train.labels) == list(y)
    assert len(source.test) == 2


def test_gray_arrays_get_three_channels(tmp_path):
    x = np.arange(32).reshape(2, 4, 4).astype(np.uint8)
    np.savez(tmp_path / "x.npz", images=x)
    pixels = open_source(str(tmp_path / "x.npz")).train.pixels
    assert all(np.array_equal(pixels[..., c], x) for c in range(3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 4), np.float32)}, r"found pictures \(float32 \[2, 4\]\)"),
        ({"a": np.zeros((2, 4, 4), np.uint8), "b": np.zeros((2, 4, 4), np.uint8)}, r"found a \(uint8 \[2, 4, 4\]\), b"),
        ({"images": np.zeros((2, 4, 4), np.complex64)}, r"must be numbers \(uint8.*but is complex64"),
        ({"images": np.zeros((2, 3, 4, 5, 6), np.uint8)}, r"\[2, 3, 4, 5, 6\]"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, r"\[0, 4, 4\]"),
        ({"images": np.array([{"evil": 1}], dtype=object)}, r"must be numbers .* but is pickled objects \[1\]"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_source(str(tmp_path / "x.npz"))


def test_a_pickle_in_an_npz_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    np.savez(tmp_path / "x.npz", images=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="npz"):
        open_source(str(tmp_path / "x.npz"))
    assert not (tmp_path / "ran").exists()


def test_errors_say_what_was_found_instead(tmp_path):
    with pytest.raises(ValueError, match="no such folder or file"):
        open_source(str(tmp_path / "nothing"))
    (tmp_path / "x.pdf").write_text("hello")
    with pytest.raises(ValueError, match=r"must be an image, an \.npz"):
        open_source(str(tmp_path / "x.pdf"))
    with pytest.raises(ValueError, match=r"found 1 x \.pdf, want"):
        open_source(str(tmp_path))
    (tmp_path / "x.pdf").unlink()
    with pytest.raises(ValueError, match="found nothing"):
        open_source(str(tmp_path))
    (tmp_path / "x.npz").write_text("not a zip file")
    with pytest.raises(ValueError, match="not a readable"):
        open_source(str(tmp_path / "x.npz"))
