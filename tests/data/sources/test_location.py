"""Data locations: absolute paths, lists of classes and of images to keep, and errors for what cannot be opened."""

import numpy as np
import pytest
from PIL import Image

from dataset_layouts import imagenet as write_imagenet
from deep_files import make_band_files
from infomax.data.decoding.options import Decoding
from infomax.data.images.arrays import ArrayImages
from infomax.data.sources.given import open_given
from infomax.data.sources.location import DataLocation, default_data_dir, open_source
from infomax.data.sources.named import NAMED_DATASETS
from infomax.data.splits import labelled_splits


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for label in ("ant", "bee", "cow"):
            for i in range(3):
                path = tmp_path / "images" / split / label / f"{label}_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    return tmp_path / "images"


def write_lines(path, *names):
    path.write_text("".join(f"{name}\n" for name in names))
    return str(path)


def test_classes_are_kept_by_a_file_and_numbered_anew(folder, tmp_path):
    source = DataLocation(str(folder), classes=write_lines(tmp_path / "some.txt", "cow", "ant")).open()
    for images in (source.train, source.test):
        assert images.classes == ["ant", "cow"]
        assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert [images.name(i).split("/")[1] for i in range(6)] == ["ant"] * 3 + ["cow"] * 3
    assert source.train.fingerprint() != open_source(str(folder)).train.fingerprint()


@pytest.mark.parametrize("names", [("ant_1.png", "cow_0.png"), ("train/ant/ant_1.png", "cow_0"), ("ant_1", "cow_0")])
def test_training_images_are_kept_by_their_names(folder, tmp_path, names):
    source = DataLocation(str(folder), subset=write_lines(tmp_path / "1percent.txt", *names)).open()
    assert [source.train.name(i) for i in range(2)] == ["train/ant/ant_1.png", "train/cow/cow_0.png"]
    assert source.train.labels.tolist() == [0, 2]
    assert source.train.open(0).getpixel((0, 0)) == (1, 0, 0)
    assert len(source.test) == 6  # without the bees, of which no training image is left


def test_arrays_are_kept_by_their_numbers(tmp_path):
    pixels = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
    np.savez(tmp_path / "x.npz", images=pixels, labels=[3, 4, 3, 4, 3])
    train = DataLocation(str(tmp_path / "x.npz"), subset=write_lines(tmp_path / "some.txt", 1, 4)).open().train
    assert isinstance(train, ArrayImages)
    assert np.array_equal(train.pixels, pixels[[1, 4]])
    assert [train.classes[i] for i in train.labels] == ["4", "3"]


def test_wrong_lists_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="--classes .*'dog' is not a class of .*, as 'ant' is"):
        DataLocation(str(folder), classes=write_lines(tmp_path / "a.txt", "dog")).open()
    with pytest.raises(ValueError, match="--subset .*1 of its 2 lines name no image of .*as 'dog'; 'train/ant/ant_0"):
        DataLocation(str(folder), subset=write_lines(tmp_path / "b.txt", "ant_1", "dog")).open()
    for option in ("subset", "classes"):
        with pytest.raises(ValueError, match=f"--{option} .*empty.txt: is empty"):
            DataLocation(str(folder), **{option: write_lines(tmp_path / "empty.txt")}).open()
    with pytest.raises(ValueError, match=r"--subset .*c\.txt: cannot be read"):
        DataLocation(str(folder), subset=str(tmp_path / "c.txt")).open()
    for i in range(4):
        Image.new("RGB", (8, 8)).save(folder / "train" / f"stray{i}.png")
    with pytest.raises(ValueError, match=r"has no classes.*as train/stray0\.png"):
        DataLocation(str(folder), classes=write_lines(tmp_path / "a.txt", "ant")).open()


def test_resolved_locations_can_be_opened_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = str(tmp_path)
    assert DataLocation("a").resolved().data == f"{here}/a"
    assert DataLocation("a,b").resolved().data == f"{here}/a,{here}/b"
    assert DataLocation("wds:s-{0..3}.tar#9").resolved().data == f"wds:{here}/s-{{0..3}}.tar#9"
    assert DataLocation("hf:a#5").resolved().data == f"hf:{here}/a#5"
    for name in ("digits", "hf:user/set", "hf-stream:user/set:big#5", "wds:https://x/s-{0..3}.tar#9"):
        assert DataLocation(name).resolved().data == name
    assert DataLocation("cifar10").resolved().data_dir == str(default_data_dir())
    assert DataLocation("cifar10", "a", subset="s.txt").resolved() == DataLocation(
        "cifar10", f"{here}/a", None, f"{here}/s.txt"
    )


def test_a_named_set_is_looked_for_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOMAX_DATA", str(tmp_path / "sets"))
    with pytest.raises(ValueError, match=f"--data cifar10: .*{tmp_path / 'sets'}"):
        open_source("cifar10")
    with pytest.raises(ValueError, match=f"--data cifar10: .*{tmp_path / 'here'}"):
        open_source("cifar10", data_dir=str(tmp_path / "here"))


def test_the_error_names_what_is_near_or_lists_all_that_data_can_be():
    with pytest.raises(ValueError, match=r"^--data cifar: no such folder or file; did you mean cifar100?\?$"):
        open_source("cifar")
    with pytest.raises(ValueError, match=f"--data nowhere: no such folder.*{', '.join(NAMED_DATASETS)}"):
        open_source("nowhere")


def test_an_npy_stays_on_disk(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    train = open_source(str(tmp_path / "x.npy")).train
    assert train.pixels.shape == (4, 8, 8, 3)
    assert not train.pixels.flags.owndata
    assert np.array_equal(np.asarray(train.open(2))[..., 1], pixels[2])
    (tmp_path / "y.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"--data .*y\.npy: not a readable"):
        open_source(str(tmp_path / "y.npy"))
    (tmp_path / "z.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"for shards, say wds:.*z\.tar"):
        open_source(str(tmp_path / "z.tar"))


@pytest.mark.parametrize("name", ["photos.zip", "a.tar.gz", "B.TGZ"])
def test_an_archive_must_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=rf"--data .*{name}: an archive must be unpacked first; then name its folder"):
        open_source(str(tmp_path / name))


def test_a_subset_is_taken_before_classes_are(tmp_path):
    """The numbers in a list of images are those of the whole array."""
    pixels = np.arange(6, dtype=np.uint8).repeat(8 * 8 * 3).reshape(6, 8, 8, 3)
    np.savez(tmp_path / "x.npz", images=pixels, labels=[0, 1, 2, 0, 1, 2])
    location = DataLocation(
        str(tmp_path / "x.npz"),
        subset=write_lines(tmp_path / "some.txt", 1, 2, 4),
        classes=write_lines(tmp_path / "classes.txt", 1),
    )
    assert location.open().train.pixels[:, 0, 0, 0].tolist() == [1, 4]


@pytest.mark.parametrize("data", ["", ",", "{here},", "hf:", "wds:"])
def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"names no (images|data set)|no such shard"):
        open_source(data.format(here=tmp_path))


@pytest.mark.parametrize("data", ["wds:x.tar#abc", "wds:x.tar#-5", "hf:x#0", "hf-stream:x#\u00b2"])
def test_a_wrong_number_of_images_is_refused(data):
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="want a number of images after #"):
        open_source(data)


def test_options_of_named_data_sets_are_refused_for_other_data(folder):
    with pytest.raises(ValueError, match=f"--data-dir x is for data sets by name, .* not for --data {folder}"):
        open_source(str(folder), data_dir="x")
    with pytest.raises(ValueError, match="--download is for data sets by name"):
        open_source("digits", download=True)


def test_an_empty_npz_and_a_too_long_name_are_value_errors(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    for data in (str(tmp_path / "x.npz"), "x" * 5000):
        with pytest.raises(ValueError, match="--data "):
            open_source(data)


def test_a_share_keeps_some_of_each_class_and_the_test_images_of_all(folder):
    digits = [open_source("digits"), *(DataLocation("digits", subset=s).open() for s in ("10percent", "1percent"))]
    whole, tenth, hundredth = (labelled_splits(source) for source in digits)
    for _, test in (tenth, hundredth):
        assert test.labels.tolist() == whole[1].labels.tolist()
        assert (test.images.pixels[test.index] == whole[1].images.pixels[whole[1].index]).all()
    counts, of_all = np.bincount(tenth[0].labels), np.bincount(whole[0].labels)
    assert counts.tolist() == [-(-n // 10) for n in of_all]
    assert np.bincount(hundredth[0].labels).tolist() == [-(-n // 100) for n in of_all]
    train, test = ({x.tobytes() for x in part.images.pixels[part.index]} for part in tenth)
    assert not train & test
    assert any(f"--subset 10percent keeps {counts.sum()} of 1438 labelled images" in note for note in digits[1].notes)
    again = DataLocation("digits", subset="10percent").open()
    assert again.train.fingerprint() == digits[1].train.fingerprint()
    source = DataLocation(str(folder), subset="10percent").open()
    assert source.train.labels.tolist() == [0, 1, 2]  # one at least
    assert len(source.test) == 9
    assert DataLocation("digits", subset="10percent").resolved().subset == "10percent"


def test_a_share_of_imagenet_is_simclrs_list(tmp_path):
    write_imagenet(tmp_path)
    location = DataLocation("imagenet", str(tmp_path), subset="1percent")
    with pytest.raises(ValueError, match="is SimCLR's list of images, which is wanted as .*imagenet_subsets/1p"):
        location.open()
    train = open_source("imagenet", data_dir=str(tmp_path)).train
    (tmp_path / "imagenet_subsets").mkdir()
    write_lines(tmp_path / "imagenet_subsets" / "1percent.txt", train.name(1).rsplit("/")[-1])
    assert [location.open().train.name(i) for i in range(1)] == [train.name(1)]
    assert len(location.open().train) == 1


def test_no_share_is_drawn_without_labels(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="--subset 1percent: --data .* cannot be drawn from: "):
        DataLocation(str(tmp_path / "x.npz"), subset="1percent").open()


def test_bands_and_layout_are_parts_of_a_location(tmp_path):
    make_band_files(tmp_path / "tiles", 6)
    source = DataLocation(str(tmp_path / "tiles"), bands="B04,B02").open()
    assert [source.train.kind(0).channels, source.train.kind(0).bands] == [2, ("B04", "B02")]
    assert source.train.decoding == Decoding()
    limited = DataLocation(str(tmp_path / "tiles"), bands="B04,B02", max_megapixels=0.0001).open().train
    with pytest.raises(ValueError, match="00_B04.tif cannot be read as an image: it has 32 x 32 pixels, .*megapixels"):
        limited.kind(0)
    kept = write_lines(tmp_path / "kept.txt", "forest/00_*.tif", "03_*")
    assert len(DataLocation(str(tmp_path / "tiles"), bands="B02", subset=kept).open().train) == 2
    np.save(tmp_path / "x.npy", np.arange(4 * 9 * 9 * 20, dtype=np.uint16).reshape(4, 9, 9, 20))
    with pytest.raises(ValueError, match=r"x.npy: the array is uint16 .*last \(20\) or .*\(9\): say --layout NHWC or"):
        DataLocation(str(tmp_path / "x.npy")).open()
    for layout, shape in (("NHWC", (9, 9, 20)), ("NCHW", (9, 20, 9))):
        location = DataLocation(str(tmp_path / "x.npy"), layout=layout)
        assert location.open().train.read(0).values.shape == shape
        assert location.resolved().layout == layout
        assert open_given(np.load(tmp_path / "x.npy"), layout=layout).train.read(0).values.shape == shape


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            DataLocation("digits", bands="B02"),
            "--bands B02 is for folders, lists and files of images, not for --data digits",
        ),
        (DataLocation("x.npz", bands="B02"), "--bands B02 is for folders, .* not for --data x.npz"),
        (DataLocation("wds:a.tar", bands="B02"), "--bands B02 is for folders"),
        (DataLocation("tests", bands="B02,,B03"), "--bands B02,,B03: want the words in names of files"),
        (DataLocation("x.npz", layout="CHW"), "--layout CHW: want NHWC or NCHW, the order of the axes of arrays"),
        (DataLocation("tests", layout="NCHW"), "--layout NCHW is for arrays, .npz and .npy, not for --data tests"),
    ],
)
def test_bands_and_layout_of_other_data_are_refused(location, message):
    with pytest.raises(ValueError, match=message):
        location.open()


def test_bands_and_layout_of_other_images_that_are_given_are_refused():
    with pytest.raises(ValueError, match="--layout NCHW is for an array of images, which data is not"):
        open_given(["a.jpg"], layout="NCHW")
    with pytest.raises(ValueError, match="--bands a,b is for paths of files, which data are not"):
        open_given(np.zeros((4, 8, 8, 3), np.uint8), bands="a,b")
    with pytest.raises(ValueError, match="data: must be paths of files if there are bands, not PIL images"):
        open_given([Image.new("L", (4, 4))], bands="a,b")
