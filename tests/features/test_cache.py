"""Features on disk: computed once, found again, and computed anew when anything that they depend on changes."""

import os
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images import ArrayImages, FileImages, Subset
from infomax.data.sources.location import open_source
from infomax.features import cache
from infomax.features.cache import cached_features, features_folder
from infomax.features.extraction import encode_batches, extract_features
from infomax.models.encoders import build_encoder, fingerprint
from infomax.runtime.collectives import rank
from ranks import on_ranks

HOW = Preprocessing(resize=16, size=16)
original_encode_batches, test_cache = encode_batches, sys.modules[__name__]
ENCODER = build_encoder("small", stem="imagenet", seed=0)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def counted(monkeypatch):
    """How many images were encoded."""
    seen = []
    monkeypatch.setattr(test_cache, "encode_batches", counting(seen))
    return seen


def counting(seen):
    def encode(*args, **kwargs):
        for part in original_encode_batches(*args, **kwargs):
            seen.append(len(part))
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


def features(images, encoder=ENCODER, how=HOW, **options):
    return cached_features(
        lambda images, index: test_cache.encode_batches(encoder, images, index, how, workers=0),
        f"{fingerprint(encoder)} {how}",
        images,
        **options,
    )


def test_features_are_computed_once_and_are_those_of_the_encoder(folder, counted):
    first = features(folder)
    assert sum(counted) == 7
    assert torch.equal(features(folder), first)
    assert sum(counted) == 7
    assert torch.equal(first, extract_features(ENCODER, folder, np.arange(7), HOW, workers=0))


def test_whatever_decides_them_makes_them_new(folder, counted):
    features(folder)
    other = build_encoder("small", stem="imagenet", seed=1)
    features(folder, other)
    assert sum(counted) == 14
    with torch.no_grad():  # one number of one statistic
        other.backbone[1].running_mean[0] += 1e-3
    features(folder, other)
    assert sum(counted) == 21
    features(folder, how=Preprocessing(resize=18, size=16))
    assert sum(counted) == 28
    features(folder, dtype=torch.float16)
    assert sum(counted) == 35
    path = folder.root / folder.files[3]
    Image.new("RGB", (20, 20)).save(path)
    os.utime(path, ns=(1, 1))
    changed = features(folder)
    assert sum(counted) == 42
    torch.testing.assert_close(changed[3], extract_features(ENCODER, folder, np.array([3]), HOW, workers=0)[0])


def test_one_changed_pixel_of_an_array_makes_its_features_new(counted):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    features(ArrayImages(pixels, None, []))
    pixels[4, 3, 2, 1] ^= 1
    features(ArrayImages(pixels, None, []))
    assert sum(counted) == 10


def test_an_interrupted_computation_goes_on(monkeypatch, counted):
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
    before = sum(counted)
    whole = features(images)
    assert sum(counted) - before == 1438 - 512  # one piece of two batches was whole
    torch.testing.assert_close(whole, extract_features(ENCODER, images, np.arange(1438), HOW))


def test_a_subset_uses_what_is_there_of_the_whole(folder, counted, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 3)
    some = Subset(folder, np.array([1, 2, 5]), None, [])
    alone = features(some)
    assert sum(counted) == 3
    whole = features(folder)
    torch.testing.assert_close(whole[[1, 2, 5]], alone)
    again = Subset(folder, np.array([0, 6]), None, [])
    assert torch.equal(features(again), whole[[0, 6]])
    assert sum(counted) == 3 + 7


def test_half_precision_halves_the_files_and_refuses_what_it_cannot_hold(folder):
    half = features(folder, dtype=torch.float16)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), features(folder), rtol=1e-3, atol=1e-3)
    large = build_encoder("small", stem="imagenet", seed=0)
    large.backbone.append(torch.nn.Threshold(-1, 0))
    with torch.no_grad():
        large.backbone[-4].norm2.weight.mul_(1e7).add_(1e7)
        large.backbone[-4].norm2.bias.add_(1e7)
    with pytest.raises(ValueError, match=r"features of image 0.png are infinite or NaN; --feature-precision 32 may"):
        features(folder, large, dtype=torch.float16)


def test_without_a_cache_nothing_is_kept_or_used(folder, counted):
    features(folder)
    features(folder, keep=False)
    assert sum(counted) == 14
    files = list(features_folder().rglob("*.npy"))
    assert len(files) == 1
    files[0].write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read .* remove it to compute it anew"):
        features(folder)


def of_rank(root, names, late):
    images = FileImages(root, names, None, [])
    seen = []
    test_cache.encode_batches, cache.CHUNK = counting(seen), 2
    if rank() == late:
        time.sleep(0.5)  # the other one has written by then
    made = features(images)
    some = features(Subset(images, np.array([0, 3]), None, []))
    return sum(seen), made.tolist(), some.tolist()


@pytest.mark.parametrize("late", [0, 1])
def test_ranks_share_the_work_and_none_is_done_twice(folder, late):
    found = on_ranks(2, of_rank, folder.root, list(folder.files), late)
    assert [count for count, *_ in found] == [4, 3]  # pieces of 2, 2, 2 and 1
    expected = extract_features(ENCODER, folder, np.arange(7), HOW, workers=0)
    for _, made, some in found:
        torch.testing.assert_close(torch.tensor(made), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.tensor(some), expected[[0, 3]], rtol=1e-5, atol=1e-5)
