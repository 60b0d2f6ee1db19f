"""Opens the images of a training, before torch is imported: mistakes are said at once, and what is being done.

In: the options. Out: the images, and the run to go on with. :mod:`infomax.training.prepare` makes the run.
"""

from dataclasses import dataclass, replace

from infomax.data.loading.keep_decoded import parse_keep_decoded
from infomax.data.measured_pixels import measure_pixels
from infomax.data.pixel_format import RGB
from infomax.data.range_notes import note_range
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, preview_images
from infomax.recipes.customise import check_changes, customise
from infomax.recipes.registry import DEFAULT_METHOD, RecipeChoice, parse_recipe_choice
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run, check_output_folder, recipe_differences
from infomax.runtime.locks import FolderLock
from infomax.training.loggers import DEFAULT_TOOLS, NONE, parse_tools
from infomax.training.options import ExecutionOptions, PretrainOptions


@dataclass(frozen=True)
class OpenedImages:
    """A frozen dataclass that holds the images of a training, opened, and where they come from."""

    resumed: Run | None
    """The run to go on with; None if a new one is started."""
    location: DataLocation
    source: Source


def open_images(options: PretrainOptions) -> OpenedImages:
    """Opens the images of a training; nothing is written.

    Raises:
        ValueError: if no recipe that may be chosen can be changed so, there are no such images, the output folder is
            taken, or a run to be resumed was started otherwise.
    """
    choice = _parse_choice(options)
    check_machine(options)
    resumed = _run_to_resume(options)
    if resumed is None:
        check_changes(choice.method or DEFAULT_METHOD, choice.recipe, options.changes())
        _check_output_folder(options)
        location = options.location(choice.data)
        source = open_measured(location, download=options.download)
        check_several(source)
        return OpenedImages(None, location, source)
    _check_same_run(resumed, choice, options)
    location = _location_now(resumed, options)
    return OpenedImages(resumed, location, _open_again(resumed, location, options))


def check_several(source: Source) -> None:
    """Checks that there are images to compare with each other; raises ValueError if there are not two."""
    if len(source.pretraining) < 2:
        raise ValueError(
            f"--data {source.name} is one image alone; training compares images with each other, and takes 2 or more"
        )


def open_measured(location: DataLocation, *, download: bool = False) -> Source:
    """Opens images to train on, and measures their numbers if they are not 8-bit RGB.

    Args:
        location: Where they are.
        download: Whether to download a data set that has a name if it is not there.

    Returns:
        The images, whose notes say what was decided about their numbers.

    Raises:
        ValueError: if there are no such images, or they are not of one kind.
    """
    source = location.open(download=download)
    try:
        measured = measure_pixels(preview_images(source), location.pixel_choice())
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith("--") else f"--data {location.data}: {message}") from error
    if measured is None:  # 8-bit RGB, or what becomes that
        return note_range(source, RGB)
    return replace(source, measured=measured, notes=(*source.notes, *measured.notes))


def check_machine(options: ExecutionOptions) -> None:
    """Checks what an execution takes of this machine; raises ValueError if it lacks the memory or a tool's package."""
    parse_keep_decoded(options.keep_decoded)
    parse_tools(options.log)


def tools_to_log(options: PretrainOptions, resumed: Run | None) -> tuple[str, ...]:
    """Returns the names of the tools that a run is logged to: those of ``--log``, else those of the run to go on with.

    Raises:
        ValueError: if there is no such tool, or its package is not installed.
    """
    if options.log or resumed is None:
        return parse_tools(options.log)
    return parse_tools(resumed.launch.get("log", DEFAULT_TOOLS) or (NONE,))


def _parse_choice(options: PretrainOptions) -> RecipeChoice:
    """Returns the method and recipe that the user named."""
    started = options.resume and (options.out / "config.json").exists()
    if started and "/" not in (options.recipe or ""):  # the run says of which method its recipe is
        return RecipeChoice(options.method, options.recipe, None)
    return parse_recipe_choice(options.recipe, options.method)


def _check_output_folder(options: PretrainOptions) -> None:
    """Checks that a new run may be written; if the folder is being written by somebody, that is what the error says."""
    try:
        check_output_folder(options.out, overwrite=options.overwrite)
    except ValueError:
        if (options.out / "config.json").is_file():
            FolderLock(options.out).release()
        raise


def _run_to_resume(options: PretrainOptions) -> Run | None:
    """Returns the run to go on with; None if a new one is started."""
    if not options.resume:
        return None
    if options.overwrite:
        raise ValueError("--resume continues a run and --overwrite replaces it; give one of them")
    if options.given_location() and not (options.out / "config.json").exists():
        return None  # where the images are is known, so the run can be started
    return Run(options.out)


def recipe_to_resume(run: Run, options: PretrainOptions) -> Recipe:
    """Returns the recipe that a run goes on with: its own, with more epochs if the user extends a finished run."""
    recipe = run.recipe
    return recipe if options.epochs is None else replace(recipe, epochs=max(recipe.epochs, options.epochs))


def _location_now(run: Run, options: PretrainOptions) -> DataLocation:
    """Returns where the images of a run to be resumed are: where the user says, otherwise where they were."""
    parts, before = options.given_location(), run.location
    if "data" in parts and parts["data"] != before.data:
        before = replace(before, data_dir=None)
    return replace(before, **parts)


def _open_again(run: Run, location: DataLocation, options: PretrainOptions) -> Source:
    """Opens the images of a run to be resumed.

    Raises:
        ValueError: if they cannot be opened; if they are not where they were, the message says how to name their place.
    """
    try:
        return location.open(download=options.download)
    except ValueError as error:
        if options.given_location():
            raise
        option = location.missing_option()
        hint = f"; if they were moved, name their new place by {option}" if option else ""
        raise ValueError(
            f"--resume {run.path}: the images that it was trained on cannot be opened: {error}{hint}"
        ) from error


def _check_same_run(run: Run, choice: RecipeChoice, options: PretrainOptions) -> None:
    """Checks that a run to be resumed was started with these options; raises ValueError with what differs.

    Where the images are may differ: that they are the same is seen by their fingerprint.
    """
    recipe, changes = run.recipe, options.changes()
    extends = options.epochs is not None and options.epochs > recipe.epochs
    if extends and run.finished:
        changes["epochs"] = None
    differences = recipe_differences(recipe, customise(recipe, **changes))
    if extends and not run.finished:
        differences.append("finish it first, by --resume without --epochs; then --resume --epochs extends it")
    for name, new, old in (
        ("method", choice.method, recipe.method.name),
        ("recipe", choice.recipe, recipe.name),
        ("value_range", options.value_range, run.location.value_range),
        ("channels", options.channels, recipe.encoder.channels),
        ("no_data", options.no_data, recipe.preprocessing.pixel_format.no_data),
    ):
        if new is not None and new != old:
            differences.append(f"{name}: {old} there, {new} asked for")
    if differences:
        cure = "" if extends and not run.finished else "; leave that out to go on, or give --overwrite for --resume"
        raise ValueError(f"--resume: {run.path} was started otherwise: {'; '.join(differences)}{cure}")
