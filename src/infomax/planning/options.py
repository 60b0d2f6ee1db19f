"""Holds the options of a plan, which the command and Python share."""

from dataclasses import dataclass
from typing import Annotated

from infomax.runtime.options import Shown
from infomax.training.options import MachineOptions, RecipeOptions


@dataclass(frozen=True, kw_only=True)
class PlanOptions(MachineOptions, RecipeOptions):
    """A frozen dataclass that holds all options of ``infomax plan`` and :func:`infomax.plan`."""

    images: Annotated[int | None, Shown(metavar="N", default="those of the data")] = None
    """Number of images to plan for; no image is opened. A paper's data set need not be there anyway."""
    gpu: Annotated[tuple[str, ...], Shown(metavar="NAME", repeatable=True)] = ()
    """Kinds of GPU to plan for, as A100 or RTX-4090; this machine is not measured. Without any, the plan is for this
    machine."""
