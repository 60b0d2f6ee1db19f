"""Data sets that have a name: torchvision reads the same copies alike, and each error is one clear line."""

import inspect
import os
import pickle
import shutil
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

import dataset_layouts
from dataset_layouts import LAYOUTS
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources.named import NAMED_DATASETS, open_named

SPLITS = ("train", "val", "test", "unlabelled")
# The class of torchvision for each data set, and its options for each split.
ORACLES = {
    "cifar10": ("CIFAR10", {"train": {"train": True}, "test": {"train": False}}),
    "cifar100": ("CIFAR100", {"train": {"train": True}, "test": {"train": False}}),
    "aircraft": ("FGVCAircraft", {name: {"split": name} for name in ("train", "val", "test")}),
    "cars": ("StanfordCars", {name: {"split": name} for name in ("train", "test")}),
    "dtd": ("DTD", {name: {"split": name} for name in ("train", "val", "test")}),
    "flowers": ("Flowers102", {name: {"split": name} for name in ("train", "val", "test")}),
    "food101": ("Food101", {name: {"split": name} for name in ("train", "test")}),
    "pets": ("OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}),
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Returns a folder with a small copy of every data set, which tests must not change."""
    root = tmp_path_factory.mktemp("copies")
    for layout in LAYOUTS.values():
        layout(root)
    return root


@pytest.fixture
def datasets(monkeypatch):
    """Returns ``torchvision.datasets``, which accepts copies of other sizes than the published ones."""
    from torchvision import datasets

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: os.path.exists(path))
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda path, md5=None: os.path.exists(path))
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5=None: os.path.exists(path))
    return datasets


def splits(source):
    return {name: images for name in SPLITS if (images := getattr(source, name)) is not None}


def numbers(images):
    return [dataset_layouts.number(images.open(i)) for i in range(len(images))]


def assert_alike(images, oracle):
    assert len(images) == len(oracle) > 0
    labels = [oracle[i][1] for i in range(len(oracle))]
    assert list(images.labels) == labels
    assert images.labels.dtype == np.int64
    for i in range(len(images)):
        assert np.array_equal(images.open(i), oracle[i][0])


@pytest.mark.parametrize("name", ORACLES)
def test_torchvision_reads_the_same(name, copies, datasets):
    source = open_named(name, copies)
    oracle, options = ORACLES[name]
    assert source.name == name
    assert splits(source).keys() == options.keys()
    for split, images in splits(source).items():
        expected = getattr(datasets, oracle)(copies, **options[split])
        assert_alike(images, expected)
        assert images.classes == expected.classes


def test_stl10_stays_in_its_files(copies, datasets):
    source = open_named("stl10", copies)
    for split, theirs in (("train", "train"), ("test", "test"), ("unlabelled", "unlabeled")):
        images, expected = splits(source)[split], datasets.STL10(copies, theirs)
        assert images.classes == expected.classes
        assert isinstance(images.pixels, np.memmap)
        assert not images.pixels.flags.owndata
        if split == "unlabelled":
            images = replace(images, labels=np.full(len(images), -1))
        assert_alike(images, expected)
    assert source.unlabelled.labels is None
    assert source.pretraining is source.unlabelled


def test_imagenet_is_numbered_by_its_sorted_wnids(copies, datasets):
    import torch

    names = {"n01": ("fish",), "n02": ("hen", "bird"), "n10": ("cup",)}
    torch.save((names, []), copies / "imagenet" / "meta.bin")
    source = open_named("imagenet", copies)
    assert splits(source).keys() == {"train", "test"}
    for split, theirs in (("train", "train"), ("test", "val")):
        expected = datasets.ImageNet(copies / "imagenet", theirs)
        assert_alike(splits(source)[split], expected)
        assert splits(source)[split].classes == expected.wnids == ["n01", "n02", "n10"]


@pytest.mark.parametrize("folder", ["ILSVRC2012", ""])
def test_imagenet_may_lie_in_other_folders(tmp_path, folder):
    dataset_layouts.imagenet(tmp_path, folder)
    (tmp_path / folder / "train" / ".cache").mkdir()
    dataset_layouts.write(tmp_path / folder / "train" / "n01" / "._n01_1.JPEG", "macOS writes such files")
    source = open_named("imagenet", tmp_path)
    assert numbers(source.train) == [5, 6, 7, 0, 1, 2, 10, 11, 12]
    assert source.test.files[0] == f"{folder}/val/n01/ILSVRC2012_val_00000003.JPEG".removeprefix("/")
    assert numbers(source.test) == [9, 8, 4, 3, 14, 13]


def test_imagenet100_is_a_part_of_imagenet(tmp_path):
    wnids = (Path(inspect.getfile(open_named)).parent / "imagenet100.txt").read_text().split()
    assert len(set(wnids)) == 100
    dataset_layouts.imagenet(tmp_path, wnids=("n00000001", *reversed(wnids), "n99999999"))
    source = open_named("imagenet100", tmp_path)
    whole = open_named("imagenet", tmp_path)
    for images, all_images, n in ((source.train, whole.train, 3), (source.test, whole.test, 2)):
        assert images.classes == sorted(wnids)
        assert list(images.labels) == list(np.repeat(np.arange(100), n))
        files = [images.name(i) for i in range(len(images))]
        assert files == list(all_images.files)[n:-n]
        assert all(images.classes[label] in file for label, file in zip(images.labels, files, strict=True))
    shutil.rmtree(tmp_path / "imagenet" / "val" / wnids[3])
    with pytest.raises(ValueError, match=f"imagenet/val lacks 1 of 100 class folders, as {wnids[3]}"):
        open_named("imagenet100", tmp_path)


def test_tiny_imagenet_tests_on_its_validation_images(copies, datasets):
    source = open_named("tiny-imagenet", copies)
    expected = datasets.ImageFolder(copies / "tiny-imagenet-200" / "train")
    assert_alike(source.train, expected)
    assert source.train.classes == source.test.classes == expected.classes == ["n01", "n02", "n10"]
    assert numbers(source.test) == [9, 10, 11, 12]
    assert list(source.test.labels) == [2, 0, 1, 2]
    assert source.test.labels.dtype == np.int64
    assert source.val is None


def test_caltech101_trains_on_30_images_of_each_of_its_classes(copies, datasets):
    source, expected = open_named("caltech101", copies), datasets.Caltech101(copies)
    assert source.train.classes == ["BACKGROUND_Google", *expected.categories]
    assert Counter(source.train.labels.tolist()) == {0: 30, 1: 30, 2: 30, 3: 30}
    assert Counter(source.test.labels.tolist()) == {0: 5, 1: 4, 2: 3, 3: 1}
    assert sorted(numbers(source.train) + numbers(source.test)) == list(range(133))
    labels = {dataset_layouts.number(image): label for image, label in (expected[i] for i in range(len(expected)))}
    for images in (source.train, source.test):
        assert [labels.get(number, -1) + 1 for number in numbers(images)] == list(images.labels)
        assert list(images.files) == sorted(images.files)
    again = open_named("caltech101", copies)
    assert again.train.files == source.train.files
    # The test images that default_rng(0) leaves: another draw would be another data set.
    assert [int(file[-8:-4]) for file in source.test.files] == [7, 9, 17, 32, 33, 1, 3, 11, 14, 7, 21, 23, 12]


def test_caltech101_may_lie_in_the_folder_of_its_archive(tmp_path, copies):
    dataset_layouts.caltech101(tmp_path, "")
    dataset_layouts.write(tmp_path / "101_ObjectCategories" / "Faces" / "tmp", "no image")
    ours, theirs = open_named("caltech101", tmp_path), open_named("caltech101", copies)
    assert numbers(ours.test) == numbers(theirs.test)
    assert ours.test.files[0].startswith("101_ObjectCategories/")


def test_dtd_may_lie_in_the_folder_of_its_archive(tmp_path, copies):
    dataset_layouts.dtd(tmp_path, "dtd")
    ours, theirs = open_named("dtd", tmp_path), open_named("dtd", copies)
    assert numbers(ours.val) == numbers(theirs.val)


@pytest.mark.parametrize("beside", [False, True])
def test_sun397_is_split_by_its_first_partition(tmp_path, datasets, beside):
    dataset_layouts.sun397(tmp_path, beside)
    source, expected = open_named("sun397", tmp_path), datasets.SUN397(tmp_path)
    theirs = dict(zip((str(path) for path in expected._image_files), expected._labels, strict=True))
    assert numbers(source.train) == [0, 1, 2, 3, 4]
    assert numbers(source.test) == [5, 6, 7, 8]
    for images in splits(source).values():
        assert images.classes == expected.classes == ["abbey", "apartment_building/outdoor", "bar", "basement"]
        assert [theirs[str(images.root / file)] for file in images.files] == list(images.labels)
        assert images.labels.dtype == np.int64


def test_voc2007_has_several_labels_an_image(copies, datasets):
    source = open_named("voc2007", copies)
    assert splits(source).keys() == {"train", "val", "test"}
    for split, images in splits(source).items():
        expected = datasets.VOCDetection(copies, "2007", split)
        assert len(images) == len(expected)
        assert images.labels.shape == (len(images), 20)
        assert images.labels.dtype == np.int64
        assert images.classes == sorted(images.classes) == dataset_layouts.VOC_CLASSES
        for i in range(len(images)):
            picture, target = expected[i]
            assert np.array_equal(images.open(i), picture)
            shown = {item["name"] for item in target["annotation"]["object"] if item["difficult"] == "0"}
            assert {images.classes[c] for c in np.flatnonzero(images.labels[i])} == shown


@pytest.mark.parametrize("name", LAYOUTS)
def test_paths_are_packed_and_relative(name, copies):
    for images in splits(open_named(name, copies)).values():
        if isinstance(images, FileImages):
            assert isinstance(images.files, PackedNames)
            assert images.root == copies
            assert not any(Path(file).is_absolute() for file in images.files)
        else:
            assert isinstance(images, ArrayImages)


def test_every_name_has_a_copy():
    assert NAMED_DATASETS.keys() == {*LAYOUTS, "imagenet100"}


# Data sets that are missing or damaged


def error_message(name, root, **options):
    """Returns the message of the error that opening a data set raises, which must be one line."""
    with pytest.raises(ValueError, match=f"^--data {name}: ") as caught:
        open_named(name, root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_name():
    message = error_message("cifar11", Path("data"))
    assert "cifar10" in message
    assert "voc2007" in message


@pytest.mark.parametrize("name", NAMED_DATASETS)
@pytest.mark.parametrize("root_exists", [True, False])
def test_a_set_that_is_not_there(name, root_exists, tmp_path):
    root = tmp_path if root_exists else tmp_path / "nowhere"
    message = error_message(name, root)
    assert f" in {root}; " in message
    assert "--data-dir" in message
    assert ("--download fetches it" in message) == bool(NAMED_DATASETS[name].downloaders)
    assert NAMED_DATASETS[name].download_size in message
    assert ("get " in message or "copies are" in message) == bool(NAMED_DATASETS[name].manual_steps)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    """Each file that is no image, and each folder of images, is removed in turn."""
    LAYOUTS[name](tmp_path)
    needless = {".xml", "wnids.txt", "README"}
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix.lower() not in (".jpg", ".jpeg")]
    files = [path for path in files if path.name not in needless and path.suffix not in needless]
    files = [path for path in files if not path.stem.endswith(("_boxes", "train2", "val2", "test2"))]
    for path in files:
        path.rename(tmp_path / "away")
        assert str(path.relative_to(tmp_path)) in error_message(name, tmp_path)
        (tmp_path / "away").rename(path)
    for folder in ("images", "jpg", "cars_train", "cars_test", "JPEGImages", "101_ObjectCategories"):
        for path in list(tmp_path.rglob(folder)):
            path.rename(tmp_path / "away")
            assert str(path.relative_to(tmp_path)).removesuffix("/images") in error_message(name, tmp_path)
            (tmp_path / "away").rename(path)
    assert open_named(name, tmp_path).name == name


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_truncated_file_is_an_error(name, tmp_path):
    LAYOUTS[name](tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "README"]
    for path in [path for path in files if path.suffix in (".mat", ".json", ".bin", "")]:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
        message = error_message(name, tmp_path)
        assert path.name in message or (path.suffix == ".bin" and " images, but " in message)
        path.write_bytes(b"")
        error_message(name, tmp_path)
        path.write_bytes(content)


def test_flat_validation_images_of_imagenet(tmp_path):
    dataset_layouts.imagenet(tmp_path)
    for path in list((tmp_path / "imagenet" / "val").rglob("*.JPEG")):
        if not (tmp_path / "imagenet" / "val" / path.name).exists():
            path.rename(tmp_path / "imagenet" / "val" / path.name)
    for path in list((tmp_path / "imagenet" / "val").iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
    assert f"{tmp_path}/imagenet/val has no class folders: its images must be sorted into" in error_message(
        "imagenet", tmp_path
    )


def test_imagenet_whose_splits_have_other_classes(tmp_path):
    dataset_layouts.imagenet(tmp_path)
    (tmp_path / "imagenet" / "val" / "n03").mkdir()
    assert "imagenet/train lacks 1 of 4 class folders, as n03" in error_message("imagenet", tmp_path)


def test_sun397_without_its_lists(tmp_path):
    dataset_layouts.sun397(tmp_path)
    for path in (tmp_path / "SUN397").glob("*_01.txt"):
        path.unlink()
    message = error_message("sun397", tmp_path)
    assert "found no SUN397/Training_01.txt or Training_01.txt" in message
    assert "Partitions.zip" in message


@pytest.mark.parametrize(
    ("name", "file", "line", "expected"),
    [
        ("sun397", "SUN397/Testing_01.txt", "/z/zoo/sun_x.jpg", "'zoo', which is none of the 4 classes"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "0001 Concorde", "'Concorde', which is none"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "0001", "a line '0001', want 2 words"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Siamese_1 4 1 4", "'4', which is none of the 3 classes"),
        ("tiny-imagenet", "tiny-imagenet-200/val/val_annotations.txt", "a.JPEG\tn7", "'n7', which is none of the 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, file, line, expected):
    LAYOUTS[name](tmp_path)
    path = tmp_path / file
    path.write_text(f"{path.read_text()}{line}\n")
    message = error_message(name, tmp_path)
    assert str(path) in message
    assert expected in message


def test_labels_and_images_must_match(tmp_path):
    dataset_layouts.stl10(tmp_path)
    labels = tmp_path / "stl10_binary" / "train_y.bin"
    labels.write_bytes(b"\1\2\3")
    assert "the train split has 4 images, but 3 labels" in error_message("stl10", tmp_path)
    labels.write_bytes(b"\1\2\3\0")
    assert "the train split has labels from -1 to 2, of 10 classes" in error_message("stl10", tmp_path)
    labels.write_bytes(b"\1\2\3\13")
    assert "the train split has labels from 0 to 10, of 10 classes" in error_message("stl10", tmp_path)


def test_numbers_of_images_that_flowers_lacks(tmp_path):
    from scipy.io import savemat

    dataset_layouts.flowers(tmp_path)
    for wrong in (0, 11):
        ids = {key: np.array([[1, 2, wrong]]) for key in ("trnid", "valid", "tstid")}
        savemat(tmp_path / "flowers-102" / "setid.mat", ids)
        assert "setid.mat has an image that is none of the 10 in imagelabels.mat" in error_message("flowers", tmp_path)


def test_a_split_without_images(tmp_path):
    dataset_layouts.food101(tmp_path)
    dataset_layouts.write(tmp_path / "food-101" / "meta" / "test.json", "{}")
    assert "the test split has no images" in error_message("food101", tmp_path)


class Evil:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_a_pickle_cannot_call_functions(tmp_path, file):
    dataset_layouts.cifar10(tmp_path)
    ran = tmp_path / "ran"
    for evil in (Evil(os.system, f"touch {ran}"), Evil(eval, f"open({str(ran)!r}, 'w')"), Evil(os.mkdir, str(ran))):
        content = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "label_names": ["a"], "evil": evil}
        dataset_layouts.write(tmp_path / "cifar-10-batches-py" / file, pickle.dumps(content, 2))
        message = error_message("cifar10", tmp_path)
        assert file in message
        assert "which no batch of images needs" in message
        assert not ran.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_all_protocols_are_read(tmp_path, copies, protocol):
    dataset_layouts.cifar100(tmp_path, dumps=lambda content: pickle.dumps(content, protocol))
    ours, theirs = open_named("cifar100", tmp_path), open_named("cifar100", copies)
    assert np.array_equal(ours.train.pixels, theirs.train.pixels)
    assert list(ours.test.labels) == list(theirs.test.labels)


def test_a_pickle_of_something_else(tmp_path):
    dataset_layouts.cifar10(tmp_path)
    for content in ([1, 2], {"labels": [0]}, {"labels": [0, 1], "data": np.zeros((1, 3072), np.uint8)}):
        dataset_layouts.write(tmp_path / "cifar-10-batches-py" / "test_batch", pickle.dumps(content))
        assert "test_batch" in error_message("cifar10", tmp_path)


# Downloading


def fake(monkeypatch, datasets, name, act):
    """Replaces torchvision's classes of a data set by calls of ``act``.

    Returns:
        A list to which each call adds the class's name and the options.
    """
    calls = []
    for fetcher in {fetcher for fetcher, _ in NAMED_DATASETS[name].downloaders}:
        signature = inspect.signature(getattr(datasets, fetcher))

        def call(*arguments, fetcher=fetcher, signature=signature, **options):
            signature.bind(*arguments, **options)
            calls.append((fetcher, options))
            act(Path(arguments[0]))

        monkeypatch.setattr(datasets, fetcher, call)
    return calls


@pytest.mark.parametrize("name", [name for name in NAMED_DATASETS if NAMED_DATASETS[name].downloaders])
def test_torchvision_downloads_a_missing_data_set(name, tmp_path, monkeypatch, datasets, copies):
    root = tmp_path / "new"
    calls = fake(monkeypatch, datasets, name, lambda folder: folder.exists() or LAYOUTS[name](folder))
    source = open_named(name, root, download=True)
    expected = "STL10" if name == "stl10" else "Caltech101" if name == "caltech101" else None
    if name == "voc2007":
        options = [{"year": "2007", "image_set": part, "download": True} for part in ("trainval", "test")]
        assert calls == [("VOCDetection", options[0]), ("VOCDetection", options[1])]
    else:
        assert calls == [(expected or ORACLES[name][0], {"download": True})]
    assert [image.fingerprint() for image in splits(source).values()] == [
        image.fingerprint() for image in splits(open_named(name, copies)).values()
    ]
    calls.clear()
    open_named(name, root, download=True)
    assert calls == []


@pytest.mark.parametrize("name", [name for name in NAMED_DATASETS if not NAMED_DATASETS[name].downloaders])
def test_without_a_downloader_the_error_says_where_to_get_the_data_set(name, tmp_path):
    assert error_message(name, tmp_path, download=True) == error_message(name, tmp_path)
    assert NAMED_DATASETS[name].manual_steps in error_message(name, tmp_path, download=True)
    if name in LAYOUTS:
        LAYOUTS[name](tmp_path)
        assert open_named(name, tmp_path, download=True).name == name


def test_a_download_that_fails(tmp_path, monkeypatch, datasets, capsys):
    def fail(root):
        raise OSError("no\nnetwork")

    fake(monkeypatch, datasets, "dtd", fail)
    assert error_message("dtd", tmp_path, download=True).endswith(f"cannot be downloaded into {tmp_path}: no network")
    size = NAMED_DATASETS["dtd"].download_size
    assert capsys.readouterr().err.startswith(f"infomax: downloading dtd ({size}) into {tmp_path}\n")


@pytest.mark.parametrize(
    ("name", "program", "missing"),
    [
        ("cifar10", "import CIFAR10; CIFAR10('data', download=True)", "cifar-10-batches-py/batches.meta"),
        (
            "voc2007",
            "import VOCDetection; VOCDetection('data', download=True, year='2007', image_set='trainval'); "
            "VOCDetection('data', download=True, year='2007', image_set='test')",
            "VOCdevkit",
        ),
    ],
)
def test_a_download_without_a_network_says_how_to_go_on(tmp_path, monkeypatch, datasets, name, program, missing):
    def fail(root):
        raise URLError(socket.gaierror(-2, "Name or service not known"))

    fake(monkeypatch, datasets, name, fail)
    message = error_message(name, tmp_path, download=True)
    assert "there is no network here, or it does not answer ([Errno -2] Name or service not known)" in message
    assert f'by python -c "from torchvision.datasets {program}"' in message
    assert f"into {tmp_path} (there is no {missing}" in message


def test_a_download_that_does_not_help(tmp_path, monkeypatch, datasets):
    dataset_layouts.dtd(tmp_path)
    (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").unlink()
    fake(monkeypatch, datasets, "dtd", lambda root: None)
    message = error_message("dtd", tmp_path, download=True)
    assert "found no dtd/dtd/labels/val1.txt" in message
    assert "not mended by downloading: remove what there is of it" in message
