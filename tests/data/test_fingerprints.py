"""Hashes of image files: what they notice, and what does not matter."""

import os

import numpy as np
import pytest

from infomax.data import fingerprints
from infomax.data.images.files import FileImages


def folder(root, names=("a/0.png", "a/1.png", "b/2.png"), content=b"0123456789"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return FileImages(root, list(names), None, [])


@pytest.fixture
def sampled(monkeypatch):
    """All limits are so small that a few files are many."""
    sizes = {"LARGE": 20, "MAX_STATUSES": 6, "SAMPLED_STATUSES": 4, "SAMPLED_CONTENTS": 3, "SAMPLED_BYTES": 4}
    for name, value in sizes.items():
        monkeypatch.setattr(fingerprints, name, value)


def test_the_place_and_the_times_do_not_matter(tmp_path):
    first, copy = folder(tmp_path / "first"), folder(tmp_path / "copy")
    os.utime(tmp_path / "copy/a/0.png", (1, 1))
    assert first.fingerprint() == copy.fingerprint()
    assert first.hashes() == (first.fingerprint(), None)  # for all bytes are read


@pytest.mark.parametrize("change", ["byte", "size", "missing", "name"])
def test_every_change_of_a_small_data_set_is_noticed(tmp_path, change):
    images = folder(tmp_path)
    before, file = images.fingerprint(), tmp_path / "a/1.png"
    if change == "byte":
        file.write_bytes(b"012345678x")
    elif change == "size":
        file.write_bytes(b"")
    elif change == "missing":
        file.unlink()
    else:
        images = FileImages(tmp_path, ["a/0.png", "b/2.png", "a/1.png"], None, [])
    assert images.fingerprint() != before


def test_a_large_data_set_is_sampled_and_its_times_are_kept_apart(tmp_path, sampled):
    names = [f"{i}.png" for i in range(5)]
    images = folder(tmp_path, names)
    before, times = images.hashes()
    assert times is not None
    (tmp_path / "1.png").write_bytes(b"x123456789")  # those of 0, 2 and 4 are read
    os.utime(tmp_path / "1.png", (1, 1))
    assert images.fingerprint() == before
    assert images.hashes()[1] != times
    (tmp_path / "2.png").write_bytes(b"0123xxxxxx")  # after the first four bytes
    assert images.fingerprint() == before
    (tmp_path / "2.png").write_bytes(b"012x456789")
    assert images.fingerprint() != before
    folder(tmp_path, names)
    (tmp_path / "1.png").write_bytes(b"0")  # of so few files all sizes are read
    assert images.fingerprint() != before


def test_of_very_many_files_the_sizes_of_some_are_read(tmp_path, sampled):
    names = [f"{i}.png" for i in range(7)]
    images = folder(tmp_path, names)
    before = images.fingerprint()
    (tmp_path / "1.png").write_bytes(b"0")  # those of 0, 2, 4 and 6 are read
    assert images.fingerprint() == before
    (tmp_path / "2.png").write_bytes(b"0")
    assert images.fingerprint() != before


def test_a_pipe_under_an_image_s_name_is_not_waited_for(tmp_path):
    images = folder(tmp_path)
    (tmp_path / "a/0.png").unlink()
    os.mkfifo(tmp_path / "a/0.png")
    assert images.fingerprint()


def test_threads_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "CHUNK", 2)
    assert list(fingerprints._map_in_threads(lambda i: i, np.arange(9))) == list(range(9))
    assert list(fingerprints._map_in_threads(lambda i: i, np.arange(0))) == []


@pytest.mark.parametrize("is_sampled", [False, True])
def test_each_file_is_looked_at_once_for_both_hashes(tmp_path, monkeypatch, request, is_sampled):
    if is_sampled:
        request.getfixturevalue("sampled")
    images, looked_at, stat = folder(tmp_path, [f"{i}.png" for i in range(6)]), [], os.stat
    monkeypatch.setattr(os, "stat", lambda path: looked_at.append(os.fspath(path)) or stat(path))
    images.hashes()
    assert len(looked_at) == len(set(looked_at)) == 6


def test_the_hashes_are_those_of_earlier_versions(tmp_path, request):
    images = folder(tmp_path)
    (tmp_path / "a/1.png").unlink()
    assert images.fingerprint() == "2d8c8e5fe688"  # runs of earlier versions are resumed
    request.getfixturevalue("sampled")
    assert folder(tmp_path / "more", [f"{i}.png" for i in range(9)]).fingerprint() == "9513fa77d803"
