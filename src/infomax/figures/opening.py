"""Opens the runs of a figure, and the images and networks of a run. Torch is imported by what needs it."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.sources.location import DataLocation
from infomax.data.sources.named import NAMED_DATASETS
from infomax.data.splits import Source, describe_splits, preview_images
from infomax.data.streams import Stream
from infomax.figures.figure import Figure, FigureRequest
from infomax.runs.run_folder import Run
from infomax.runtime.checks import choose
from infomax.runtime.text import note

if TYPE_CHECKING:
    from torch import Tensor

    from infomax.methods.base import Method


def open_runs(figure: Figure, paths: Sequence[Path]) -> tuple[Run, ...]:
    """Returns the runs in folders; a folder that holds runs, as a sweep's, stands for all of them.

    Raises:
        ValueError: if a folder is no run and holds none, or the figure takes none, or needs some and none is given.
    """
    if paths and not figure.needs.runs:
        raise ValueError(f"infomax figure {figure.name} takes no runs, but {paths[0]} is given")
    if not paths and figure.needs.runs and figure.needs.required:
        commands = "; ".join(figure.needs.commands)
        raise ValueError(f"figure {figure.name} needs {figure.needs.runs}; such runs are made by: {commands}")
    runs: list[Run] = []
    for path in paths:
        inside = sorted(config.parent for config in path.glob("*/config.json"))
        is_run = (path / "config.json").is_file() or not inside
        for run in map(Run, [path] if is_run else inside):
            _ = run.config  # raises if it is none
            if run.trained_steps:
                runs.append(run)
            elif is_run:
                raise ValueError(f"{path} has no encoder yet; {run.resume_command} goes on")
            else:
                note(f"{run.path} is left out: it has no encoder yet")
    for run in runs:
        if not run.finished:
            note(f"{run.path} is not finished: {run.progress(run.trained_steps)}")
    return tuple({run.path.resolve(): run for run in runs}.values())


def check_methods(figure: str, runs: Sequence[Run], methods: Collection[str]) -> None:
    """Checks that all runs are of certain methods.

    Raises:
        ValueError: naming the first run that is of another.
    """
    for run in runs:
        choose(f"the method of {run.path}, for {figure},", run.recipe.method.name, methods)


def labels_of(runs: Sequence[Run]) -> dict[Path, str]:
    """Returns a name for each run by its folder: that of its method if it is the only one, else its folder's."""
    methods = [run.recipe.method.name for run in runs]
    names = [run.path.resolve().name for run in runs]
    return {
        run.path: method if methods.count(method) == 1 else name if names.count(name) == 1 else str(run.path)
        for run, method, name in zip(runs, methods, names, strict=True)
    }


def location_of(run: Run, request: FigureRequest) -> DataLocation:
    """Returns where the images of a run are, or those that ``--data`` names."""
    location, data = run.location, request.options.data
    if data is None or data == location.data:
        return location
    return replace(location, data=data, data_dir=location.data_dir if data in NAMED_DATASETS else None)


def open_images(run: Run, request: FigureRequest) -> Source:
    """Opens the images of a run, or those that ``--data`` names, and says what was decided about them.

    Raises:
        ValueError: if they are not there.
    """
    source = location_of(run, request).open()
    for line in describe_splits(source, to_train=False, notes_alone=True):
        note(line)
    return source


def training_images(source: Source) -> Images:
    """Returns the images that an encoder is pretrained on; of a stream the first ones."""
    return preview_images(source)


def held_out_images(source: Source) -> tuple[Images, str]:
    """Returns images that were not trained on, and which they are; the training images, if there are no others."""
    if source.test is not None:
        return source.test, f"test images of {source.name}"
    images = source.train
    if isinstance(images, Stream):
        return images.preview, f"first training images of {source.name}, which has no test split"
    return images, f"training images of {source.name}, which has no test split"


def features_of(run: Run, source: Source, request: FigureRequest, most: int) -> "tuple[Tensor, Images, str]":
    """Returns features of images that were not trained on, those images, and words for which they are.

    Args:
        run: The run.
        source: Its images.
        request: Device, workers and cache.
        most: Number of images, at most, at equal distances.
    """
    import numpy as np

    from infomax.evaluation.options import ComputeOptions, EvaluationOptions
    from infomax.evaluation.representations import represent
    from infomax.runtime.options import option_names, pick

    images, words = held_out_images(source)
    if source.test is None:
        note(f"{run.path}: {words}: its {words.split(' of ')[0]} are shown")
    if len(images) > most:
        index = np.linspace(0, len(images) - 1, most).astype(int)
        images = select_images(images, index, images.labels, images.classes)
        words = f"{most:,} {words}"
    shared = {key: getattr(request.options, key) for key in option_names(ComputeOptions)}
    evaluation = pick(EvaluationOptions, {**shared, "quiet": True})
    return represent(run.path, evaluation).features(images, str(run.path)).float(), images, words


def open_method(run: Run) -> "Method":
    """Returns the method of a run as it was trained, on the CPU, in evaluation mode.

    Raises:
        ValueError: if the folder keeps no checkpoint that can be opened.
    """
    from infomax.runs.trained_method import load_trained_method

    try:
        method = load_trained_method(run)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{run.path}: its checkpoint cannot be opened: {reason}") from error
    if method is None:
        raise ValueError(f"{run.path} keeps no checkpoint, which has the heads and buffers that the figure shows")
    return method
