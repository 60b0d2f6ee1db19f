"""How views are made, with parameters of its own for each image: batched on a GPU, one after another on a CPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from infomax.data.augmentation import kernels
from infomax.data.augmentation.draws import FLIP, Choices, choose_colours, crop_boxes, draw
from infomax.data.augmentation.operations import JITTER, STAGES, blur, grayscale, resized, solarize, to_device, to_float
from infomax.data.augmentation.views import Preprocessing, ViewSet

PIXELS_EACH = 2**14  # that a thread has to make, at least; to start one takes as long as some thousands


def crop(
    images: Float[Tensor, "b 3 h w"],
    boxes: Int[np.ndarray, "b 4"],
    size: int | tuple[int, int],
    *,
    bicubic: bool,
    flip: np.ndarray | None = None,
) -> Float[Tensor, "b 3 size size"]:
    """Resize each image's box to ``size`` (height, width) pixels, mirrored where ``flip``; values stay in [0, 1]."""
    out_height, out_width = (size, size) if isinstance(size, int) else size
    return resized(images, _upload(_mirrored(boxes, flip), images), out_height, out_width, bicubic)


def _mirrored(boxes: Int[np.ndarray, "b 4"], flip: np.ndarray | None) -> Float64[np.ndarray, "b 4"]:
    """Boxes whose width is negative where the result is to be mirrored."""
    numbers = boxes.astype(np.float64)
    if flip is not None:
        numbers[flip, 3] *= -1
    return numbers


def distort(images: Float[Tensor, "b 3 s s"], choices: Choices) -> Float[Tensor, "b 3 s s"]:
    """Colour jitter, grayscale, blur and solarisation of images in [0, 1]; in place.

    Each operation works on the images that it is due for alone. Which these are is known on the host, so nothing is
    read back from the device; all indices and all parameters reach it in one copy each.
    """
    work: list[tuple[Callable[..., Tensor], np.ndarray, np.ndarray]] = [
        (JITTER[part], choices.jitter[:, turn, part], choices.factors[:, part])
        for turn in range(4)
        for part in range(4)
    ]
    work += [
        (grayscale, choices.grayscale, choices.sigma),
        (partial(blur, reach=choices.reach), choices.blur, choices.sigma),
        (solarize, choices.solarize, choices.sigma),
    ]
    due = [(change, mask.nonzero()[0], values) for change, mask, values in work if mask.any()]
    if not due:
        return images
    index = _upload(np.concatenate([rows for _, rows, _ in due]), images, torch.int64)
    numbers = _upload(np.concatenate([values[rows] for _, rows, values in due]), images)
    counts = [len(rows) for _, rows, _ in due]
    for (change, _, _), rows, values in zip(due, index.split(counts), numbers.split(counts), strict=True):
        if len(rows) == len(images):
            images = change(images, values.view(-1, 1, 1, 1))
        else:
            images[rows] = change(images[rows], values.view(-1, 1, 1, 1))
    return images


def _upload(values: np.ndarray, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers from the host, on the device of ``like``."""
    return to_device(torch.from_numpy(values).to(dtype or like.dtype), like.device)


def normalize(
    images: Float[Tensor, "b 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Subtract the mean and divide by the standard deviation of each channel."""
    scale = 1 / np.array(std)
    numbers = _upload(np.stack([-np.array(mean) * scale, scale]), images).view(2, 3, 1, 1)
    return torch.addcmul(numbers[0], images, numbers[1])


def make_views(
    images: Tensor | list[Tensor],
    views: ViewSet,
    *,
    seed: int,
    epoch: int,
    index: Int[np.ndarray, " b"],
    dtype: torch.dtype = torch.float32,
    fused_views: Callable[..., Tensor] | None = None,
) -> list[Float[Tensor, "b 3 s s"]]:
    """All views of a batch, the full ones first, normalised, channels last, on the device of ``images``.

    Args:
        images: Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], already cut and flipped by workers.
        index: Of each image in its data set.
        dtype: Of the result. What is computed on the way is float64 for float64, otherwise float32; on a CPU, float64
            goes the way of a GPU.
        fused_views: :func:`~infomax.data.augmentation.operations.make_views_fused`, compiled, where a GPU's way is taken. None does each
            operation to the images that it is due for alone.
    """
    each = (*views.global_crops, *views.local_crops)
    random = [draw(seed, epoch, index, number) for number in range(len(each))]
    made: list[Tensor] = []
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    # Views of one size are made together: fewer and larger operations.
    for (size, bicubic), numbers in groupby(range(len(each)), key=lambda i: (each[i].size, each[i].bicubic)):
        group = list(numbers)
        choices = choose_colours([random[i] for i in group], [each[i] for i in group])
        source = torch.cat([images if isinstance(images, Tensor) else images[i] for i in group])
        boxes, flip = np.empty((0, 4), np.int64), np.empty(0, bool)  # none where workers have cut and flipped
        if isinstance(images, Tensor):
            height, width = source.shape[1:3]
            boxes = np.concatenate([crop_boxes(random[i], height, width, each[i]) for i in group])
            flip = np.concatenate([random[i][:, FLIP] < each[i].flip for i in group])
        if source.device.type == "cpu" and dtype != torch.float64:
            x = _make_on_cpu(source, boxes, flip, choices, views, size, bicubic).to(dtype)
        elif fused_views is not None:
            table = _upload(_table(boxes, flip, choices, views), torch.empty(0, dtype=wide, device=source.device))
            stages = {name for name in STAGES if any(getattr(each[i], name) for i in group)}
            how = {"size": size if len(boxes) else None, "bicubic": bicubic, "reach": choices.reach, "stages": stages}
            x = fused_views(source, table, dtype=dtype, **how)
        else:
            x = to_float(source, wide)
            x = crop(x, boxes, size, bicubic=bicubic, flip=flip) if len(boxes) else x
            x = normalize(distort(x, choices), views.mean, views.std).to(dtype, memory_format=torch.channels_last)
        made += x.split(len(index))
    return made


def _table(boxes: np.ndarray, flip: np.ndarray, choices: Choices, views: ViewSet) -> Float64[np.ndarray, "b columns"]:
    """All numbers of all images, for one copy to the device."""
    c, count = choices, len(choices.blur)
    scale = 1 / np.array(views.std)
    normal = np.concatenate([-np.array(views.mean) * scale, scale])
    cuts = _mirrored(boxes, flip) if len(boxes) else np.zeros((count, 4))
    single = np.stack([c.grayscale, c.blur, c.sigma, c.solarize], axis=1)
    return np.concatenate([cuts, c.jitter.reshape(count, 16), c.factors, single, np.tile(normal, (count, 1))], axis=1)


def _make_on_cpu(
    source: Tensor, boxes: np.ndarray, flip: np.ndarray, choices: Choices, views: ViewSet, size: int, bicubic: bool
) -> Tensor:
    """The views of one size, each image in the cache of one core from its bytes to its view."""
    images, out = source.numpy(), np.empty((len(source), size, size, 3), np.float32)
    c, mean, std = choices, np.array(views.mean), np.array(views.std)

    def make(start: int, stop: int) -> None:
        at = slice(start, stop)
        cropping = images[at], boxes[at].astype(np.float64), flip[at], bicubic
        colours = c.jitter[at], c.factors[at], c.grayscale[at], c.blur[at], c.sigma[at], c.reach, c.solarize[at]
        kernels.make(*cropping, *colours, mean, std, out[at])

    threads = min(torch.get_num_threads(), -(-len(source) * size * size // PIXELS_EACH))
    edges = np.linspace(0, len(source), threads + 1).astype(int).tolist()
    if threads == 1:
        make(0, len(source))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(make, edges, edges[1:]))
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def preprocess(images: UInt8[Tensor, "b h w 3"], how: Preprocessing) -> Float[Tensor, "b 3 size size"]:
    """Images as an encoder sees them in evaluation: resized, the centre cropped, normalised."""
    height, width = images.shape[1:3]
    x = to_float(images)
    if min(height, width) != how.resize:
        scale = how.resize / min(height, width)
        size = max(how.resize, round(height * scale)), max(how.resize, round(width * scale))
        x = crop(x, np.tile([0, 0, height, width], (len(x), 1)), size, bicubic=how.bicubic)
    top, left = (x.shape[2] - how.size) // 2, (x.shape[3] - how.size) // 2
    x = x[:, :, top : top + how.size, left : left + how.size]
    return normalize(x, how.mean, how.std).contiguous(memory_format=torch.channels_last)
