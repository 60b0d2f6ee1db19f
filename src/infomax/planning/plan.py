"""Computes what a run will cost before it starts: steps, FLOPs, memory, communication and time."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import torch

from infomax.data.pixel_format import DEEP_MAX, RGB, MeasuredPixels, PixelFormat
from infomax.data.sources.named import NOMINAL_SIZES
from infomax.data.splits import Source, preview_images
from infomax.planning.gpus import GPUS, Utilization, estimate_range, has_small_images, papers_utilizations
from infomax.planning.opening import PlannedImages, open_images
from infomax.planning.options import PlanOptions
from infomax.planning.step_cost import StepCost, count_step_cost
from infomax.planning.step_time import Timing, time_steps
from infomax.recipes.building import build_without_memory, check_view_sizes
from infomax.recipes.schema import Recipe
from infomax.runtime.devices import check_precision, choose_device
from infomax.runtime.memory import device_memory
from infomax.runtime.options import pick
from infomax.runtime.ranks import device_of
from infomax.runtime.stages import Stage
from infomax.runtime.text import note
from infomax.runtime.threads import cores_kept_by_others, threads_within_quota
from infomax.training.image_size import typical_side
from infomax.training.initial import open_initial
from infomax.training.prepare import check_batch, check_positions, choose_recipe

# Shares of the memory that tensors may take. MIRA's runs took 1.3 times the memory that is counted here (Table 8),
# because the driver, cuDNN's workspaces and the allocator's reserve are not tensors.
CPU_SHARE, GPU_SHARE = 0.9, 0.75


@dataclass(frozen=True)
class Machine:
    """A frozen dataclass that says whether a run fits one kind of device, and how long it takes there."""

    name: str
    memory: int
    """Memory in bytes: of each GPU, or of the machine whose CPU all ranks share."""
    usable: int
    """Bytes of this memory that the tensors of one device may take."""
    fits: bool
    """Whether the run can be trained there."""
    micro_batch_size: int | None = None
    """The largest micro-batch size that fits; None if the run fits as it is, or no size does."""
    missing_precision: str = ""
    """The run's precision, if the device does not have it; else empty."""
    seconds: tuple[float, float] | None = None
    """Shortest and longest time of the run, in seconds; None if it does not fit, or its time there is not known."""
    timing: Timing | None = None
    """Measured times; None for GPUs that are planned for by name."""
    busy_cores: float = 0.0
    """Cores of the CPU that other processes kept busy when its times were measured, as far as that is known."""


@dataclass(frozen=True)
class Plan:
    """A frozen dataclass that holds what a run will cost."""

    recipe: Recipe
    data: str
    """Name of the data set."""
    images: int
    """Number of images in the data set."""
    opened: bool
    """Whether the images were opened; if not, steps were measured with random images."""
    side: int | None
    """Shorter side of a typical image, in pixels; None if it is not known, or the user has chosen the views' size."""
    devices: int
    """Number of devices that share the run."""
    cost: StepCost
    """Cost of a step for each device."""
    this_machine: Machine | None
    """This machine; None if the run was planned for GPUs by name."""
    gpus: tuple[Machine, ...]
    """The GPUs that were named, or all kinds that are known."""
    utilizations: tuple[Utilization, ...]
    """Utilization of the papers' runs from which the times on GPUs are computed."""

    @property
    def steps_per_epoch(self) -> int:
        """Returns the number of steps of an epoch."""
        return self.images // self.recipe.batch_size

    @property
    def steps(self) -> int:
        """Returns the number of steps of the run."""
        return self.recipe.steps(self.images)

    @property
    def flops(self) -> float:
        """Returns the FLOPs of the run, on all devices together."""
        return self.cost.flops * self.devices * self.steps

    @property
    def misfits(self) -> tuple[Machine, ...]:
        """Returns those of the planned machines that the run does not fit."""
        return tuple(
            machine for machine in ((self.this_machine,) if self.this_machine else self.gpus) if not machine.fits
        )


def plan(
    *,
    data: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    bands: str | None = None,
    layout: str | None = None,
    classes: str | PathLike[str] | None = None,
    subset: str | PathLike[str] | None = None,
    value_range: str | None = None,
    max_megapixels: float | None = None,
    channels: int | None = None,
    no_data: float | None = None,
    show: str | None = None,
    method: str | None = None,
    recipe: str | None = None,
    seed: int | None = None,
    views: str | None = None,
    image_size: int | None = None,
    backbone: str | None = None,
    init: str | PathLike[str] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    learning_rate: float | None = None,
    freeze: int | None = None,
    backbone_rate: float | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    images: int | None = None,
    gpu: Sequence[str] = (),
) -> Plan:
    """Computes what :func:`infomax.pretrain` with the same words will cost, as ``infomax plan`` does. Writes nothing.

    Args:
        data: Images to train on: a folder of images, or several with commas between; an .npz or .npy of arrays; a .txt
            or .csv of paths; a data set's name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are
            needed.
            Default: the recipe's data set, if it has one.
        data_dir: Folder that holds the data sets that are given by name. Default: INFOMAX_DATA, or
            ~/.cache/infomax/data.
        download: Fetch a named data set that is not there.
        bands: Words in names of files that name the bands, as B02,B03,B04, if each band is a file of its own: files
            whose paths differ only in that word are one image, with these channels in this order. Default: one file is
            one image.
        layout: Order of the axes of arrays of images: NHWC if the channels are last, NCHW if they come before height
            and width. Default: found by the sizes.
        classes: Text file with the classes to keep, one on each line. Default: all.
        subset: Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt; or the word
            1percent or 10percent, for that share of the labelled images. Default: all.
        value_range: Numbers that become black and white in images of more than 8 bits, as 0,4095; or percentiles of the
            data set, as 0.1%,99.9%, which floating-point numbers and those with a sign take. It is one range for all
            images. Default: the format's, or percentiles.
        max_megapixels: Largest number of pixels of an image file, in millions; larger ones are not decoded, as memory
            could end. Default: 120.
        channels: Channels of an image; 3 makes 8-bit RGB of images of one channel, and 1 makes gray of RGB. Default:
            what the images have.
        no_data: Number that stands for no measurement, as -9999; NaN does in any case. Default: what files say.
        show: Channels, counted from 1, that pictures for people show as red, green and blue; or one, in gray. Default:
            the first three.
        method: Method to train with. Default: the recipe's, or mveb.
        recipe: Recipe to start from: digits; small, a small encoder at 32 pixels that a CPU can train; or a paper's, as
            corinfomax/cifar10, most of which need a GPU. infomax recipes lists them. Default: one that suits the images
            and the machine.
        seed: Seed of the weights, the order of the images and the views. Default: the recipe's.
        views: Set of views: byol, simclr, moco, infomin, mira-cifar, dino, dino-wide or swav; the last three add six
            local crops. NAME:G+L has G global crops and L local ones. Default: the recipe's.
        image_size: Side of the global crops, in pixels. Default: the recipe's.
        backbone: Network of the encoder: small, resnet18, resnet34, resnet50, resnet101 or vit_small; or timm:NAME,
            torchvision:NAME or hf:NAME, a model of that library without its weights. Default: the recipe's.
        init: Encoder whose weights the training starts from, with its network and preprocessing: a run folder,
            timm:NAME, torchvision:NAME, hf:NAME, a checkpoint file, or FILE#PREFIX for one of several encoders in it.
            Default: random weights.
        epochs: Passes over the images; of the recipe small, so many that it sees 600,000 images. A warm-up that they
            leave no room for is shortened to a tenth of them. Default: the recipe's.
        batch_size: Images of a step, over all devices. The learning rate is not changed with it. Default: the recipe's.
        micro_batch_size: Images that go through the network at once, on each device. The gradient is exactly that of
            the whole batch, with BatchNorm in groups of N; memory is that of N images. Default: all at once.
        learning_rate: Peak learning rate. Default: the recipe's.
        freeze: Stages of the encoder, from the input on, that are not trained: of a ResNet the stem and four, of a
            vision transformer the stem and each block. Default: the recipe's, 0;
            for carl with --init 2.
        backbone_rate: Factor of the learning rate of the encoder; what follows it has the whole rate. Default: the
            recipe's, 1; for carl with --init 0.1.
        precision: Precision of the networks; the losses are computed in full. Default: the recipe's.
        overrides: Any setting of the recipe, as in --set optimizer.weight_decay=0 --set method.dimension=128.
        device: Kind of device; auto takes a CUDA GPU if there is one.
        devices: GPUs of this machine, or processes that share its CPU. Any number of them computes the same result.
            Under torchrun or srun, leave it out.
        workers: Processes that decode image files, for each device. Default: one a core, at most 8.
        images: Number of images to plan for; no image is opened. A paper's data set need not be there anyway.
            Default: those of the data.
        gpu: Kinds of GPU to plan for, as A100 or RTX-4090; this machine is not measured. Without any, the plan is for
            this machine.

    Returns:
        The plan; ``misfits`` has the machines that the run does not fit.

    Raises:
        ValueError: if an option has a value that is not possible, or the images cannot be opened.

    Example:
        >>> planned = infomax.plan(data="imagenet", recipe="mira/imagenet_100", gpu=["A100"])  # doctest: +SKIP
        >>> planned.steps, planned.flops, planned.gpus[0].seconds  # doctest: +SKIP
    """
    return make_plan(pick(PlanOptions, locals()))


@threads_within_quota()
def make_plan(options: PlanOptions, opened: PlannedImages | None = None) -> Plan:
    """Computes what a run will cost; see :func:`plan` for what it returns and raises.

    Args:
        options: The options.
        opened: The images, if they are open already.
    """
    device = "cuda" if options.gpu else choose_device(options.device)
    opened = opened or open_images(options)
    source, data, images = opened.source, opened.data, opened.images
    side = NOMINAL_SIZES.get(data, (0, None))[1] if source is None else typical_side(preview_images(source))
    likely_side = side or options.image_size or 224  # an unknown size is taken to be that of the views
    gpu, initial = device == "cuda", open_initial(options.init)
    pixels = _assumed_pixels(options.channels) if source is None else source.measured
    recipe = choose_recipe(options, data=data, images=images, side=likely_side, gpu=gpu, initial=initial, pixels=pixels)
    method = build_without_memory(recipe, images)
    if source is not None:
        check_positions(method, recipe, source)
    check_view_sizes(recipe, method)
    check_precision(recipe.precision, device)
    check_batch(recipe, images=images, data=data, world_size=options.devices)
    with Stage("counting what a step takes", slow_only=True):
        cost = count_step_cost(recipe, ranks=options.devices, device=device, images=images)
    this_machine = None
    if not options.gpu:
        this_machine = _on_this_machine(recipe, images, options, device_of(device, 0), source)
    named = bool(options.gpu)
    return Plan(
        recipe=recipe,
        data=data,
        images=images,
        opened=source is not None,
        side=None if options.image_size is not None else side,
        devices=options.devices,
        cost=cost,
        this_machine=this_machine,
        gpus=tuple(_on_gpu(name, recipe, images, options.devices, named=named) for name in options.gpu or GPUS),
        utilizations=_similar_runs(recipe),
    )


def _assumed_pixels(channels: int | None) -> MeasuredPixels | None:
    """Returns a pixel format for images that are not opened; None for RGB, or if no number of channels is said."""
    if channels is None or channels == RGB.channels:
        return None
    note(f"planned for {channels} channels of 16 bits, as --channels says; no image is opened")
    pixel_format = PixelFormat(channels=channels, low=(0.0,) * channels, high=(float(DEEP_MAX),) * channels)
    return MeasuredPixels(pixel_format, mean=(0.5,) * channels, std=(0.25,) * channels)


def _on_this_machine(
    recipe: Recipe, images: int, options: PlanOptions, device: torch.device, source: Source | None
) -> Machine:
    """Measures the run on this machine: on its CPU, or on GPUs of the kind of its first one."""
    devices, steps = options.devices, recipe.steps(images)
    cost = count_step_cost(recipe, ranks=devices, device=device.type, images=images)
    if device.type != "cpu":
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple's GPU"
        memory, ranks = device_memory(device.type), 1
        usable = int(GPU_SHARE * memory)
    else:
        name, memory, ranks = "this CPU", device_memory("cpu"), devices
        usable = int(CPU_SHARE * memory) // ranks
    if cost.memory.peak > usable:
        micro_batch_size = _largest_micro_batch(recipe, images, devices, device.type, usable)
        return Machine(name, memory, usable, fits=False, micro_batch_size=micro_batch_size)
    busy_cores = cores_kept_by_others() if device.type == "cpu" else 0.0  # before there are workers
    with Stage("measuring steps on this machine", at_once=True):
        timing = time_steps(recipe, cost, device=device, source=source, workers=options.workers, images=images)
    # A step was measured with all cores of the CPU, so ranks that share it take their times one after the other.
    seconds = steps * timing.seconds_per_step * ranks + timing.scoring_seconds
    return Machine(name, memory, usable, fits=True, seconds=(seconds, seconds), timing=timing, busy_cores=busy_cores)


def _on_gpu(name: str, recipe: Recipe, images: int, devices: int, *, named: bool) -> Machine:
    """Computes the run's time on a kind of GPU.

    Args:
        name: Name of the GPU.
        recipe: The recipe with all changes.
        images: Number of images in the data set.
        devices: Number of GPUs.
        named: Whether the user named this GPU. Only then a micro-batch size that fits is searched for.
    """
    cost, gpu = count_step_cost(recipe, ranks=devices, device="cuda", images=images), GPUS[name]
    steps = recipe.steps(images)
    memory, usable = gpu.gigabytes * 10**9, int(GPU_SHARE * gpu.gigabytes * 10**9)
    if cost.memory.peak > usable:
        micro_batch_size = _largest_micro_batch(recipe, images, devices, "cuda", usable) if named else None
        return Machine(name, memory, usable, fits=False, micro_batch_size=micro_batch_size)
    if recipe.precision == "bf16" and not gpu.has_bf16:
        return Machine(name, memory, usable, fits=False, missing_precision="bf16")
    runs = _similar_runs(recipe)
    at_peak = gpu.seconds(
        recipe.precision,
        flops=cost.flops,
        full_precision_flops=cost.full_precision_flops,
        moved_bytes=cost.moved_bytes,
    )
    if at_peak is None or not runs:
        return Machine(name, memory, usable, fits=True)
    return Machine(
        name,
        memory,
        usable,
        fits=True,
        seconds=estimate_range(steps * at_peak, runs, operations=steps * cost.operations),
    )


def _similar_runs(recipe: Recipe) -> tuple[Utilization, ...]:
    """Returns the papers' runs whose utilization of a GPU this run is likely to have.

    There are none in float64, and none with the small network, which computes so little that a GPU waits between its
    operations.
    """
    if recipe.precision == "64" or recipe.encoder.backbone == "small":
        return ()
    return papers_utilizations(small_images=has_small_images(recipe))


def _largest_micro_batch(recipe: Recipe, images: int, devices: int, device: str, memory: int) -> int | None:
    """Returns the largest ``micro_batch_size`` whose step takes at most ``memory`` bytes; None if none does."""
    share = recipe.batch_size // devices
    sizes = [size for size in range(2, share + 1) if recipe.batch_size % (devices * size) == 0]

    def too_large(size: int) -> bool:
        divided = replace(recipe, micro_batch_size=size)
        return count_step_cost(divided, ranks=devices, device=device, images=images).memory.peak > memory

    return sizes[fitting - 1] if (fitting := bisect_left(sizes, True, key=too_large)) else None
