"""Operations on a batch of images, by torch on any device, with parameters of its own for each image."""

from collections.abc import Callable, Set
from functools import partial

import torch
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation.last_operations import add_noise, turn_by_quarters
from infomax.data.augmentation.views import GRAY

Pixels = UInt8[Tensor, "b h w c"] | UInt16[Tensor, "b h w c"]  # 0 stands for 0, and the largest number for 1
BLOCK = 32  # pixels of a line that are blurred together, by one product with a small matrix


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor from the CPU to a device; the CPU does not wait for the copy to an NVIDIA GPU."""
    if device.type != "cuda":
        return x.to(device)
    return (x if x.is_pinned() else x.pin_memory()).to(device, non_blocking=True)


def to_float(images: Pixels, dtype: torch.dtype = torch.float32) -> Float[Tensor, "b c h w"]:
    """Converts uint8 or uint16 to numbers in [0, 1], with the channels before the rows."""
    x = torch.empty(len(images), images.shape[3], *images.shape[1:3], dtype=dtype, device=images.device)
    if images.dtype == torch.uint8:
        return x.copy_(images.permute(0, 3, 1, 2)).div_(255)
    # Few operations of a GPU know uint16. As int16, numbers from 2^15 on are too small by 2^16.
    x.copy_(images.view(torch.int16).permute(0, 3, 1, 2))
    return torch.where(x < 0, x + 2**16, x).div_(2**16 - 1)


def _resampling(start: Tensor, length: Tensor, source: int, size: int, bicubic: bool) -> Float[Tensor, "b size source"]:
    """Returns the matrices that resize a stretch of a line of ``source`` pixels to ``size`` pixels, with antialiasing.

    A row holds the weights of the source pixels in one result pixel. The weight is the interpolation kernel at the
    distance between the two, widened by the scale if the line becomes shorter; pixels outside of the stretch have none.
    PIL does the same, and torchvision with ``antialias=True``.

    Args:
        start: First pixel of each stretch [b].
        length: Number of pixels of each stretch [b]; the result is mirrored if it is negative.
        source: Pixels of the whole line.
        size: Pixels of the result.
        bicubic: Whether to interpolate bicubically instead of bilinearly.
    """
    mirrored = length < 0
    length = length.abs().view(-1, 1, 1)
    start, scale = start.view(-1, 1, 1), length / size
    result = torch.arange(size, device=start.device, dtype=start.dtype)
    result = torch.where(mirrored.view(-1, 1), size - 1 - result, result).unsqueeze(2)
    pixel = torch.arange(source, device=start.device, dtype=start.dtype)
    outside = (pixel < start) | (pixel >= start + length)
    x = (pixel + 0.5 - start - (result + 0.5) * scale).div_(scale.clamp_min(1)).abs_()
    if bicubic:  # Keys's kernel with parameter -1/2: with a = max(1 - x, 0) and b = max(2 - x, 0) it is this polynomial
        b = x.neg_().add_(2).clamp_min_(0)
        a = (b - 1).clamp_min_(0)
        weight = (b - 1).mul_(b).mul_(b).div_(2).add_((1 - 2 * a).mul_(a).mul_(a))  # b^2 (b - 1) / 2 + a^2 (1 - 2a)
    else:
        weight = x.neg_().add_(1).clamp_min_(0)
    weight = weight.masked_fill_(outside, 0)
    return weight.div_(weight.sum(2, keepdim=True))


def resize_boxes(
    images: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b 4"], rows: int, columns: int, bicubic: bool
) -> Float[Tensor, "b c rows columns"]:
    """Resizes a box of each image, given as top, left, height and width; mirrors it if the width is negative."""
    top, left, height, width = boxes.unbind(1)
    vertical = _resampling(top, height, images.shape[2], rows, bicubic)
    horizontal = _resampling(left, width, images.shape[3], columns, bicubic)
    # The width first: all rows and channels of an image then make up one matrix.
    narrow = (images.flatten(1, 2) @ horizontal.mT).unflatten(1, images.shape[1:3])
    return (vertical.unsqueeze(1) @ narrow).clamp_(0, 1)


def _gray(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=1)
    r, g, b = GRAY
    return (red * r).add_(green, alpha=g).add_(blue, alpha=b)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(x.mean((2, 3), keepdim=True)), x, factor).clamp_(0, 1)


def _contrast_by_channel(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(x.mean((2, 3), keepdim=True), x, factor).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(x), x, factor).clamp_(0, 1)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue of HSV; saturation and value stay."""
    red, green, blue = x.unbind(1)
    # Swap green and blue, then red and green, until red is the largest. Each swap changes the hue, in turns, by an
    # offset that is undone in the end.
    swapped = green < blue
    middle, low = torch.maximum(green, blue), torch.minimum(green, blue)
    offset = swapped.to(x.dtype).neg_()
    swapped_again = red < middle
    value, middle = torch.maximum(red, middle), torch.minimum(red, middle)
    offset = torch.where(swapped_again, -1 / 3 - offset, offset)
    chroma = value - torch.minimum(middle, low)
    hue = (middle - low).div_(torch.where(chroma > 0, 6 * chroma, 1)).add_(offset).abs_()
    # A channel is value - chroma clamp(2 - |k - 2|, 0, 1) with k = 6 (hue + n) mod 6; n is 5/6, 3/6, 1/6.
    hue = hue.add_(turns.squeeze(1))
    k = torch.stack([hue + 11 / 6, hue + 9 / 6, hue + 7 / 6], dim=1)
    share = k.frac_().mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1, out=share)


JITTER = (_brightness, _contrast, _saturation, _hue)
JITTER_BY_CHANNEL = (_brightness, _contrast_by_channel)
# Named as the fields of View that hold their probabilities.
STAGES = ("jitter", "grayscale", "blur", "solarize", "noise", "rotate90")


def grayscale(x: Tensor, _: Tensor) -> Tensor:
    """Sets all channels to the luma. The second argument is unused, so that all operations are called alike."""
    return _gray(x).repeat(1, 3, 1, 1)


def solarize(x: Tensor, _: Tensor) -> Tensor:
    """Inverts values from 128 of 255 up. The second argument is unused, so that all operations are called alike."""
    return torch.where(x >= 128 / 255, 1 - x, x)


def blur(x: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Blurs by a Gaussian over ``reach`` pixels to each side, along the lines and then along the columns.

    Pixels beyond an edge have the value of the edge, as in PIL.

    Args:
        x: Square images [b, c, s, s].
        sigma: Standard deviation for each image, in pixels [b, 1, 1, 1].
        reach: Pixels to each side; those further away have no weight.
    """
    block = min(BLOCK, x.shape[-1])
    distance = torch.arange(reach + 1, device=x.device, dtype=x.dtype)
    bell = (distance / sigma.view(-1, 1)).square_().mul_(-0.5).exp_()
    bell = F.pad(bell / (2 * bell.sum(1, keepdim=True) - 1), (0, 1))  # weights by distance, and 0 beyond the reach
    source, target = torch.arange(-reach, block + reach, device=x.device), torch.arange(block, device=x.device)
    apart = (source.view(-1, 1) - target).abs_().clamp_max_(reach + 1)
    matrix = bell[:, apart]  # [b, block + 2 reach, block], the same for every block of every line
    return _blur_lines(_blur_lines(x, matrix, reach).mT, matrix, reach).mT


def _blur_lines(x: Tensor, matrix: Tensor, reach: int) -> Tensor:
    """Multiplies each block of each line, with ``reach`` pixels to each side, by the matrix of its image."""
    size, block = x.shape[-1], matrix.shape[2]
    blocks = -(-size // block)
    padded = F.pad(x, (reach, reach + blocks * block - size, 0, 0), mode="replicate")
    windows = padded.unfold(3, block + 2 * reach, block)  # [b, c, lines, blocks, block + 2 reach]
    blurred = windows.flatten(1, 3) @ matrix
    return blurred.view(*x.shape[:3], blocks * block)[..., :size]


def make_views_fused(
    source: Pixels,
    table: Float[Tensor, "b columns"],
    *,
    size: int | None,
    bicubic: bool,
    stages: Set[str],
    reach: int,
    dtype: torch.dtype,
    quantiles: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "b c s s"]:
    """Makes views: applies each operation to all images, and keeps its result for those that it was chosen for.

    Every batch goes through the same operations, so a compiler can fuse them into few passes over memory. Without a
    compiler this is many times the work of applying each operation only to the images that it was chosen for.

    Args:
        source: Images, or crops of ``size`` pixels that workers have cut.
        table: The parameters of each image. The first 4 columns are its box, as in :func:`resize_boxes`. The next 16
            say for each turn and each part of the colour jitter whether it is done, and 4 are the strengths of the
            parts; if the channels are not red, green and blue, 4 say it for two parts, whose strengths in each channel
            are the next 2 c. Then come 4: whether it becomes gray, whether it is blurred, the standard deviation of the
            blur, and whether it is solarised; and 2 c: what is added to each channel and what it is multiplied by, to
            normalise it; both are 0 for a channel that is dropped. If these views can have noise or be turned, 4 more
            are the standard deviation of the noise, 0 for none, the two halves of its key, and the quarter turns.
        size: Side of the views in pixels; None if ``source`` holds crops.
        bicubic: Whether to interpolate bicubically instead of bilinearly.
        stages: Those of ``STAGES`` that these views can have, whatever was chosen for this batch.
        reach: Pixels to each side over which a blur extends.
        dtype: Type of the result; the computation is in the type of ``table``.
        quantiles: Those of :func:`~infomax.data.augmentation.last_operations.normal_quantiles`, if these views can have
            noise.
    """
    channels = source.shape[3]
    parts, of_part = (JITTER, 1) if channels == 3 else (JITTER_BY_CHANNEL, channels)
    count = len(parts)
    widths = [4, count**2, count * of_part, 4, 2 * channels]
    boxes, jitter, factors, single, normal, last = table.split([*widths, table.shape[1] - sum(widths)], dim=1)
    gray, blurred, sigma, solarized = single.view(-1, 4, 1, 1, 1).unbind(1)
    x = to_float(source, table.dtype)
    if size is not None:
        x = resize_boxes(x, boxes, size, size, bicubic)
    operations: list[tuple[Callable[..., Tensor], Tensor, Tensor]] = []
    if "jitter" in stages:
        strengths = factors.view(-1, count, of_part, 1, 1).unbind(1)
        for turn in jitter.view(-1, count, count, 1, 1, 1).unbind(1):
            operations += zip(parts, turn.unbind(1), strengths, strict=True)
    operations += [(grayscale, gray, sigma)] if "grayscale" in stages and channels == 3 else []
    operations += [(partial(blur, reach=reach), blurred, sigma)] if "blur" in stages else []
    operations += [(solarize, solarized, sigma)] if "solarize" in stages else []
    for operation, is_due, value in operations:
        x = torch.where(is_due > 0, operation(x, value), x)
    shift, scale = normal.view(-1, 2, channels, 1, 1).unbind(1)
    x = torch.addcmul(shift, x, scale)
    if "noise" in stages:
        assert quantiles is not None
        std = last[:, 0].view(-1, 1, 1, 1)
        x = torch.where(std > 0, add_noise(x, std, scale, last[:, 1:3], quantiles), x)
    if "rotate90" in stages:
        turns = last[:, 3].view(-1, 1, 1, 1)
        for quarters in (1, 2):  # three are one and two
            x = torch.where((turns == quarters) | (turns == 3), turn_by_quarters(x, quarters), x)
    return x.to(dtype, memory_format=torch.channels_last)
