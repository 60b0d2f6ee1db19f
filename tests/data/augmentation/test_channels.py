"""Views of images of any number of channels: each operation against a plain reference, and the draws of channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from infomax.data.augmentation import draws
from infomax.data.augmentation.draws import choose_colours, crop_boxes, draw_uniform, needed_columns
from infomax.data.augmentation.kernels import crops_memory_length, cut_crops
from infomax.data.augmentation.make_views import crop, make_views, preprocess
from infomax.data.augmentation.operations import make_views_fused, to_float
from infomax.data.augmentation.views import (
    Preprocessing,
    View,
    ViewSet,
    byol,
    colour_operations_switched_off,
    dino,
    supervised_crops,
)
from infomax.data.pixel_format import PixelFormat

WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0}
CHANNELS = (1, 2, 4, 5, 13)


def make_images(channels: int, dtype: torch.dtype = torch.uint8, count: int = 4) -> torch.Tensor:
    """Returns smooth images of 16 x 16 pixels; those of uint16 use all 16 bits."""
    generator = torch.Generator().manual_seed(channels)
    small = torch.rand(count, channels, 5, 5, generator=generator)
    large = torch.nn.functional.interpolate(small, (16, 16), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)
    if dtype == torch.uint8:
        return (large * 255).round().byte().contiguous()
    return torch.from_numpy((large * 65535).round().numpy().astype(np.uint16))


def plain(images: torch.Tensor) -> torch.Tensor:
    """Returns images in [0, 1], float64 [b, c, h, w], by numpy."""
    largest = np.iinfo(images.numpy().dtype).max
    return torch.from_numpy(images.numpy().astype(np.float64) / largest).permute(0, 3, 1, 2)


def one_view(images: torch.Tensor, view: View, **options) -> torch.Tensor:
    """Returns a view of each image, in [0, 1]."""
    channels = images.shape[3]
    views = ViewSet(global_crops=(view,), mean=(0.0,) * channels, std=(1.0,) * channels)
    return make_views(images, views, seed=3, epoch=0, index=np.arange(len(images)), **options)[0]


def check_all_ways(images: torch.Tensor, view: View, expected: torch.Tensor, *, tolerance: float = 2e-6) -> None:
    """Checks the kernels, the operations for a GPU and their fused form against the expected view."""
    fused = {"dtype": torch.float64, "fused_views": make_views_fused}
    for options in ({}, {"dtype": torch.float64}, fused):
        got = one_view(images, view, **options)
        torch.testing.assert_close(got.double(), expected.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_brightness_and_contrast_scale_each_channel_by_a_factor_of_its_own(channels, dtype):
    images, count = make_images(channels, dtype), 4
    x = plain(images)
    random = draw_uniform(3, 0, np.arange(count), 0, needed_columns(channels))
    uniform = random[:, draws.CHANNELS :].reshape(count, channels, 3)
    off = {"brightness": 0.0, "contrast": 0.0}
    for column, name in enumerate(off):
        view = View(size=16, **{**WHOLE, "jitter": 1.0, **off, name: 0.4})
        expected = x.clone()
        for i in range(count):
            for c in range(channels):
                factor, towards = 0.6 + 0.8 * uniform[i, c, column], x[i, c].mean() if name == "contrast" else 0.0
                expected[i, c] = (towards + factor * (x[i, c] - towards)).clamp(0, 1)
        check_all_ways(images, view, expected)
        if channels > 1:
            assert len(set(uniform[0, :, column])) == channels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_saturation_hue_and_grayscale_do_nothing_and_solarisation_inverts(channels, dtype):
    images = make_images(channels, dtype)
    view = View(
        size=16, **{**WHOLE, "jitter": 1.0, "grayscale": 1.0}, brightness=0.0, contrast=0.0, saturation=0.9, hue=0.4
    )
    check_all_ways(images, view, plain(images))
    # A value that lies on the threshold may be on either side of it after rounding.
    images.numpy()[(plain(images).permute(0, 2, 3, 1) - 128 / 255).abs().numpy() < 1e-6] = 0
    solarized = torch.where(plain(images) >= 128 / 255, 1 - plain(images), plain(images))
    check_all_ways(images, replace(view, solarize=1.0), solarized)


@pytest.mark.parametrize("channels", CHANNELS)
def test_blur_is_a_gaussian_in_each_channel(channels):
    images = make_images(channels, torch.uint16)
    offsets = torch.arange(-8, 9).double()
    kernel = torch.exp(-0.5 * (offsets / 1.25) ** 2)
    kernel /= kernel.sum()
    padded = torch.nn.functional.pad(plain(images), (8,) * 4, mode="replicate").flatten(0, 1)[:, None]
    rows = torch.nn.functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    expected = torch.nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1)).view(4, channels, 16, 16)
    view = View(size=16, **WHOLE, blur=1.0, blur_sigma=(1.25, 1.25))
    check_all_ways(images, view, expected, tolerance=6e-5)  # the blur is cut off at four standard deviations


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", [*CHANNELS, 3])
def test_crops_are_torchvisions_in_the_type_of_the_images(channels, dtype):
    """Both the crops that workers cut and those that are cut when views are made."""
    images = make_images(channels, dtype)
    view = View(size=10, **{**WHOLE, "scale": (0.1, 0.9)}, bicubic=True)
    boxes = crop_boxes(draw_uniform(3, 0, np.arange(4), 0), 16, 16, view)
    x = plain(images)
    expected = torch.stack(
        [
            reference.resized_crop(x[i], *box, [10, 10], interpolation=reference.InterpolationMode.BICUBIC)
            for i, box in enumerate(boxes.tolist())
        ]
    ).clamp(0, 1)
    check_all_ways(images, view, expected, tolerance=5e-6)
    out = np.empty((4, 10, 10, channels), images.numpy().dtype)
    float_boxes, flip = boxes.astype(np.float64), np.zeros(4, bool)
    spare = np.empty(crops_memory_length(float_boxes, out), np.float32)
    sides, offsets = np.full(4, 16), np.arange(4) * 256 * channels
    memory = images.numpy().reshape(-1)
    memory.flags.writeable = False
    cut_crops(memory, offsets, sides, sides, float_boxes, True, flip, spare, out)
    largest = np.iinfo(out.dtype).max
    error = np.abs(out.astype(np.float64) - largest * expected.permute(0, 2, 3, 1).numpy())
    assert error.max() <= 0.5 + largest * 5e-6


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("cut", [True, False])
def test_uint16_images_of_the_same_content_give_the_same_views(channels, cut):
    images = make_images(channels)
    wide = torch.from_numpy(images.numpy().astype(np.uint16) * 257)
    global_crops, local_crops = dino(16, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    settings = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
    views = ViewSet(global_crops=global_crops, local_crops=local_crops, **settings)
    sizes = [view.size for view in (*global_crops, *local_crops)]
    for dtype in (torch.float32, torch.float64):
        results = [
            make_views(
                [source[:, :size, :size].contiguous() for size in sizes] if cut else source,
                views,
                seed=0,
                epoch=0,
                index=np.arange(4),
                dtype=dtype,
            )
            for source in (images, wide)
        ]
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=3e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_kernels_operations_and_the_fused_form_agree(channels, dtype):
    images = make_images(channels, dtype)
    settings = {"mean": tuple(np.linspace(0.3, 0.6, channels)), "std": tuple(np.linspace(0.1, 0.3, channels))}
    views, index = ViewSet(global_crops=byol(12), **settings), np.arange(4)
    options = {"seed": 5, "epoch": 1, "index": index}
    kernels = make_views(images, views, **options)
    separate = make_views(images, views, **options, dtype=torch.float64)
    fused = make_views(images, views, **options, dtype=torch.float64, fused_views=make_views_fused)
    for a, b, c in zip(kernels, separate, fused, strict=True):
        assert a.shape == (4, channels, 12, 12)
        assert a.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a.double(), b, rtol=0, atol=5e-5)
        assert torch.equal(b, c)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_preprocessing_equals_torchvisions(channels, dtype):
    images = make_images(channels, dtype)
    pixel_format = PixelFormat(channels=channels)
    normalisation = {"mean": (0.4,) * channels, "std": (0.3,) * channels}
    preprocessing = Preprocessing(resize=12, size=10, pixel_format=pixel_format, **normalisation)
    got = preprocess(images, preprocessing)
    x = reference.resize(plain(images), [12], interpolation=reference.InterpolationMode.BICUBIC).clamp(0, 1)
    want = (reference.center_crop(x, [10, 10]) - 0.4) / 0.3
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


def test_factors_of_channels_are_independent_and_uniform():
    view, count, channels = View(size=8, brightness=0.4, contrast=1.5), 20_000, 4
    random = draw_uniform(0, 0, np.arange(count), 0, needed_columns(channels))
    choices = choose_colours([random], [view], channels)
    assert choices.factors.shape == (count, 2, channels)
    for part, (low, high) in enumerate(((0.6, 1.4), (0.0, 2.5))):  # factors stay positive
        factors = choices.factors[:, part]
        quantiles = np.quantile(factors, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
        assert np.abs(quantiles - np.linspace(low, high, 5)[:, None]).max() < 0.02 * (high - low)
    rows = choices.factors.reshape(count, -1).T
    assert np.abs(np.corrcoef(rows) - np.eye(2 * channels)).max() < 0.035
    first = choices.jitter[:, 0].argmax(1)[choices.jitter.any((1, 2))]
    assert abs(first.mean() - 0.5) < 0.02  # brightness and contrast come in either order


def test_further_random_numbers_leave_the_first_ones_alone():
    index = np.arange(50)
    few, many = draw_uniform(1, 2, index, 3), draw_uniform(1, 2, index, 3, needed_columns(13))
    assert needed_columns(3) == few.shape[1]
    assert np.array_equal(few, many[:, : few.shape[1]])


def test_operations_that_need_colours_are_named():
    of_one_channel = {"mean": (0.5,), "std": (0.2,)}
    assert colour_operations_switched_off(ViewSet(global_crops=byol(32))) == ()
    assert colour_operations_switched_off(ViewSet(global_crops=byol(32), **of_one_channel)) == (
        "saturation",
        "hue",
        "grayscale",
    )
    gray_only = replace(byol(32)[0], jitter=0.0)
    assert colour_operations_switched_off(ViewSet(global_crops=(gray_only,), **of_one_channel)) == ("grayscale",)
    gray = PixelFormat(channels=1)
    plain_crops = supervised_crops(Preprocessing(resize=32, size=32, pixel_format=gray, **of_one_channel))
    assert colour_operations_switched_off(plain_crops) == ()


def test_wrong_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="mean and std must have a number for each channel, but have 2 and 3"):
        ViewSet(global_crops=byol(32), mean=(0.5, 0.5))
    with pytest.raises(ValueError, match="mean and std must have a number for each channel, but have 3 and 2"):
        Preprocessing(resize=32, size=32, std=(0.5, 0.5))
    with pytest.raises(ValueError, match="images of 4 channels cannot be normalised by mean and std of 3"):
        make_views(make_images(4), ViewSet(global_crops=byol(8)), seed=0, epoch=0, index=np.arange(4))
    with pytest.raises(ValueError, match="a number for each of 4 channels, but has 3"):
        Preprocessing(resize=32, size=32, pixel_format=PixelFormat(channels=4))
    with pytest.raises(ValueError, match="images of 4 channels"):
        preprocess(make_images(4), Preprocessing(resize=8, size=8))


def test_crops_of_uint16_keep_their_bits():
    images = make_images(2, torch.uint16)
    whole = np.tile([0, 0, 16, 16], (4, 1))
    assert torch.equal(crop(to_float(images), whole, 16, bicubic=True), to_float(images))
