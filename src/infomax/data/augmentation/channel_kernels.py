"""Makes views of images of any channels but red, green and blue, by loops that Numba compiles for the CPU.

Each channel goes through the operations by itself. The mathematics is that of ``operations.py``; how the loops run
along memory, ``kernels.py`` explains.
"""

import numpy as np

from infomax.data.augmentation.kernels import (
    blur_plane,
    clamped,
    compiled,
    invert_bright,
    largest_value,
    resize_box,
    spare_length,
    transpose,
    write_plane,
)


@compiled
def _scale_channel(plane, is_contrast, factor):
    """Multiplies the values of one channel, or their distances to their mean, by a factor, in place."""
    n, f, shift = len(plane), np.float32(factor), np.float32(0.0)
    if is_contrast:
        total = np.float32(0.0)
        for i in range(n):
            total += plane[i]
        shift = (np.float32(1.0) - f) * (total / np.float32(n))
    for i in range(n):
        plane[i] = clamped(plane[i] * f + shift)


@compiled
def _read_planes(image, planes):
    """Converts an image [y, x, c] of whole numbers to planes [c, y, x] in [0, 1]."""
    size, factor = image.shape[0], np.float32(1.0) / largest_value(image)
    for y in range(size):
        for c in range(len(planes)):
            line, pixels = planes[c, y], image[y]
            for x in range(size):
                line[x] = np.float32(pixels[x, c]) * factor


@compiled
def make_channel_views(images, boxes, mirrored, bicubic, jitter, factors, blur, sigma, reach, solarize, mean, std, out):
    """Makes a view of each image [b, h, w, c] of uint8 or uint16, and writes it into ``out`` [b, size, size, c].

    The parameters are those of :class:`~infomax.data.augmentation.draws.ColourChoices`. Without boxes, the images are
    crops of the right size.
    """
    size, channels = out.shape[1], out.shape[3]
    planes, spare = np.empty((channels, size, size), np.float32), np.empty((size, size), np.float32)
    wide_spare = np.empty(spare_length(boxes, size, channels), np.float32)
    for i in range(len(out)):
        if len(boxes):
            resize_box(images[i], channels, boxes[i], size, bicubic, mirrored[i], wide_spare, planes)
        else:  # as [channel, y, x]: the operations on colours are the same for lines as for columns
            _read_planes(images[i], planes)
        for c in range(channels):
            plane = planes[c].reshape(size * size)
            for turn in range(jitter.shape[1]):
                for part in range(jitter.shape[2]):
                    if jitter[i, turn, part]:
                        _scale_channel(plane, part == 1, factors[i, part, c])
            if blur[i]:
                blur_plane(planes[c], sigma[i], reach, spare)
            if solarize[i]:
                invert_bright(plane)
            shift, scale = np.float32(mean[c]), np.float32(1.0 / std[c])
            for j in range(size * size):
                plane[j] = (plane[j] - shift) * scale
            if len(boxes):
                transpose(planes[c], spare)
                write_plane(spare, out[i], c)
            else:
                write_plane(planes[c], out[i], c)
