"""Provides schedules: pure functions of the progress of a run, which is the share of it that is done, in [0, 1]."""

from math import cos, pi


def cosine(start: float, end: float, progress: float) -> float:
    """Returns a value on half a cosine, from ``start`` at progress 0 to ``end`` at progress 1.

    Args:
        start: The value at progress 0.
        end: The value at progress 1.
        progress: The share of the run that is done, in [0, 1].

    Example:
        >>> from infomax.nn.schedules import cosine
        >>> [round(cosine(1.0, 0.0, progress), 3) for progress in (0, 0.25, 0.5, 1)]
        [1.0, 0.854, 0.5, 0.0]
    """
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    """Returns a value on a straight line, from ``start`` at progress 0 to ``end`` at progress 1 and after.

    Args:
        start: The value at progress 0.
        end: The value at progress 1, which later progress keeps.
        progress: The share of the way that is done, from 0.

    Example:
        >>> from infomax.nn.schedules import linear
        >>> [linear(4.0, 2.0, progress) for progress in (0, 0.25, 1, 7)]
        [4.0, 3.5, 2.0, 2.0]
    """
    return end if progress >= 1 else start + (end - start) * progress


def warmup_cosine_by_step(
    step: int, *, steps: int, warmup_steps: int, peak: float, start: float = 0.0, end: float = 0.0
) -> float:
    """Returns a learning rate that warms up and decays step by step, as in the official MIRA code.

    The line leaves ``start`` with its first rise at step 0, and meets ``peak`` at step ``warmup_steps``. The cosine
    would reach ``end`` one step after the last one.

    Args:
        step: The step, counted from 0.
        steps: The number of steps of the run.
        warmup_steps: The number of steps before the peak.
        peak: The highest learning rate.
        start: The learning rate that the line leaves.
        end: The learning rate that the cosine falls to.

    Example:
        >>> from infomax.nn.schedules import warmup_cosine_by_step
        >>> [round(warmup_cosine_by_step(step, steps=8, warmup_steps=3, peak=1.0), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 0.905, 0.655, 0.345, 0.095]
    """
    if step < warmup_steps:
        return linear(start, peak, (step + 1) / (warmup_steps + 1))
    return cosine(peak, end, (step - warmup_steps) / (steps - warmup_steps))


def warmup_cosine_by_epoch(
    epoch: int, *, epochs: int, warmup_epochs: int, peak: float, start: float = 0.0, end: float = 0.0
) -> float:
    """Returns a learning rate that warms up and decays epoch by epoch, as in the official CorInfoMax code.

    A line goes from ``start`` at epoch 0 to ``peak`` at the last epoch of the warm-up. A cosine then starts at ``peak``
    and would reach ``end`` one epoch after the last one.

    Args:
        epoch: The epoch, counted from 0.
        epochs: The number of epochs of the run.
        warmup_epochs: The number of epochs of the warm-up.
        peak: The highest learning rate.
        start: The learning rate of epoch 0.
        end: The learning rate that the cosine falls to.

    Example:
        >>> from infomax.nn.schedules import warmup_cosine_by_epoch
        >>> [round(warmup_cosine_by_epoch(epoch, epochs=7, warmup_epochs=3, peak=1.0), 3) for epoch in range(7)]
        [0.0, 0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if epoch < warmup_epochs:
        return linear(start, peak, epoch / max(1, warmup_epochs - 1))
    return cosine(peak, end, (epoch - warmup_epochs) / (epochs - warmup_epochs))
