"""Loader workers: crops equal PIL's, and a JPEG is decoded no larger than its crops need."""

import io
from multiprocessing import synchronize

import numpy as np
import pytest
from PIL import Image

from infomax.data.augmentation.draws import FLIP, crop_boxes, draw_uniform
from infomax.data.augmentation.views import View, ViewSet, dino
from infomax.data.decoding.decoder import decode
from infomax.data.images.files import FileImages
from infomax.data.loading.workers import TrainingImages, cut_views, worker_context
from infomax.runtime.failures import MachineError


def photograph(width=900, height=700) -> Image.Image:
    """Returns an image of smooth colours with some detail, as photographs have."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
    fine = Image.fromarray(rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)).resize(
        (width, height), 3
    )
    return Image.blend(coarse, fine, 0.2)


def as_jpeg(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file


def random_row(view: View, index: int) -> np.ndarray:
    return draw_uniform(0, 0, np.array([index]), 0)


@pytest.mark.parametrize("bicubic", [True, False])
def test_crops_of_full_decodes_are_pils(bicubic):
    """At a size that allows no smaller decode, the crops equal those of PIL."""
    view, image = View(size=224, bicubic=bicubic), photograph(300, 260)
    for index in range(8):
        random = random_row(view, index)
        (got,) = cut_views(lambda choose_divisor: decode(as_jpeg(image), "x", choose_divisor), random, [view])
        ((top, left, height, width),) = crop_boxes(random, 260, 300, view)
        decoded = Image.open(as_jpeg(image)).convert("RGB").crop((left, top, left + width, top + height))
        method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        want = np.asarray(decoded.resize((224, 224), method)).astype(int)
        want = want[:, ::-1] if random[0, FLIP] < 0.5 else want
        assert np.abs(got - want).max() <= 1  # PIL rounds to bytes between the two directions, too


@pytest.mark.parametrize(("size", "divisor"), [(40, 8), (80, 4), (180, 2)])
def test_a_smaller_decode_gives_nearly_the_same_crops(size, divisor):
    """A JPEG is halved by a box filter and resized by a cubic, so crops differ; by less than 1.5 levels in the mean."""
    view, image = View(size=size, scale=(0.5, 0.6), ratio=(1.0, 1.0)), photograph()
    divisors = set()
    for index in range(12):
        random = random_row(view, index)

        def open_image(choose_divisor, divisors=divisors):
            decoded = decode(as_jpeg(image), "x", choose_divisor)
            divisors.add(round(900 / decoded.width))
            return decoded

        (small,) = cut_views(open_image, random, [view])
        (full,) = cut_views(lambda _: Image.open(as_jpeg(image)).convert("RGB"), random, [view])
        assert np.abs(small.astype(int) - full).mean() < 1.5
    assert divisors == {divisor}


def test_the_smallest_crop_decides_how_much_is_decoded():
    global_crops, local_crops = dino(224, global_scale=(0.9, 1.0), local_scale=(0.05, 0.06))
    for views, divisor in ((global_crops, 2), ((*global_crops, *local_crops), 1)):
        random = np.concatenate([draw_uniform(0, 0, np.array([0]), number) for number in range(len(views))])
        sizes = []
        cut_views(
            lambda choose_divisor, sizes=sizes: (
                sizes.append(decode(as_jpeg(photograph()), "x", choose_divisor)) or sizes[0]
            ),
            random,
            views,
        )
        assert round(900 / sizes[0].width) == divisor


def test_a_photograph_on_its_side_is_cropped_as_it_is_seen():
    """An image with EXIF orientation 6 is stored on its side; it is cropped with and without a smaller decode."""
    upright = photograph(700, 900)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = as_jpeg(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    for size in (64, 500):
        view = View(size=size, scale=(0.5, 1.0))
        random = random_row(view, 3)
        (got,) = cut_views(lambda choose_divisor: decode(stored, "x", choose_divisor), random, [view])
        (want,) = cut_views(lambda _: upright, random, [view])
        assert np.abs(got.astype(int) - want).mean() < 3


def test_an_unreadable_image_is_replaced_by_another(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(b"damaged" if i == 1 else as_jpeg(photograph(40, 40)).getvalue())
    images = FileImages(tmp_path, [f"{i}.jpg" for i in range(4)], None, [])
    batch = TrainingImages(images, ViewSet(global_crops=(View(size=8),) * 2), seed=0)[0, np.arange(4)]
    assert list(batch.unreadable) == [1]
    assert "1.jpg cannot be read as an image" in str(batch.unreadable[1])
    assert batch.images[0].float().std() > 1


@pytest.mark.parametrize("orientation", [0, 9, 200])
@pytest.mark.parametrize("size", [(800, 400), (400, 80), (60, 40), (97, 97)])
def test_an_undefined_orientation_turns_nothing(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, view = as_jpeg(photograph(*size), exif=exif), View(size=8, scale=(0.3, 1.0))
    for index in range(20):
        random = random_row(view, index)
        (got,) = cut_views(lambda choose_divisor: decode(stored, "x", choose_divisor), random, [view])
        (want,) = cut_views(lambda _: Image.open(stored).convert("RGB"), random, [view])
        assert np.abs(got.astype(int) - want).mean() < 6


def test_a_smaller_decode_of_a_small_image_shifts_nothing():
    """An eighth of 97 pixels is 13, not 12.125: a ramp of this size must not be stretched by that."""
    ramp = np.tile(np.linspace(0, 255, 97).astype(np.uint8)[None, :, None], (97, 1, 3))
    view = View(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0)
    (got,) = cut_views(
        lambda choose_divisor: decode(as_jpeg(Image.fromarray(ramp)), "x", choose_divisor), random_row(view, 0), [view]
    )
    (want,) = cut_views(lambda _: Image.fromarray(ramp), random_row(view, 0), [view])
    assert np.abs(got.astype(int) - want).max() <= 4


def test_shared_memory_that_cannot_be_written_is_said_in_one_line(monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", refuse)
    line = r"^there is no shared memory that workers could use; --workers 0 .* \(\[Errno 13\] Permission denied\)$"
    with pytest.raises(MachineError, match=line):
        worker_context()
