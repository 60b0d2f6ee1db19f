"""Loops over the pixels of one image at a time, compiled by Numba for the CPU.

An image goes through all operations while it is in the cache. The same mathematics as augment.py, which works on whole
batches, as a GPU needs it; there are the explanations. Inner loops run along memory, so that they become vector
instructions: an image is held as planes of columns, [channel, x, y], and resized along y first, then along x.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue
TILE = 8  # lines that are turned into columns at once, or columns into lines
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}  # all of fast mathematics but the promise that there are no NaN


def compiled(function: Callable[..., Any], *, fast: bool = True) -> Any:
    """``function`` as machine code, which is made at its first use and kept on disk, where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST if fast else False, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(**options)(function)


@compiled
def _weights(start, length, source, size, bicubic, first, weights):
    """The resampling of a line: for each of ``size`` results, its first source pixel and the weights from there on.

    Returns the largest number of weights; pixels before ``start`` and from ``start + length`` on have none.
    """
    scale = length / size
    wide = max(scale, 1.0)
    reach = (2.0 if bicubic else 1.0) * wide
    low, high = int(np.floor(start)), min(int(np.ceil(start + length)), source)
    most = 0
    for i in range(size):
        centre = start + (i + 0.5) * scale
        begin = max(int(np.floor(centre - reach)), low)
        end = min(int(np.ceil(centre + reach)), high)
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
def _taps(length, size, bicubic):
    """The most weights that a result can have."""
    return int(np.ceil(2.0 * (2.0 if bicubic else 1.0) * max(length / size, 1.0))) + 5


@compiled
def _weighted_sum(lines, start, step, left, right, weights, many, out):
    """The columns from ``left`` to ``right`` of every ``step``-th line from ``start`` on, added up by their weights.

    Four lines at once, so that the sum is read and written a quarter as often; weights beyond ``many`` are 0.
    """
    last = len(lines) - 1
    for t in range(0, many, 4):
        a, b, c, d = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        at = start + step * t
        first, second = lines[min(at, last)][left:right], lines[min(at + step, last)][left:right]
        third, fourth = lines[min(at + 2 * step, last)][left:right], lines[min(at + 3 * step, last)][left:right]
        for j in range(right - left):
            total = a * np.float32(first[j]) + b * np.float32(second[j])
            total += c * np.float32(third[j]) + d * np.float32(fourth[j])
            out[j] = total if t == 0 else out[j] + total


@compiled
def _crop(image, box, size, bicubic, mirrored, out):
    """Resize a box (top, left, height, width; pixels, perhaps parts of them) of bytes [h, w, 3] into [3, size, size].

    Values are in [0, 255]; ``out`` is [channel, x, y].
    """
    top, left, height, width = box
    h, w = image.shape[0], image.shape[1]
    most = max(_taps(height, size, bicubic), _taps(width, size, bicubic))
    weights, first = np.empty((size, most), np.float32), np.empty(size, np.int64)
    low, high = int(np.floor(left)), min(int(np.ceil(left + width)), w)
    span = 3 * (high - low)
    full, across = (size + TILE - 1) // TILE * TILE, (span + TILE - 1) // TILE * TILE
    lines, turned = np.empty((full, across), np.float32), np.empty((across, full), np.float32)
    many = _weights(top, height, h, size, bicubic, first, weights)
    rows = image.reshape(h, 3 * w)
    for y in range(size):
        _weighted_sum(rows, first[y], 1, 3 * low, 3 * high, weights[y], many, lines[y])
    for y in range(0, full, TILE):
        for x in range(0, across, TILE):
            for i in range(TILE):
                for k in range(TILE):
                    turned[x + k, y + i] = lines[y + i, x + k]
    many = _weights(left, width, w, size, bicubic, first, weights)
    for x in range(size):
        to = size - 1 - x if mirrored else x
        for c in range(3):
            column = out[c, to]
            _weighted_sum(turned[:span], 3 * (first[x] - low) + c, 3, 0, size, weights[x], many, column)
            for y in range(size):
                column[y] = min(max(column[y], np.float32(0.0)), np.float32(255.0))


@compiled
def _gray(r, g, b):
    return np.float32(GRAY[0]) * r + np.float32(GRAY[1]) * g + np.float32(GRAY[2]) * b


@compiled
def _clamped(x):
    return min(max(x, np.float32(0.0)), np.float32(1.0))


@compiled
def _jitter(part, factor, r, g, b):
    """One part of the colour jitter of an image in [0, 1], whose channels are lines of pixels; in place."""
    n, f, zero, one = len(r), np.float32(factor), np.float32(0.0), np.float32(1.0)
    if part == 0:  # brightness
        for i in range(n):
            r[i] = _clamped(r[i] * f)
            g[i] = _clamped(g[i] * f)
            b[i] = _clamped(b[i] * f)
    elif part == 1:  # contrast: towards the mean gray
        total = zero
        for i in range(n):
            total += _gray(r[i], g[i], b[i])
        shift = (one - f) * (total / np.float32(n))
        for i in range(n):
            r[i] = _clamped(r[i] * f + shift)
            g[i] = _clamped(g[i] * f + shift)
            b[i] = _clamped(b[i] * f + shift)
    elif part == 2:  # saturation: towards each pixel's gray
        for i in range(n):
            shift = (one - f) * _gray(r[i], g[i], b[i])
            r[i] = _clamped(r[i] * f + shift)
            g[i] = _clamped(g[i] * f + shift)
            b[i] = _clamped(b[i] * f + shift)
    else:
        for i in range(n):
            high, low = max(max(r[i], g[i]), b[i]), min(min(r[i], g[i]), b[i])
            chroma = high - low
            sixth = one / (np.float32(6.0) * (chroma if chroma > zero else one))
            hue = (g[i] - b[i]) * sixth
            hue = (b[i] - r[i]) * sixth + np.float32(1 / 3) if high == g[i] else hue
            hue = (r[i] - g[i]) * sixth + np.float32(2 / 3) if high == b[i] else hue
            hue = (g[i] - b[i]) * sixth if high == r[i] else hue
            hue += f + np.float32(2.0)  # positive, whatever the turn
            k0, k1, k2 = hue + np.float32(5 / 6), hue + np.float32(3 / 6), hue + np.float32(1 / 6)
            k0, k1, k2 = k0 - np.floor(k0), k1 - np.floor(k1), k2 - np.floor(k2)
            six, two = np.float32(6.0), np.float32(2.0)
            r[i] = high - chroma * _clamped(two - abs(six * k0 - two))
            g[i] = high - chroma * _clamped(two - abs(six * k1 - two))
            b[i] = high - chroma * _clamped(two - abs(six * k2 - two))


@compiled
def _blur(plane, sigma, reach, spare):
    """A Gaussian blur of a plane, in place: of its lines' neighbours, turned, and again. ``spare`` is as large."""
    size = plane.shape[0]
    bell = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    bell /= 2.0 * bell.sum() - 1.0
    while reach > 0 and bell[reach] < 1e-8:  # of a narrow bell: too little to change a float32
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
        for x in range(size):
            for y in range(size):
                plane[x, y] = spare[y, x]


@compiled
def _distort(planes, jitter, factors, grayscale, blur, sigma, reach, solarize, spare):
    """Colour jitter, grayscale, blur and solarisation of one image in [0, 1], [3, x, y]; in place."""
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
            _blur(planes[c], sigma, reach, spare)
    if solarize:
        flat = planes.reshape(3 * n)
        for i in range(3 * n):
            flat[i] = np.float32(1.0) - flat[i] if flat[i] >= np.float32(128 / 255) else flat[i]


@compiled
def cut(image, box, bicubic, mirrored, out):
    """The crop of a view of bytes [h, w, 3]: a box (top, left, height, width) of it, into bytes [size, size, 3].

    The box is in pixels, or parts of them.
    """
    size = out.shape[0]
    planes = np.empty((3, size, size), np.float32)
    _crop(image, box, size, bicubic, mirrored, planes)
    for start in range(0, size, TILE):
        for y in range(size):
            for x in range(start, min(start + TILE, size)):
                for c in range(3):
                    out[y, x, c] = np.uint8(planes[c, x, y] + np.float32(0.5))


@compiled
def make(images, boxes, mirrored, bicubic, jitter, factors, grayscale, blur, sigma, reach, solarize, mean, std, out):
    """Views of images [b, h, w, 3] in bytes, cropped where there are boxes; into ``out``, [b, size, size, 3]."""
    size = out.shape[1]
    planes, spare = np.empty((3, size, size), np.float32), np.empty((size, size), np.float32)
    for i in range(len(out)):
        if len(boxes):
            _crop(images[i], boxes[i], size, bicubic, mirrored[i], planes)
        else:  # colours do not mind that these are lines, not columns
            for y in range(size):
                for x in range(size):
                    for c in range(3):
                        planes[c, y, x] = images[i, y, x, c]
        planes /= np.float32(255.0)
        _distort(planes, jitter[i], factors[i], grayscale[i], blur[i], sigma[i], reach, solarize[i], spare)
        for c in range(3):
            shift, scale = np.float32(mean[c]), np.float32(1.0 / std[c])
            flat = planes[c].reshape(size * size)
            for j in range(size * size):
                flat[j] = (flat[j] - shift) * scale
        for start in range(0, size, TILE):
            for y in range(size):
                for x in range(start, min(start + TILE, size)):
                    for c in range(3):
                        out[i, y, x, c] = planes[c, x, y] if len(boxes) else planes[c, y, x]
