"""The operations of ``last_operations.py`` on one view at a time, as loops that Numba compiles for the CPU."""

import numpy as np

from infomax.data.augmentation.kernels import compiled


@compiled
def _mix(x):
    """Returns what ``_mix`` of ``last_operations.py`` returns."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def _add_noise(values, amounts, key, quantiles):
    """Adds noise to a view [s, s, c] whose values are in one line; ``amounts`` is its deviation in each channel."""
    channels = len(amounts)
    for start in range(0, len(values), channels):
        for c in range(channels):
            bits = _mix(np.uint32(_mix(np.uint32(start + c)) + key))
            values[start + c] += amounts[c] * quantiles[bits >> np.uint32(16)]


@compiled
def finish_views(views, noise_std, noise_key, dropped, turns, std, quantiles):
    """Adds noise to normalised views [b, s, s, c], sets dropped channels to 0 and turns the views, in place.

    The parameters are those of :class:`~infomax.data.augmentation.draws.LastChoices`.
    """
    size, channels = views.shape[1], views.shape[3]
    before, amounts = np.empty((size, size, channels), np.float32), np.empty(channels, np.float32)
    for i in range(len(views)):
        view = views[i]
        if noise_std[i] > 0:
            for c in range(channels):
                amounts[c] = noise_std[i] / std[c]
            key = np.uint32((noise_key[i, 0] << 16) | noise_key[i, 1])
            _add_noise(view.reshape(size * size * channels), amounts, key, quantiles)
        for c in range(channels):
            if dropped[i, c]:
                for y in range(size):
                    for x in range(size):
                        view[y, x, c] = np.float32(0.0)
        if turns[i]:
            before[:] = view
            for y in range(size):
                for x in range(size):
                    row, column = x, size - 1 - y
                    if turns[i] == 2:
                        row, column = size - 1 - y, size - 1 - x
                    elif turns[i] == 3:
                        row, column = size - 1 - x, y
                    for c in range(channels):
                        view[y, x, c] = before[row, column, c]
