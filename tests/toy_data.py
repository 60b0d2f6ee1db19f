"""A toy data set in a file, and settings of each method with which it is trained in milliseconds."""

from pathlib import Path

import numpy as np

TOY = {
    "mira": ("method.hidden=16", "method.prototypes=10"),
    "corinfomax": ("method.hidden=16", "method.dimension=4"),
    "carl": ("method.hidden=16", "method.prototypes=10"),
    "mveb": ("method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
}


def write_toy(folder: Path, *, train: int, test: int, side: int) -> str:
    """Writes noise in two classes, a dark and a bright one, and returns the file's name.

    Args:
        folder: Folder to write to.
        train: Images to train on.
        test: Images to test on.
        side: Their sides, in pixels.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        arrays[f"{split}_labels"] = labels = np.arange(count) % 2
        noise = rng.integers(0, 120, (count, side, side, 3))
        arrays[f"{split}_images"] = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    file = folder / "toy.npz"
    np.savez(file, **arrays)
    return str(file)
