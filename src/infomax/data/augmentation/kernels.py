"""Operations on one image at a time, as loops over its pixels that Numba compiles for the CPU.

An image goes through all operations while it is in the CPU's cache. The mathematics is that of ``operations.py``, which
works on whole batches, as a GPU needs it, and explains it. Inner loops run along memory, so that they become vector
instructions: an image is held as planes of columns, [channel, x, y], and resized along y first, then along x.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from infomax.data.augmentation.views import GRAY
from infomax.runtime.files import cache_folder

# Numba reads the file .numba_config.yaml of the working folder, and runs the machine code that it finds in its cache.
# So no such file may say where the cache is; a variable goes before it. The folder is the user's own.
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))

import numba.core.config
from numba import njit

numba.core.config._config_fname = os.devnull  # no file either at each compilation, which reads the settings again
numba.core.config.reload_config()

TILE = 8  # side of the squares by which an image is transposed
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}  # fast mathematics, but NaN and infinity are respected


def compiled(function: Callable[..., Any], *, fast: bool = True, inlined: bool = False) -> Any:
    """Compiles a function by Numba at its first call, and keeps the machine code on disk if there is a folder for it.

    Args:
        function: The function, of what Numba understands.
        fast: Whether to allow fast mathematics, whose rounding depends on the machine.
        inlined: Whether each call becomes a copy of the function, in which constant arguments are constants.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST if fast else False, "error_model": "numpy"}
    options["forceinline"] = inlined
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache folder can be written
        return njit(**options)(function)


@compiled
def _weights(start, length, source, size, bicubic, first, weights):
    """Fills in, for each of ``size`` result pixels of a line, its first source pixel and the weights from there on.

    Source pixels before ``start`` and from ``start + length`` on have no weight. Returns the largest number of weights
    of a result pixel.
    """
    scale = length / size
    wide = max(scale, 1.0)
    reach = (2.0 if bicubic else 1.0) * wide
    low, high = int(np.floor(start)), min(int(np.ceil(start + length)), source)
    most = 0
    for i in range(size):
        centre = start + (i + 0.5) * scale
        begin = max(int(np.floor(centre - reach + 0.5)), low)  # pixels whose middle is within reach
        end = min(int(np.ceil(centre + reach - 0.5)), high)
        total = 0.0
        for t in range(end - begin):
            x = abs(begin + t + 0.5 - centre) / wide
            if bicubic:
                b = max(2.0 - x, 0.0)
                a = max(1.0 - x, 0.0)
                w = 0.5 * b * b * (b - 1.0) + a * a * (1.0 - 2.0 * a)
            else:
                w = max(1.0 - x, 0.0)
            weights[i, t] = w
            total += w
        for t in range(end - begin):
            weights[i, t] /= total
        for t in range(end - begin, weights.shape[1]):
            weights[i, t] = 0.0
        first[i] = begin
        most = max(most, end - begin)
    return most


@compiled
def _max_weights(length, size, bicubic):
    """Returns an upper bound on the number of weights of a result pixel."""
    return int(np.ceil(2.0 * (2.0 if bicubic else 1.0) * max(length / size, 1.0))) + 5


@compiled
def _weighted_sum(lines, start, step, left, right, weights, count, out):
    """Adds up lines by their weights: every ``step``-th line from ``start`` on, its columns from ``left`` to ``right``.

    Four lines are added at once, so that the sum is read and written a quarter as often. Weights from ``count`` on
    are 0.
    """
    last = len(lines) - 1
    for t in range(0, count, 4):
        a, b, c, d = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        line = start + step * t
        first, second = lines[min(line, last)][left:right], lines[min(line + step, last)][left:right]
        third, fourth = lines[min(line + 2 * step, last)][left:right], lines[min(line + 3 * step, last)][left:right]
        for j in range(right - left):
            total = a * np.float32(first[j]) + b * np.float32(second[j])
            total += c * np.float32(third[j]) + d * np.float32(fourth[j])
            out[j] = total if t == 0 else out[j] + total


@compiled
def spare_length(boxes, size, channels):
    """Returns how many numbers of working memory :func:`resize_box` needs for any of these boxes."""
    width = 0.0
    for i in range(len(boxes)):
        width = max(width, boxes[i, 3])
    return 2 * (size + TILE) * (channels * (int(width) + 2) + TILE)


@compiled
def _whole_lines_length(size, channels, itemsize):
    """Returns how many numbers of working memory hold a crop as whole numbers of ``itemsize`` bytes, twice."""
    return itemsize * (size + TILE) * (channels * size + TILE) // 2 + 1


@compiled
def largest_value(image):
    """Returns the whole number that stands for 1: 255 in an image of uint8, 65535 in one of uint16."""
    return np.float32(255.0) if image.itemsize == 1 else np.float32(65535.0)


@partial(compiled, inlined=True)
def _resize_rows(image, channels, box, size, bicubic, spare):
    """Resizes a box of an image [h, w, c] along y.

    Args:
        image: The image.
        channels: Number of its channels.
        box: Top, left, height and width in pixels, which need not be whole.
        size: Number of rows of the result.
        bicubic: Whether to interpolate cubically instead of linearly.
        spare: Working memory: to fetch it from the system for each image would take as long as the resizing.

    Returns:
        The result as a matrix [c * columns + channel, row], of the image's columns that the box touches.
    """
    top, left, height, width = box
    h, w = image.shape[0], image.shape[1]
    low, high = int(np.floor(left)), min(int(np.ceil(left + width)), w)
    span = channels * (high - low)
    full, across = (size + TILE - 1) // TILE * TILE, (span + TILE - 1) // TILE * TILE
    lines = spare[: full * across].reshape(full, across)
    turned = spare[full * across : 2 * full * across].reshape(across, full)
    weights, first = np.empty((size, _max_weights(height, size, bicubic)), np.float32), np.empty(size, np.int64)
    count = _weights(top, height, h, size, bicubic, first, weights)
    rows = image.reshape(h, channels * w)
    for y in range(size):
        _weighted_sum(rows, first[y], 1, channels * low, channels * high, weights[y], count, lines[y])
    for y in range(0, full, TILE):
        for x in range(0, across, TILE):
            for i in range(TILE):
                for k in range(TILE):
                    turned[x + k, y + i] = lines[y + i, x + k]
    return turned[:span]


@compiled
def _resize_rows_called(image, channels, box, size, bicubic, spare):
    """Calls :func:`_resize_rows`: where ``channels`` is no constant, a copy of it would only take longer to compile."""
    return _resize_rows(image, channels, box, size, bicubic, spare)


@partial(compiled, inlined=True)
def resize_box(image, channels, box, size, bicubic, mirrored, spare, out):
    """Resizes a box of an image [h, w, c] of whole numbers into ``out`` [channel, x, y], with values in [0, 1].

    The other arguments are those of :func:`_resize_rows`. It is faster if ``channels`` is a constant of its caller.
    """
    turned = _resize_rows(image, channels, box, size, bicubic, spare)
    left, width = box[1], box[3]
    weights, first = np.empty((size, _max_weights(width, size, bicubic)), np.float32), np.empty(size, np.int64)
    count = _weights(left, width, image.shape[1], size, bicubic, first, weights)
    largest = largest_value(image)
    for x in range(size):
        target, start = size - 1 - x if mirrored else x, channels * (first[x] - int(np.floor(left)))
        for c in range(channels):
            column = out[c, target]
            _weighted_sum(turned, start + c, channels, 0, size, weights[x], count, column)
            for y in range(size):
                column[y] = min(max(column[y], np.float32(0.0)), largest) / largest


@compiled
def _resize_box_to_whole(image, box, size, bicubic, mirrored, spare, out):
    """Resizes a box of an image [h, w, c] into ``out`` [y, x, channel], whole numbers of the image's type.

    The other arguments are those of :func:`_resize_rows`. Each column is rounded while it is in the CPU's cache.
    """
    channels, largest = image.shape[2], largest_value(image)
    full, across = (size + TILE - 1) // TILE * TILE, (channels * size + TILE - 1) // TILE * TILE
    length = _whole_lines_length(size, channels, image.itemsize)
    memory, column, spare = spare[:length].view(out.dtype), spare[length : length + size], spare[length + size :]
    lines = memory[: across * full].reshape(across, full)
    turned_lines = memory[across * full : 2 * across * full].reshape(full, across)
    turned = _resize_rows_called(image, channels, box, size, bicubic, spare)
    left, width = box[1], box[3]
    weights, first = np.empty((size, _max_weights(width, size, bicubic)), np.float32), np.empty(size, np.int64)
    count = _weights(left, width, image.shape[1], size, bicubic, first, weights)
    for x in range(size):
        target, start = size - 1 - x if mirrored else x, channels * (first[x] - int(np.floor(left)))
        for c in range(channels):
            _weighted_sum(turned, start + c, channels, 0, size, weights[x], count, column)
            line = lines[channels * target + c]
            for y in range(size):
                line[y] = min(max(column[y], np.float32(0.0)), largest) + np.float32(0.5)
    for y in range(0, full, TILE):
        for x in range(0, across, TILE):
            for i in range(TILE):
                for k in range(TILE):
                    turned_lines[y + i, x + k] = lines[x + k, y + i]
    rows = out.reshape(size, channels * size)
    for y in range(size):
        rows[y] = turned_lines[y, : channels * size]


@compiled
def _gray(r, g, b):
    return np.float32(GRAY[0]) * r + np.float32(GRAY[1]) * g + np.float32(GRAY[2]) * b


@compiled
def clamped(x):
    """Returns the number of [0, 1] that is nearest to ``x``."""
    return min(max(x, np.float32(0.0)), np.float32(1.0))


@compiled
def _jitter(part, factor, r, g, b):
    """Applies one part of the colour jitter to an image in [0, 1], in place; its channels are lines of pixels."""
    n, f, zero, one = len(r), np.float32(factor), np.float32(0.0), np.float32(1.0)
    if part == 0:  # brightness
        for i in range(n):
            r[i] = clamped(r[i] * f)
            g[i] = clamped(g[i] * f)
            b[i] = clamped(b[i] * f)
    elif part == 1:  # contrast: towards the mean gray
        total = zero
        for i in range(n):
            total += _gray(r[i], g[i], b[i])
        shift = (one - f) * (total / np.float32(n))
        for i in range(n):
            r[i] = clamped(r[i] * f + shift)
            g[i] = clamped(g[i] * f + shift)
            b[i] = clamped(b[i] * f + shift)
    elif part == 2:  # saturation: towards each pixel's gray
        for i in range(n):
            shift = (one - f) * _gray(r[i], g[i], b[i])
            r[i] = clamped(r[i] * f + shift)
            g[i] = clamped(g[i] * f + shift)
            b[i] = clamped(b[i] * f + shift)
    else:  # hue
        for i in range(n):
            high, low = max(max(r[i], g[i]), b[i]), min(min(r[i], g[i]), b[i])
            chroma = high - low
            sixth = one / (np.float32(6.0) * (chroma if chroma > zero else one))
            hue = (g[i] - b[i]) * sixth
            hue = (b[i] - r[i]) * sixth + np.float32(1 / 3) if high == g[i] else hue
            hue = (r[i] - g[i]) * sixth + np.float32(2 / 3) if high == b[i] else hue
            hue = (g[i] - b[i]) * sixth if high == r[i] else hue
            hue += f + np.float32(2.0)  # positive, whatever the shift
            k0, k1, k2 = hue + np.float32(5 / 6), hue + np.float32(3 / 6), hue + np.float32(1 / 6)
            k0, k1, k2 = k0 - np.floor(k0), k1 - np.floor(k1), k2 - np.floor(k2)
            six, two = np.float32(6.0), np.float32(2.0)
            r[i] = high - chroma * clamped(two - abs(six * k0 - two))
            g[i] = high - chroma * clamped(two - abs(six * k1 - two))
            b[i] = high - chroma * clamped(two - abs(six * k2 - two))


@compiled
def transpose(plane, out):
    """Writes the transpose of a square plane into ``out``, by squares that become vector instructions."""
    size = len(plane)
    whole = size // TILE * TILE
    for x in range(0, whole, TILE):
        for y in range(0, whole, TILE):
            for i in range(TILE):
                for k in range(TILE):
                    out[y + k, x + i] = plane[x + i, y + k]
    for x in range(size):
        for y in range(whole if x < whole else 0, size):
            out[y, x] = plane[x, y]


@compiled
def write_plane(plane, out, channel):
    """Writes a plane [y, x] as one channel of an image [y, x, c]."""
    for y in range(len(out)):
        line, pixels = plane[y], out[y]
        for x in range(len(line)):
            pixels[x, channel] = line[x]


@compiled
def blur_plane(plane, sigma, reach, spare):
    """Blurs a plane by a Gaussian, in place.

    Each line becomes a weighted sum of its neighbouring lines; then the plane is transposed, and this is done again.
    ``spare`` is working memory of the plane's size.
    """
    size = plane.shape[0]
    bell = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    bell /= 2.0 * bell.sum() - 1.0
    while reach > 0 and bell[reach] < 1e-8:  # too little to change a float32
        reach -= 1
    for _ in range(2):
        for x in range(size):
            line, middle = spare[x], plane[x]
            weight = np.float32(bell[0])
            for y in range(size):
                line[y] = weight * middle[y]
            for t in range(1, reach + 1):
                weight = np.float32(bell[t])
                before, after = plane[max(x - t, 0)], plane[min(x + t, size - 1)]
                for y in range(size):
                    line[y] += weight * (before[y] + after[y])
        transpose(spare, plane)


@compiled
def invert_bright(values):
    """Solarises values in [0, 1], in place."""
    for i in range(len(values)):
        values[i] = np.float32(1.0) - values[i] if values[i] >= np.float32(128 / 255) else values[i]


@compiled
def _distort(planes, jitter, factors, grayscale, blur, sigma, reach, solarize, spare):
    """Applies colour jitter, grayscale, blur and solarisation to one image in [0, 1], [3, x, y], in place."""
    n = planes.shape[1] * planes.shape[2]
    r, g, b = planes[0].reshape(n), planes[1].reshape(n), planes[2].reshape(n)
    for turn in range(4):
        for part in range(4):
            if jitter[turn, part]:
                _jitter(part, factors[part], r, g, b)
    if grayscale:
        for i in range(n):
            gray = _gray(r[i], g[i], b[i])
            r[i] = gray
            g[i] = gray
            b[i] = gray
    if blur:
        for c in range(3):
            blur_plane(planes[c], sigma, reach, spare)
    if solarize:
        invert_bright(planes.reshape(3 * n))


@compiled
def crops_memory_length(boxes, out):
    """Returns how many numbers of working memory :func:`cut_crops` needs for these boxes and this result."""
    size, channels = out.shape[1], out.shape[3]
    return _whole_lines_length(size, channels, out.itemsize) + size + spare_length(boxes, size, channels)


@compiled
def cut_crops(memory, offsets, heights, widths, boxes, bicubic, mirrored, spare, out):
    """Resizes a box of each of ``b`` images that lie in one memory into ``out`` [b, size, size, c].

    Args:
        memory: Values of uint8 or uint16, of which the type of ``out`` is. An image [h, w, c] begins at its offset.
        offsets: Number of values before each image [b].
        heights: Height of each image [b].
        widths: Width of each image [b].
        boxes: Top, left, height and width of each box in pixels, which need not be whole [b, 4].
        bicubic: Whether to interpolate cubically instead of linearly.
        mirrored: Whether each crop is mirrored [b].
        spare: Working memory of float32; see :func:`crops_memory_length`.
        out: Where the crops are written. Its last side says how many channels the images have.
    """
    size, channels = out.shape[1], out.shape[3]
    for i in range(len(out)):
        h, w = heights[i], widths[i]
        image = memory[offsets[i] : offsets[i] + channels * h * w].reshape(h, w, channels)
        _resize_box_to_whole(image, boxes[i], size, bicubic, mirrored[i], spare, out[i])


@compiled
def make_views(
    images, boxes, mirrored, bicubic, jitter, factors, grayscale, blur, sigma, reach, solarize, mean, std, out
):
    """Makes a view of each image [b, h, w, 3], and writes it into ``out`` [b, size, size, 3].

    Images are of uint8 or uint16. Those of other channels than red, green and blue are made by
    :func:`infomax.data.augmentation.channel_kernels.make_channel_views`.

    The parameters are those of :class:`~infomax.data.augmentation.draws.ColourChoices`. Without boxes, the images are
    crops of the right size.
    """
    size = out.shape[1]
    planes, spare = np.empty((3, size, size), np.float32), np.empty((size, size), np.float32)
    wide_spare = np.empty(spare_length(boxes, size, 3), np.float32)
    for i in range(len(out)):
        if len(boxes):
            resize_box(images[i], 3, boxes[i], size, bicubic, mirrored[i], wide_spare, planes)
        else:  # as [channel, y, x]: the operations on colours are the same for lines as for columns
            for y in range(size):
                for x in range(size):
                    for c in range(3):
                        planes[c, y, x] = np.float32(images[i, y, x, c]) / largest_value(images)
        _distort(planes, jitter[i], factors[i], grayscale[i], blur[i], sigma[i], reach, solarize[i], spare)
        for c in range(3):
            shift, scale = np.float32(mean[c]), np.float32(1.0 / std[c])
            flat = planes[c].reshape(size * size)
            for j in range(size * size):
                flat[j] = (flat[j] - shift) * scale
            if len(boxes):
                transpose(planes[c], spare)
            write_plane(spare if len(boxes) else planes[c], out[i], c)
