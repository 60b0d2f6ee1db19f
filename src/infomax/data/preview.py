"""Draws a picture of some images and of the views that training makes of them."""

import io
from textwrap import wrap

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.images import ArrayImages, Images, first_readable
from infomax.data.loading.workers import TrainingImages
from infomax.runtime.figure_style import default_style

CELL = 1.5  # inches; side of one image in the picture


@default_style()
def draw_views(images: Images, views: ViewSet, *, seed: int, title: str, rows: int = 4) -> bytes:
    """Draws some images, each beside the views that training makes of it in the first epoch.

    Args:
        images: The images; those that are drawn lie at equal distances in the data set.
        views: The settings of the views; the picture says them in words too.
        seed: Seed of the run.
        title: Title of the picture.
        rows: Number of images.

    Returns:
        The bytes of a PNG.
    """
    wanted = np.linspace(0, len(images) - 1, min(rows, len(images))).astype(int)
    index = np.array([first_readable(images, int(i))[0] for i in wanted])
    columns = _first_epoch_views(images, views, seed, index)
    titles = ["image", *(title for title, _ in _titled_views(views))]
    figure = Figure(figsize=(CELL * len(titles), CELL * len(index) + 1), layout="constrained")
    title = title.encode(errors="replace").decode()  # a folder's name may be any bytes
    figure.suptitle(title, fontsize=10, parse_math=False)
    lines = [line for text in _descriptions(views) for line in wrap(text, 22 * len(titles), subsequent_indent="  ")]
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left")
    grid = figure.subplots(len(index), len(titles), squeeze=False)
    for row, i in enumerate(index):
        original = images.open(int(i))
        original.thumbnail((4 * views.global_crops[0].size,) * 2)  # shrinks large images, leaves small ones as they are
        cells = [np.asarray(original)]
        for x in columns:
            pixels = x[row].permute(1, 2, 0).float().cpu().numpy() * np.array(views.std) + np.array(views.mean)
            cells.append(pixels.clip(0, 1))
        for column, pixels in enumerate(cells):
            axis = grid[row, column]
            axis.imshow(pixels, interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(titles[column], fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, dpi=100)
    return png.getvalue()


def _first_epoch_views(images: Images, views: ViewSet, seed: int, index: np.ndarray) -> list[Tensor]:
    """Returns each view [B, 3, size, size] of the images at ``index``, as training makes them."""
    if isinstance(images, ArrayImages):
        return make_views(torch.from_numpy(images.pixels[index]), views, seed=seed, epoch=0, index=index)
    batch = TrainingImages(images, views, seed)[0, index]
    return make_views(batch.images, views, seed=seed, epoch=0, index=batch.index)


def _titled_views(views: ViewSet) -> list[tuple[str, View]]:
    """Returns each view with its title: "view 1" and so on for global crops, "local 1" for local crops."""
    titled = [(f"view {number + 1}", view) for number, view in enumerate(views.global_crops)]
    return titled + [(f"local {number + 1}", view) for number, view in enumerate(views.local_crops)]


def _descriptions(views: ViewSet) -> list[str]:
    """Returns a line for each kind of view: the titles of the views of this kind, and its settings in words."""
    titles: dict[str, list[str]] = {}
    for title, view in _titled_views(views):
        titles.setdefault(_describe(view), []).append(title)
    return [f"{', '.join(names)}: {description}" for description, names in titles.items()]


def _describe(view: View) -> str:
    """Returns the settings of a view in words; an operation that is never done is left out."""
    low, high = view.scale
    words = [f"{view.size} px of {low:.0%} to {high:.0%} of the area"]
    jitter = f"{view.brightness:g}, {view.contrast:g}, {view.saturation:g}, {view.hue:g}"
    for name, probability, details in (
        ("flip", view.flip, ""),
        ("colour jitter", view.jitter, f" ({jitter})"),
        ("grayscale", view.grayscale, ""),
        ("blur", view.blur, f" ({view.blur_sigma[0]:g} to {view.blur_sigma[1]:g} px)"),
        ("solarise", view.solarize, ""),
    ):
        if probability > 0:
            words.append(f"{name} {probability:.0%}{details}")
    return ", ".join(words)
