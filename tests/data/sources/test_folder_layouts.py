"""Layouts of folders: splits and classes by their names, wrappers, and files that are left out or never opened."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from infomax.data.sources import folders
from infomax.data.sources.folders import index_folder
from infomax.data.sources.location import open_source
from infomax.data.sources.suffixes import IMAGE_SUFFIXES, is_litter
from infomax.data.splits import describe_splits, labelled_splits, why_not_labelled


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def save(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (100, 0, 0)).save(path, format=None if path.suffix in IMAGE_SUFFIXES else "PNG")


def save_classes(root, folder, *classes, count=5):
    save(root, *(f"{folder}/{name}/{i}.png" for name in classes for i in range(count)))


def opened(root):
    return open_source(str(root))


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("train", "testing"), ("train_set", "dev"), ("TRAIN", "eval")]
)
def test_splits_have_usual_names_in_any_case(root, names):
    for name, count in zip(names, (6, 3), strict=True):
        save_classes(root, name, "cat", "dog", count=count)
    source = opened(root)
    assert (source.train_split, source.test_split) == names
    assert (len(source.train), len(source.test)) == (12, 6)
    assert source.train.classes == source.test.classes == ["cat", "dog"]


def test_train_test_and_val_are_all_kept(root):
    for name in ("train", "valid", "test"):
        save_classes(root, name, "cat", "dog")
    source = opened(root)
    assert (source.train_split, source.test_split, source.val_split) == ("train", "test", "valid")
    assert source.val.labels.tolist() == [0] * 5 + [1] * 5


def test_unlabelled_images_are_pretrained_on(root):
    save_classes(root, "train", "cat", "dog")
    save(root, "unlabeled/1.png")
    source = opened(root)
    assert source.pretraining.files == ["unlabeled/1.png"]
    assert describe_splits(source, to_train=True)[0].endswith("trains on unlabeled: 1 image")


def test_two_folders_of_one_role_are_refused(root):
    for name in ("train", "Training"):
        save_classes(root, name, "cat", "dog")
    with pytest.raises(ValueError, match="--data .*: has 'Training' and 'train', which both name a train split"):
        opened(root)


def test_what_lies_beside_splits_is_left_out_and_named(root):
    save_classes(root, "train", "cat", "dog")
    save(root, "masks/1.png", "overview.png")
    (root / "notes").mkdir()
    source = opened(root)
    assert len(source.train) == 10
    assert source.notes == ("left out: masks, image files beside it; the splits are train",)


def test_a_class_that_is_called_like_a_split_is_one_beside_other_classes(root):
    save_classes(root, ".", "cat", "dog", "test")
    source = opened(root)
    assert source.train.classes == ["cat", "dog", "test"]
    assert source.notes == ("test: no split, but a class, for there is no folder called train",)


@pytest.mark.parametrize("wrapper", ["dataset", "a/b", "archive/archive"])
def test_a_folder_around_classes_or_splits_is_entered(root, wrapper):
    save_classes(root, wrapper, "cat", "dog")
    (root / "README.md").write_text("# Hello")
    (root / "empty").mkdir()
    source = opened(root)
    assert source.train.classes == ["cat", "dog"]
    assert f"{wrapper} is taken for the folder of the images, the only one" in source.notes
    save_classes(root, f"{wrapper}/train", "cat", "dog")
    save_classes(root, f"{wrapper}/test", "cat", "dog", count=2)
    source = opened(root)
    assert (source.train_split, len(source.train), len(source.test)) == ("train", 10, 4)


def test_a_folder_around_the_classes_of_a_split_is_entered(root):
    """As in Kaggle's seg_train/seg_train/buildings."""
    save_classes(root, "train/train", "cat", "dog")
    save_classes(root, "test/images", "cat", "dog", count=2)
    source = opened(root)
    assert source.train.classes == ["cat", "dog"]
    assert len(source.test) == 4


def test_a_single_class_of_a_test_split_is_not_entered(root):
    save_classes(root, "train", "cat", "dog")
    save_classes(root, "test/cat", "Monday", "Tuesday")
    source = opened(root)
    assert source.test.labels.tolist() == [0] * 10


def test_a_single_class_is_named(root):
    save(root, *(f"cat/{i}.png" for i in range(9)))
    assert why_not_labelled(opened(root)) == "the data has one class only, cat"


def test_classes_of_several_folders_are_joined(tmp_path):
    save(tmp_path, *(f"A/cat/{i}.png" for i in range(5)), *(f"B/dog/{i}.png" for i in range(5)))
    source = open_source(f"{tmp_path / 'A'},{tmp_path / 'B'}")
    assert source.train.classes == ["cat", "dog"]
    assert source.train.labels.tolist() == [0] * 5 + [1] * 5
    save(tmp_path, "C/1.png")
    source = open_source(f"{tmp_path / 'A'},{tmp_path / 'C'}")
    assert why_not_labelled(source) == f"the data in {tmp_path}/C has no class folders: its images lie in it, as 1.png"


def test_all_kinds_hold_for_several_folders(tmp_path):
    for name in ("A/Training", "A/Testing", "B/wrapper"):
        save_classes(tmp_path, name, "cat", "dog")
    save(tmp_path, "B/wrapper/stray.png", "A/Training/._1.png", "A/Testing/gnu/1.png")
    (tmp_path / "B" / "x.heic").write_bytes(b"x")
    (tmp_path / "B" / "wrapper" / "y.heic").write_bytes(b"x")
    source = open_source(f"{tmp_path / 'A'},{tmp_path / 'B'}")
    assert (len(source.train), len(source.test)) == (20, 10)
    assert source.test.classes == ["cat", "dog"]
    assert [note.replace(str(tmp_path), "") for note in source.notes] == [
        "/B: wrapper is taken for the folder of the images, the only one",
        "/B: left out: 1 image file beside the class folders: wrapper/stray.png",
        "left out: 1 file of kinds that are not read as images: 1 x .heic",
        "Testing: 1 image left out, of classes without training images: gnu (1)",
    ]


def test_test_classes_that_differ_are_left_out_or_the_cause(root):
    save_classes(root, "train", "cat", "dog")
    save_classes(root, "test", "cat", "gnu", count=3)
    source = opened(root)
    assert source.test.labels.tolist() == [0, 0, 0]
    assert source.test.name(0) == "test/cat/0.png"
    assert source.notes == ("test: 3 images left out, of classes without training images: gnu (3)",)
    (root / "test" / "cat").rename(root / "test" / "emu")
    source = opened(root)
    assert labelled_splits(source) is None
    assert why_not_labelled(source).startswith("test has the classes emu, gnu, none of which")


def test_a_flat_test_split_is_named_and_not_tested_on(root):
    save_classes(root, "train", "cat", "dog")
    save(root, "test/1.png")
    source = opened(root)
    assert source.notes == ("test is not tested on: it has no class folders: its images lie in it, as test/1.png",)
    assert len(labelled_splits(source)[1].index) == 2


def test_litter_of_systems_is_not_trained_on(root):
    save_classes(root, ".", "cat", "dog", count=2)
    litter = ("__MACOSX/cat/._0.png", "cat/._0.png", "cat/@eaDir/0.png/THUMB.jpg", ".ipynb_checkpoints/0.png")
    save(root, *litter)
    for name in (".DS_Store", "cat/Thumbs.db", "desktop.ini"):
        (root / name).write_bytes(b"x")
    source = opened(root)
    assert source.train.files == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert source.notes == ()
    assert not is_litter("cat")


def test_links_to_nothing_and_special_files_are_left_out_and_never_opened(root):
    save_classes(root, ".", "cat", "dog", count=2)
    (root / "dead.png").symlink_to("nowhere.png")
    (root / "cat" / "self.png").symlink_to("self.png")
    os.mkfifo(root / "pipe.png")  # to open it would wait for ever
    os.mkfifo(root / "cat" / "pipe")
    (root / "null.png").symlink_to("/dev/null")
    source = opened(root)
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    assert source.notes == (
        "left out: 5 files of kinds that are not read as images: 3 x FIFO, socket or device, 2 x link to nothing",
    )


def test_a_link_that_leads_somewhere_since_is_listed(root):
    save(root, "1.png")
    (root / "2.png").symlink_to(root.parent / "later.png")
    os.utime(root, (1e9, 1e9))
    assert len(opened(root).train) == 1
    save(root.parent, "later.png")
    assert len(opened(root).train) == 2


def test_an_index_of_another_rule_is_not_used(root, monkeypatch):
    save(root, "1.png")
    os.utime(root, (1e9, 1e9))
    index_folder(root)
    walks, walk = [], folders._walk
    monkeypatch.setattr(folders, "_walk", lambda *arguments: walks.append(1) or walk(*arguments))
    index_folder(root)
    assert not walks
    monkeypatch.setattr(folders, "LISTING_RULE", "another")
    index_folder(root)
    assert walks


def test_notes_are_the_same_from_a_kept_index(root):
    save_classes(root, ".", "cat", "dog", count=2)
    save(root, "stray.png")
    (root / "1.heic").write_bytes(b"x")
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1e9, 1e9))
    first, again = opened(root), opened(root)
    assert isinstance(again.train.files.block, np.memmap)
    assert first.notes == again.notes
    assert len(again.notes) == 2
    assert list(first.train.files) == list(again.train.files) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_names_after_strays_reach_other_processes(root):
    save_classes(root, ".", "cat", "dog", count=2)
    save(root, "stray.png")
    names = opened(root).train.files
    assert list(pickle.loads(pickle.dumps(names))) == list(names)


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".avif", ".jp2", ".webp", ".tga", ".pbm", ".tiff", ".psd", ".qoi"])
def test_suffixes_are_those_of_formats_that_are_read(suffix):
    assert suffix.lower() in IMAGE_SUFFIXES
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".heic", ".h5", ".svg", ".mp4"} & IMAGE_SUFFIXES


def test_files_that_are_not_read_are_counted_by_suffix_in_one_line(root):
    save(root, "1.jfif", "2.png")
    for i in range(3):
        (root / f"{i}.heic").write_bytes(b"x")
    (root / "a.EPS").write_bytes(b"%!PS")
    source = opened(root)
    assert source.train.files == ["1.jfif", "2.png"]
    assert source.notes == ("left out: 4 files of kinds that are not read as images: 3 x .heic, 1 x .eps",)


def test_empty_class_folders_are_named(root):
    save_classes(root, ".", "cat", "dog")
    (root / "emu").mkdir()
    assert opened(root).notes == ("folders without images, which are no classes: emu",)


def test_names_of_any_kind_are_classes(root):
    names = ["-dash", "[x]*?", "a,b", "new\nline", "\x1b[31m", "x" * 200, "猫 1"]
    save_classes(root, ".", *names)
    assert opened(root).train.classes == sorted(names)
    lines = describe_splits(opened(root), to_train=True)
    assert not any("\n" in line or "\x1b" in line for line in lines)
