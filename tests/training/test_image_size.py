"""The line on images that are trained at far fewer pixels than they have."""

import numpy as np
import pytest
from PIL import Image

from infomax import pretrain
from infomax.cli import main
from infomax.data.images.arrays import ArrayImages
from infomax.data.sources.location import open_source
from infomax.planning.options import PlanOptions
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.training.image_size import ESTIMATED, describe_larger_sizes, larger_sizes, typical_side
from infomax.training.prepare import choose_recipe


def save_images(folder, *sizes, suffix="jpg"):
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number, 90, 200)).save(folder / f"{number}.{suffix}")
    return str(folder)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_typical_side_is_the_median_of_the_shorter_ones(tmp_path, suffix):
    data = save_images(tmp_path / "a", (90, 300), (500, 375), (375, 400), (4000, 20), (600, 600), suffix=suffix)
    images = open_source(data).train
    assert typical_side(images) == 375
    (tmp_path / "a" / f"0.{suffix}").write_bytes(b"no image")
    assert typical_side(images) == 375
    assert typical_side(ArrayImages(np.zeros((3, 40, 28, 3), np.uint8), None, [])) == 28


@pytest.mark.parametrize(
    ("size", "side", "larger"),
    [(32, 32, ()), (32, 63, ()), (32, 100, (64,)), (32, 128, (64, 128)), (16, 4000, (32, 64)), (96, 400, (192,))],
)
def test_only_sizes_that_the_images_have_and_that_are_usual_are_proposed(size, side, larger):
    assert larger_sizes(size, side) == larger
    assert larger_sizes(224, 4000) == ()


def test_the_line_names_the_option_and_what_it_costs():
    recipe = get_recipe("mira", "small")
    line = describe_larger_sizes(recipe, 128, seconds=125)
    assert line == (
        "images of about 128 pixels are trained at 32 (about 2 min here), at which small details are lost; "
        "--image-size 64 takes about 4 times as long (8 min), --image-size 128 16 times (33 min)"
    )
    estimated = describe_larger_sizes(recipe, 128, seconds=125, measured=ESTIMATED)
    assert "at 32 (about 2 min here, by one pass of the network alone), at which" in estimated
    line = describe_larger_sizes(recipe, 128)
    assert line == (
        "images of about 128 pixels are trained at 32, at which small details are lost; --image-size 64 takes about "
        "4 times as long as at 32, --image-size 128 16 times; infomax plan says how long that is"
    )
    assert describe_larger_sizes(recipe, 128, unknown="").endswith("--image-size 128 16 times")
    assert describe_larger_sizes(recipe, 32) is None
    assert describe_larger_sizes(customise(recipe, image_size=64), 100) is None


@pytest.mark.parametrize(
    ("changes", "images", "batch_size"),
    [
        ({}, 143, 128),
        ({}, 12, 8),
        ({}, 256, 256),
        ({}, 7, 256),
        ({"recipe": "small"}, 143, 256),
        ({"batch_size": 200}, 143, 200),
        ({"overrides": ("batch_size=200",)}, 143, 200),
        ({"micro_batch_size": 64}, 143, 256),
    ],
)
def test_few_images_make_the_batch_smaller_if_the_user_has_not_chosen(changes, images, batch_size, capsys):
    options = PlanOptions(data="x", method="carl", **changes)
    recipe = choose_recipe(options, data="x", images=images, side=32, gpu=False)
    assert recipe.batch_size == batch_size
    line = f"infomax: a step takes {batch_size} images and not the 256 of the recipe small, for there are {images}"
    assert capsys.readouterr().err == (f"{line} (--batch-size)\n" if batch_size < 200 else "")
    steps = recipe.steps(images)
    assert batch_size > images or abs(steps * batch_size / 600_000 - 1) < 0.4


@pytest.fixture
def photographs(tmp_path):
    return save_images(tmp_path / "photographs", *[(160, 128)] * 8)


@pytest.mark.parametrize(("size", "told"), [((), True), (("--image-size", "32"), False)])
def test_each_command_says_that_photographs_are_trained_at_few_pixels(
    photographs, tmp_path, monkeypatch, capsys, size, told
):
    common = ["--data", photographs, "--method", "carl", "--recipe", "small"]
    batch = ["--batch-size", "8", "--epochs", "1"]
    commands = {
        "views": ["--out", str(tmp_path / "v.png")],
        "plan": [*batch, "--gpu", "T4"],
        "pretrain": [*batch, "--workers", "0", "--out", str(tmp_path / "run")],
    }
    for command, options in commands.items():
        monkeypatch.setattr("sys.argv", ["infomax", command, *common, *size, *options])
        main()
        printed = capsys.readouterr()
        words = printed.out if command == "plan" else printed.err
        assert ("images of about 128 pixels are trained at 32" in words) == told
        assert ("--image-size 64 takes about 4 times as long" in words) == told


def test_the_shorter_side_is_kept_and_small_images_get_no_line(tmp_path, capsys):
    data = save_images(tmp_path / "small", *[(40, 32)] * 8)
    options = {"data": data, "method": "carl", "recipe": "small", "batch_size": 8, "epochs": 1, "workers": 0}
    run = pretrain(**options, out=tmp_path / "run")
    assert run.config["shorter_side"] == 32
    assert "details are lost" not in capsys.readouterr().err
