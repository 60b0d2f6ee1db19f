"""Features do not depend on the chunks in which a CPU computes them, and chunks are as large as is said."""

import numpy as np
import pytest
import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.evaluation import evaluation_batches
from infomax.features.extraction import cache_sized_chunks, extract_features
from infomax.models.encoders import build_encoder


@pytest.mark.parametrize(
    ("stem", "side", "sizes"),
    [
        ("imagenet", 32, [40]),
        ("imagenet", 128, [16, 16, 8]),
        ("imagenet", 600, [1] * 40),
        ("cifar", 32, [32, 8]),
        ("cifar_linear", 64, [8] * 5),
    ],
)
def test_chunks_hold_as_many_images_as_fit_the_caches(stem: str, side: int, sizes: list[int]) -> None:
    batch = torch.zeros(1, 1, 1, 1).expand(40, 3, side, side)
    encoder = build_encoder("resnet18", stem=stem, seed=0)
    assert [len(chunk) for chunk in cache_sized_chunks(batch, encoder)] == sizes


def test_a_device_with_memory_of_its_own_takes_the_whole_batch() -> None:
    batch, encoder = torch.empty(40, 3, 600, 600, device="meta"), build_encoder("small", seed=0)
    assert [len(chunk) for chunk in cache_sized_chunks(batch, encoder)] == [40]


def test_features_are_those_of_the_whole_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (36, 96, 96, 3), dtype=np.uint8)
    images, preprocessing = ArrayImages(pixels, None, []), Preprocessing(resize=96, size=96)
    encoder = build_encoder("small", seed=0).eval()
    received: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda _, inputs: received.append(len(inputs[0])))
    features = extract_features(encoder, images, np.arange(36), preprocessing)
    hook.remove()
    assert received == [28, 8]
    (batch,) = evaluation_batches(images, np.arange(36), preprocessing)
    with torch.no_grad():
        torch.testing.assert_close(features, encoder(batch), rtol=1e-5, atol=1e-6)
    assert features.shape == (36, encoder.width)
