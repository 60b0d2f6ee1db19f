"""Schedules: pure functions of progress, the share of a run that is done, in [0, 1]."""

from math import cos, pi


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1."""
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    """Straight line from ``start`` at progress 0 to ``end`` at progress 1 and after."""
    return end if progress >= 1 else start + (end - start) * progress


def warmup_cosine_by_step(
    step: int, *, steps: int, warmup_steps: int, peak: float, start: float = 0.0, end: float = 0.0
) -> float:
    """A line from ``start`` that has its first rise at step 0 and meets ``peak`` at ``warmup_steps``; then a cosine.

    The law of the official MIRA code; the end is reached after the last step.
    """
    if step < warmup_steps:
        return linear(start, peak, (step + 1) / (warmup_steps + 1))
    return cosine(peak, end, (step - warmup_steps) / (steps - warmup_steps))


def warmup_cosine_by_epoch(
    epoch: int, *, epochs: int, warmup_epochs: int, peak: float, start: float = 0.0, end: float = 0.0
) -> float:
    """A line from ``start`` at epoch 0 to ``peak`` at the last epoch of the warm-up; then a cosine.

    The law of the official CorInfoMax code.
    """
    if epoch < warmup_epochs:
        return linear(start, peak, epoch / max(1, warmup_epochs - 1))
    return cosine(peak, end, (epoch - warmup_epochs) / (epochs - warmup_epochs))
