"""Noise, dropped channels and quarter turns: against plain references, by kernels, operations and their fused form."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from infomax.data.augmentation import draws
from infomax.data.augmentation.draws import choose_last, draw_uniform, needed_columns
from infomax.data.augmentation.last_operations import normal_quantiles, standard_noise
from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.operations import make_views_fused
from infomax.data.augmentation.views import View, ViewSet, byol

SIZE, COUNT = 8, 6
PLAIN = {"size": SIZE, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0}
WAYS = {
    "kernels": {},
    "operations": {"dtype": torch.float64},
    "fused": {"dtype": torch.float64, "fused_views": make_views_fused},
}
IMAGE_TYPES = {"uint8": np.uint8, "uint16": np.uint16}


def images_of(channels: int, dtype: type) -> torch.Tensor:
    rng = np.random.default_rng(channels)
    return torch.from_numpy(rng.integers(0, np.iinfo(dtype).max, (COUNT, SIZE, SIZE, channels), dtype, endpoint=True))


def views_of(channels: int, *views: View) -> ViewSet:
    mean, std = np.linspace(0.3, 0.6, channels), np.linspace(0.1, 0.3, channels)
    return ViewSet(global_crops=views, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def make(images: torch.Tensor, views: ViewSet, way: str, index: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns the views as numpy arrays [b, s, s, c], float64."""
    index = np.arange(100, 100 + len(images)) if index is None else index
    made = make_views(images, views, seed=3, epoch=2, index=index, **WAYS[way])
    return [x.permute(0, 2, 3, 1).double().numpy() for x in made]


def lowbias32(x: np.ndarray) -> np.ndarray:
    """Returns the hash by arithmetic of 64 bits, modulo 2^32."""
    modulus = np.uint64(2**32)
    x = x.astype(np.uint64)
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x7FEB352D) % modulus
    x = (x ^ (x >> np.uint64(15))) * np.uint64(0x846CA68B) % modulus
    return x ^ (x >> np.uint64(16))


def expected_noise(random: np.ndarray, channels: int) -> np.ndarray:
    """Returns noise of standard deviation 1 [b, s, s, c], by the definition."""
    pixel_and_channel = np.arange(SIZE * SIZE * channels).reshape(1, SIZE, SIZE, channels)
    high, low = (65536 * random[:, draws.NOISE_KEY]).astype(np.uint64).T
    key = (high * np.uint64(65536) + low).reshape(-1, 1, 1, 1)
    quantile = (lowbias32((lowbias32(pixel_and_channel) + key) % np.uint64(2**32)) >> np.uint64(16)).astype(int)
    inverse = np.vectorize(NormalDist().inv_cdf)
    return inverse((quantile + 0.5) / 65536)


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_each_operation_equals_numpys(channels, dtype):
    """All three are chosen for some images and not for others; each image has parameters of its own."""
    images = images_of(channels, IMAGE_TYPES[dtype])
    view = View(**PLAIN, rotate90=0.7, noise=0.5, noise_std=(0.1, 0.3), drop_channels=0.4)
    views = views_of(channels, view)
    random = draw_uniform(3, 2, np.arange(100, 100 + COUNT), 0, needed_columns(channels, [view]))
    expected = (images.numpy() / np.iinfo(IMAGE_TYPES[dtype]).max - np.array(views.mean)) / np.array(views.std)
    std = (0.1 + 0.2 * random[:, draws.NOISE_STD]) * (random[:, draws.NOISE] < 0.5)
    expected += std[:, None, None, None] * expected_noise(random, channels) / np.array(views.std)
    turns = np.floor(4 * random[:, draws.TURNS]) * (random[:, draws.ROTATE] < 0.7)
    uniform = random[:, draws.CHANNELS :].reshape(COUNT, channels, 3)[:, :, 2]
    for i in range(COUNT):
        dropped = uniform[i] < 0.4
        if dropped.all():
            dropped[uniform[i].argmax()] = False
        expected[i, :, :, dropped] = 0
        expected[i] = np.rot90(expected[i], int(turns[i]))
    assert 0 < (std > 0).sum() < COUNT
    assert len(set(turns)) > 2
    for way in WAYS:
        np.testing.assert_allclose(make(images, views, way)[0], expected, rtol=0, atol=3e-5, err_msg=way)


@pytest.mark.parametrize("way", WAYS)
def test_noise_of_a_view_does_not_depend_on_its_batch(way):
    images, index = images_of(4, np.uint16), np.array([40, 7, 99, 3, 8, 1])
    view = View(**PLAIN, noise=1.0, rotate90=1.0, drop_channels=0.5)
    views = views_of(4, view, view)
    together = make(images, views, way, index)
    alone = make(images[2:3], views, way, index[2:3])
    assert all(np.array_equal(a[2:3], b) for a, b in zip(together, alone, strict=True))
    assert not np.array_equal(*together)


def test_noise_is_gaussian_and_independent_between_pixels_channels_and_views():
    rng = np.random.default_rng(0)
    keys = torch.from_numpy(rng.integers(0, 2**16, (64, 2))).double()
    quantiles = normal_quantiles(torch.device("cpu"), torch.float64)
    noise = standard_noise(keys, 3, 32, quantiles).numpy()
    count = noise.size
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / count) ** 0.5
    below = [(noise < NormalDist().inv_cdf(p)).mean() - p for p in (0.001, 0.1, 0.3, 0.7, 0.9, 0.999)]
    assert np.abs(below).max() < 5 * 0.5 / count**0.5
    for a, b in (
        (noise[:, 0], noise[:, 1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[:, :, :, 1:], noise[:, :, :, :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs((a * b).mean()) < 5 / a.size**0.5
        assert abs((a**2 * b**2).mean() - 1) < 5 * 8**0.5 / a.size**0.5
    # Views whose keys are neighbours have nothing in common either, shifted or not.
    near = torch.tensor([[5.0, 7.0], [5.0, 8.0], [6.0, 7.0]], dtype=torch.float64)
    first, *others = standard_noise(near, 3, 32, quantiles).permute(0, 2, 3, 1).reshape(3, -1).numpy()
    spectrum = np.fft.rfft(first)
    for other in others:
        correlation = np.fft.irfft(spectrum.conj() * np.fft.rfft(other), len(first)) / len(first)
        assert np.abs(correlation).max() < 6 / len(first) ** 0.5


def test_choices_have_the_frequencies_of_the_settings_and_are_independent():
    view, count, channels = View(size=8, rotate90=0.6, noise=0.3, noise_std=(0.1, 0.5), drop_channels=0.25), 20_000, 4
    random = draw_uniform(0, 0, np.arange(count), 0, needed_columns(channels, [view]))
    choices = choose_last([random], [view], channels)
    assert choices is not None
    shares = np.bincount(choices.turns, minlength=4) / count
    assert np.abs(shares - [0.4 + 0.15, 0.15, 0.15, 0.15]).max() < 0.015
    is_noisy = choices.noise_std > 0
    assert abs(is_noisy.mean() - 0.3) < 0.015
    quantiles = np.quantile(choices.noise_std[is_noisy], [0, 0.25, 0.5, 0.75, 1])
    assert np.abs(quantiles - [0.1, 0.2, 0.3, 0.4, 0.5]).max() < 0.015
    assert np.abs(choices.dropped.mean(0) - (0.25 - 0.25**4 / 4)).max() < 0.015  # one of four that would go stays
    rows = np.stack([choices.turns == 1, choices.turns == 2, is_noisy, *choices.dropped.T, *choices.noise_key.T])
    correlation = np.corrcoef(rows.astype(float)) - np.eye(len(rows))
    correlation[0, 1] = correlation[1, 0] = 0  # one excludes the other
    assert np.abs(correlation).max() < 0.035


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_no_view_loses_all_its_channels(channels):
    view = View(size=8, drop_channels=1.0)
    random = draw_uniform(0, 0, np.arange(3000), 0, needed_columns(channels, [view]))
    choices = choose_last([random], [view], channels)
    assert choices is not None
    assert (choices.dropped.sum(1) == channels - 1).all()
    assert np.abs((~choices.dropped).mean(0) - 1 / channels).max() < 0.04


def test_views_that_do_without_draw_no_further_numbers_and_keep_their_bits():
    """A view with the operations stands beside one without, of the same size, in one batch."""
    assert needed_columns(3, byol(8)) == draws.COLUMNS
    assert choose_last([draw_uniform(0, 0, np.arange(3), 0)], byol(8)[:1], 3) is None
    images = images_of(3, np.uint8)
    with_them = View(size=SIZE, rotate90=1.0, noise=1.0, drop_channels=0.5)
    for way in WAYS:
        plain = make(images, views_of(3, View(size=SIZE), View(size=SIZE)), way)
        mixed = make(images, views_of(3, View(size=SIZE), with_them), way)
        assert np.array_equal(plain[0], mixed[0])
        assert not np.allclose(plain[1], mixed[1])


@pytest.mark.parametrize("cut", [False, True])
def test_all_ways_agree_with_all_operations_on(cut):
    images = images_of(5, np.uint16)
    on = {"rotate90": 0.5, "noise": 0.5, "drop_channels": 0.3, "solarize": 0.3, "blur": 0.5}
    views = views_of(5, View(size=SIZE, **on), View(size=SIZE, **on))
    by_way = [
        make_views([images, images.flip(0)] if cut else images, views, seed=1, epoch=0, index=np.arange(COUNT), **way)
        for way in WAYS.values()
    ]
    for kernels, separate, fused in zip(*by_way, strict=True):
        assert kernels.is_contiguous(memory_format=torch.channels_last)
        assert fused.is_contiguous(memory_format=torch.channels_last)
        assert (kernels - separate).abs().quantile(0.999) < 5e-5  # others solarise on the other side of the threshold
        assert torch.equal(separate, fused)


def test_true_and_false_are_probabilities_and_others_are_refused():
    view = View(size=8, rotate90=True, noise=False)
    assert (view.rotate90, view.noise) == (1.0, 0.0)
    assert type(view.rotate90) is float
    for settings in ({"rotate90": 1.5}, {"noise": -0.1}, {"drop_channels": 2.0}, {"noise_std": (0.2, 0.1)}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            View(size=8, **settings)
