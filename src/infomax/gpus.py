"""What GPUs can do by their data sheets, and what share of it the papers' own runs reached."""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from infomax.cost import count
from infomax.data.named import EXTENT
from infomax.published import Number, find
from infomax.recipes import customise, get_recipe
from infomax.recipes.schema import Recipe


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
class Reached:
    """A run of a paper whose time is known, and what it made of its GPUs."""

    where: str
    """In the paper."""
    hardware: str
    share: float
    """Of the peak rate, by the FLOPs that infomax counts for such a run."""


# Of each method, the recipe nearest to the runs that its paper gives the time of, and how they differ from it. The
# papers do not say their precision: that of the official code, or half precision for ImageNet, is assumed.
TIMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "MIRA": ("mira", "imagenet100", {"backbone": "resnet50", "views": "byol", "precision": "16"}),
    "MVEB": ("mveb", "imagenet", {"views": "byol", "precision": "16"}),
    "CorInfoMax": ("corinfomax", "cifar10", {"precision": "32"}),
}
SECONDS = {"seconds_per_epoch": 1, "minutes_per_epoch": 60, "hours": 3600}
FEW = 64  # images to count the FLOPs of, which are in proportion but for a loss's few


@cache
def reached(precision: str) -> tuple[Reached, ...]:
    """All runs in the papers whose time is known, of those in half (``16``, ``bf16``) or in full precision (``32``)."""
    runs: list[Reached] = []
    for paper, (method, name, changes) in TIMED.items():
        if (changes["precision"] == "32") == (precision == "32"):
            recipe = customise(get_recipe(method, name), **changes, batch_size=FEW)
            runs += [_reached(number, recipe) for metric in SECONDS for number in find(method=paper, metric=metric)]
    return tuple(runs)


def _reached(number: Number, recipe: Recipe) -> Reached:
    how, column = number.conditions, number.column
    same = {} if how.dimension is None else {"dimension": how.dimension}
    same |= {"momentum": None} if how.moving_average is False else {}
    cost = count(replace(recipe, method=replace(recipe.method, **same)))
    devices, kind = re.fullmatch(r"(?:(\d+) )?(.+)", how.hardware or "").groups()  # pyrefly: ignore
    seconds = number.value * SECONDS[column.metric] / ((how.epochs or 1) if column.metric == "hours" else 1)
    rate = cost.flops / cost.images * EXTENT[column.data][0] / seconds / int(devices or 1)
    peak = GPUS[kind.replace(" ", "-")].peak(recipe.precision)
    return Reached(f"{number.table.paper}, {number.table.number}", how.hardware or "", rate / (peak or 1))
