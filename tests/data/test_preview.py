"""Pictures of views: which images and crops they show, at which size, and that any name can be drawn."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet, byol, dino
from infomax.data.images.arrays import ArrayImages
from infomax.data.preview import _views_of, describe_views, draw_views
from infomax.data.sources.location import open_source

PLAIN = View(size=32, flip=0.0, jitter=0.0, grayscale=0.0)
COLOURS = ((200, 30, 40), (30, 160, 60), (40, 50, 180), (180, 160, 20))


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def painted_pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((abs(picture - colour).max(2) <= 2).sum())


@pytest.mark.parametrize(
    ("views", "tiles"),
    [
        (ViewSet(global_crops=(PLAIN, PLAIN)), 4 * 2 * 128**2),
        (
            ViewSet(global_crops=(PLAIN,) * 2, local_crops=(View(size=12, flip=0, jitter=0, grayscale=0),) * 6),
            2 * (2 * 128**2 + 6 * 96**2),
        ),
    ],
)
def test_each_image_is_shown_as_it_is_beside_several_draws_of_all_views(tmp_path, views, tiles):
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (300, 225), colour).save(tmp_path / f"{number}.png")
    picture = opened(draw_views(open_source(str(tmp_path)).train, views, seed=0, title="t").png)
    for colour in COLOURS:
        assert painted_pixels(picture, colour) == 300 * 225 + tiles


@pytest.mark.parametrize(
    ("size", "shown"), [((8, 8), 256 * 256), ((32, 32), 256 * 256), ((1000, 500), 340 * 170), ((50, 4000), 3 * 256)]
)
def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_shrunk(tmp_path, size, shown):
    Image.new("RGB", size, COLOURS[0]).save(tmp_path / "a.png")
    views = ViewSet(global_crops=(PLAIN, PLAIN))
    picture = opened(draw_views(open_source(str(tmp_path)).train, views, seed=0, title="t").png)
    assert painted_pixels(picture, COLOURS[0]) == shown + 4 * 2 * 128**2


def test_the_views_are_those_of_the_training():
    """Pillow cuts the crops of the picture; those of the training differ by rounding to bytes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(3, 3, 6, 6, generator=generator), 40, mode="bicubic").clamp(0, 1)
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    views = ViewSet(global_crops=(byol(16)[0],) * 2, local_crops=dino(16, global_scale=(1, 1), local_scale=(0.1, 1))[1])
    trained = make_views(pixels, views, seed=3, epoch=1, index=np.array([5, 6, 7]))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (views.mean, views.std))
    for row, key in enumerate((5, 6, 7)):
        drawn = _views_of(Image.fromarray(pixels[row].numpy()), views, seed=3, epoch=1, key=key)
        for view, batch in zip(drawn, trained, strict=True):
            expected = ((batch[row] * std + mean).clamp(0, 1) * 255).permute(1, 2, 0)
            assert (torch.from_numpy(np.array(view.image)) - expected).abs().mean() < 2  # of 255 levels


def test_an_image_that_cannot_be_read_is_named_and_the_next_one_is_shown(tmp_path):
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    preview = draw_views(open_source(str(tmp_path)).train, ViewSet(global_crops=(PLAIN,) * 2), seed=0, title="t")
    (error,) = preview.unreadable
    assert "1.png" in error
    assert painted_pixels(opened(preview.png), COLOURS[2]) == 2 * (240 * 240 + 8 * 128**2)


@pytest.mark.parametrize(
    "name", ["a $b$ c$$ {x", "bytes \udcff in a name", "\u6587\u5b57 \u00e4\u00f6\n\x1b[31m", "x" * 500]
)
def test_any_title_and_note_can_be_drawn(name):
    images = ArrayImages(np.zeros((2, 8, 8, 3), np.uint8), None, [])
    png = draw_views(images, ViewSet(global_crops=(PLAIN,) * 2), seed=0, title=name, notes=[name]).png
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width < 1500


def test_views_of_one_kind_are_described_together():
    views = ViewSet(global_crops=(PLAIN, PLAIN), local_crops=dino(32, global_scale=(1, 1), local_scale=(0.1, 1))[1])
    first, second = describe_views(views)
    assert first == "global 1 and global 2: 32 px of 8% to 100% of the area"
    assert second.startswith("local 1 to 6: 14 px of 10% to 100% of the area, flip 50%, colour jitter 80%")
