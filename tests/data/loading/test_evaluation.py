"""Images that are resized and cropped to be evaluated: ordinary ones, and very long ones."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from infomax.data.augmentation.make_views import cap_aspect_ratio
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.loading.evaluation import KeptBatches, evaluation_batches

TO_224 = Preprocessing(resize=256, size=224)


def pixels(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def evaluated(tmp_path, array, preprocessing=TO_224):
    Image.fromarray(array).save(tmp_path / "a.png")
    images = FileImages(tmp_path, ["a.png"], None, [])
    (batch,) = evaluation_batches(images, np.array([0]), preprocessing, workers=0)
    return batch[0]


@pytest.mark.parametrize(
    "shape", [(375, 500), (500, 375), (32, 32), (30, 300), (300, 30), (1, 10), (7, 3), (301, 257), (257, 302)]
)
@pytest.mark.parametrize("size", [224, 223])
def test_images_of_ordinary_shapes_are_those_of_torchvision(tmp_path, shape, size):
    array, preprocessing = pixels(*shape), Preprocessing(resize=256, size=size)
    transform = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    expected = transform(Image.fromarray(array))
    torch.testing.assert_close(evaluated(tmp_path, array, preprocessing), expected, rtol=0, atol=1e-5)
    (from_array,) = evaluation_batches(ArrayImages(array[None], None, []), np.array([0]), preprocessing, workers=0)
    assert (from_array[0] - expected).abs().mean() < 0.02  # resized in float32, not rounded to bytes on the way


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (2, 3001), (8, 4000), (1, 20000)])
def test_of_very_long_images_the_centre_is_resized(tmp_path, shape):
    array = pixels(*shape)
    short, long = min(shape), max(shape)
    length = 10 * short + (long - 10 * short) % 2
    start = (long - length) // 2
    part = array[:, start : start + length] if shape[1] == long else array[start : start + length]
    tracemalloc.start()
    result = evaluated(tmp_path, array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(result, evaluated(tmp_path, part))
    assert peak < 50e6
    (from_array,) = evaluation_batches(ArrayImages(array[None], None, []), np.array([0]), TO_224, workers=0)
    assert from_array.shape == (1, 3, 224, 224)


def test_the_centre_of_a_very_long_image_stays_where_it_is():
    for height, width in ((1, 3000), (1, 3001), (3, 4000), (5, 51), (5, 52)):
        top, left, new_height, new_width = cap_aspect_ratio(height, width)
        assert (top, new_height) == (0, height)
        assert 2 * left + new_width == width
        assert cap_aspect_ratio(width, height) == (left, top, new_width, new_height)
    assert cap_aspect_ratio(1, 1) == (0, 0, 1, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_kept_batches_are_the_same_and_no_file_is_read_again(tmp_path, workers):
    """A first pass that was not finished keeps nothing."""
    for number in range(3):
        Image.fromarray(pixels(40 + number, 50)).save(tmp_path / f"{number}.png")
    images, kept = FileImages(tmp_path, ["0.png", "1.png", "2.png"], None, []), KeptBatches()
    options = {"index": np.array([2, 0]), "preprocessing": Preprocessing(resize=24, size=16), "workers": workers}
    iter(evaluation_batches(images, **options, kept=kept))
    assert not kept.is_complete
    first = torch.cat(list(evaluation_batches(images, **options, kept=kept)))
    assert torch.equal(first, torch.cat(list(evaluation_batches(images, **options))))
    for file in tmp_path.iterdir():
        file.unlink()
    for _ in range(2):
        assert torch.equal(first, torch.cat(list(evaluation_batches(images, **options, kept=kept))))


def test_an_error_of_a_worker_leaves_no_loader_to_the_garbage(tmp_path):
    """Garbage collection closes the queues of a loader before the loader ends its workers by them."""
    (tmp_path / "a.png").write_bytes(b"damaged")
    images = FileImages(tmp_path, ["a.png"], None, [])
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"a\.png cannot be read"):
            list(evaluation_batches(images, np.array([0]), TO_224, workers=1))
        left = [x for x in gc.get_objects() if type(x).__name__ == "_MultiProcessingDataLoaderIter"]
        assert not left
    finally:
        gc.enable()
