"""Batches of images as an encoder is shown them when it is evaluated or used: each in its place, none left out."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infomax.data.augmentation.make_views import preprocess
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images import ArrayImages, Images
from infomax.data.loading.workers import identity_collate, worker_count, worker_processes

BATCH = 256  # images that go through an encoder at once


class _Evaluation(Dataset):
    def __init__(self, images: Images, index: np.ndarray, how: Preprocessing, lenient: bool):
        self.images, self.index, self.how, self.lenient = images, index, how, lenient

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, positions: list[int]) -> Tensor:
        index = self.index[positions]
        if isinstance(self.images, ArrayImages):
            return torch.from_numpy(self.images.pixels[index])
        return torch.from_numpy(np.stack([_centre(self._open(int(i)), self.how) for i in index]))

    def _open(self, index: int) -> Image.Image:
        try:
            return self.images.open(index)
        except ValueError:
            if not self.lenient:
                raise
            return Image.new("RGB", (self.how.resize, self.how.resize))


def _centre(image: Image.Image, how: Preprocessing) -> np.ndarray:
    scale = how.resize / min(image.size)
    width, height = (max(how.resize, round(side * scale)) for side in image.size)
    left, top = (width - how.size) // 2, (height - how.size) // 2
    by = Image.Resampling.BICUBIC if how.bicubic else Image.Resampling.BILINEAR
    resized = image.resize((width, height), by)
    return np.asarray(resized.crop((left, top, left + how.size, top + how.size)))


def evaluation_batches(
    images: Images,
    index: np.ndarray,
    how: Preprocessing,
    *,
    workers: int | None = None,
    lenient: bool = False,
) -> Iterator[Float[Tensor, "b 3 size size"]]:
    """The images at ``index``, in this order, preprocessed, on the CPU.

    Args:
        lenient: Take black in place of an image that cannot be read, instead of raising ValueError.
    """
    workers = worker_count(images, workers)
    loader = DataLoader(
        _Evaluation(images, index, how, lenient),
        batch_size=BATCH,
        collate_fn=identity_collate,
        num_workers=workers,
        multiprocessing_context=worker_processes() if workers else None,
    )
    ready = how if isinstance(images, ArrayImages) else replace(how, resize=how.size)
    return (preprocess(batch, ready) for batch in loader)
