"""Writes small folders of images and masks for tests: coloured boxes on a dark ground, whose class is their colour."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (64, 48)
COLOURS = ((30, 30, 30), (220, 40, 40), (40, 200, 60), (50, 70, 230))


def toy_mask(seed: int, sides: tuple[int, int] = SIDES) -> np.ndarray:
    """A mask of height and width with two boxes of the classes 1 to 3."""
    draw, mask = np.random.default_rng(seed), np.zeros(sides, np.uint8)
    for half in range(2):
        top, left = draw.integers(0, sides[0] // 4), draw.integers(0, sides[1] // 4) + half * sides[1] // 2
        mask[top : top + sides[0] // 2, left : left + sides[1] // 3] = draw.integers(1, len(COLOURS))
    return mask


def save_mask(mask: np.ndarray, file: Path) -> None:
    """Writes a palette PNG, as VOC's masks are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    colours = np.resize(np.array(COLOURS, np.uint8), (256, 3))
    image.putpalette(colours.ravel().tolist())  # its mode becomes P
    image.save(file)


def write_masked(folder: Path, train: int = 6, val: int = 3, layout: str = "{split}/{kind}") -> Path:
    """Writes the folder; ``layout`` says where the images and masks of a split are."""
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for i in range(count):
            mask = toy_mask(first + i)
            places = [folder / layout.format(split=split, kind=kind) for kind in ("images", "masks")]
            places[0].mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(COLOURS, np.uint8)[mask]).save(places[0] / f"{i}.png")
            save_mask(mask, places[1] / f"{i}.png")
    return folder
