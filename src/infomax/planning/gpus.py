"""Peak rates of GPUs from their data sheets, and the share of them that the papers' own runs reached."""

import re
from dataclasses import dataclass
from functools import cache

from infomax.papers.published import Number, find_numbers
from infomax.recipes.experiment import Experiment
from infomax.recipes.registry import experiments


@dataclass(frozen=True)
class Gpu:
    """A frozen dataclass that describes one kind of GPU."""

    gigabytes: int
    """Memory, in 10^9 bytes."""
    float32_tflops: float
    """Peak rate in float32 outside the tensor cores, in 10^12 FLOPs a second; TF32 may be faster."""
    half_tflops: float
    """Peak rate of the tensor cores in float16 with float32 sums, in 10^12 FLOPs a second, for dense matrices."""
    has_bf16: bool = True
    """Whether the tensor cores take bfloat16 too."""

    def peak(self, precision: str) -> float | None:
        """Returns the peak rate in FLOPs a second.

        Args:
            precision: A recipe's precision: ``64``, ``32``, ``bf16`` or ``16``.

        Returns:
            The rate; None if the GPU does not have this precision, or its rate is not in the table, as that of ``64``.
        """
        half = self.half_tflops
        tflops = {"32": self.float32_tflops, "16": half, "bf16": half if self.has_bf16 else None}.get(precision)
        return None if tflops is None else tflops * 1e12


# From NVIDIA's data sheets and architecture whitepapers. Of several variants it is the one for SXM, or the one with the
# most memory.
GPUS: dict[str, Gpu] = {
    "T4": Gpu(16, 8.1, 65, has_bf16=False),
    "TITAN-V": Gpu(12, 14.9, 110, has_bf16=False),
    "V100": Gpu(32, 15.7, 125, has_bf16=False),
    "RTX-3090": Gpu(24, 35.6, 71.2),
    "RTX-4090": Gpu(24, 82.6, 165.2),
    "A10": Gpu(24, 31.2, 125),
    "L4": Gpu(24, 30.3, 121),
    "L40S": Gpu(48, 91.6, 362),
    "A100": Gpu(80, 19.5, 312),
    "H100": Gpu(80, 66.9, 989.4),
    "H200": Gpu(141, 66.9, 989.4),
}


@dataclass(frozen=True)
class Utilization:
    """A frozen dataclass that holds the utilization of a paper's GPUs, for a run whose time the paper prints."""

    source: str
    """The paper and its table or section."""
    hardware: str
    """Number and kind of the GPUs, as the paper prints them: ``16 A100``."""
    share: float
    """Share of the GPUs' peak rate, by the FLOPs that infomax counts for such a run; in (0, 1)."""


# MVEB's timed run (Sec. 7.5) has 1000 epochs; the paper does not name its crops. We take it for one with two crops.
MVEB_TIMED_RUN = "mveb/imagenet_two_crops"
UNIT_SECONDS = {"seconds_per_epoch": 1, "minutes_per_epoch": 60, "hours": 3600}
"""Metrics that are times, and their units in seconds."""


@cache
def papers_utilizations(precision: str) -> tuple[Utilization, ...]:
    """Returns the utilization of all runs in the papers whose time is printed.

    The papers do not say their runs' precision. As in the recipes, we assume that of the official code, or half
    precision for ImageNet.

    Args:
        precision: A recipe's precision. ``32`` selects the runs in full precision, any other those in half precision.
    """
    timed = [(experiment, number) for experiment in experiments().values() for number in experiment.numbers()]
    timed += [(experiments()[MVEB_TIMED_RUN], number) for number in find_numbers(method="MVEB", metric="hours")]
    return tuple(
        _utilization(experiment, number)
        for experiment, number in timed
        if number.column.metric in UNIT_SECONDS and (experiment.recipe().precision == "32") == (precision == "32")
    )


def _utilization(experiment: Experiment, time: Number) -> Utilization:
    """Returns the utilization that a printed time means.

    Args:
        experiment: The recipe of the run.
        time: The time of the run or of an epoch, with the hardware in its conditions.
    """
    conditions, recipe, metric = time.conditions, experiment.recipe(), time.column.metric
    epochs = (conditions.epochs or recipe.epochs) if metric == "hours" else 1
    epoch_seconds = time.value * UNIT_SECONDS[metric] / epochs
    devices, kind = re.fullmatch(r"(?:(\d+) )?(.+)", conditions.hardware or "").groups()  # pyrefly: ignore
    rate = (experiment.exaflops or 0) * 1e18 / recipe.epochs / epoch_seconds / int(devices or 1)
    peak = GPUS[kind.replace(" ", "-")].peak("32" if recipe.precision == "32" else "16")
    return Utilization(f"{time.table.paper}, {time.table.number}", conditions.hardware or "", rate / (peak or 1))


def training_hours(experiment: Experiment, gpu: str) -> tuple[float, float] | None:
    """Returns the shortest and the longest time that a paper's recipe takes on one GPU, in hours.

    Args:
        experiment: The recipe.
        gpu: Name of the GPU, as in :data:`GPUS`.

    Returns:
        The two times, at the highest and the lowest utilization of the papers' own runs; None if the recipe's cost or
        the GPU's rate is not known.
    """
    precision = experiment.recipe().precision
    peak, runs = GPUS[gpu].peak(precision), papers_utilizations(precision)
    if experiment.exaflops is None or peak is None:
        return None
    hours = [experiment.exaflops * 1e18 / (peak * run.share) / 3600 for run in runs]
    return min(hours), max(hours)
