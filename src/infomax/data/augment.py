"""How views are made, with parameters of its own for each image: batched on a GPU, one after another on a CPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from infomax.data import kernels
from infomax.data.draws import FLIP, Choices, choose_colours, crop_boxes, draw
from infomax.data.views import Preprocessing, ViewSet

PIXELS_EACH = 2**14  # that a thread has to make, at least; to start one takes as long as some thousands
BLOCK = 32  # pixels of a line that are blurred together, by a product with one small matrix


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
    return _resized(images, _upload(_mirrored(boxes, flip), images), out_height, out_width, bicubic)


def _mirrored(boxes: Int[np.ndarray, "b 4"], flip: np.ndarray | None) -> Float64[np.ndarray, "b 4"]:
    """Boxes whose width is negative where the result is to be mirrored."""
    numbers = boxes.astype(np.float64)
    if flip is not None:
        numbers[flip, 3] *= -1
    return numbers


def _resized(images: Tensor, boxes: Float[Tensor, "b 4"], rows: int, columns: int, bicubic: bool) -> Tensor:
    top, left, height, width = boxes.unbind(1)
    vertical = _resampling(top, height, images.shape[2], rows, bicubic)
    horizontal = _resampling(left, width, images.shape[3], columns, bicubic)
    # The width first: all rows of an image are one matrix.
    narrow = (images.flatten(1, 2) @ horizontal.mT).unflatten(1, images.shape[1:3])
    return (vertical.unsqueeze(1) @ narrow).clamp_(0, 1)


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
        (_grayscale, choices.grayscale, choices.sigma),
        (partial(_blur, reach=choices.reach), choices.blur, choices.sigma),
        (_solarize, choices.solarize, choices.sigma),
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
    made = torch.from_numpy(values).to(dtype or like.dtype)
    return made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made


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


def _grayscale(x: Tensor, _: Tensor) -> Tensor:
    return _gray(x).repeat(1, 3, 1, 1)


def _solarize(x: Tensor, _: Tensor) -> Tensor:
    return torch.where(x >= 128 / 255, 1 - x, x)


def _blur(x: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
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


def normalize(
    images: Float[Tensor, "b 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Subtract the mean and divide by the standard deviation of each channel."""
    scale = 1 / np.array(std)
    numbers = _upload(np.stack([-np.array(mean) * scale, scale]), images).view(2, 3, 1, 1)
    return torch.addcmul(numbers[0], images, numbers[1])


def to_float(images: UInt8[Tensor, "b h w 3"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 h w"]:
    """Bytes to [0, 1], channels before rows."""
    made = torch.empty(len(images), 3, *images.shape[1:3], dtype=dtype, device=images.device)
    return made.copy_(images.permute(0, 3, 1, 2)).div_(255)


def make_views(
    images: Tensor | list[Tensor],
    views: ViewSet,
    *,
    seed: int,
    epoch: int,
    index: Int[np.ndarray, " b"],
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> list[Float[Tensor, "b 3 s s"]]:
    """All views of a batch, the full ones first, normalised, channels last, on the device of ``images``.

    Args:
        images: Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], already cut and flipped by workers.
        index: Of each image in its data set.
        dtype: Of the result. What is computed on the way is float64 for float64, otherwise float32; on a CPU, float64
            goes the way of a GPU.
        compiled: Whether torch.compile fuses what a GPU does, which then differs by rounding.
    """
    each = (*views.full, *views.local)
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
        elif compiled:
            numbers = _upload(_table(boxes, flip, choices, views), torch.empty(0, dtype=wide, device=source.device))
            settings = {"size": size, "bicubic": bicubic, "reach": choices.reach, "cut": bool(len(boxes))}
            settings |= {part: any(getattr(each[i], part) for i in group) for part in STAGES}
            x = _compiled()(source, numbers, dtype=dtype, **settings)
        else:
            x = to_float(source, wide)
            x = crop(x, boxes, size, bicubic=bicubic, flip=flip) if len(boxes) else x
            x = normalize(distort(x, choices), views.mean, views.std).to(dtype, memory_format=torch.channels_last)
        made += x.split(len(index))
    return made


STAGES = ("jitter", "grayscale", "blur", "solarize")  # of a view, where their probabilities are not 0


def _table(boxes: np.ndarray, flip: np.ndarray, choices: Choices, views: ViewSet) -> Float64[np.ndarray, "b columns"]:
    """All numbers of all images, for one copy to the device."""
    c, count = choices, len(choices.blur)
    scale = 1 / np.array(views.std)
    normal = np.concatenate([-np.array(views.mean) * scale, scale])
    cuts = _mirrored(boxes, flip) if len(boxes) else np.zeros((count, 4))
    single = np.stack([c.grayscale, c.blur, c.sigma, c.solarize], axis=1)
    return np.concatenate([cuts, c.jitter.reshape(count, 16), c.factors, single, np.tile(normal, (count, 1))], axis=1)


def _at_once(
    source: UInt8[Tensor, "b h w 3"],
    table: Float[Tensor, "b columns"],
    *,
    size: int,
    bicubic: bool,
    reach: int,
    cut: bool,
    jitter: bool,
    grayscale: bool,
    blur: bool,
    solarize: bool,
    dtype: torch.dtype,
) -> Float[Tensor, "b 3 size size"]:
    """Crop, distort and normalise, each operation on all images and kept of those that it is due for.

    So the same operations make every batch. A compiler puts them into a few loops over memory; without one, this is
    many times the work of :func:`distort`.
    """
    cuts, due, factors, single, normal = table.split([4, 16, 4, 4, 6], dim=1)
    gray, blurred, sigma, inverted = single.view(-1, 4, 1, 1, 1).unbind(1)
    x = to_float(source, table.dtype)
    x = _resized(x, cuts, size, size, bicubic) if cut else x

    def kept(change: Callable[..., Tensor], where: Tensor, value: Tensor) -> Tensor:
        return torch.where(where > 0, change(x, value), x)

    if jitter:
        for turn in due.view(-1, 4, 4, 1, 1, 1).unbind(1):
            for change, where, factor in zip(
                JITTER, turn.unbind(1), factors.view(-1, 4, 1, 1, 1).unbind(1), strict=True
            ):
                x = kept(change, where, factor)
    x = kept(_grayscale, gray, sigma) if grayscale else x
    x = kept(partial(_blur, reach=reach), blurred, sigma) if blur else x
    x = kept(_solarize, inverted, sigma) if solarize else x
    shift, scale = normal.view(-1, 2, 3, 1, 1).unbind(1)
    return torch.addcmul(shift, x, scale).to(dtype, memory_format=torch.channels_last)


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_at_once, fullgraph=True, dynamic=False)


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
