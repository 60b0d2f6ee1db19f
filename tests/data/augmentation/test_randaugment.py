"""RandAugment: each operation against Pillow, its draws against timm's, and its views on all paths and in batches."""

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from infomax.data.augmentation.draw_columns import RANDAUGMENT
from infomax.data.augmentation.draws import draw_uniform, needed_columns
from infomax.data.augmentation.make_views import make_views, randaugment
from infomax.data.augmentation.operations import make_views_fused
from infomax.data.augmentation.randaugment_draws import (
    NOTHING,
    OPERATIONS,
    RandAugmentChoices,
    choose_randaugment,
)
from infomax.data.augmentation.views import View, ViewSet, byol, colour_operations_switched_off, infomin

FILL = (0.485, 0.456, 0.406)
FILL_BYTES = (124, 116, 104)
WAYS = {
    "kernels": {},
    "operations": {"dtype": torch.float64},
    "fused": {"dtype": torch.float64, "fused_views": make_views_fused},
}
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def pictures(size: int = 33) -> np.ndarray:
    """Returns bytes [6, size, size, 3]: noise, dark noise, a ramp, one colour, two values, and a smooth picture."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (size, size, 3), np.uint8)
    dark = rng.integers(40, 90, (size, size, 3), np.uint8)
    x, y = np.meshgrid(np.linspace(0, 255, size), np.linspace(0, 255, size))
    ramp = np.stack([x, y, (x + y) / 2], 2).astype(np.uint8)
    flat = np.full((size, size, 3), (10, 200, 77), np.uint8)
    two = np.where(noise > 250, 255, 0).astype(np.uint8)
    smooth = (127 + 120 * np.sin(np.stack([x / 40, y / 30, (x - y) / 50], 2))).astype(np.uint8)
    return np.stack([noise, dark, ramp, flat, two, smooth])


def by_pillow(image: np.ndarray, name: str, argument: float, bicubic: bool) -> np.ndarray:
    """Returns what Pillow makes of an image."""
    picture, size = Image.fromarray(image), len(image)
    resample = {"resample": BICUBIC if bicubic else BILINEAR, "fillcolor": FILL_BYTES}

    def affine(*matrix: float) -> Image.Image:
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **resample)

    results = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "rotate": lambda: picture.rotate(argument, **resample),
        # Pillow refuses to keep 0 bits by now; it once gave black, as the definition does.
        "posterize": lambda: ImageOps.posterize(picture, int(argument)) if argument else np.zeros_like(image),
        "solarize": lambda: ImageOps.solarize(picture, int(argument)),
        "solarize_add": lambda: picture.point([min(255, i + int(argument)) if i < 128 else i for i in range(256)] * 3),
        "colour": lambda: ImageEnhance.Color(picture).enhance(argument),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(argument),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(argument),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(argument),
        "shear_x": lambda: affine(1, argument, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, argument, 1, 0),
        "translate_x": lambda: affine(1, 0, argument * size, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, argument * size),
    }
    return np.array(results[name]())


def augment(images: np.ndarray, names: list[str], arguments: list[float], bicubic: bool, dtype) -> np.ndarray:
    """Returns bytes: images with some operations, one after another, by infomax."""
    count = len(images)
    choices = RandAugmentChoices(
        np.tile([OPERATIONS.index(name) for name in names], (count, 1)),
        np.tile(arguments, (count, 1)).astype(float),
        np.full((count, len(names)), bicubic),
    )
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype) / 255
    result = randaugment(x, choices, FILL) * 255
    assert (result - result.round()).abs().max() < 1e-4
    return result.round().permute(0, 2, 3, 1).numpy().astype(int)


ARGUMENTS = {
    "rotate": (-30.0, 17.3, 30.0),
    "posterize": (0, 1, 3, 4),
    "solarize": (0, 100, 243, 256),
    "solarize_add": (0, 57, 110),
    **dict.fromkeys(("colour", "contrast", "brightness", "sharpness"), (0.1, 0.64, 1.0, 1.31, 1.9)),
    **dict.fromkeys(("shear_x", "shear_y"), (-0.3, 0.127, 0.3)),
    **dict.fromkeys(("translate_x", "translate_y"), (-0.45, 0.2137, 0.45)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, dtype):
    """Up to one level, in under 0.5 % of the values: Pillow cuts whole numbers that a rounding error made smaller."""
    images, changed = pictures(), False
    for argument in ARGUMENTS.get(name, (0.0,)):
        for bicubic in (
            (False, True) if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y") else (0,)
        ):
            expected = np.stack([by_pillow(image, name, argument, bool(bicubic)) for image in images]).astype(int)
            difference = np.abs(augment(images, [name], [argument], bool(bicubic), dtype) - expected)
            assert difference.max() <= 1
            assert (difference > 0).mean() < 5e-3
            changed |= bool((expected != images).mean() > 0.2)
    assert changed


def test_the_operations_of_one_view_follow_each_other_and_pass_over_nothing():
    images = pictures()
    choices = RandAugmentChoices(
        np.array([[2, 4], [4, 2], [NOTHING, 2], [2, NOTHING], [NOTHING, NOTHING], [0, 7]]),
        np.array([[0, 3.0], [3.0, 0], [0, 0], [0, 0], [0, 0], [0, 1.4]]),
        np.zeros((6, 2), bool),
    )
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    result = (randaugment(x, choices, FILL) * 255).round().permute(0, 2, 3, 1).numpy()
    inverted = 255 - images.astype(int)
    stretched = by_pillow(images[5], "autocontrast", 0, False)
    expected = [inverted[0] & 0xE0, 255 - (images[1] & 0xE0), inverted[2], inverted[3], images[4]]
    expected.append(by_pillow(stretched, "colour", 1.4, False))
    for got, want in zip(result, expected, strict=True):
        assert np.abs(got - want).max() <= 1
        assert (got != want).mean() < 0.01


def test_a_whole_number_stays_whole_whatever_the_rounding_error():
    """A ramp of 5 levels a pixel is moved by 6.6 pixels, which is 33 levels; in float64 it is less at some pixels."""
    x = np.arange(33)
    ramp = np.broadcast_to((5 * x)[None, None, :, None], (1, 33, 33, 3)).astype(np.uint8)
    for dtype in (torch.float32, torch.float64):
        moved = augment(ramp, ["translate_x"], [-0.2], False, dtype)
        assert (moved[0, :, 7:] == (5 * x - 33)[7:, None]).all()


def draws(view: View, count: int) -> RandAugmentChoices:
    choices = choose_randaugment([draw_uniform(0, 0, np.arange(count), 0, needed_columns(3, [view]))], [view])
    assert choices is not None
    return choices


def test_operations_probabilities_and_magnitudes_have_the_frequencies_of_the_settings():
    view = View(size=8, randaugment=3, randaugment_magnitude=7, randaugment_std=1.0, randaugment_probability=0.4)
    choices = draws(view, 10_000)
    done = choices.operation != NOTHING
    assert np.abs(done.mean(0) - 0.4).max() < 0.02
    shares = np.bincount(choices.operation[done], minlength=15) / done.sum()
    assert np.abs(shares - 1 / 15).max() < 0.01
    assert abs(choices.bicubic.mean() - 0.5) < 0.01
    angles = choices.argument[choices.operation == OPERATIONS.index("rotate")] / 3
    assert abs((angles > 0).mean() - 0.5) < 0.06
    quantiles = np.quantile(np.abs(angles), [0.1587, 0.5, 0.8413])
    assert np.abs(quantiles - [6, 7, 8]).max() < 0.2
    assert np.abs(angles).max() <= 10
    # The operations of a view are independent of each other.
    rows = np.stack([*choices.operation.T, *done.T, *choices.bicubic.T, *choices.argument.T]).astype(float)
    correlation = np.abs(np.corrcoef(rows))
    for i in range(12):
        for j in range(i):
            assert i % 3 == j % 3 or correlation[i, j] < 0.05


def timms_module():
    """Returns timm's module of RandAugment, which is opened alone: timm as a whole takes seconds."""
    timm = importlib.util.find_spec("timm")
    if timm is None or timm.origin is None:
        pytest.skip("timm is not installed")
    path = Path(timm.origin).parent / "data" / "auto_augment.py"
    spec = importlib.util.spec_from_file_location("timms_auto_augment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("increasing", [False, True])
def test_operations_and_arguments_are_distributed_as_timms(increasing, monkeypatch):
    """timm's transforms run, with what they would do to an image written down instead."""
    auto_augment = timms_module()
    names = {
        "AutoContrast": "autocontrast",
        "Equalize": "equalize",
        "Invert": "invert",
        "Rotate": "rotate",
        "Posterize": "posterize",
        "Solarize": "solarize",
        "SolarizeAdd": "solarize_add",
        "Color": "colour",
        "Contrast": "contrast",
        "Brightness": "brightness",
        "Sharpness": "sharpness",
        "ShearX": "shear_x",
        "ShearY": "shear_y",
        "TranslateXRel": "translate_x",
        "TranslateYRel": "translate_y",
    }
    transform = auto_augment.rand_augment_transform(f"rand-m9-n2-mstd0.5-inc{int(increasing)}", {})
    calls: list[tuple[str, float]] = []
    interpolations: Counter[bool] = Counter()
    for operation in transform.ops:
        name = names[operation.name.removesuffix("Increasing")]

        def record(image, *arguments, name=name, resample, **_):
            calls.append((name, float(arguments[0]) if arguments else 0.0))
            interpolations.update(x == BICUBIC for x in resample)
            return image

        monkeypatch.setattr(operation, "aug_fn", record)
    np.random.seed(0)
    auto_augment.random.seed(0)
    count = 6_000
    for _ in range(count):
        transform(None)
    ours = draws(View(size=8, randaugment=2, randaugment_magnitude=9, randaugment_increasing=increasing), count)
    assert interpolations[True] == interpolations[False]
    assert set(names.values()) == set(OPERATIONS)
    for number, name in enumerate(OPERATIONS):
        theirs = np.array([argument for called, argument in calls if called == name])
        mine = ours.argument[ours.operation == number]
        assert abs(len(mine) - len(theirs)) < 5 * (2 * count * 2 / 30) ** 0.5
        points = np.unique(np.round(theirs, 6))
        if len(points) < 30:  # a few whole numbers
            shares = [[np.mean(np.round(x, 6) == point) for point in points] for x in (mine, theirs)]
            assert np.abs(np.subtract(*shares)).max() < 0.09, name
            assert np.sum(shares[0]) > 0.98, name
        else:  # the test of Kolmogorov and Smirnov, at 1 in 10,000
            both = np.sort(np.concatenate([mine, theirs]))
            below = [np.searchsorted(np.sort(x), both, "right") / len(x) for x in (mine, theirs)]
            assert np.abs(np.subtract(*below)).max() < 2.23 * (1 / len(mine) + 1 / len(theirs)) ** 0.5, name


def views_with(count: int = 2, **changes) -> ViewSet:
    return ViewSet(global_crops=tuple(replace(view, **changes) for view in infomin(24) * (count // 2)))


def photographs(count: int = 24, dtype=np.uint8) -> torch.Tensor:
    """Returns smooth images [b, 30, 34, 3], each of other colours."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:30, :34][:, None, :, :, None] / 9
    phase, speed = rng.uniform(0, 6, (count, 1, 1, 3)), rng.uniform(0.3, 1.5, (count, 1, 1, 3))
    values = 0.5 + 0.4 * np.sin(speed * x[0] + phase) * np.cos(speed * y[0]) + rng.normal(0, 0.03, (count, 30, 34, 3))
    return torch.from_numpy((values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("cut", [False, True])
def test_all_ways_make_the_same_views(cut, dtype):
    """A pixel that is rounded to the other of two levels may be inverted or not, or become a part of its value."""
    images = photographs(dtype=dtype)
    source = [images[:, :24, :24], images[:, -24:, -24:]] if cut else images
    kernels, separate, fused = (
        make_views(source, views_with(), seed=1, epoch=2, index=np.arange(len(images)), **way) for way in WAYS.values()
    )
    for a, b, c in zip(kernels, separate, fused, strict=True):
        assert a.is_contiguous(memory_format=torch.channels_last)
        assert c.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(b, c)
        difference = (a - b).abs()
        assert (difference > 1e-5).double().mean() < 5e-4
        assert difference.median() < 1e-6


def test_without_other_operations_all_ways_make_the_same_bytes():
    """Crops are bytes, which every way turns into the same whole numbers: no rounding is left to differ."""
    images = photographs()[:, :24, :24]
    views = views_with(jitter=0.0, blur=0.0, grayscale=0.0, randaugment=4, randaugment_probability=1.0)
    mean, std = np.array(views.mean), np.array(views.std)
    by_way = [
        make_views([images, images], views, seed=1, epoch=2, index=np.arange(len(images)), **way)
        for way in (*WAYS.values(), {"dtype": torch.float32})
    ]
    first, *others = [[x.permute(0, 2, 3, 1).double().numpy() * std + mean for x in views] for views in by_way]
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert np.abs(255 * a - np.round(255 * a)).max() < 1e-3
            assert np.array_equal(np.round(255 * a), np.round(255 * b))


def test_views_of_fewer_operations_end_with_nothing():
    views = [View(size=8, randaugment=count, randaugment_probability=1.0) for count in (1, 0, 3)]
    choices = choose_randaugment(
        [draw_uniform(0, 0, np.arange(9), i, needed_columns(3, views)) for i in range(3)], views
    )
    assert choices is not None
    assert ((choices.operation != NOTHING).reshape(3, 9, 3) == [[[1, 0, 0]], [[0, 0, 0]], [[1, 1, 1]]]).all()


def test_what_comes_before_and_after_is_done_once():
    """If none of its operations is done, a view is that of the other settings, rounded to 256 levels."""
    images = photographs(24)
    on = {"jitter": 0.7, "blur": 0.5, "grayscale": 0.5, "size": 24, "bicubic": False}
    plain = ViewSet(global_crops=(View(**on), View(**on)), std=(1.0, 1.0, 1.0))
    views = [replace(view, randaugment=2, randaugment_probability=0.0) for view in plain.global_crops]
    for way in WAYS.values():
        options = {"seed": 3, "epoch": 2, "index": np.arange(24), **way}
        for a, b in zip(
            make_views(images, replace(plain, global_crops=tuple(views)), **options),
            make_views(images, plain, **options),
            strict=True,
        ):
            difference = 255 * (a - b).abs()
            assert difference.max() < 0.51
            assert difference.mean() > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_a_view_does_not_depend_on_its_batch(way):
    images, index = photographs(8), np.array([40, 7, 99, 3, 8, 1, 1000, 5])
    together = make_views(images, views_with(), seed=5, epoch=2, index=index, **WAYS[way])
    for rows in ([2], [5, 0, 7]):
        alone = make_views(images[rows], views_with(), seed=5, epoch=2, index=index[rows], **WAYS[way])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[rows], b, rtol=0, atol=1e-6)
    later = make_views(images, views_with(), seed=5, epoch=3, index=index, **WAYS[way])
    assert not torch.allclose(together[0], later[0])
    assert not torch.allclose(together[0], together[1])


def test_grayscale_comes_after_it_and_solarisation_after_grayscale():
    """Inverted colours become gray; gray that was inverted before would have another luma than the colours have."""
    images = photographs(40)[:, :24, :24]
    changes = {"jitter": 0.0, "blur": 0.0, "randaugment": 1, "randaugment_probability": 1.0, "grayscale": 1.0}
    views = views_with(**changes, solarize=1.0)
    random = draw_uniform(3, 0, np.arange(40), 0, needed_columns(3, views.global_crops))
    choices = choose_randaugment([random], views.global_crops[:1])
    assert choices is not None
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (views.mean, views.std))
    x = torch.from_numpy(images.numpy()).permute(0, 3, 1, 2) / 255
    expected = randaugment(x, choices, views.mean)
    expected = (expected * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    expected = torch.where(expected >= 128 / 255, 1 - expected, expected)
    for way in WAYS.values():
        got = make_views([images, images], views, seed=3, epoch=0, index=np.arange(40), **way)[0] * std + mean
        difference = (got - expected).abs()
        assert (difference > 1e-5).double().mean() < 5e-4


def test_views_without_it_keep_their_bits_beside_views_with_it():
    images, index, plain = photographs(6), np.arange(6), View(size=24)
    assert needed_columns(3, byol(24)) < RANDAUGMENT
    assert needed_columns(3, [replace(plain, drop_channels=0.5)]) == RANDAUGMENT  # no number decides two things
    for way in WAYS.values():
        alone = make_views(images, ViewSet(global_crops=(plain, plain)), seed=3, epoch=2, index=index, **way)
        mixed = ViewSet(global_crops=(plain, replace(plain, randaugment=2, randaugment_probability=1.0)))
        mixed = make_views(images, mixed, seed=3, epoch=2, index=index, **way)
        assert torch.equal(alone[0], mixed[0])
        assert not torch.allclose(alone[1], mixed[1])


def test_it_stands_beside_noise_dropped_channels_and_turns():
    images, on = photographs(12), {"noise": 0.5, "drop_channels": 0.3, "rotate90": 0.7}
    kernels, separate, fused = (
        make_views(images, views_with(**on), seed=1, epoch=2, index=np.arange(12), **way) for way in WAYS.values()
    )
    plain = make_views(images, views_with(), seed=1, epoch=2, index=np.arange(12))
    assert torch.equal(separate[0], fused[0])
    assert ((kernels[0] - separate[0]).abs() > 5e-5).double().mean() < 5e-4
    assert not torch.allclose(plain[0], kernels[0])


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_left_alone_and_it_is_named(channels):
    mean = {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    images = torch.randint(0, 256, (4, 24, 24, channels), dtype=torch.uint8)
    views = [
        ViewSet(global_crops=infomin(24), **mean),
        ViewSet(global_crops=views_with(randaugment=0).global_crops, **mean),
    ]
    for way in WAYS.values():
        results = [make_views(images, x, seed=0, epoch=0, index=np.arange(4), **way) for x in views]
        assert all(map(torch.equal, *results))
    assert colour_operations_switched_off(views[0]) == ("saturation", "hue", "grayscale", "randaugment")
    assert "randaugment" not in colour_operations_switched_off(views[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"randaugment": -1}, "randaugment must be a number of operations from 0 to 16, but is -1"),
        ({"randaugment": 17}, "randaugment must be a number of operations from 0 to 16, but is 17"),
        ({"randaugment_magnitude": 11}, "randaugment_magnitude must be from 0 to 10, but is 11"),
        ({"randaugment_magnitude": float("nan")}, "randaugment_magnitude must be from 0 to 10, but is nan"),
        ({"randaugment_std": -0.1}, "randaugment_std must not be negative, but is -0.1"),
        ({"randaugment_probability": 1.5}, r"randaugment_probability must be a probability in \[0, 1\], but is 1.5"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        View(size=8, **settings)
