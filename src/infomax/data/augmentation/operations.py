"""What can be done to a batch of images on any device: by operations of torch alone, with numbers for each image."""

from collections.abc import Callable, Set
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation import kernels

BLOCK = 32  # pixels of a line that are blurred together, by a product with one small matrix


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, which the host does not wait for."""
    if device.type != "cuda":
        return x
    return (x if x.is_pinned() else x.pin_memory()).to(device, non_blocking=True)


def to_float(images: UInt8[Tensor, "b h w 3"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 h w"]:
    """Bytes to [0, 1], channels before rows."""
    made = torch.empty(len(images), 3, *images.shape[1:3], dtype=dtype, device=images.device)
    return made.copy_(images.permute(0, 3, 1, 2)).div_(255)


def _resampling(start: Tensor, length: Tensor, source: int, size: int, bicubic: bool) -> Float[Tensor, "b size source"]:
    """Matrices that resize the pixels from ``start`` on, ``length`` of them, to ``size``, with antialiasing.

    A row holds the weights of one result: the kernel, widened by the scale where pixels are lost, at the distance of
    each source pixel within the crop. As in PIL, and in torchvision with ``antialias=True``. Where ``length`` is
    negative, the result is mirrored.
    """
    mirrored = length < 0
    length = length.abs().view(-1, 1, 1)
    start, scale = start.view(-1, 1, 1), length / size
    result = torch.arange(size, device=start.device, dtype=start.dtype)
    result = torch.where(mirrored.view(-1, 1), size - 1 - result, result).unsqueeze(2)
    pixel = torch.arange(source, device=start.device, dtype=start.dtype)
    outside = (pixel < start) | (pixel >= start + length)
    x = (pixel + 0.5 - start - (result + 0.5) * scale).div_(scale.clamp_min(1)).abs_()
    if bicubic:  # Keys's kernel with a = -1/2, from its two joints: b^2 (b - 1) / 2 + a^2 (1 - 2a)
        b = x.neg_().add_(2).clamp_min_(0)
        a = (b - 1).clamp_min_(0)
        weight = (b - 1).mul_(b).mul_(b).div_(2).add_((1 - 2 * a).mul_(a).mul_(a))
    else:
        weight = x.neg_().add_(1).clamp_min_(0)
    weight = weight.masked_fill_(outside, 0)
    return weight.div_(weight.sum(2, keepdim=True))


def resized(
    images: Float[Tensor, "b 3 h w"], boxes: Float[Tensor, "b 4"], rows: int, columns: int, bicubic: bool
) -> Float[Tensor, "b 3 rows columns"]:
    """Each image's box, top, left, height and width, at another size; mirrored where the width is negative."""
    top, left, height, width = boxes.unbind(1)
    vertical = _resampling(top, height, images.shape[2], rows, bicubic)
    horizontal = _resampling(left, width, images.shape[3], columns, bicubic)
    # The width first: all rows of an image are one matrix.
    narrow = (images.flatten(1, 2) @ horizontal.mT).unflatten(1, images.shape[1:3])
    return (vertical.unsqueeze(1) @ narrow).clamp_(0, 1)


def _gray(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=1)
    r, g, b = kernels.GRAY
    return (red * r).add_(green, alpha=g).add_(blue, alpha=b)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(x.mean((2, 3), keepdim=True)), x, factor).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(x), x, factor).clamp_(0, 1)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV; saturation and value stay."""
    red, green, blue = x.unbind(1)
    # Swap green and blue, then red and green, until red is the largest: the hue is an offset by the swaps, in turns.
    swapped = green < blue
    middle, low = torch.maximum(green, blue), torch.minimum(green, blue)
    offset = swapped.to(x.dtype).neg_()
    second = red < middle
    value, middle = torch.maximum(red, middle), torch.minimum(red, middle)
    offset = torch.where(second, -1 / 3 - offset, offset)
    chroma = value - torch.minimum(middle, low)
    hue = (middle - low).div_(torch.where(chroma > 0, 6 * chroma, 1)).add_(offset).abs_()
    # A channel is value - chroma clamp(2 - |k - 2|, 0, 1) with k = 6 (hue + n) mod 6; n is 5/6, 3/6, 1/6.
    hue = hue.add_(turns.squeeze(1))
    k = torch.stack([hue + 11 / 6, hue + 9 / 6, hue + 7 / 6], dim=1)
    share = k.frac_().mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1, out=share)


JITTER = (_brightness, _contrast, _saturation, _hue)
STAGES = ("jitter", "grayscale", "blur", "solarize")  # by the names of their probabilities in a view


def grayscale(x: Tensor, _: Tensor) -> Tensor:
    """Its luma in all channels."""
    return _gray(x).repeat(1, 3, 1, 1)


def solarize(x: Tensor, _: Tensor) -> Tensor:
    """Invert values from half up."""
    return torch.where(x >= 128 / 255, 1 - x, x)


def blur(x: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Separable Gaussian blur over ``reach`` pixels to each side; those beyond an edge repeat it, as in PIL."""
    block = min(BLOCK, x.shape[-1])
    distance = torch.arange(reach + 1, device=x.device, dtype=x.dtype)
    bell = (distance / sigma.view(-1, 1)).square_().mul_(-0.5).exp_()
    bell = F.pad(bell / (2 * bell.sum(1, keepdim=True) - 1), (0, 1))  # nothing from further away
    source, target = torch.arange(-reach, block + reach, device=x.device), torch.arange(block, device=x.device)
    apart = (source.view(-1, 1) - target).abs_().clamp_max_(reach + 1)
    matrix = bell[:, apart]  # [b, block + 2 reach, block], the same for every block of every line
    return _blur_lines(_blur_lines(x, matrix, reach).mT, matrix, reach).mT


def _blur_lines(x: Tensor, matrix: Tensor, reach: int) -> Tensor:
    size, block = x.shape[-1], matrix.shape[2]
    blocks = -(-size // block)
    padded = F.pad(x, (reach, reach + blocks * block - size, 0, 0), mode="replicate")
    windows = padded.unfold(3, block + 2 * reach, block)  # [b, 3, lines, blocks, block + 2 reach]
    made = windows.flatten(1, 3) @ matrix
    return made.view(*x.shape[:3], blocks * block)[..., :size]


def make_views_fused(
    source: UInt8[Tensor, "b h w 3"],
    table: Float[Tensor, "b 34"],
    *,
    size: int | None,
    bicubic: bool,
    stages: Set[str],
    reach: int,
    dtype: torch.dtype,
) -> Float[Tensor, "b 3 s s"]:
    """Views from bytes, each operation done to all images, and kept for those that it is due for.

    The same operations make every batch, so that a compiler can put them into few loops over memory. Without one this
    is many times the work of doing each to its own images alone.

    Args:
        table: Of each image its box; whether at each turn each part of the jitter is due, and the four factors; whether
            grayscale and blur are, the blur's deviation, whether to solarise; what normalises each channel, added and
            multiplied by.
        size: None where the crops have been cut.
        stages: Those of ``STAGES`` that are due for any image of any batch.
    """
    boxes, due, factors, single, normal = table.split([4, 16, 4, 4, 6], dim=1)
    gray, blurred, sigma, inverted = single.view(-1, 4, 1, 1, 1).unbind(1)
    x = to_float(source, table.dtype)
    if size is not None:
        x = resized(x, boxes, size, size, bicubic)
    work: list[tuple[Callable[..., Tensor], Tensor, Tensor]] = []
    if "jitter" in stages:
        values = factors.view(-1, 4, 1, 1, 1).unbind(1)
        for turn in due.view(-1, 4, 4, 1, 1, 1).unbind(1):
            work += zip(JITTER, turn.unbind(1), values, strict=True)
    work += [(grayscale, gray, sigma)] if "grayscale" in stages else []
    work += [(partial(blur, reach=reach), blurred, sigma)] if "blur" in stages else []
    work += [(solarize, inverted, sigma)] if "solarize" in stages else []
    for change, where, value in work:
        x = torch.where(where > 0, change(x, value), x)
    shift, scale = normal.view(-1, 2, 3, 1, 1).unbind(1)
    return torch.addcmul(shift, x, scale).to(dtype, memory_format=torch.channels_last)
