"""Rates of GPUs from their data sheets, and the share of them that the papers' own runs reached.

The time of a step is estimated as the time to compute its FLOPs and the time to move its bytes, one after the other, at
the rates of the data sheet. A run takes longer than that: by the share that runs like it reached, which the papers'
printed times give.
"""

import re
from dataclasses import dataclass
from functools import cache
from math import sqrt

from infomax.data.sources.named import NOMINAL_SIZES
from infomax.papers.published import Number, find_numbers
from infomax.recipes.experiment import Experiment
from infomax.recipes.registry import experiments
from infomax.recipes.schema import Recipe

LARGEST_SMALL_VIEW = 64  # pixels; runs on CIFAR and Tiny ImageNet, which lie in memory
LAUNCH_SECONDS = 10e-6  # about what Python and the driver take to start an operation, during which a fast GPU waits
FEWEST_OPERATIONS = 475  # of a step of a ResNet-18, the smallest encoder of the papers
LEAST_MARGIN = 1.5  # an estimate may be too long or too short by this factor, however well the papers' runs agree


@dataclass(frozen=True)
class Gpu:
    """A frozen dataclass that describes one kind of GPU."""

    gigabytes: int
    """Memory, in 10^9 bytes."""
    float32_tflops: float
    """Peak rate in float32 outside the tensor cores, in 10^12 FLOPs a second."""
    half_tflops: float
    """Peak rate of the tensor cores in float16 with float32 sums, in 10^12 FLOPs a second, for dense matrices."""
    gigabytes_per_second: float
    """Rate at which the memory is read or written, in 10^9 bytes a second."""
    tf32_tflops: float | None = None
    """Peak rate of the tensor cores in TF32, for dense matrices; None if they have no TF32. torch computes float32
    convolutions in it, and no other products, unless it is told otherwise; infomax leaves it so."""
    has_bf16: bool = True
    """Whether the tensor cores take bfloat16 too."""

    def seconds(self, precision: str, *, flops: float, full_precision_flops: float, moved_bytes: float) -> float | None:
        """Returns the time to compute and to move at the peak rates, in seconds.

        Args:
            precision: A recipe's precision: ``64``, ``32``, ``bf16`` or ``16``.
            flops: All FLOPs.
            full_precision_flops: Those of them that no tensor core takes.
            moved_bytes: Bytes that the operations read and write.

        Returns:
            The time; None if the GPU does not have this precision, or its rate is not in the table, as that of ``64``.
        """
        if precision == "64" or (precision == "bf16" and not self.has_bf16):
            return None
        tensor_cores = (self.tf32_tflops or self.float32_tflops) if precision == "32" else self.half_tflops
        computing = (flops - full_precision_flops) / tensor_cores + full_precision_flops / self.float32_tflops
        return computing / 1e12 + moved_bytes / (self.gigabytes_per_second * 1e9)


# From NVIDIA's data sheets and architecture whitepapers (Turing, Volta, GA102, GA100, Ada, GH100), where rates "with
# sparsity" are twice those of dense matrices. Of several variants it is the one for SXM, or the one with the most
# memory.
GPUS: dict[str, Gpu] = {
    "T4": Gpu(16, 8.1, 65, 320, has_bf16=False),
    "TITAN-V": Gpu(12, 14.9, 110, 653, has_bf16=False),
    "V100": Gpu(32, 15.7, 125, 900, has_bf16=False),
    "RTX-3090": Gpu(24, 35.6, 71.2, 936, tf32_tflops=35.6),
    "RTX-4090": Gpu(24, 82.6, 165.2, 1008, tf32_tflops=82.6),
    "A10": Gpu(24, 31.2, 125, 600, tf32_tflops=62.5),
    "L4": Gpu(24, 30.3, 121, 300, tf32_tflops=60),
    "L40S": Gpu(48, 91.6, 362, 864, tf32_tflops=183),
    "A100": Gpu(80, 19.5, 312, 2039, tf32_tflops=156),
    "H100": Gpu(80, 66.9, 989.4, 3350, tf32_tflops=494.7),
    "H200": Gpu(141, 66.9, 989.4, 4800, tf32_tflops=494.7),
}


@dataclass(frozen=True)
class Utilization:
    """A frozen dataclass that holds the utilization of a paper's GPUs, for a run whose time the paper prints."""

    source: str
    """The paper and its table or section."""
    hardware: str
    """Number and kind of the GPUs, as the paper prints them: ``16 A100``."""
    share: float
    """Time of the run at the GPUs' peak rates as a share of its real time, in (0, 1)."""


# MVEB's timed run (Sec. 7.5) has 1000 epochs; the paper does not name its crops. We take it for one with two crops.
MVEB_TIMED_RUN = "mveb/imagenet_two_crops"
UNIT_SECONDS = {"seconds_per_epoch": 1, "minutes_per_epoch": 60, "hours": 3600}
"""Metrics that are times, and their units in seconds."""
BYTES_PER_FLOP = {
    ("resnet18", "cifar"): 0.0130,
    ("resnet18", "imagenet"): 0.0176,
    ("resnet34", "imagenet"): 0.0130,
    ("resnet50", "imagenet"): 0.0342,
    ("resnet101", "imagenet"): 0.0263,
    ("vit_small", "imagenet"): 0.0214,
}
"""Bytes that a step in float32 moves for each of its FLOPs, by the backbone and its stem: what
:func:`infomax.planning.step_cost.count_step_cost` counts for the papers' recipes. In half precision it is half."""


def has_small_images(recipe: Recipe) -> bool:
    """Returns whether a recipe's images are small enough to lie in memory, as those of CIFAR."""
    return recipe.views.global_crops[0].size <= LARGEST_SMALL_VIEW


@cache
def papers_utilizations(*, small_images: bool) -> tuple[Utilization, ...]:
    """Returns the utilization of all runs in the papers whose time is printed.

    The papers do not say their runs' precision. As in the recipes, we assume that of the official code, or half
    precision for ImageNet.

    Args:
        small_images: Whether to select the runs on small images, or those on images that are read from files.
    """
    timed = [(experiment, number) for experiment in experiments().values() for number in experiment.numbers()]
    timed += [(experiments()[MVEB_TIMED_RUN], number) for number in find_numbers(method="MVEB", metric="hours")]
    return tuple(
        _utilization(experiment, number)
        for experiment, number in timed
        if number.column.metric in UNIT_SECONDS and has_small_images(experiment.recipe()) == small_images
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
    precision = "32" if recipe.precision == "32" else "16"
    at_peak = _seconds_at_peak(experiment, GPUS[kind.replace(" ", "-")], precision) or 0
    share = at_peak / recipe.epochs / epoch_seconds / int(devices or 1)
    return Utilization(f"{time.table.paper}, {time.table.number}", conditions.hardware or "", share)


def _seconds_at_peak(experiment: Experiment, gpu: Gpu, precision: str) -> float | None:
    """Returns the time of a paper's recipe on one GPU at its peak rates; None if its cost or a rate is not known."""
    encoder = experiment.recipe().encoder
    bytes_per_flop = BYTES_PER_FLOP.get((encoder.backbone, encoder.stem))
    if experiment.exaflops is None or bytes_per_flop is None:
        return None
    flops, scale = experiment.exaflops * 1e18, 1 if precision == "32" else 0.5
    return gpu.seconds(precision, flops=flops, full_precision_flops=0, moved_bytes=flops * bytes_per_flop * scale)


def estimate_range(
    seconds_at_peak: float, runs: tuple[Utilization, ...], *, operations: float = 0
) -> tuple[float, float]:
    """Returns the shortest and the longest time that a run is likely to take, in seconds.

    They are those at the highest and the lowest utilization of similar runs, but at least a factor of
    :data:`LEAST_MARGIN` above and below the time between them. No time is shorter than to start all operations takes.

    Args:
        seconds_at_peak: Its time at the GPU's peak rates.
        runs: Runs like it; not empty.
        operations: Number of operations that are started one after the other.
    """
    low, high = (seconds_at_peak / choose(run.share for run in runs) for choose in (max, min))
    middle, launches = sqrt(low * high), operations * LAUNCH_SECONDS
    return max(min(low, middle / LEAST_MARGIN), launches), max(high, middle * LEAST_MARGIN, launches * LEAST_MARGIN)


def training_hours(experiment: Experiment, gpu: str) -> tuple[float, float] | None:
    """Returns the shortest and the longest time that a paper's recipe is likely to take on one GPU, in hours.

    Args:
        experiment: The recipe.
        gpu: Name of the GPU, as in :data:`GPUS`.

    Returns:
        The two times; None if the recipe's cost or the GPU's rate is not known.
    """
    recipe = experiment.recipe()
    at_peak = _seconds_at_peak(experiment, GPUS[gpu], recipe.precision)
    if at_peak is None:
        return None
    runs = papers_utilizations(small_images=has_small_images(recipe))
    images = NOMINAL_SIZES[experiment.data][0] if experiment.data in NOMINAL_SIZES else 0
    low, high = estimate_range(at_peak, runs, operations=FEWEST_OPERATIONS * recipe.steps(images))
    return low / 3600, high / 3600
