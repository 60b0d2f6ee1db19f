"""A picture of what the views do to these images."""

import io
from textwrap import wrap

import numpy as np
import torch
from matplotlib.figure import Figure

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.images import ArrayImages, Images, first_readable
from infomax.data.loading.workers import TrainingImages


def draw_views(images: Images, views: ViewSet, *, seed: int, title: str, rows: int = 4) -> bytes:
    """A PNG of some images, each beside its views in the first epoch, as the training will see them."""
    evenly = np.linspace(0, len(images) - 1, min(rows, len(images))).astype(int)
    chosen = np.array([first_readable(images, int(i))[0] for i in evenly])
    if isinstance(images, ArrayImages):
        made = make_views(torch.from_numpy(images.pixels[chosen]), views, seed=seed, epoch=0, index=chosen)
    else:
        batch = TrainingImages(images, views, seed)[0, chosen]
        made = make_views(batch.images, views, seed=seed, epoch=0, index=batch.index)
    each = (*views.global_crops, *views.local_crops)
    names = ["image", *(f"view {i + 1}" for i in range(len(views.global_crops)))]
    names += [f"local {i + 1}" for i in range(len(views.local_crops))]
    side = 1.5
    figure = Figure(figsize=(side * len(names), side * len(chosen) + 1), layout="constrained")
    title = title.encode(errors="replace").decode()  # a folder's name may be any bytes
    figure.suptitle(title, fontsize=10, parse_math=False)
    lines = [line for sentence in _sentences(views) for line in wrap(sentence, 22 * len(names), subsequent_indent="  ")]
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left")
    grid = figure.subplots(len(chosen), len(names), squeeze=False)
    for row, i in enumerate(chosen):
        original = images.open(int(i))
        original.thumbnail((4 * each[0].size,) * 2)  # shrinks large ones, leaves small ones as they are
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


def _sentences(views: ViewSet) -> list[str]:
    """What each kind of view does, in words."""
    lines: dict[str, list[str]] = {}
    for number, view in enumerate(views.global_crops):
        lines.setdefault(_words(view), []).append(f"view {number + 1}")
    for number, view in enumerate(views.local_crops):
        lines.setdefault(_words(view), []).append(f"local {number + 1}")
    return [f"{', '.join(names)}: {words}" for words, names in lines.items()]


def _words(view: View) -> str:
    low, high = view.scale
    words = [f"{view.size} px of {low:.0%} to {high:.0%} of the area"]
    jitter = f"{view.brightness:g}, {view.contrast:g}, {view.saturation:g}, {view.hue:g}"
    for name, share, more in (
        ("flip", view.flip, ""),
        ("colour jitter", view.jitter, f" ({jitter})"),
        ("grayscale", view.grayscale, ""),
        ("blur", view.blur, f" ({view.blur_sigma[0]:g} to {view.blur_sigma[1]:g} px)"),
        ("solarise", view.solarize, ""),
    ):
        if share > 0:
            words.append(f"{name} {share:.0%}{more}")
    return ", ".join(words)
