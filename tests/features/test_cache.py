"""Cached features are computed once, read again, and computed anew if anything that they depend on changes."""

import os
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.images.selection import Subset
from infomax.data.sources.location import open_source
from infomax.features import cache
from infomax.features.cache import FeatureSpecification, cached_features, features_folder
from infomax.features.extraction import encode_batches, extract_features
from infomax.models.encoders import build_encoder, fingerprint
from infomax.runtime.collectives import rank
from ranks import on_ranks

PREPROCESSING = Preprocessing(resize=16, size=16)
original_encode_batches, test_cache = encode_batches, sys.modules[__name__]
ENCODER = build_encoder("small", stem="imagenet", seed=0)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def encoded_counts(monkeypatch):
    """Collects the number of images of each batch that is encoded."""
    counts = []
    monkeypatch.setattr(test_cache, "encode_batches", counting(counts))
    return counts


def counting(counts):
    """Returns ``encode_batches`` with a list that the number of images of each batch is added to."""

    def encode(*args, **kwargs):
        for part in original_encode_batches(*args, **kwargs):
            counts.append(len(part))
            yield part

    return encode


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(7):
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(path)
    return open_source(str(tmp_path / "images")).train


def features(images, encoder=ENCODER, preprocessing=PREPROCESSING, precision="32", **options):
    return cached_features(
        lambda images, index: test_cache.encode_batches(encoder, images, index, preprocessing, workers=0),
        FeatureSpecification(encoder=fingerprint(encoder), preprocessing=preprocessing, precision=precision),
        images,
        **options,
    )


def test_features_are_computed_once_and_are_those_of_the_encoder(folder, encoded_counts):
    first = features(folder)
    assert sum(encoded_counts) == 7
    assert torch.equal(features(folder), first)
    assert sum(encoded_counts) == 7
    assert torch.equal(first, extract_features(ENCODER, folder, np.arange(7), PREPROCESSING, workers=0))


def test_whatever_decides_them_makes_them_new(folder, encoded_counts):
    features(folder)
    other = build_encoder("small", stem="imagenet", seed=1)
    features(folder, other)
    assert sum(encoded_counts) == 14
    with torch.no_grad():  # one number of one statistic
        other.backbone[1].running_mean[0] += 1e-3
    features(folder, other)
    assert sum(encoded_counts) == 21
    features(folder, preprocessing=Preprocessing(resize=18, size=16))
    assert sum(encoded_counts) == 28
    features(folder, precision="16")
    assert sum(encoded_counts) == 35
    path = folder.root / folder.files[3]
    Image.new("RGB", (20, 20)).save(path)
    os.utime(path, ns=(1, 1))
    changed = features(folder)
    assert sum(encoded_counts) == 42
    torch.testing.assert_close(
        changed[3], extract_features(ENCODER, folder, np.array([3]), PREPROCESSING, workers=0)[0]
    )


def test_one_changed_pixel_of_an_array_makes_its_features_new(encoded_counts):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    features(ArrayImages(pixels, None, []))
    pixels[4, 3, 2, 1] ^= 1
    features(ArrayImages(pixels, None, []))
    assert sum(encoded_counts) == 10


def test_an_interrupted_computation_goes_on(monkeypatch, encoded_counts):
    monkeypatch.setattr(cache, "CHUNK", 512)
    images = open_source("digits").train

    def failing(*args, **kwargs):
        for number, part in enumerate(original_encode_batches(*args, **kwargs)):
            if number == 3:
                raise KeyboardInterrupt
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(test_cache, "encode_batches", failing)
        with pytest.raises(KeyboardInterrupt):
            features(images)
    before = sum(encoded_counts)
    whole = features(images)
    assert sum(encoded_counts) - before == 1438 - 512  # one file of two batches was complete
    torch.testing.assert_close(whole, extract_features(ENCODER, images, np.arange(1438), PREPROCESSING))


def test_a_subset_uses_the_cached_features_of_its_data_set(folder, encoded_counts, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 3)
    subset = Subset(folder, np.array([1, 2, 5]), None, [])
    alone = features(subset)
    assert sum(encoded_counts) == 3
    whole = features(folder)
    torch.testing.assert_close(whole[[1, 2, 5]], alone)
    other_subset = Subset(folder, np.array([0, 6]), None, [])
    assert torch.equal(features(other_subset), whole[[0, 6]])
    assert sum(encoded_counts) == 3 + 7


def test_half_precision_halves_the_files_and_refuses_what_it_cannot_hold(folder):
    half = features(folder, precision="16")
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), features(folder), rtol=1e-3, atol=1e-3)
    large = build_encoder("small", stem="imagenet", seed=0)
    large.backbone.append(torch.nn.Threshold(-1, 0))
    with torch.no_grad():
        large.backbone[-4].norm2.weight.mul_(1e7).add_(1e7)
        large.backbone[-4].norm2.bias.add_(1e7)
    with pytest.raises(ValueError, match=r"features of image 0.png are infinite or NaN; --feature-precision 32 may"):
        features(folder, large, precision="16")


def test_without_a_cache_nothing_is_kept_or_used(folder, encoded_counts):
    features(folder)
    features(folder, keep=False)
    assert sum(encoded_counts) == 14
    files = list(features_folder().rglob("*.npy"))
    assert len(files) == 1


def npy(shape, descr="<f4", order="False", version=b"\x01\x00", payload=b"\0" * 512) -> bytes:
    """Returns an .npy file whose header says whatever it likes."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + payload


@pytest.mark.parametrize(
    "content",
    [
        b"", b"torn", b"\x93NUMPY", npy((-7, 128)), npy((7, 10**15)), npy((10**30, 128)), npy((7,)), npy((6, 1)),
        npy((7, 1), "<f8"), npy((7, 1), "|O"), npy((7, 1), version=b"\x09\x00"), npy("__import__('os')"),
        npy((7, 1), order="[]"), npy("(7, 1"), npy((7, True)), npy("(" * 3000), npy((7, 1), payload=b""),
        npy((7, 1), [("a", "<f4")]),
    ],
)  # fmt: skip
def test_a_damaged_file_of_features_is_computed_anew(folder, encoded_counts, capsys, content):
    expected = features(folder)
    (file,) = features_folder().rglob("*.npy")
    file.write_bytes(content)
    assert torch.equal(features(folder), expected)
    assert sum(encoded_counts) == 14
    assert "is damaged, and its features are computed anew" in capsys.readouterr().err
    assert torch.equal(features(folder), expected)
    assert sum(encoded_counts) == 14


@pytest.mark.parametrize("place", ["cache", "cache/infomax", "cache/infomax/features"])
def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path, capsys, monkeypatch, place):
    monkeypatch.setattr(cache, "CHUNK", 3)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    if (tmp_path / place).is_dir():  # the folder's index is there
        shutil.rmtree(tmp_path / place)
    (tmp_path / place).write_text("no folder")
    all_features = features(folder)
    assert torch.equal(all_features, extract_features(ENCODER, folder, np.arange(7), PREPROCESSING, workers=0))
    lines = [line for line in capsys.readouterr().err.splitlines() if "features are not kept" in line]
    assert len(lines) == 1


def test_a_disk_that_becomes_full_costs_no_features(folder, capsys, monkeypatch):
    expected = features(folder, keep=False)
    monkeypatch.setattr(cache, "CHUNK", 2)
    written = []

    def write_until_full(file, content):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(file)
        original_write(file, content)

    original_write = cache.write_atomic
    monkeypatch.setattr(cache, "write_atomic", write_until_full)
    assert torch.equal(features(folder), expected)
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert len(list(features_folder().rglob("*.npy"))) == 2


def features_on_a_rank(root, names, late_rank):
    images = FileImages(root, names, None, [])
    counts = []
    test_cache.encode_batches, cache.CHUNK = counting(counts), 2
    if rank() == late_rank:
        time.sleep(0.5)  # the other rank has written its files by then
    all_features = features(images)
    subset_features = features(Subset(images, np.array([0, 3]), None, []))
    return sum(counts), all_features.tolist(), subset_features.tolist()


@pytest.mark.parametrize("late_rank", [0, 1])
def test_ranks_share_the_work_and_none_is_done_twice(folder, late_rank):
    results = on_ranks(2, features_on_a_rank, folder.root, list(folder.files), late_rank)
    assert [count for count, *_ in results] == [4, 3]  # files of 2, 2, 2 and 1 images
    expected = extract_features(ENCODER, folder, np.arange(7), PREPROCESSING, workers=0)
    for _, all_features, subset_features in results:
        torch.testing.assert_close(torch.tensor(all_features), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.tensor(subset_features), expected[[0, 3]], rtol=1e-5, atol=1e-5)
