"""What a run will cost, said before it starts: steps, FLOPs, memory, what ranks send, and time."""

import os
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from infomax.data.sources.location import DataLocation
from infomax.data.sources.named import NOMINAL_SIZES
from infomax.data.splits import Source
from infomax.planning.gpus import GPUS, Utilization, reached
from infomax.planning.step_cost import Cost, count
from infomax.planning.step_time import Timing, time_steps
from infomax.recipes import registry
from infomax.recipes.customise import customise
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import check_count, choose, choose_device
from infomax.runtime.ranks import device_of
from infomax.training.pretrain import check_batch, plan_for

# Of the memory, what tensors may take. MIRA's runs took 1.3 times what is counted here of their GPUs (Table 8): a
# driver, cuDNN's workspaces and what the allocator keeps are not tensors.
CPU_SHARE, GPU_SHARE = 0.9, 0.75


@dataclass(frozen=True)
class Machine:
    """One device, or several of a kind that share the run."""

    name: str
    memory: int
    """Bytes; of each GPU, or of the machine whose CPU all ranks share."""
    usable: int
    """What of them a device's tensors may take."""
    fits: bool
    micro_batch_size: int | None = None
    """The largest that fits, where the run as it is does not."""
    lacks: str = ""
    """The precision that it does not have."""
    seconds: tuple[float, float] | None = None
    """Of the run, from and to; None where it does not fit, or nothing is known of such a run there."""
    timing: Timing | None = None
    """What was measured, on this machine."""


@dataclass(frozen=True)
class Plan:
    """What a run will cost."""

    recipe: Recipe
    data: str
    images: int
    """Of the data set."""
    opened: bool
    """Whether the images were; else some were made up to measure with."""
    devices: int
    cost: Cost
    """Of a step, on each device."""
    here: Machine | None
    """This machine; None where the run was planned for GPUs by name."""
    gpus: tuple[Machine, ...]
    reached: tuple[Utilization, ...]
    """The runs by which the time on GPUs is told."""

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.recipe.batch_size

    @property
    def steps(self) -> int:
        return self.recipe.steps(self.images)

    @property
    def flops(self) -> float:
        """Of the run, on all devices."""
        return self.cost.flops * self.devices * self.steps

    @property
    def misfits(self) -> tuple[Machine, ...]:
        """Machines that the run was planned for and does not fit."""
        return tuple(machine for machine in ((self.here,) if self.here else self.gpus) if not machine.fits)


def plan(
    *,
    data: str | Path | None = None,
    method: str | None = None,
    data_dir: str | Path | None = None,
    classes: str | Path | None = None,
    subset: str | Path | None = None,
    download: bool = False,
    images: int | None = None,
    recipe: str | None = None,
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    gpu: Sequence[str] = (),
    **changes: Any,
) -> Plan:
    """What :func:`infomax.pretrain` with the same words will cost; see docs/reference/plan.md. Writes nothing.

    Args:
        data, method, data_dir, classes, subset, download, recipe, device, devices, workers: As there. Of the papers'
            data sets the number of images is known where they are not at hand.
        images: Plan for so many images, and open none.
        gpu: Plan for these kinds of GPU, of ``infomax.planning.gpus.GPUS``, and measure nothing here. Without any, the run is
            planned for this machine, and the time on all kinds is told beside.
        changes: To the recipe, as ``epochs`` or ``micro_batch_size``; see :func:`infomax.recipes.customise.customise`.

    Raises:
        ValueError: if what is asked for is not possible.
    """
    for name in gpu:
        choose("--gpu", name, GPUS)
    check_count("--devices", devices, low=1)
    kind = "cuda" if gpu else choose_device(device)
    known_recipe = recipe is not None
    choice = registry.parse_recipe_choice(recipe, method)
    recipe, method = choice.recipe, choice.method or registry.DEFAULT_METHOD
    where = DataLocation(
        str(data or choice.data), *(None if x is None else str(x) for x in (data_dir, classes, subset))
    )
    source = _open(where, download) if images is None else None
    if source is not None:
        images, name = len(source.pretraining), source.name
        chosen = plan_for(source, method, recipe, gpu=kind == "cuda", changes=changes)
    else:
        known, side = NOMINAL_SIZES.get(where.data, (0, changes.get("image_size") or 224))
        images, name = known if images is None else images, where.data if data or known_recipe else "images"
        check_count("--images", images, low=2)
        choose("--method", method, registry.METHODS)
        best = registry.default_recipe_name(method, data=name, side=side, gpu=kind == "cuda")
        chosen = customise(registry.get_recipe(method, recipe or best), **changes)
    check_batch(chosen, images=images, data=name, world=devices)
    steps = chosen.steps(images)
    return Plan(
        recipe=chosen,
        data=name,
        images=images,
        opened=source is not None,
        devices=devices,
        cost=count(chosen, ranks=devices, device=kind),
        here=None if gpu else _here(chosen, steps, devices, device_of(kind, 0), source, workers),
        gpus=tuple(_on_gpu(name, chosen, steps, devices, asked=bool(gpu)) for name in gpu or GPUS),
        reached=_alike(chosen),
    )


def _open(where: DataLocation, download: bool) -> Source | None:
    """The images; None where they are not here, but known."""
    try:
        return where.open(download=download)
    except ValueError:
        if where.data in NOMINAL_SIZES and not (download or where.data_dir or where.classes or where.subset):
            return None
        raise


def _here(
    recipe: Recipe, steps: int, devices: int, device: torch.device, source: Source | None, workers: int | None
) -> Machine:
    """This machine: its CPU, or GPUs like the first one."""
    cost = count(recipe, ranks=devices, device=device.type)
    if device.type == "cuda":
        name, memory, ranks = torch.cuda.get_device_name(device), _gpu_memory(device), 1
        usable = int(GPU_SHARE * memory)
    else:
        name, memory, ranks = "this CPU", _memory(), devices
        usable = int(CPU_SHARE * memory) // ranks
    if cost.memory.peak > usable:
        part = _largest_part(recipe, devices, device.type, usable)
        return Machine(name, memory, usable, fits=False, micro_batch_size=part)
    timing = time_steps(recipe, cost, device=device, source=source, workers=workers)
    # Ranks that share a CPU come each after the other: their steps were measured with all of its cores.
    seconds = steps * timing.each * ranks + timing.scoring
    return Machine(name, memory, usable, fits=True, seconds=(seconds, seconds), timing=timing)


def _on_gpu(name: str, recipe: Recipe, steps: int, devices: int, *, asked: bool) -> Machine:
    cost, gpu = count(recipe, ranks=devices, device="cuda"), GPUS[name]
    memory, usable = gpu.gigabytes * 10**9, int(GPU_SHARE * gpu.gigabytes * 10**9)
    if cost.memory.peak > usable:
        part = _largest_part(recipe, devices, "cuda", usable) if asked else None
        return Machine(name, memory, usable, fits=False, micro_batch_size=part)
    if recipe.precision == "bf16" and not gpu.bf16:
        return Machine(name, memory, usable, fits=False, lacks="bf16")
    peak, runs = gpu.peak(recipe.precision), _alike(recipe)
    if peak is None or not runs:
        return Machine(name, memory, usable, fits=True)
    seconds = sorted(steps * cost.flops / (peak * run.share) for run in runs)
    return Machine(name, memory, usable, fits=True, seconds=(seconds[0], seconds[-1]))


def _alike(recipe: Recipe) -> tuple[Utilization, ...]:
    """Runs of the papers that say how long this one takes on a GPU: none in float64, nor of a network that leaves a GPU
    waiting for its next operation."""
    return () if recipe.precision == "64" or recipe.encoder.backbone == "small" else reached(recipe.precision)


def _largest_part(recipe: Recipe, devices: int, device: str, memory: int) -> int | None:
    """The largest ``micro_batch_size`` whose step takes so many bytes at most; None if none does."""
    share = recipe.batch_size // devices
    parts = [n for n in range(2, share + 1) if recipe.batch_size % (devices * n) == 0]

    def too_much(part: int) -> bool:
        return count(replace(recipe, micro_batch_size=part), ranks=devices, device=device).memory.peak > memory

    return parts[fitting - 1] if (fitting := bisect_left(parts, True, key=too_much)) else None


def _gpu_memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def _memory() -> int:
    """Bytes of this machine that the process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
