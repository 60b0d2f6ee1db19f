"""An atlas keeps each picture in its tile, within its pixels and bytes; the chosen pictures are spread over the map."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from infomax.reporting.pages.atlas import BUDGET, GROUND, MAX_IMAGES, Atlas, fit_tile, pack_atlas, spread_order


def colour(number: int) -> tuple[int, int, int]:
    return (number * 67 % 256, number * 151 % 256, number * 29 % 256)


def tile_of(atlas: Atlas, number: int) -> np.ndarray:
    """Returns a tile's pixels, cut out as the page does it."""
    sheet, place = divmod(number, atlas.tiles_per_sheet)
    pixels = np.asarray(Image.open(BytesIO(atlas.sheets[sheet])))
    y, x = (atlas.side * k for k in divmod(place, atlas.columns))
    return pixels[y : y + atlas.side, x : x + atlas.side].astype(int)


def noise(count: int, side: int = 32):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize(("count", "side", "sheets"), [(1, 32, 1), (70, 32, 1), (20, 512, 2), (17, 512, 2)])
def test_each_picture_is_in_its_tile(count, side, sheets):
    atlas = pack_atlas((Image.new("RGB", (9, 9), colour(number)) for number in range(count)), side)
    assert (atlas.count, atlas.side, len(atlas.sheets)) == (count, side, sheets)
    for number in range(count):
        differences = np.abs(tile_of(atlas, number) - colour(number))
        assert differences[1:-1, 1:-1].max() < 8  # a decoder mixes the colours of pixels at the edge
    for sheet in atlas.sheets:
        assert max(Image.open(BytesIO(sheet)).size) <= 2048


def test_no_pictures_make_no_sheet():
    assert pack_atlas([]) == Atlas((), 32, 64, 0)


@pytest.mark.parametrize(("size", "box"), [((64, 32), (0, 8, 32, 24)), ((10, 40), (12, 0, 20, 32)), ((1, 900), None)])
def test_the_aspect_is_kept_on_a_neutral_ground(size, box):
    pixels = np.asarray(fit_tile(Image.new("RGB", size, (255, 0, 0)), 32))
    red = (pixels == (255, 0, 0)).all(-1)
    assert (pixels[~red] == GROUND).all()
    if box:
        assert Image.fromarray(red).getbbox() == box


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_all_modes_fit(mode):
    assert fit_tile(Image.new(mode, (5, 7)), 16).mode == "RGB"


def test_what_is_transparent_shows_the_ground():
    assert fit_tile(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), 16).getpixel((8, 8)) == GROUND


def test_few_pixels_stay_sharp():
    board = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    assert np.unique(np.asarray(fit_tile(board, 16))).tolist() == [0, 255]


@pytest.mark.slow
def test_the_most_pictures_of_noise_stay_in_the_budget():
    atlas = pack_atlas(noise(MAX_IMAGES))
    assert sum(len(base64.b64encode(sheet)) for sheet in atlas.sheets) <= BUDGET
    assert atlas.count > 2500


def test_a_small_budget_leaves_out_the_last_pictures_and_counts():
    atlas = pack_atlas(noise(40), budget=12_000)
    assert sum(len(base64.b64encode(sheet)) for sheet in atlas.sheets) <= 12_000
    assert 5 < atlas.count < 40
    assert np.abs(tile_of(atlas, 0) - np.asarray(next(noise(1)))).mean() < 80
    assert pack_atlas(noise(3), budget=1) == Atlas((), 32, 64, 0)


def test_a_lower_quality_comes_before_fewer_pictures():
    whole = pack_atlas(noise(40))
    size = sum(map(len, whole.sheets))
    atlas = pack_atlas(noise(40), budget=int(size * 4 / 3 * 0.8))
    assert atlas.count == 40
    assert sum(map(len, atlas.sheets)) < size


def test_more_pictures_are_refused():
    with pytest.raises(ValueError, match="images must be at most 4,000: choose among them by spread_order"):
        pack_atlas(Image.new("L", (1, 1)) for _ in range(MAX_IMAGES + 1))


@pytest.mark.parametrize("side", [0, 8, 30, 4096])
def test_sides_that_jpeg_mixes_are_refused(side):
    with pytest.raises(ValueError, match=f"side must be a multiple of 16 from 16 to 2048, but is {side}"):
        pack_atlas([], side)


def test_the_chosen_are_spread_over_the_map():
    """All but 4 of 2,000 points are in one corner; the first few that are chosen are in all corners."""
    rng = np.random.default_rng(0)
    points = rng.random((2000, 2)) * 0.1
    points[[1500, 1600, 1700]] = [[0, 1], [1, 0], [1, 1]]
    chosen = spread_order(points, 300)
    assert {1500, 1600, 1700} <= {*chosen[:4]}
    assert len({*chosen.tolist()}) == 300
    gaps = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1)
    of_first = np.linalg.norm(points[:, None] - points[:300][None], axis=2).min(1)
    assert gaps.max() < 0.5 * of_first.max()
    assert gaps.mean() < of_first.mean()


def test_the_order_is_a_permutation_even_of_equal_points_and_the_seed_decides():
    points = np.zeros((50, 2))
    points[40:] = np.random.default_rng(0).random((10, 2))
    assert sorted(spread_order(points, 100).tolist()) == list(range(50))
    assert spread_order(points, 9, seed=1).tolist() == spread_order(points, 9, seed=1).tolist()
    assert spread_order(points, 9, seed=1).tolist() != spread_order(points, 9, seed=2).tolist()
    assert spread_order(np.zeros((0, 2)), 5).tolist() == []
