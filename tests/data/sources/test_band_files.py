"""Images whose bands are files of their own: which belong together, what they hold, and what is missing."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deep_files import BANDS, make_band_files, make_tiles
from infomax.data.numbers import RGB_KIND
from infomax.data.sources.band_files import Bands, describe_unnamed_bands
from infomax.data.sources.folders import open_folder, open_folders
from infomax.data.sources.given import open_files
from infomax.data.sources.lists import open_list
from infomax.data.sources.location import DataLocation, open_source
from infomax.data.splits import Source

ALL = Bands(BANDS)


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    make_band_files(tmp_path / "bands", 6)
    make_tiles(tmp_path / "tiles", 6)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "bands"


def check_tiles(source: Source, tiles: Path, bands=BANDS, classes=("forest", "water")) -> None:
    """Asserts that images and classes are those of the files that hold all bands."""
    whole = open_folder("tiles", tiles.parent / "tiles").train
    assert len(source.train) == 6
    assert source.train.classes == list(classes)
    columns = [BANDS.index(band) for band in bands]
    for index in range(6):
        stem = source.train.name(index).rpartition("/")[2].partition("_")[0].removesuffix(".tif")
        same = next(i for i in range(6) if whole.name(i).endswith(f"{stem}.tif"))
        numbers = source.train.read(index)
        assert numbers.kind == source.train.kind(index)
        assert (numbers.kind.bands, numbers.kind.no_data) == (bands, 0)
        np.testing.assert_array_equal(numbers.values, whole.read(same).values[..., columns])
        if classes:
            assert source.train.classes[source.train.labels[index]] == whole.classes[whole.labels[same]]


@pytest.mark.parametrize("bands", [BANDS, ("B08", "B02"), ("B04",)])
def test_a_folder_of_classes(tiles, bands):
    source = open_folder("bands", tiles, Bands(bands))
    check_tiles(source, tiles, bands)
    assert source.train.name(0) == "forest/00_*.tif"
    assert f"{len(bands)} file{'s'[: len(bands) != 1]} are the bands of an image" in source.notes[0]
    left_out = [note for note in source.notes if "that name no band" in note]
    assert left_out == (
        [] if bands == BANDS else [f"left out: {30 - 6 * len(bands)} files that name no band, as " + left_out[0][-17:]]
    )


def test_bands_in_folders(tiles):
    for file in sorted(tiles.rglob("*.tif")):
        name, _, band = file.stem.partition("_")
        target = tiles.parent / "inner" / file.parent.name / band / f"{name}.tif"
        outer = tiles.parent / "outer" / band / file.parent.name / f"{name}.tif"
        for path in (target, outer):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, path)
    for name in ("inner", "outer"):
        source = open_folder(name, tiles.parent / name, ALL)
        check_tiles(source, tiles)
        assert not any("no classes" in note for note in source.notes)


def test_splits_and_flat_folders_and_several(tiles):
    for split, folder in (("train", "forest"), ("test", "forest"), ("train", "water"), ("test", "water")):
        shutil.copytree(tiles / folder, tiles.parent / "splits" / split / folder)
    source = open_folder("splits", tiles.parent / "splits", ALL)
    check_tiles(source, tiles)
    assert (len(source.test), source.test.name(0)) == (6, "test/forest/00_*.tif")
    for file in tiles.rglob("*.tif"):
        (tiles.parent / "flat").mkdir(exist_ok=True)
        shutil.copy(file, tiles.parent / "flat")
    source = open_folder("flat", tiles.parent / "flat", ALL)
    check_tiles(source, tiles, classes=())
    assert "has no class folders" in source.no_labels_reason
    assert len(open_folders("both", [tiles, tiles.parent / "flat"], ALL).train) == 12


def test_lists_with_and_without_classes(tiles):
    files = sorted(tiles.rglob("*.tif"))
    (tiles.parent / "list.csv").write_text("".join(f"bands/{f.relative_to(tiles)},{f.parent.name}\n" for f in files))
    check_tiles(open_list("list", tiles.parent / "list.csv", bands=ALL), tiles)
    (tiles.parent / "list.csv").write_text("".join(f"bands/{f.relative_to(tiles)},{f.stem}\n" for f in files))
    source = open_list("list", tiles.parent / "list.csv", bands=ALL)
    assert source.train.labels is None
    assert "the bands of bands/forest/00_*.tif are of different classes" in source.no_labels_reason


def test_files_given_one_by_one(tiles):
    files = [str(file) for file in sorted(tiles.rglob("*.tif"), reverse=True)]
    source = open_files(None, files, bands=ALL)
    check_tiles(source, tiles)
    assert source.train.name(0) == str(tiles / "water" / "05_*.tif")
    assert len(open_files(None, files, bands=ALL, in_order=True).train) == 6
    with pytest.raises(ValueError, match="targets are one for each file, and with bands an image is several files"):
        open_files(None, files, bands=ALL, targets=[0] * 30)


def test_a_missing_band_is_named(tiles):
    (tiles / "water" / "03_B04.tif").unlink()
    message = r"water/03_\*.tif lacks band B04: there is no water/03_B04.tif; 1 image of 6 lack"
    with pytest.raises(ValueError, match=message):
        open_folder("bands", tiles, ALL)
    with pytest.raises(ValueError, match=r"--bands b02: no file names any of these bands, as forest/00_B02.tif, "):
        open_folder("bands", tiles, Bands(("b02",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((32, 31), np.uint16), r"01_B11.tif has 31 x 32 pixels, and 01_B02.tif of .* 32 x 32 pixels"),
        (np.zeros((32, 32), np.float32), r"01_B11.tif has numbers of float32, and 01_B02.tif .* numbers of uint16"),
        (np.zeros((2, 32, 32), np.uint16), r"01_B11.tif has 2 channels of uint16; a band has one"),
    ],
)
def test_bands_that_do_not_fit_are_named(tiles, values, message):
    no_data = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(tiles / "water" / "01_B11.tif", values, extratags=no_data)
    with pytest.raises(ValueError, match=message):
        open_folder("bands", tiles, ALL).train.read(3)


def test_no_data_numbers_that_differ_are_named(tiles):
    tifffile.imwrite(tiles / "water" / "01_B11.tif", np.ones((32, 32), np.uint16))
    with pytest.raises(ValueError, match=r"01_B11.tif has the no-data number None, .* the no-data number 0"):
        open_folder("bands", tiles, ALL).train.kind(3)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bands_of_eight_bits_are_gray(tmp_path, count):
    stains = ("DAPI", "GFP", "RFP", "Cy5")[:count]
    values = np.random.default_rng(0).integers(0, 255, (count, 8, 9)).astype(np.uint8)
    for stain, channel in zip(stains, values, strict=True):
        Image.fromarray(channel).save(tmp_path / f"cell-1 {stain}.png")
    images = open_folder("cells", tmp_path, Bands(stains)).train
    numbers = images.read(0)
    expected = np.broadcast_to(values.transpose(1, 2, 0), (8, 9, 3)) if count == 1 else values.transpose(1, 2, 0)
    assert (numbers.kind == RGB_KIND) == (count in (1, 3))
    np.testing.assert_array_equal(numbers.values, expected)
    if count in (1, 3):
        np.testing.assert_array_equal(images.open_pixels(0), expected)
        np.testing.assert_array_equal(np.asarray(images.open(0)), expected)
    else:
        with pytest.raises(ValueError, match=r"cell-1 \*.png: it has . channels of uint8"):
            images.open(0)
    Image.new("RGB", (9, 8), "red").save(tmp_path / "cell-1 DAPI.png")
    with pytest.raises(ValueError, match="cell-1 DAPI.png is in colour; a band has one channel"):
        images.read(0)


def test_hashes_cover_all_files_and_images_go_to_workers(tiles):
    images = pickle.loads(pickle.dumps(open_folder("bands", tiles, ALL).train))
    before = images.fingerprint(), images.state(np.array([0])), images.state(np.array([1]))
    assert before[0] != open_folder("bands", tiles, Bands(BANDS[::-1])).train.fingerprint()
    tifffile.imwrite(tiles / "forest" / "00_B11.tif", np.ones((32, 32), np.uint16))
    after = images.fingerprint(), images.state(np.array([0])), images.state(np.array([1]))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("a/x_B02.tif", ("a/x_*.tif", "B02")),
        ("B02.tif", ("*.tif", "B02")),
        ("T32_B02_10m.jp2", ("T32_*_10m.jp2", "B02")),
        ("B02/x.tif", ("*/x.tif", "B02")),
        ("B03/x_B02.tif", ("B03/x_*.tif", "B02")),
        ("B02_B02.tif", ("B02_*.tif", "B02")),
        ("xB02.tif", None),
        ("B021.tif", None),
        ("my-B02-folder/x.tif", None),
        ("x.B8A.tif", ("x.*.tif", "B8A")),
        ("x_B8.tif", ("x_*.tif", "B8")),
    ],
)
def test_where_a_path_names_a_band(path, split):
    assert Bands(("B02", "B03", "B8", "B8A")).split(path) == split


def test_names_of_two_bands_and_stars_are_refused(tmp_path):
    with pytest.raises(ValueError, match="x_B02_B03.tif names two bands, B02, B03"):
        Bands(("B02", "B03")).split("x_B02_B03.tif")
    for text in ("", "B02,", "B02,B02", "B0*", "a/b"):
        with pytest.raises(ValueError, match="--bands .*: want the words in names of files"):
            Bands.parse(text)
    Image.new("L", (4, 4)).save(tmp_path / "x*B02.png")
    with pytest.raises(ValueError, match=r"x\*B02.png has a \* in its name"):
        open_folder("x", tmp_path, Bands(("B02",)))


def test_files_that_look_like_bands_are_said_to_be_images_each(tiles):
    (note,) = [note for note in open_source(str(tiles)).notes if "--bands" in note]
    words = f"files such as forest/00_*.tif ({', '.join(BANDS)}) look like the bands of one image"
    assert note == f"{words}, and each is an image here; --bands {','.join(BANDS)} makes one image of them"
    assert not any("--bands" in note for note in DataLocation(str(tiles), bands=",".join(BANDS)).open().notes)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a_B1.png", "a_B2.png"], "B1,B2"),
        (["red/1.png", "green/1.png"], "green,red"),
        (["x_vv.png", "x_vh.png", "y_vv.png", "y_vh.png", "notes.png"], "vh,vv"),
        (["a_1.png", "a_2.png", "b_1.png", "b_2.png"], ""),
        (["B1.png", "B2.png", "B3.png"], "B1,B2,B3"),
        (["house_B1.png", "tree_B2.png", "lake_B1.png"], ""),
        (["red.png", "green.png", "1.png", "2.png", "3.png"], ""),
    ],
)
def test_which_names_look_like_those_of_bands(tmp_path, names, words):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    line = describe_unnamed_bands(open_folder("x", tmp_path).train)
    assert line.partition("--bands ")[2].partition(" ")[0] == words
