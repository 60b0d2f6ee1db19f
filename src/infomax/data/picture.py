"""A picture of what the views do to these images."""

import io

import numpy as np
from matplotlib.figure import Figure

from infomax.data.augment import make_views
from infomax.data.datasets import Images, readable
from infomax.data.loaders import TrainingImages
from infomax.data.views import ViewSet


def draw_views(images: Images, views: ViewSet, *, seed: int, rows: int = 4) -> bytes:
    """A PNG of some images, each beside its views in the first epoch, as the training will see them."""
    evenly = np.linspace(0, len(images) - 1, min(rows, len(images))).astype(int)
    chosen = np.array([readable(images, int(i))[0] for i in evenly])
    batch = TrainingImages(images, views, seed)[0, chosen]
    made = make_views(batch.images, views, seed=seed, epoch=0, index=batch.index)
    names = ["image", "view 1", "view 2", *(f"local {i + 1}" for i in range(len(views.local)))]
    figure = Figure(figsize=(1.5 * len(names), 1.5 * len(chosen) + 0.3), layout="constrained")
    grid = figure.subplots(len(chosen), len(names), squeeze=False)
    largest = views.full[0].size
    for row, i in enumerate(chosen):
        original = images.open(int(i))
        original.thumbnail((4 * largest, 4 * largest))  # shrinks large ones, leaves small ones as they are
        shown = [np.asarray(original)]
        for x in made:
            pixels = x[row].permute(1, 2, 0).float().cpu().numpy() * np.array(views.std) + np.array(views.mean)
            shown.append(pixels.clip(0, 1))
        for column, pixels in enumerate(shown):
            axis = grid[row, column]
            axis.imshow(pixels, interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(names[column], fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, dpi=100)
    return png.getvalue()
