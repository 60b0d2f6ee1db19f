"""Folders: their index is kept until a folder changes; several folders and lists of files are opened too."""

import multiprocessing
import operator
import os
import pickle
import time

import numpy as np
import pytest
from PIL import Image

import infomax
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources import folders
from infomax.data.sources.folders import index_folder
from infomax.data.sources.location import open_source
from infomax.models.encoders import build_encoder, save_encoder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "infomax" / "index"


def save(path, shade=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    for name in ("b/2.png", "b/1.png", "a/x/3.png", "a/0.png", "c/5.PNG"):
        save(root / name)
    long_ago(root)
    return root


def long_ago(root):
    """Sets all folders' times of modification to long ago, as folders that have just changed are listed each time."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1e9, 1e9))


def count_walks(monkeypatch):
    """Returns a list that grows by one each time that a folder is listed."""
    walks = []
    walk = folders._walk
    monkeypatch.setattr(folders, "_walk", lambda *arguments: walks.append(1) or walk(*arguments))
    return walks


def test_files_of_a_folder_come_before_those_of_its_sub_folders(root):
    assert list(index_folder(root).names) == ["a/0.png", "a/x/3.png", "b/1.png", "b/2.png", "c/5.PNG"]
    labels, classes = index_folder(root).classes(0)
    assert (labels.tolist(), classes) == ([0, 0, 1, 1, 2], ["a", "b", "c"])


def test_an_index_is_used_again_until_a_folder_changes(root, monkeypatch, cache):
    walks = count_walks(monkeypatch)
    first = index_folder(root)
    again = index_folder(root)
    assert len(walks) == 1
    assert list(first.names) == list(again.names)
    assert first.folders == again.folders
    save(root / "a" / "x" / "4.png")
    assert len(index_folder(root).names) == 6
    assert len(walks) == 2
    (root / "c" / "5.PNG").unlink()
    assert "c/5.PNG" not in list(index_folder(root).names)
    assert len(list(cache.iterdir())) <= 2


def test_a_folder_that_has_just_changed_is_listed_again(root, monkeypatch):
    """A file that is added within the clock's resolution does not change the folder's time of modification."""
    os.utime(root / "a", (time.time(), time.time()))
    walks = count_walks(monkeypatch)
    index_folder(root)
    index_folder(root)
    assert len(walks) == 2


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"not json\n", None])
def test_a_damaged_index_is_made_anew(root, cache, damage):
    names = list(index_folder(root).names)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-3] if damage is None else damage)
    assert list(index_folder(root).names) == names


def test_without_a_cache_folder_an_index_is_made_each_time(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(index_folder(root).names) == 5


def test_hidden_files_are_not_images_and_are_counted_in_the_error(tmp_path):
    save(tmp_path / "empty" / ".hidden.png")
    with pytest.raises(ValueError, match="no images in .*; found 1 x hidden, want"):
        open_source(str(tmp_path / "empty"))


def test_other_processes_map_the_file_of_the_names(root):
    names = index_folder(root).names
    assert isinstance(names.block, np.memmap)
    assert len(pickle.dumps(names)) < 400
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (names,)) == 5
        assert pool.apply(operator.getitem, (names, 4)) == "c/5.PNG"


def test_names_are_a_sequence_of_any_strings():
    wanted = ["a", "", "ü/ß.png", os.fsdecode(b"\xff.png"), "with\nnewline"]
    names = PackedNames.pack(wanted)
    assert list(names) == wanted == pickle.loads(pickle.dumps(names))
    assert names == wanted
    assert names[1:3] == wanted[1:3]
    assert names[-1] == wanted[-1]
    with pytest.raises(IndexError):
        names[5]
    assert PackedNames.pack(wanted[:4]).fingerprint() != names.fingerprint()


def test_folders_with_commas_between_are_one_source(root, tmp_path):
    for name in ("b/7.png", "d/8.png"):
        save(tmp_path / "more" / name, 200)
    both = open_source(f"{root},{tmp_path / 'more'}").train
    assert len(both) == 7
    assert both.classes == ["a", "b", "c", "d"]
    assert both.labels.tolist() == [0, 0, 1, 1, 2, 1, 3]
    assert both.name(6) == f"{tmp_path / 'more'}/d/8.png"
    assert [np.asarray(both.open(i))[0, 0, 0] for i in (0, 4, 5, 6)] == [100, 100, 200, 200]
    first = open_source(str(root)).train
    assert both.fingerprint() != first.fingerprint()
    with pytest.raises(ValueError, match="no such folder: .*nothing"):
        open_source(f"{root},{tmp_path / 'nothing'}")


def test_a_folder_whose_name_has_a_comma_is_one_folder(tmp_path):
    save(tmp_path / "a,b" / "1.png")
    assert isinstance(open_source(str(tmp_path / "a,b")).train, FileImages)


def test_a_text_file_names_images_and_perhaps_their_classes(root, tmp_path):
    (tmp_path / "list.txt").write_text("images/b/1.png\nimages/a/0.png\n\n")
    plain = open_source(str(tmp_path / "list.txt")).train
    assert list(plain.files) == ["images/b/1.png", "images/a/0.png"]
    assert plain.labels is None
    assert plain.open(0).size == (12, 10)
    (tmp_path / "list.tsv").write_text(f"{root}/b/1.png\tdog\nimages/a/0.png\tcat\n")
    labelled = open_source(str(tmp_path / "list.tsv")).train
    assert [labelled.classes[i] for i in labelled.labels] == ["dog", "cat"]
    assert labelled.open(0).size == (12, 10)


@pytest.mark.parametrize(
    ("text", "message"), [("", "names no image"), ("images/none.png\n", "line 1 names .*none.png', which is no file")]
)
def test_a_text_file_of_no_images_is_refused(tmp_path, root, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=f"--data .*list.txt: {message}"):
        open_source(str(tmp_path / "list.txt"))


def test_splits_of_joined_folders_number_their_classes_alike(tmp_path):
    for name in ("A/train/c/1.png", "A/train/d/1.png", "A/test/c/2.png", "A/test/d/2.png", "B/a/3.png", "B/b/3.png"):
        save(tmp_path / name)
    source = open_source(f"{tmp_path / 'A'},{tmp_path / 'B'}")
    for images in (source.train, source.test):
        assert images.classes == ["a", "b", "c", "d"]
        assert [images.classes[i] for i in images.labels] == [images.name(i).split("/")[-2] for i in range(len(images))]
    (tmp_path / "B" / "a" / "3.png").rename(tmp_path / "B" / "3.png")
    assert open_source(f"{tmp_path / 'A'},{tmp_path / 'B'}").test.labels is None  # no classes to judge by


def test_links_to_one_folder_count_each_and_a_link_to_itself_is_none(root, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    for name in ("one", "two"):
        (links / name).symlink_to(root / "b")
    (links / "self").symlink_to(links / "self")
    (links / "two" / "up").symlink_to(links)
    assert list(index_folder(links).names) == ["one/1.png", "one/2.png", "two/1.png", "two/2.png"]


def test_an_index_that_nobody_used_is_thrown_away(root, tmp_path, cache):
    index_folder(root)
    (old,) = cache.iterdir()
    os.utime(old, (1e9, 1e9))
    save(tmp_path / "other" / "1.png")
    index_folder(tmp_path / "other")
    assert old not in list(cache.iterdir())


def test_views_plan_and_embed_say_what_is_left_out_too(tmp_path, capsys, monkeypatch):
    """A stray picture is left out by every command that opens the images."""
    rng = np.random.default_rng(0)
    for path in (*(f"{label}/{i}.png" for label in "ab" for i in range(8)), "stray.png"):
        (tmp_path / "x" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "x" / path)
    data, line = str(tmp_path / "x"), "left out: 1 image file beside the class folders: stray.png"
    infomax.views(data=data)
    assert line in capsys.readouterr().err
    infomax.plan(data=data, batch_size=8, epochs=1, gpu=["T4"])
    assert line in capsys.readouterr().err
    settings = {"backbone": "small", "stem": "imagenet", "seed": 0}
    (tmp_path / "encoder").mkdir()
    save_encoder(build_encoder(**settings), settings, Preprocessing(resize=8, size=8), tmp_path / "encoder")
    infomax.embed(tmp_path / "encoder", data, workers=0)
    assert line in capsys.readouterr().err


def test_an_unlabelled_test_split_takes_no_place_of_labelled_validation_splits_of_other_names(tmp_path):
    for path in ("A/train", "A/valid", "B/train", "B/val"):
        for name in ("a/0.png", "a/1.png", "b/0.png"):
            file = tmp_path / path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(file)
    (tmp_path / "B" / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "B" / "test" / "0.png")
    source = open_source(f"{tmp_path / 'A'},{tmp_path / 'B'}")
    assert source.test_split == "val"
    assert sorted(source.test.name(i).removeprefix(f"{tmp_path}/") for i in range(len(source.test))) == [
        f"{part}/{name}" for part in ("A/valid", "B/val") for name in ("a/0.png", "a/1.png", "b/0.png")
    ]
