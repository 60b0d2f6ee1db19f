"""What GPUs can do by their data sheets, and what share of it the papers' own runs reached."""

import re
from dataclasses import dataclass
from functools import cache

from infomax.papers.published import Number, find_numbers
from infomax.recipes.experiment import Experiment
from infomax.recipes.registry import experiments


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    gigabytes: int
    single: float
    """Peak rate in float32 outside the tensor cores, in units of 10^12 FLOPs a second; TF32 may be faster."""
    half: float
    """The same of the tensor cores in float16 with sums in float32, of matrices that are not sparse."""
    bf16: bool = True
    """Whether they take bfloat16 too."""

    def peak(self, precision: str) -> float | None:
        """FLOPs a second at most; None where the GPU does not have this precision, or the table not its rate."""
        rates = {"32": self.single, "16": self.half, "bf16": self.half if self.bf16 else None}
        rate = rates.get(precision)
        return None if rate is None else rate * 1e12


# From NVIDIA's data sheets and architecture whitepapers; of several forms, the one for SXM, or with the most memory.
GPUS: dict[str, Gpu] = {
    "T4": Gpu(16, 8.1, 65, bf16=False),
    "TITAN-V": Gpu(12, 14.9, 110, bf16=False),
    "V100": Gpu(32, 15.7, 125, bf16=False),
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
    """A run of a paper whose time is known, and what it made of its GPUs."""

    where: str
    """In the paper."""
    hardware: str
    share: float
    """Of the peak rate, by the FLOPs that infomax counts for such a run."""


LONGER = "mveb/imagenet_two_crops"  # MVEB's timed run (Sec. 7.5), of 1000 epochs, which does not name its crops
SECONDS = {"seconds_per_epoch": 1, "minutes_per_epoch": 60, "hours": 3600}


@cache
def reached(precision: str) -> tuple[Utilization, ...]:
    """All runs in the papers whose time is known, of those in half (``16``, ``bf16``) or in full precision (``32``).

    The papers do not say their precision: that of the official code, or half precision for ImageNet, is assumed, as in
    the recipes.
    """
    timed = [(one, number) for one in experiments().values() for number in one.numbers()]
    timed += [(experiments()[LONGER], number) for number in find_numbers(method="MVEB", metric="hours")]
    return tuple(
        _reached(one, number)
        for one, number in timed
        if number.column.metric in SECONDS and (one.recipe().precision == "32") == (precision == "32")
    )


def _reached(experiment: Experiment, number: Number) -> Utilization:
    how, recipe = number.conditions, experiment.recipe()
    epochs = (how.epochs or recipe.epochs) if number.column.metric == "hours" else 1
    seconds = number.value * SECONDS[number.column.metric] / epochs
    devices, kind = re.fullmatch(r"(?:(\d+) )?(.+)", how.hardware or "").groups()  # pyrefly: ignore
    rate = (experiment.exaflops or 0) * 1e18 / recipe.epochs / seconds / int(devices or 1)
    peak = GPUS[kind.replace(" ", "-")].peak("32" if recipe.precision == "32" else "16")
    return Utilization(f"{number.table.paper}, {number.table.number}", how.hardware or "", rate / (peak or 1))


def hours(experiment: Experiment, name: str) -> tuple[float, float] | None:
    """That a paper's recipe takes on one GPU of this kind, from and to; None where it cannot be known."""
    precision = experiment.recipe().precision
    peak, runs = GPUS[name].peak(precision), reached(precision)
    if experiment.exaflops is None or peak is None:
        return None
    times = [experiment.exaflops * 1e18 / (peak * run.share) / 3600 for run in runs]
    return min(times), max(times)
