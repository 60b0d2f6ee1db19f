"""Views: they equal torchvision's and PIL's for equal parameters, and are distributed as their settings say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from infomax.data.augmentation import draws
from infomax.data.augmentation.draws import choose_colours, crop_boxes, draw_uniform
from infomax.data.augmentation.make_views import crop, distort, make_views, preprocess
from infomax.data.augmentation.operations import make_views_fused, to_float
from infomax.data.augmentation.views import VIEW_SETS, Preprocessing, View, ViewSet, byol, dino, mira_cifar, simclr

PLAIN = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0}


@pytest.fixture
def images() -> torch.Tensor:
    """Returns twelve smooth colour images of 40 x 30 pixels, as bytes."""
    generator = torch.Generator().manual_seed(3)
    small = torch.rand(12, 3, 8, 6, generator=generator)
    large = torch.nn.functional.interpolate(small, (40, 30), mode="bicubic").clamp(0, 1)
    return (large * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def random_numbers(columns: dict[int, float], b: int = 12) -> np.ndarray:
    """Returns random numbers with given values in some columns; all others are 0.999, so that nothing is done."""
    random = np.full((b, draws.COLUMNS), 0.999)
    for column, value in columns.items():
        random[:, column] = value
    return random


def distort_colours(images: torch.Tensor, random: np.ndarray, view: View) -> torch.Tensor:
    return distort(images, choose_colours([random], [view]))


@pytest.mark.parametrize("bicubic", [True, False])
@pytest.mark.parametrize("size", [12, 64])  # smaller than the crops, so antialiasing shows, and larger
def test_crop_equals_torchvisions_antialiased_resize(images, bicubic, size):
    boxes = crop_boxes(draw_uniform(0, 0, np.arange(12), 0), 40, 30, View(size=size))
    ours = crop(to_float(images), boxes, size, bicubic=bicubic)
    mode = v2.InterpolationMode.BICUBIC if bicubic else v2.InterpolationMode.BILINEAR
    for image, box, got in zip(to_float(images), boxes, ours, strict=True):
        want = reference.resized_crop(image, *box.tolist(), [size, size], interpolation=mode, antialias=True)
        torch.testing.assert_close(got, want.clamp(0, 1), rtol=0, atol=5e-6)  # float32 sums in another order


def test_crop_equals_pils_up_to_its_rounding_to_bytes(images):
    boxes = crop_boxes(draw_uniform(0, 0, np.arange(12), 0), 40, 30, View(size=16))
    ours = crop(to_float(images), boxes, 16, bicubic=True)
    for image, (top, left, height, width), got in zip(images, boxes, ours, strict=True):
        cut = Image.fromarray(image.numpy()).crop((left, top, left + width, top + height))
        pil = cut.resize((16, 16), Image.Resampling.BICUBIC)
        assert (got.permute(1, 2, 0) * 255 - torch.from_numpy(np.array(pil)).float()).abs().max() < 1.6


def test_flip_mirrors_the_chosen_images_alone(images):
    boxes = np.tile([5, 0, 20, 11], (12, 1))  # off the centre, so that mirroring the image is not mirroring the crop
    flip = np.arange(12) % 2 == 0
    plain = crop(to_float(images), boxes, 20, bicubic=False)
    mixed = crop(to_float(images), boxes, 20, bicubic=False, flip=flip)
    torch.testing.assert_close(mixed[0::2], plain[0::2].flip(3))
    torch.testing.assert_close(mixed[1::2], plain[1::2])


@pytest.mark.parametrize(
    ("column", "strength", "expected"),
    [
        (0, "brightness", lambda x, f: reference.adjust_brightness(x, 1 + f)),
        (1, "contrast", lambda x, f: reference.adjust_contrast(x, 1 + f)),
        (2, "saturation", lambda x, f: reference.adjust_saturation(x, 1 + f)),
        (3, "hue", lambda x, f: reference.adjust_hue(x, f)),
    ],
)
def test_each_part_of_the_jitter_equals_torchvisions(images, column, strength, expected):
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    view = View(size=8, **{**PLAIN, "jitter": 1.0, **off, strength: 0.4})
    random = random_numbers({})
    random[:, draws.FACTORS][:, column] = shares = np.linspace(0.01, 0.99, 12)
    x = to_float(images)
    got = distort_colours(x.clone(), random, view)
    for image, share, result in zip(x, shares, got, strict=True):
        torch.testing.assert_close(result, expected(image, 0.4 * (2 * share - 1)), rtol=0, atol=2e-6)


def test_strong_jitter_draws_no_negative_factors(images):
    view = View(size=8, **{**PLAIN, "jitter": 1.0}, brightness=1.5, contrast=0.0, saturation=0.0, hue=0.0)
    random = random_numbers({})
    random[:, draws.FACTORS] = np.linspace(0, 1, 12)[:, None]
    x = to_float(images)
    got = distort_colours(x.clone(), random, view)
    for image, share, result in zip(x, np.linspace(0, 1, 12), got, strict=True):
        torch.testing.assert_close(result, (image * 2.5 * share).clamp(0, 1), rtol=0, atol=2e-6)


def test_jitter_follows_the_drawn_order(images):
    view = View(size=8, **{**PLAIN, "jitter": 1.0}, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    random = draw_uniform(1, 0, np.arange(12), 0)
    x = to_float(images)
    got = distort_colours(x.clone(), random, replace(view, grayscale=0.0))
    parts = [
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    ]
    orders = set()
    for i, image in enumerate(x):
        order = random[i, draws.ORDER].argsort()
        orders.add(tuple(order))
        for part in order:
            offset = (0.8, 0.8, 0.8, 0.2)[part] * (2 * random[i, draws.FACTORS][part] - 1)
            image = parts[part](image, offset if part == 3 else 1 + offset)
        torch.testing.assert_close(got[i], image, rtol=0, atol=5e-6)
    assert len(orders) > 6


def test_grayscale_and_solarisation_equal_torchvisions(images):
    x = to_float(images)
    gray = distort_colours(
        x.clone(), random_numbers({draws.GRAYSCALE: 0.0}), View(size=8, **{**PLAIN, "grayscale": 0.5})
    )
    torch.testing.assert_close(gray, reference.rgb_to_grayscale(x, 3), rtol=0, atol=2e-6)
    solarized = distort_colours(x.clone(), random_numbers({draws.SOLARIZE: 0.0}), View(size=8, **PLAIN, solarize=0.5))
    assert torch.equal((solarized * 255).round(), reference.solarize((x * 255).round().byte(), 128).float())


def test_blur_equals_a_direct_gaussian_with_repeated_edges(images):
    x = to_float(images)[:, :, :30]
    view = View(size=8, **PLAIN, blur=1.0, blur_sigma=(0.1, 2.0))
    random = random_numbers({draws.BLUR: 0.0})
    random[:, draws.SIGMA] = shares = np.linspace(0, 1, 12)
    got = distort_colours(x.clone(), random, view)
    for image, share, result in zip(x, shares, got, strict=True):
        sigma = 0.1 + 1.9 * share
        offsets = torch.arange(-16, 17).double()
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel /= kernel.sum()
        padded = torch.nn.functional.pad(image[None].double(), (16,) * 4, mode="replicate")[0]
        rows = torch.nn.functional.conv2d(padded[:, None], kernel.view(1, 1, -1, 1))
        want = torch.nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]
        torch.testing.assert_close(
            result.double(), want, rtol=0, atol=6e-5
        )  # the blur is cut off at four standard deviations


def test_blur_is_close_to_pils(images):
    """PIL approximates a Gaussian by three box filters, and rounds to bytes."""
    image = Image.fromarray(images[0].numpy())
    pil = torch.from_numpy(np.array(image.filter(ImageFilter.GaussianBlur(1.5)))).float()
    random = random_numbers({draws.BLUR: 0.0, draws.SIGMA: 0.5}, 1)
    view = View(size=8, **PLAIN, blur=1.0, blur_sigma=(1.5, 1.5))
    square = to_float(images[:1])
    ours = distort_colours(torch.nn.functional.pad(square, (0, 10, 0, 0), mode="replicate"), random, view)[..., :30]
    assert (ours[0].permute(1, 2, 0) * 255 - pil)[:, :24].abs().max() < 4


def test_boxes_are_distributed_as_torchvisions():
    view = View(size=32, scale=(0.08, 1.0))
    ours = crop_boxes(draw_uniform(0, 0, np.arange(4000), 0), 375, 500, view)
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(32, scale=view.scale, ratio=view.ratio)
    sample = [transform.make_params([torch.empty(3, 375, 500)]) for _ in range(4000)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in sample])
    for column in range(4):
        gap = np.quantile(ours[:, column], np.linspace(0.05, 0.95, 19)) - np.quantile(
            theirs[:, column], np.linspace(0.05, 0.95, 19)
        )
        assert np.abs(gap).max() < 22  # pixels; two samples of torchvision differ by up to 15


@pytest.mark.parametrize(("height", "width"), [(4, 400), (400, 4), (1, 1)])
def test_boxes_stay_inside_images_that_no_ratio_fits(height, width):
    boxes = crop_boxes(draw_uniform(0, 0, np.arange(200), 0), height, width, View(size=32, scale=(0.9, 1.0)))
    top, left, h, w = boxes.T
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


def test_random_numbers_are_uniform_and_independent():
    numbers = draw_uniform(7, 3, np.arange(20_000), 1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.01
    assert np.abs(numbers.var(0) - 1 / 12).max() < 0.003
    correlation = np.corrcoef(numbers.T) - np.eye(draws.COLUMNS)
    assert np.abs(correlation).max() < 0.035
    for other in (
        draw_uniform(8, 3, np.arange(20_000), 1),
        draw_uniform(7, 4, np.arange(20_000), 1),
        draw_uniform(7, 3, np.arange(20_000), 2),
    ):
        assert abs(np.corrcoef(numbers[:, 0], other[:, 0])[0, 1]) < 0.03
    neighbours = np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]
    assert abs(neighbours) < 0.03


def test_a_view_depends_on_its_image_and_epoch_not_on_its_batch(images):
    views = ViewSet(global_crops=byol(16))
    index = np.array([40, 7, 99, 3])
    together = make_views(images[:4], views, seed=5, epoch=2, index=index)
    alone = make_views(images[2:3], views, seed=5, epoch=2, index=index[2:3])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=0, atol=1e-6)
    later = make_views(images[:4], views, seed=5, epoch=3, index=index)
    assert not torch.allclose(together[0], later[0])
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", ["jitter", "grayscale", "blur", "solarize", "flip"])
def test_frequencies_are_those_of_the_settings(name):
    """The images are a ramp of colours, which each operation changes."""
    view = View(size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0), **{**PLAIN, name: 0.3})
    ramp = torch.linspace(0, 250, 16).byte().view(1, 1, 16, 1).expand(1500, 16, 16, 3).clone()
    ramp[..., 1] //= 2
    plain = make_views(
        ramp[:1], ViewSet(global_crops=(replace(view, **{name: 0.0}),) * 2), seed=0, epoch=0, index=np.arange(1)
    )
    results = make_views(ramp, ViewSet(global_crops=(view, view)), seed=0, epoch=0, index=np.arange(1500))
    for x in results:
        changed = ((x - plain[0]).abs().amax((1, 2, 3)) > 1e-3).float().mean()
        assert abs(changed - 0.3) < 0.04


@pytest.mark.parametrize("name", VIEW_SETS)
@pytest.mark.parametrize("cut", [True, False])
def test_the_cpus_kernels_give_the_views_of_the_gpus_operations(images, name, cut):
    """The kernels work on one image after another; float64 makes the operations work on the whole batch."""
    global_crops, local_crops = VIEW_SETS[name](40)
    views, index = ViewSet(global_crops=global_crops, local_crops=local_crops), np.arange(100, 112)
    source = images
    if cut:  # crops, as workers hand them over
        sizes = [view.size for view in (*global_crops, *local_crops)]
        source = [images[:, :size, :size].repeat(1, 2, 2, 1)[:, :size, :size] for size in sizes]
    for a, b in zip(
        make_views(source, views, seed=3, epoch=1, index=index),
        make_views(source, views, seed=3, epoch=1, index=index, dtype=torch.float64),
        strict=True,
    ):
        assert a.shape == b.shape
        difference = (a - b).abs()
        assert (difference < 5e-5).float().mean() > 0.9995  # the rest solarise on the other side of the threshold
        assert difference.median() < 2e-6


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("name", VIEW_SETS)
def test_fused_views_equal_those_of_one_operation_after_another(images, name, cut):
    """The function that is compiled for a GPU gives the same bits, without a compiler, as the separate operations."""
    global_crops, local_crops = VIEW_SETS[name](24)
    views = ViewSet(global_crops=global_crops, local_crops=local_crops, mean=(0.4, 0.5, 0.6))
    all_views = (*global_crops, *local_crops)
    source = [images[:, : view.size, : view.size] for view in all_views] if cut else images
    for epoch in range(3):
        options = {"seed": 3, "epoch": epoch, "index": np.arange(100, 112), "dtype": torch.float64}
        separate = make_views(source, views, **options)
        fused = make_views(source, views, **options, fused_views=make_views_fused)
        assert len(fused) == len(all_views)
        assert all(map(torch.equal, separate, fused))
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in fused)


def test_threads_change_nothing(images):
    many = images.repeat(40, 1, 1, 1)
    views, index = ViewSet(global_crops=byol(24)), np.arange(len(many))
    by_one_thread = make_views(many, views, seed=0, epoch=0, index=index)
    torch.set_num_threads(3)
    by_three_threads = make_views(many, views, seed=0, epoch=0, index=index)
    assert all(map(torch.equal, by_one_thread, by_three_threads))


def test_views_are_channels_last_in_the_precision_asked_for(images):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for x in make_views(images, ViewSet(global_crops=byol(16)), seed=0, epoch=0, index=np.arange(12), dtype=dtype):
            assert x.dtype == dtype
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_papers_sets():
    first, second = byol(224)
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert (first.scale, first.brightness, first.contrast, first.saturation, first.hue) == (
        (0.08, 1),
        0.4,
        0.4,
        0.2,
        0.1,
    )
    a, b = mira_cifar(32)
    assert (a.blur, a.solarize, b.blur, b.solarize, a.scale, a.bicubic) == (0, 0, 0, 0.2, (0.2, 1), False)
    assert (simclr(32)[0].brightness, simclr(32)[0].hue, simclr(32)[0].blur) == (0.4, 0.1, 0)
    assert (simclr(96)[0].brightness, simclr(96)[0].hue, simclr(96)[0].blur) == (0.8, 0.2, 0.5)
    global_crops, local_crops = dino(224, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    assert len(local_crops) == 6
    assert (local_crops[0].size, local_crops[0].scale, local_crops[0].blur, local_crops[0].solarize) == (
        96,
        (0.05, 0.14),
        0.5,
        0,
    )
    assert global_crops[0].scale == (0.14, 1.0)


def test_multi_crop_makes_views_of_both_sizes(images):
    global_crops, local_crops = dino(28, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    views = ViewSet(global_crops=global_crops, local_crops=local_crops)
    results = make_views(images, views, seed=0, epoch=0, index=np.arange(12))
    assert [tuple(x.shape) for x in results] == [(12, 3, 28, 28)] * 2 + [(12, 3, 12, 12)] * 6


def test_preprocessing_equals_torchvisions(images):
    preprocessing = Preprocessing(resize=24, size=20)
    got = preprocess(images, preprocessing)
    x = reference.resize(to_float(images), [24], interpolation=v2.InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    x = reference.center_crop(x, [20, 20])
    want = reference.normalize(x, list(preprocessing.mean), list(preprocessing.std))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "name"), [({"size": 0}, "size"), ({"blur": 1.5}, "blur"), ({"scale": (0.5, 0.1)}, "scale")]
)
def test_impossible_views_are_refused(settings, name):
    with pytest.raises(ValueError, match=name):
        View(**{"size": 32, **settings})
