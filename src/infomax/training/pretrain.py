"""Pretraining: what is asked for is checked, a run folder made, and its recipe trained by one process or many."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from infomax.data.images import first_readable
from infomax.data.preview import draw_views
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, preview_images
from infomax.recipes import registry
from infomax.recipes.building import build_method
from infomax.recipes.customise import customise
from infomax.recipes.schema import Recipe
from infomax.runs import run_folder
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count, check_number, choose, choose_device
from infomax.runtime.collectives import broadcast_from_rank0, process_group
from infomax.runtime.files import write_atomic
from infomax.runtime.ranks import RankInfo, rank_from_environment, run_ranks
from infomax.training.loop import Launch, train


def pretrain(
    *,
    data: str | Path | None = None,
    method: str | None = None,
    out: str | Path,
    data_dir: str | Path | None = None,
    classes: str | Path | None = None,
    subset: str | Path | None = None,
    download: bool = False,
    recipe: str | None = None,
    backbone: str | None = None,
    views: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    deterministic: bool = False,
    compile: bool = False,  # noqa: A002 - the word of the command
    skip_nonfinite: int = 0,
    skip_unreadable: float = 0.01,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Train an encoder without labels; the words are those of ``infomax pretrain``.

    With ``devices`` above 1, and under torchrun or srun, each process computes its share of every batch, and all
    together exactly what one would; see docs/reference/training.md. In a script, ``devices`` needs ``if __name__ == "__main__"``.

    Args:
        data: A folder of images, or any other source (docs/reference/data-sources.md); by default the data set of the recipe, else
            ``digits``.
        method: ``mira`` (the default), ``corinfomax``, ``carl`` or ``mveb``.
        out: The run folder to make; see docs/reference/run-folder.md.
        data_dir, classes, subset: Where named data sets are, and what to keep of the images; see
            :class:`infomax.data.sources.location.DataLocation`.
        download: Fetch a named data set that is not in ``data_dir``.
        recipe: Name of the recipe to start from, as ``mira/cifar10`` or, with ``method``, ``cifar10``; by default one
            that suits the images and the machine.
        backbone, views, image_size, epochs, batch_size, micro_batch_size, learning_rate, seed, precision: Changes to the
            recipe.
        overrides: Further changes, as ``key=value``; see :func:`infomax.recipes.customise.customise`.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        devices: Processes to train with, one a GPU or sharing the CPU.
        workers: Processes that decode image files, for each device; None takes one a core, at most 8.
        deterministic: Use only operations that give the same bits each time, on GPUs too.
        compile: Fuse the operations of a step by torch.compile; on one device alone.
        skip_nonfinite: BatchSchedule with an infinite or NaN loss or gradient to leave out before the run stops.
        skip_unreadable: Share of the images that may be damaged or missing before the run stops.
        resume: Continue the run in ``out``; what else is given must agree with it. Start it, if ``data`` is given and
            ``out`` is not there yet.
        overwrite: Replace the run in ``out``.
        quiet: No progress bar.

    Raises:
        ValueError: if anything asked for is not possible, before anything is written; or later, naming a file, if too
            many images cannot be read.
        FloatingPointError: if the loss or the gradient becomes infinite or NaN; the run folder then has what is needed
            to see why.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. What was trained is saved.
        infomax.runtime.failures.MachineError: if memory, a worker or another rank is lost. What was trained is saved.
    """
    if not (resume and (Path(out) / "config.json").exists() and "/" not in str(recipe)):  # else the run says which
        choice = registry.parse_recipe_choice(recipe, method)
        recipe, method = choice.recipe, choice.method
    changes = {
        "backbone": backbone,
        "views": views,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
        "overrides": overrides,
    }
    device = choose_device(device)
    check_count("--devices", devices, low=1)
    if workers is not None:
        check_count("--workers", workers, low=0)
    check_count("--skip-nonfinite", skip_nonfinite, low=0)
    check_number("--skip-unreadable", skip_unreadable, low=0, high=1, open_high=False)
    rank_info = rank_from_environment()
    if rank_info is not None and devices not in (1, rank_info.world_size):
        raise ValueError(
            f"--devices {devices}, but torchrun or srun started {rank_info.world_size} processes; leave it out"
        )
    world = rank_info.world_size if rank_info is not None else devices
    if compile and world > 1:
        raise ValueError(f"--compile is for one device, not {world}")
    if compile and deterministic:
        raise ValueError(
            "--compile chooses kernels by their speed, and cannot be --deterministic: leave out one of them"
        )
    launch = Launch(device, world, workers, deterministic, compile, skip_nonfinite, skip_unreadable, quiet)

    given = {"data": data, "data_dir": data_dir, "classes": classes, "subset": subset}
    location = {name: str(value) for name, value in given.items() if value is not None}

    def prepare() -> tuple[Run, Source]:
        return _prepare(location, method, Path(out), recipe, changes, launch, download, resume, overwrite)

    if rank_info is not None:
        with process_group(rank_info.rank, rank_info.world_size, device=launch.torch_device(rank_info.local_rank)):
            run = broadcast_from_rank0(lambda: prepare()[0])  # each rank opens the data itself
            train(run, launch, rank_info.local_rank)
    elif devices > 1:
        run, _ = prepare()
        run_ranks(_train_rank, devices, run, launch)
    else:
        run, source = prepare()
        train(run, launch, source=source)
    return run


def _train_rank(run: Run, launch: Launch) -> None:
    """What each process of several does on this machine."""
    rank_info: Any = rank_from_environment()
    assert isinstance(rank_info, RankInfo)
    with process_group(rank_info.rank, rank_info.world_size, device=launch.torch_device(rank_info.local_rank)):
        train(run, launch, rank_info.local_rank)


def _prepare(
    location: dict[str, str],
    method: str | None,
    out: Path,
    recipe: str | None,
    changes: dict[str, Any],
    launch: Launch,
    download: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[Run, Source]:
    """The folder of a new run, or the one to go on with, and its data; nothing is written before all is possible."""
    old = None
    if resume:
        if overwrite:
            raise ValueError("--resume continues a run and --overwrite replaces it; give one of them")
        if not location or (out / "config.json").exists():
            old = Run(out)
    if old is not None:
        _check_same(old, location=location, method=method, recipe=recipe, changes=changes)
        plan, where = old.recipe, old.location
        if "pipe:" in where.data and "data" not in location:
            raise ValueError(f"--resume: {out} has its images from a command; to allow it, say --data '{where.data}'")
        source = where.open(download=download)
    else:
        run_folder.check_output_folder(out, overwrite=overwrite)
        where = DataLocation(**{"data": registry.parse_recipe_choice(recipe, method).data, **location})
        source = where.open(download=download)
        plan = plan_for(source, method or registry.DEFAULT_METHOD, recipe, gpu=launch.device == "cuda", changes=changes)
    _check_possible(plan, source, out, launch)
    where = replace(where, data=source.name).resolved()  # shards are counted once
    train = source.pretraining
    found = {name: value for name, value in asdict(where).items() if value is not None}
    images = {**found, "images": len(train), "fingerprint": train.fingerprint()}
    gpu = torch.cuda.get_device_name() if launch.device == "cuda" and launch.world == 1 else None
    options = {"device": launch.device, "gpu": gpu, "devices": launch.world, "workers": launch.workers}
    options["compile"] = launch.compile
    if old is None:
        picture = _picture(source, plan)
        run = run_folder.create_run_folder(out, plan, data=images, launch=options, overwrite=overwrite)
        write_atomic(run.path / "views.png", picture)
    else:
        run = old
        run.note_resumption(images, options)
    if not launch.quiet:
        encoder = f"{plan.encoder.backbone} encoder at {plan.views.global_crops[0].size} pixels"
        machine = {"cpu": "the CPU", "cuda": gpu or "GPUs"}[launch.device]
        machine = machine if launch.world == 1 else f"{launch.world} ranks on {machine}"
        extent = f"{len(train)} images, {plan.epochs} epochs on {machine}"
        print(f"{plan.method.name}, recipe {plan.name}: {encoder}, {extent}", file=sys.stderr)
    return run, source


def plan_for(source: Source, method: str, recipe: str | None, *, gpu: bool, changes: dict[str, Any]) -> Recipe:
    """The recipe to follow: the named one or the one that suits the images, with the user's changes."""
    choose("--method", method, registry.METHODS)
    side = min(first_readable(preview_images(source), 0)[1].size)
    name = recipe or registry.default_recipe_name(method, data=source.name, side=side, gpu=gpu)
    return customise(registry.get_recipe(method, name), **changes)


def picture_of_views(
    where: DataLocation, method: str | None, *, recipe: str | None = None, download: bool = False, **changes: Any
) -> bytes:
    """A PNG of some images and the views that a run of these settings would make of them; see :func:`pretrain`."""
    choice = registry.parse_recipe_choice(recipe, method)
    source = where.open(download=download)
    plan = plan_for(
        source,
        choice.method or registry.DEFAULT_METHOD,
        choice.recipe,
        gpu=choose_device("auto") == "cuda",
        changes=changes,
    )
    return _picture(source, plan)


def _picture(source: Source, plan: Recipe) -> bytes:
    title = f"{plan.method.name}, recipe {plan.name}: {source.name}"
    return draw_views(preview_images(source), plan.views, seed=plan.seed, title=title)


def _check_possible(plan: Recipe, source: Source, out: Path, launch: Launch) -> None:
    """Refuse what the method, these images or this machine cannot do."""
    with torch.device("meta"):  # no memory, no numbers: its settings alone are tried
        build_method(plan)
    check_batch(plan, images=len(source.pretraining), data=source.name, world=launch.world)
    if (
        launch.device == "cuda"
        and launch.world > (gpus := torch.cuda.device_count())
        and rank_from_environment() is None
    ):
        raise ValueError(f"--devices {launch.world}: there are {gpus} GPUs here")
    for folder in source.folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--out {out} is inside --data {source.name}, whose images are trained on; choose another")


def check_batch(plan: Recipe, *, images: int, data: str, world: int) -> None:
    """Refuse a batch that the images are too few for, or that so many ranks cannot share."""
    if images < plan.batch_size:
        raise ValueError(
            f"a step takes {plan.batch_size} images, which is more than the {images} images of {data}; "
            f"give a --batch-size of at most {images}"
        )
    if plan.batch_size < 2 * world:
        raise ValueError(f"--batch-size {plan.batch_size} leaves less than 2 images to each of {world} devices")
    if plan.micro_batch_size is not None and plan.batch_size % (world * plan.micro_batch_size):
        raise ValueError(
            f"--batch-size {plan.batch_size} must be a multiple of --micro-batch-size {plan.micro_batch_size} times "
            f"{world} devices, {world * plan.micro_batch_size}"
        )


def _check_same(
    run: Run, *, location: dict[str, str], method: str | None, recipe: str | None, changes: dict[str, Any]
) -> None:
    """Refuse to continue a run as another one."""
    plan = run.recipe
    asked = customise(plan, **changes)
    lines = run_folder.recipe_differences(plan, asked)
    there = asdict(run.location)
    asked_for = asdict(DataLocation(**{"data": there["data"], **location}).resolved())
    if "#" not in asked_for["data"]:  # shards whose images were counted when the run was started
        there["data"] = there["data"].partition("#")[0]
    for word, new, old in (
        *((name, asked_for[name], there[name]) for name in location),
        ("method", method, plan.method.name),
        ("recipe", recipe, plan.name),
    ):
        if new is not None and new != old:
            lines.append(f"{word}: {old} there, {new} asked for")
    if lines:
        raise ValueError(f"--resume: {run.path} was started otherwise: {'; '.join(lines)}")
