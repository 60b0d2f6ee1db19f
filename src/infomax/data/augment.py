"""How views are made: batched on the device, with parameters of its own for each image.

Every random number is a hash of (seed, epoch, image index, view, position), so that a view can be made again whatever
the number of workers, the batch it falls into, or the point where a run was resumed.
"""

from collections.abc import Callable
from functools import partial
from math import ceil

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from infomax.data.views import Preprocessing, View, ViewSet

# Columns of the random numbers of one view: ten attempts at a crop as in torchvision, then one number a decision.
ATTEMPTS = 10
TOP, LEFT, FLIP, JITTER, GRAYSCALE, BLUR, SIGMA, SOLARIZE = range(2 * ATTEMPTS, 2 * ATTEMPTS + 8)
FACTORS = slice(SOLARIZE + 1, SOLARIZE + 5)
ORDER = slice(SOLARIZE + 5, SOLARIZE + 9)
COLUMNS = ORDER.stop

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the result depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed: int, epoch: int, index: Int[np.ndarray, " b"], view: int) -> Float64[np.ndarray, "b columns"]:
    """The uniform random numbers in [0, 1) that decide this view of these images in this epoch."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = np.zeros(len(index), np.uint64)
        for part in (seed, epoch, view, index):
            key = _mix(key + golden + np.asarray(part).astype(np.uint64))
        numbers = _mix(key[:, None] + golden * np.arange(1, COLUMNS + 1, dtype=np.uint64))
    return (numbers >> np.uint64(11)) * 2.0**-53


def crop_boxes(
    random: Float64[np.ndarray, "b columns"], height: np.ndarray | int, width: np.ndarray | int, view: View
) -> Int[np.ndarray, "b 4"]:
    """Top, left, height and width of each random resized crop, in pixels, distributed as torchvision's.

    The area's share and the logarithm of the ratio are uniform; the first of ten attempts that fits is taken, otherwise
    the largest centred crop within the range of ratios.
    """
    b = len(random)
    height, width = np.broadcast_to(height, b), np.broadcast_to(width, b)
    low, high = view.scale
    area = (height * width)[:, None] * (low + (high - low) * random[:, :ATTEMPTS])
    low, high = np.log(view.ratio)
    ratio = np.exp(low + (high - low) * random[:, ATTEMPTS : 2 * ATTEMPTS])
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths >= 1) & (widths <= width[:, None]) & (heights >= 1) & (heights <= height[:, None])
    chosen = np.arange(b), fits.argmax(1)
    found = fits.any(1)
    crop_width = np.where(found, widths[chosen], np.minimum(width, np.rint(height * view.ratio[1])))
    crop_height = np.where(found, heights[chosen], np.minimum(height, np.rint(width / view.ratio[0])))
    top_share, left_share = random[:, TOP], random[:, LEFT]
    top = np.where(found, np.floor(top_share * (height - crop_height + 1)), (height - crop_height) // 2)
    left = np.where(found, np.floor(left_share * (width - crop_width + 1)), (width - crop_width) // 2)
    return np.stack([top, left, crop_height, crop_width], axis=1).astype(np.int64)


def _resampling(start: Tensor, length: Tensor, source: int, size: int, bicubic: bool) -> Float[Tensor, "b size source"]:
    """Matrices that resize the pixels from ``start`` on, ``length`` of them, to ``size``, with antialiasing.

    A row holds the weights of one result: the kernel, widened by the scale where pixels are lost, at the distance of
    each source pixel within the crop. As in PIL, and in torchvision with ``antialias=True``.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / size
    pixel = torch.arange(source, device=start.device, dtype=start.dtype)
    centre = start + (torch.arange(size, device=start.device).view(-1, 1) + 0.5) * scale
    x = ((pixel + 0.5 - centre) / scale.clamp_min(1)).abs()
    if bicubic:
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weight = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    else:
        weight = (1 - x).clamp_min(0)
    weight = weight * ((pixel >= start) & (pixel < start + length))
    return weight / weight.sum(2, keepdim=True)


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
    top, left, height, width = torch.from_numpy(boxes.T.copy()).to(images)
    rows = _resampling(top, height, images.shape[2], out_height, bicubic)
    columns = _resampling(left, width, images.shape[3], out_width, bicubic)
    if flip is not None:
        mirrored = torch.from_numpy(flip).to(images.device).view(-1, 1, 1)
        columns = torch.where(mirrored, columns.flip(1), columns)
    return (rows.unsqueeze(1) @ images @ columns.mT.unsqueeze(1)).clamp_(0, 1)


def distort(
    images: Float[Tensor, "b 3 s s"], random: Float64[np.ndarray, "b columns"], view: View
) -> Float[Tensor, "b 3 s s"]:
    """Colour jitter, grayscale, blur and solarisation of images in [0, 1], each by its own numbers; in place."""
    jitter = random[:, JITTER] < view.jitter
    strength = np.array([view.brightness, view.contrast, view.saturation, view.hue])
    low = -np.minimum(strength, 1)  # factors stay positive
    offset = low + (strength - low) * random[:, FACTORS]
    order = random[:, ORDER].argsort(1)
    for turn in range(4):
        for operation, adjust in enumerate((_brightness, _contrast, _saturation, _hue)):
            if strength[operation] > 0:
                _where(images, jitter & (order[:, turn] == operation), adjust, offset[:, operation])
    _where(images, random[:, GRAYSCALE] < view.grayscale, lambda x: _gray(x).expand_as(x))
    low, high = view.blur_sigma
    blur = partial(_blur, reach=min(4 * images.shape[-1], ceil(4 * high)))
    _where(images, random[:, BLUR] < view.blur, blur, low + (high - low) * random[:, SIGMA])
    _where(images, random[:, SOLARIZE] < view.solarize, lambda x: torch.where(x >= 128 / 255, 1 - x, x))
    return images


def _where(images: Tensor, mask: np.ndarray, change: Callable[..., Tensor], *parameters: np.ndarray) -> None:
    """Apply ``change`` to the masked images alone. The mask is on the host: no count is read back from the device."""
    if not mask.any():
        return
    index = torch.from_numpy(mask.nonzero()[0]).to(images.device)
    chosen = (torch.from_numpy(p[mask]).to(images).view(-1, 1, 1, 1) for p in parameters)
    images[index] = change(images[index], *chosen)


def _gray(x: Tensor) -> Tensor:
    return (x * x.new_tensor(GRAY_WEIGHTS).view(3, 1, 1)).sum(1, keepdim=True)


def _blend(x: Tensor, other: Tensor | float, offset: Tensor) -> Tensor:
    return (x + offset * (x - other)).clamp_(0, 1)


def _brightness(x: Tensor, offset: Tensor) -> Tensor:
    return _blend(x, 0.0, offset)


def _contrast(x: Tensor, offset: Tensor) -> Tensor:
    return _blend(x, _gray(x).mean((2, 3), keepdim=True), offset)


def _saturation(x: Tensor, offset: Tensor) -> Tensor:
    return _blend(x, _gray(x), offset)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV; saturation and value stay."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # With k = (n + 6 hue) mod 6 a channel is value - chroma max(0, min(k, 4 - k, 1)); n is 5, 3, 1 for red, green, blue
    k = (sixths.unsqueeze(1) + 6 * turns + x.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1)).remainder(6)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def _blur(x: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Separable Gaussian blur over ``reach`` pixels to each side; those beyond an edge repeat it, as in PIL."""
    size = x.shape[-1]
    target = torch.arange(size, device=x.device, dtype=x.dtype).view(-1, 1)
    source = torch.arange(-reach, size + reach, device=x.device, dtype=x.dtype)
    weight = torch.exp(-0.5 * ((source - target) / sigma.view(-1, 1, 1)).square())
    weight = weight / weight.sum(2, keepdim=True)
    inside = weight[:, :, reach : reach + size].clone()
    inside[:, :, 0] += weight[:, :, :reach].sum(2)
    inside[:, :, -1] += weight[:, :, reach + size :].sum(2)
    inside = inside.unsqueeze(1)
    return inside @ x @ inside.mT


def normalize(
    images: Float[Tensor, "b 3 h w"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "b 3 h w"]:
    """Subtract the mean and divide by the standard deviation of each channel; in place."""
    return images.sub_(images.new_tensor(mean).view(3, 1, 1)).div_(images.new_tensor(std).view(3, 1, 1))


def to_float(images: UInt8[Tensor, "b h w 3"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 h w"]:
    """Bytes to [0, 1], channels before rows."""
    return images.permute(0, 3, 1, 2).to(dtype).div_(255)


def make_views(
    images: Tensor | list[Tensor],
    views: ViewSet,
    *,
    seed: int,
    epoch: int,
    index: Int[np.ndarray, " b"],
    dtype: torch.dtype = torch.float32,
) -> list[Float[Tensor, "b 3 s s"]]:
    """All views of a batch, the full ones first, normalised, on the device of ``images``.

    Args:
        images: Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], already cut and flipped by workers.
        index: Of each image in its data set.
        dtype: Of the result, and of all that is computed on the way.
    """
    made = []
    for number, view in enumerate((*views.full, *views.local)):
        random = draw(seed, epoch, index, number)
        if isinstance(images, Tensor):
            boxes = crop_boxes(random, images.shape[1], images.shape[2], view)
            x = crop(to_float(images, dtype), boxes, view.size, bicubic=view.bicubic, flip=random[:, FLIP] < view.flip)
        else:
            x = to_float(images[number], dtype)
        x = normalize(distort(x, random, view), views.mean, views.std)
        made.append(x.contiguous(memory_format=torch.channels_last))
    return made


def preprocess(images: UInt8[Tensor, "b h w 3"], how: Preprocessing) -> Float[Tensor, "b 3 size size"]:
    """Images as an encoder sees them in evaluation: resized, the centre cropped, normalised."""
    height, width = images.shape[1:3]
    x = to_float(images)
    if min(height, width) != how.resize:
        scale = how.resize / min(height, width)
        size = max(how.resize, round(height * scale)), max(how.resize, round(width * scale))
        x = crop(x, np.tile([0, 0, height, width], (len(x), 1)), size, bicubic=True)
    top, left = (x.shape[2] - how.size) // 2, (x.shape[3] - how.size) // 2
    x = x[:, :, top : top + how.size, left : left + how.size]
    return normalize(x.contiguous(memory_format=torch.channels_last), how.mean, how.std)
