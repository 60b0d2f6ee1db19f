"""Makes a run of its options: checks that it is possible, opens the images, and makes or resumes the run folder."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import safetensors.torch
import torch

from infomax.data.augmentation.draws import has_randaugment
from infomax.data.augmentation.views import colour_operations_switched_off
from infomax.data.images.contract import Images
from infomax.data.pixel_format import MeasuredPixels
from infomax.data.preview import Preview, draw_views
from infomax.data.shown_pixels import describe_composite
from infomax.data.sources.location import DataLocation
from infomax.data.splits import (
    Source,
    counted,
    describe_splits,
    origin_of_test_images,
    preview_images,
    why_not_labelled,
)
from infomax.data.streams import Stream
from infomax.methods.base import Method
from infomax.models.encoders import Encoder
from infomax.recipes.adapting import describe_adapting
from infomax.recipes.building import build_without_memory, check_memory, check_view_sizes, describe_trained
from infomax.recipes.customise import chosen_epochs
from infomax.recipes.registry import (
    DEFAULT_METHOD,
    default_recipe_name,
    get_experiment,
    parse_recipe_choice,
)
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run, check_output_folder, create_run_folder
from infomax.runtime.devices import APPLE_NOT_TAKEN, check_precision, check_ranks, choose_device, leaves_apple_gpu
from infomax.runtime.files import remove_leftovers, write_atomic
from infomax.runtime.locks import FolderLock
from infomax.runtime.memory import device_memory
from infomax.runtime.options import option_names
from infomax.runtime.ranks import rank_from_environment
from infomax.runtime.stages import Stage
from infomax.runtime.text import note, show
from infomax.runtime.threads import available_cores, describe_busy_machine, describe_quota
from infomax.training.closing import trains_little, usual_steps
from infomax.training.image_size import (
    ESTIMATED,
    describe_larger_sizes,
    describe_smaller_size,
    larger_sizes,
    typical_side,
)
from infomax.training.initial import describe_initial, initial_weights, open_initial, settle_recipe
from infomax.training.kept_epochs import epochs_to_keep
from infomax.training.loop import checkpoint_to_resume
from infomax.training.network_time import describe_bfloat16, estimate_seconds
from infomax.training.opening import OpenedImages, check_machine, open_images, recipe_to_resume, tools_to_log
from infomax.training.options import ExecutionOptions, LaunchOptions, PretrainOptions, RecipeOptions, ViewsOptions

SMALLEST_BATCH = 8  # images; with fewer, the user says what is to be compared with what


@dataclass(frozen=True)
class PreparedRun:
    """A frozen dataclass that holds all that a training starts with."""

    run: Run
    """The run folder, new or to be resumed."""
    source: Source
    """The images, opened."""
    launch: LaunchOptions
    """Options of this machine and of this start, which decide no result."""
    lock: FolderLock
    """The lock on the run folder, which keeps other processes from writing it. It is to be released after the
    training."""


def prepare_run(options: PretrainOptions, opened: OpenedImages | None = None) -> PreparedRun:
    """Makes the run folder, or takes the one to resume.

    Nothing is written before all is known to be possible.

    Args:
        options: The options of the training.
        opened: The images, if they are open already.

    Raises:
        ValueError: if anything asked for is not possible, a run to be resumed was started otherwise, or another process
            writes the folder.
    """
    launch = launch_options(options)
    opened = opened or open_images(options)
    resumed, location, source = opened.resumed, opened.location, opened.source
    side = typical_side(preview_images(source))
    initial = None
    if resumed is None:
        data, count, initial = source.name, len(source.pretraining), open_initial(options.init)
        gpu = launch.device == "cuda"
        recipe = choose_recipe(
            options, data=data, images=count, side=side, gpu=gpu, initial=initial, pixels=source.measured
        )
    else:
        recipe = recipe_to_resume(resumed, options)
    keep_epochs = epochs_to_keep(options.keep_epochs, recipe, resumed)
    if resumed is None:  # otherwise the images may be others, which is then said first
        _check_possible(recipe, source, options, launch)
    with Stage(
        "comparing files by their bytes" if resumed is not None else "noting which files are trained on", slow_only=True
    ):
        images = _describe_images(location, source, side, recipe)
    if resumed is not None:
        resumed.check_images(images)
        _check_possible(recipe, source, options, launch)
    gpu_name = torch.cuda.get_device_name() if launch.device == "cuda" and launch.world_size == 1 else None
    machine = {
        "device": launch.device,
        "gpu": gpu_name,
        "devices": launch.world_size,
        "workers": launch.workers,
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        **{name: getattr(launch, name) for name in option_names(ExecutionOptions)},
        "log": list(tools_to_log(options, resumed)),
        "keep_epochs": list(keep_epochs),
    }
    weights = None if initial is None else safetensors.torch.save(initial_weights(initial, recipe))
    run, lock = _write_run_folder(options, resumed, recipe, source, weights, images=images, launch=machine)
    for line in describe_splits(source, to_train=True):
        show(line, file=sys.stderr)
    _note_view_operations(recipe)
    if not launch.quiet:
        _note_busy_machine(launch)
        if leaves_apple_gpu(options.device):
            note(APPLE_NOT_TAKEN)
        show(_describe_run(recipe, len(source.pretraining), launch, gpu_name), file=sys.stderr)
    if (left_out := recipe.describe_left_out(len(source.pretraining))) is not None:
        show(left_out, file=sys.stderr)
    if not launch.quiet:
        if (trained := describe_trained(recipe)) is not None:
            show(trained, file=sys.stderr)
        if initial is not None:
            note(describe_initial(recipe, initial.preprocessing.size, initial.settings.channels))
            note(describe_adapting(recipe))
        if resumed is None:
            _note_costs(options, recipe, side, len(source.pretraining), launch)
    return PreparedRun(run, source, launch, lock)


def _write_run_folder(
    options: PretrainOptions,
    resumed: Run | None,
    recipe: Recipe,
    source: Source,
    initial: bytes | None,
    **config: dict[str, Any],
) -> tuple[Run, FolderLock]:
    """Locks the run folder and writes what is known before the training.

    Args:
        options: The options of the training.
        resumed: The run to go on with; None makes a new one.
        recipe: The recipe with all changes.
        source: The images, opened.
        initial: Content of the file with the initial weights; None if they are random.
        config: ``images`` and ``launch`` as ``config.json`` holds them.
    """
    picture = picture_of_views(source, recipe).png if resumed is None else b""
    lock = _lock_run_folder(options, resumed, recipe)
    try:
        if resumed is not None:
            if resumed.recipe.epochs < recipe.epochs:
                checkpoint_to_resume(resumed)  # without one, the run is to stay as it is: finished
                resumed.extend(recipe.epochs)
                note(
                    f"{resumed.path} is extended to {recipe.epochs} epochs; those that are added, "
                    f"{resumed.stages[-1]}, have a schedule of their own, with warm-up and decay"
                )
            times_before = resumed.times_hash
            _note_other_threads(resumed, config["launch"])
            resumed.note_resumption(config["images"], config["launch"])
            if times_before != config["images"].get("times"):
                note(
                    f"files of {source.name} were copied or changed since this run was last started; the sample of "
                    "them that is compared is the same"
                )
            return resumed, lock
        data, launch = config["images"], config["launch"]
        files = {"initial": initial, "overwrite": options.overwrite}
        run = create_run_folder(options.out, recipe, data=data, launch=launch, **files)
        write_atomic(run.path / "views.png", picture)
    except BaseException:
        lock.release()
        raise
    return run, lock


def _note_other_threads(run: Run, launch: dict[str, Any]) -> None:
    """Says if a run goes on with another number of threads, as under another quota: its last bits then differ.

    Args:
        run: The run to be resumed.
        launch: The launch options now, as ``config.json`` holds them.
    """
    before = (run.config.get("resumed") or [run.config])[-1]["launch"].get("threads")
    if launch["device"] == "cpu" and before not in (None, launch["threads"]):
        note(f"{run.path} was trained by {before} thread(s) and goes on with {launch['threads']}: sums round otherwise")


def _lock_run_folder(options: PretrainOptions, resumed: Run | None, recipe: Recipe) -> FolderLock:
    """Locks the run folder, which is made if it is new, and checks that it is still as it was found.

    Raises:
        ValueError: if another process writes the folder, or has changed it since.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(options.out)
    try:
        remove_leftovers(options.out)
        if resumed is None:
            check_output_folder(options.out, overwrite=options.overwrite)
        elif resumed.recipe != recipe and recipe_to_resume(resumed, options) != recipe:
            raise ValueError(f"--resume: {resumed.path} was replaced by another run a moment ago")
    except BaseException:
        lock.release()
        raise
    return lock


def launch_options(options: PretrainOptions) -> LaunchOptions:
    """Returns how a run is carried out on this machine, or by the ranks that torchrun or srun started.

    Raises:
        ValueError: if a number is out of range, or options exclude each other.
    """
    device = choose_device(options.device)
    check_machine(options)
    rank_info = rank_from_environment()
    if rank_info is not None and options.devices not in (1, rank_info.world_size):
        raise ValueError(
            f"--devices {options.devices}, but torchrun or srun started {rank_info.world_size} processes; leave it out"
        )
    world_size = rank_info.world_size if rank_info is not None else options.devices
    check_ranks(device, world_size)
    if device == "mps":
        _check_on_apple_gpu(options)
    if options.compile and world_size > 1:
        raise ValueError(f"--compile is for one device, not {world_size}")
    if options.compile and options.deterministic:
        raise ValueError(
            "--compile chooses kernels by their speed, and cannot be --deterministic: leave out one of them"
        )
    execution = {name: getattr(options, name) for name in option_names(ExecutionOptions)}
    return LaunchOptions(
        device=device, world_size=world_size, workers=options.workers, quiet=options.quiet, **execution
    )


def _check_on_apple_gpu(options: PretrainOptions) -> None:
    """Checks that a run asks nothing of Apple's GPU that it does not have, or that nobody knows of it."""
    if options.compile:
        raise ValueError("--compile with --device mps: torch's compiler is experimental there; leave out one of them")
    if options.deterministic:
        raise ValueError(
            "--deterministic with --device mps: torch does not promise the same bits there; --device cpu gives them"
        )


def choose_recipe(
    options: RecipeOptions | ViewsOptions,
    *,
    data: str,
    images: int,
    side: int,
    gpu: bool,
    initial: Encoder | None = None,
    pixels: MeasuredPixels | None = None,
) -> Recipe:
    """Returns the recipe to train by: the named one, or the one that suits the images, with the user's changes.

    Args:
        options: What the user asked for.
        data: Name of the data set.
        images: Number of its images. If they are fewer than a step of the recipe takes, and the user has named neither
            the recipe nor the size of a batch, a step takes fewer, as a line says.
        side: Shorter side of a typical image, in pixels.
        gpu: Whether the run is for a GPU.
        initial: The encoder that the training starts from, opened; None for random weights.
        pixels: The pixel format and the normalisation of images that are not 8-bit RGB.

    Raises:
        ValueError: if there is no such method or recipe, or it cannot be changed so.
    """
    choice = parse_recipe_choice(options.recipe, options.method)
    method = choice.method or DEFAULT_METHOD
    name = choice.recipe or default_recipe_name(method, data=data, side=side, gpu=gpu)
    experiment, changes = get_experiment(name, method), options.changes()
    recipe = settle_recipe(experiment, images=images, initial=initial, changes=changes, pixels=pixels)
    if not isinstance(options, RecipeOptions) or not SMALLEST_BATCH <= images < recipe.batch_size:
        return recipe
    chosen = {key for key, value in changes.items() if value is not None}
    chosen |= {assignment.partition("=")[0] for assignment in changes["overrides"]}
    if choice.recipe is not None or chosen & {"batch_size", "micro_batch_size"}:
        return recipe
    batch_size = 2 ** (images.bit_length() - 1)  # which several devices can share
    note(
        f"a step takes {batch_size} images and not the {recipe.batch_size} of the recipe {name}, for there are "
        f"{images} (--batch-size)"
    )
    return replace(recipe, batch_size=batch_size)


def picture_of_views(source: Source, recipe: Recipe, notes: Sequence[str] = ()) -> Preview:
    """Draws some images beside the views that a recipe makes of them, and lines of words."""
    title = f"{recipe.method.name}, recipe {recipe.name}: {source.name}"
    with Stage("drawing views"):
        pixel_format = recipe.preprocessing.pixel_format
        options = {"seed": recipe.seed, "title": title, "pixel_format": pixel_format}
        if not pixel_format.is_rgb:
            notes = [*notes, describe_composite(pixel_format)]
        return draw_views(preview_images(source), recipe.views, notes=notes, **options)


def _note_view_operations(recipe: Recipe) -> None:
    """Says which operations of the views are not done, because the images have no colours, and what loses its depth."""
    if switched_off := colour_operations_switched_off(recipe.views):
        note(
            f"{', '.join(switched_off)}: not done to images of {counted(recipe.encoder.channels, 'channel')}; each "
            "channel has a brightness and a contrast of its own"
        )
    all_views = (*recipe.views.global_crops, *recipe.views.local_crops)
    if recipe.preprocessing.pixel_format.is_deep and has_randaugment(all_views, recipe.encoder.channels):
        note("randaugment: before it, views of these images of 16 bits are rounded to 256 levels")


def _note_busy_machine(launch: LaunchOptions) -> None:
    """Says if a run will be slow because of a quota or of other work on this machine."""
    if (quota := describe_quota()) is not None:
        note(quota)
    elif launch.device == "cpu" and (busy := describe_busy_machine(torch.get_num_threads())) is not None:
        note(busy)


def _note_costs(options: PretrainOptions, recipe: Recipe, side: int, images: int, launch: LaunchOptions) -> None:
    """Says why a new run has so many epochs, and which options change its time."""
    if recipe.encoder.init is not None:
        seconds = _note_cost(options, recipe, images, launch)
    else:
        if (reason := _why_so_many_epochs(recipe, images, options)) is not None:
            show(reason, file=sys.stderr)
        seconds = _note_larger_sizes(options, recipe, side, images, launch)
    _note_bfloat16(options, recipe, images, launch, seconds)


def _note_larger_sizes(
    options: PretrainOptions, recipe: Recipe, side: int, images: int, launch: LaunchOptions
) -> float | None:
    """Says if the images have far more pixels than their views, unless the user has chosen the views' size.

    Returns:
        The time of the run in seconds; None if it was not measured.
    """
    if options.image_size is not None or not larger_sizes(recipe.views.global_crops[0].size, side):
        return None
    seconds = None
    if launch.device == "cpu" and launch.world_size == 1:
        with Stage("timing the network at this size", slow_only=True):
            seconds = estimate_seconds(recipe, images)
    note(describe_larger_sizes(recipe, side, seconds=seconds, measured=ESTIMATED))
    return seconds


def _note_cost(options: PretrainOptions, recipe: Recipe, images: int, launch: LaunchOptions) -> float | None:
    """Says what a run from initial weights costs on a CPU, unless the user has chosen the views' size.

    Returns:
        The time of the run in seconds; None if it was not measured.
    """
    if options.image_size is not None or launch.device != "cpu" or launch.world_size > 1:
        return None
    with Stage("timing the network at this size", slow_only=True):
        seconds = estimate_seconds(recipe, images)
    if seconds is not None:
        note(describe_smaller_size(recipe, seconds))
    return seconds


def _note_bfloat16(
    options: PretrainOptions, recipe: Recipe, images: int, launch: LaunchOptions, seconds: float | None
) -> None:
    """Says if networks would be faster in bfloat16 on this CPU, unless the user has chosen the precision.

    ``seconds`` is the time of the run; None if it was not measured.
    """
    if options.precision is not None or recipe.precision != "32" or launch.device != "cpu" or launch.world_size > 1:
        return
    with Stage("timing the networks in bfloat16", slow_only=True):
        line = describe_bfloat16(recipe, images, seconds)
    if line is not None:
        note(line)


def check_batch(recipe: Recipe, *, images: int, data: str, world_size: int) -> None:
    """Checks that there are enough images for a batch, and that the ranks can share it.

    Args:
        recipe: The recipe with all changes.
        images: Number of images in the data set.
        data: Name of the data set, for the message.
        world_size: Number of ranks.

    Raises:
        ValueError: if the batch is larger than the data set, or cannot be shared.
    """
    if images < recipe.batch_size:
        raise ValueError(
            f"a step takes {recipe.batch_size} images, which is more than the {images} images of {data}; "
            f"give a --batch-size of at most {images}"
        )
    if recipe.batch_size < 2 * world_size:
        raise ValueError(f"--batch-size {recipe.batch_size} leaves less than 2 images to each of {world_size} devices")
    if recipe.micro_batch_size is not None and recipe.batch_size % (world_size * recipe.micro_batch_size):
        raise ValueError(
            f"--batch-size {recipe.batch_size} must be a multiple of --micro-batch-size {recipe.micro_batch_size} "
            f"times {world_size} devices, {world_size * recipe.micro_batch_size}"
        )


def check_positions(method: Method, recipe: Recipe, source: Source) -> None:
    """Checks that the images have positions, if the method remembers something of each of them.

    Raises:
        ValueError: if they are a stream.
    """
    if method.remembers_images and isinstance(source.pretraining, Stream):
        raise ValueError(
            f"--method {recipe.method.name} keeps the embeddings or clusters of all images by their positions, but "
            f"--data {source.name} is read as a stream, which has none; copy the images into a folder"
        )


def _check_possible(recipe: Recipe, source: Source, options: PretrainOptions, launch: LaunchOptions) -> None:
    """Checks what the method, these images and this machine can do; raises ValueError if they cannot do it."""
    method = build_without_memory(recipe, len(source.pretraining))
    check_positions(method, recipe, source)
    check_view_sizes(recipe, method)
    check_precision(recipe.precision, launch.device)
    check_batch(recipe, images=len(source.pretraining), data=source.name, world_size=launch.world_size)
    at_once = recipe.micro_batch_size or recipe.batch_size // launch.world_size
    check_memory(recipe, method, images=at_once, memory=device_memory(launch.device))
    if launch.device == "cuda" and rank_from_environment() is None:
        gpus = torch.cuda.device_count()
        if launch.world_size > gpus:
            raise ValueError(f"--devices {launch.world_size}: there are {gpus} GPUs here")
    for folder in source.folders:
        if options.out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out {options.out} is inside --data {source.name}, whose images are trained on; choose another"
            )


def _describe_images(location: DataLocation, source: Source, side: int, recipe: Recipe) -> dict[str, Any]:
    """Returns what ``config.json`` holds of the images.

    These are where they are, how many, how many of them each epoch leaves out, their fingerprint, which splits they
    come from, the notes on them, and the shorter side of a typical one, in pixels.
    """
    images = source.pretraining
    located = replace(location, data=source.name).resolved()  # the source's name has the count of shards
    parts = {name: value for name, value in asdict(located).items() if value is not None}
    trained_on = source.train_split if source.unlabelled is None else source.unlabelled_split
    decisions = {
        "train_split": trained_on,
        "tests_on": origin_of_test_images(source),
        "no_labels_reason": why_not_labelled(source),
        "notes": list(source.notes),
        "shorter_side": side,
    }
    fingerprint, times = images.hashes() if isinstance(images, Images) else (images.fingerprint(), None)
    identity = {
        "images": len(images),
        "left_out_of_epoch": recipe.left_out(len(images)),
        "fingerprint": fingerprint,
        **({} if times is None else {"times": times}),
    }
    return {**parts, **identity, **decisions}


def _why_so_many_epochs(recipe: Recipe, images: int, options: PretrainOptions) -> str | None:
    """Returns one line on why a new run has its number of epochs, or that those that the user chose are very few.

    It returns None if a paper chose them, or the user chose enough.
    """
    if chosen_epochs(options.changes()) is not None:
        usual, few = usual_steps(recipe, images), trains_little(recipe, images, recipe.steps(images))
        return f"so few steps train almost nothing; the recipe itself has {usual:,}" if few else None
    images_seen = get_experiment(recipe.name, recipe.method.name).images_seen
    if images_seen is None:
        return None
    images_seen = recipe.steps(images) * recipe.batch_size  # less than the recipe's, as an epoch has whole batches
    return f"{recipe.epochs} epochs show the encoder {images_seen:,} images in all; --epochs N changes that"


def _describe_run(recipe: Recipe, images: int, launch: LaunchOptions, gpu: str | None) -> str:
    """Returns one line on what is trained, on what."""
    encoder = f"{recipe.encoder.backbone} encoder at {recipe.views.global_crops[0].size} pixels"
    machine = {
        "cpu": "the CPU",
        "cuda": gpu or "GPUs",
        "mps": "Apple's GPU, which was never tried on the hardware: compare some steps with the CPU's",
    }[launch.device]
    if launch.world_size > 1:
        machine = f"{launch.world_size} ranks on {machine}"
    steps = recipe.steps(images)
    words = f"{steps:,} step{'' if steps == 1 else 's'}"
    extent = f"{counted(images)}, {counted(recipe.epochs, 'epoch')} ({words}) on {machine}"
    return f"{recipe.method.name}, recipe {recipe.name}: {encoder}, {extent}"
