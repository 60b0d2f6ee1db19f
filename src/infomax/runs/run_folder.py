"""The run folder: reads and writes a run's settings, measurements and results."""

import json
import os
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from infomax.data.sources.location import DataLocation
from infomax.models.backbone_names import INITIAL_FILE
from infomax.recipes.registry import get_experiment, recipe_from_json
from infomax.recipes.schema import Recipe, flat_settings, to_json
from infomax.runs.provenance import provenance
from infomax.runtime.files import MOST_KEPT, PARTIAL, state_of, write_atomic
from infomax.runtime.json_lines import append_json_line, read_json_lines
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.locks import LOCK_FILE
from infomax.runtime.near_names import missing_path


class Extension(TypedDict):
    """A typed dictionary that says after which step, and by how many epochs, a finished run was extended."""

    step: int
    epochs: int


class RunConfig(TypedDict):
    """The keys of ``config.json`` that are read again, and their types; it has others beside them."""

    recipe: dict[str, Any]
    data: str
    images: int
    fingerprint: str
    data_dir: NotRequired[str]
    classes: NotRequired[str]
    subset: NotRequired[str]
    changes: NotRequired[list[str]]
    launch: NotRequired[dict[str, Any]]
    resumed: NotRequired[list[dict[str, Any]]]
    times: NotRequired[str]
    extended: NotRequired[list[Extension]]
    started: NotRequired[str]
    commit: NotRequired[str | None]
    machine: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]


KEPT_ENCODERS = "epochs"
"""Folder in a run folder that holds a folder for each encoder that was kept on the way, by its epoch."""
KINDS_OF_PARTS: dict[str, type] = {"max_megapixels": float, "channels": int, "no_data": float}
"""The types of the parts of the images' location that are no strings."""
BESIDE_RUNS = ("sweep.json", "sweep.png", "sweep.html", "compare.json", "compare.html")
"""Files that a sweep or a comparison writes beside its run folders; they hold no rows of results."""
ROWS: dict[str, dict[str, Any]] = {
    "metrics.jsonl": {"step": int, "": bool | int | float | str | None},  # here NaN and infinity are numbers too
    "unreadable.jsonl": {"image": str},
}
"""The types of the values in files of lines by their keys; the key "" stands for all others."""


_MEASURED = (
    *("encoder.channels=", "views.mean=", "views.std=", "preprocessing.mean=", "preprocessing.std="),
    "preprocessing.pixel_format.",
)
"""Settings that follow from the numbers of images that are not 8-bit RGB."""


@dataclass(frozen=True)
class Run:
    """A frozen dataclass that holds the path of a run folder, and reads and writes its files.

    ``config.json`` records how the run was started; docs/reference/run-folder.md describes the other files.
    """

    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """Returns the content of ``config.json``: the recipe, the data, the launch options, the command, the versions.

        Raises:
            ValueError: if the file is missing, damaged, or not a run's.
        """
        file = self.path / "config.json"
        if not os.path.exists(self.path):
            raise ValueError(f"{self.path} is not a run folder: {missing_path(self.path)}")
        if not file.is_file():
            runs = sorted(str(config.parent) for config in self.path.glob("*/config.json"))
            hint = f"; it holds {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}" if runs else ""
            if (run := run_of(self.path)) is not None:
                hint = f"; it is an encoder that {run.path} kept"
            raise ValueError(f"{self.path} is not a run folder: it has no config.json{hint}")
        config = parse_value(read_json(file), dict[str, Any], str(file))
        if not {"recipe", "data"} <= config.keys():
            raise ValueError(f"{self.path} is not a run folder: its config.json is of something else")
        return parse_value(config, RunConfig, f"{file}:", other_keys=True)

    @property
    def location(self) -> DataLocation:
        """Returns the location of the images that the run was trained on: where they were when it was last started."""
        newest = self._newest_start
        names = [field.name for field in fields(DataLocation) if field.name in newest]
        file = self.path / "config.json"
        kinds = {name: KINDS_OF_PARTS.get(name, str) for name in names}
        parts = {name: parse_value(newest[name], kind, f"{file}: {name}") for name, kind in kinds.items()}
        return DataLocation(**parts)

    @property
    def launch(self) -> dict[str, Any]:
        """Returns the launch options with which the run was last started; none if ``config.json`` has none."""
        config = self.config
        newest = (config.get("resumed") or [config])[-1]
        file = self.path / "config.json"
        return parse_value(newest.get("launch", {}), dict[str, Any], f"{file}: launch")

    @property
    def times_hash(self) -> str | None:
        """Returns the hash of the images' times of change when the run was last started; None if it has none."""
        return self._newest_start.get("times")

    @property
    def _newest_start(self) -> dict[str, Any]:
        """The part of ``config.json`` that says where the images were when the run was last started."""
        config = self.config
        return next((entry for entry in reversed(config.get("resumed", [])) if "data" in entry), config)

    @property
    def recipe(self) -> Recipe:
        """Returns the recipe that the run was trained by, with all changes."""
        return self._recipe_and_images[0]

    @property
    def _recipe_and_images(self) -> tuple[Recipe, int]:
        """Returns the recipe, and the number of images that are trained on."""
        file = self.path / "config.json"
        return _recipe_and_images(self.path, state_of(file) if file.is_file() else (0, 0, 0))

    @property
    def recipe_title(self) -> str:
        """Returns the recipe's name and the changed settings, as ``mira/small with epochs=3, batch_size=64``."""
        config = self.config
        name = f"{self.recipe.method.name}/{self.recipe.name}"
        changed = list(config.get("changes", []))
        pixel_format = self.recipe.preprocessing.pixel_format
        if not pixel_format.is_rgb:  # what was measured of the images is told by their kind
            changed = [str(pixel_format), *(change for change in changed if not change.startswith(_MEASURED))]
        if len(self.stages) > 1:  # several schedules, which no recipe has
            changed = [change for change in changed if not change.startswith("epochs=")]
            changed = [f"epochs={'+'.join(map(str, self.stages))}", *changed]
        return f"{name} with {', '.join(changed)}" if changed else name

    @property
    def trained_steps(self) -> int:
        """Returns the number of steps that the folder's encoder was trained for; 0 if there is no encoder yet."""
        return trained_steps_of(self.path)

    @property
    def epochs_to_keep(self) -> tuple[int, ...]:
        """Returns the epochs, from 1, after which the run keeps its encoder, beside the one at its end."""
        file = self.path / "config.json"
        return tuple(parse_value(self.launch.get("keep_epochs", []), list[int], f"{file}: keep_epochs"))

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """Returns the epochs, from 1, after which the encoder was kept, in rising order."""
        folders = (file.parent for file in (self.path / KEPT_ENCODERS).glob("*/encoder.json"))
        return tuple(sorted(int(folder.name) for folder in folders if folder.name.isdecimal()))

    def kept_encoder(self, epoch: int) -> Path:
        """Returns the folder of the encoder that is kept after an epoch, as ``runs/a/epochs/50``; it need not be there.

        Args:
            epoch: The epoch, from 1.
        """
        return self.path / KEPT_ENCODERS / str(epoch)

    def has_missed(self, epoch: int) -> bool:
        """Returns whether the run is past the end of an epoch whose encoder was not kept.

        Args:
            epoch: The epoch, from 1.
        """
        steps = self.recipe.steps(self.config["images"]) // self.recipe.epochs * epoch
        return self.trained_steps > steps and epoch not in self.kept_epochs

    @property
    def finished(self) -> bool:
        """Returns whether the folder's encoder is the one after the recipe's last step."""
        recipe, images = self._recipe_and_images
        return self.trained_steps == recipe.steps(images)

    def progress(self, trained_steps: int | None) -> str:
        """Returns how far an encoder of this run was trained, as ``19 of 60 steps``; empty if to the recipe's end.

        Args:
            trained_steps: Number of steps that the encoder was trained for; None if it is not known.
        """
        steps = self.recipe.steps(self.config["images"])
        return "" if trained_steps == steps else f"{trained_steps or 'unknown'} of {steps} steps"

    @property
    def resume_command(self) -> str:
        """Returns the command that goes on with the run, as it can be typed."""
        return resume_command(self.path)

    def describe_longer_training(self, folder: str | None = None) -> str:
        """Returns words on how to train the run longer: to its end, or beyond it if it is finished.

        Args:
            folder: The folder as readers know it; None takes the path.
        """
        command = resume_command(self.path if folder is None else folder)
        if not self.finished:  # more epochs are for a finished run
            return f"it is not finished, and {command} goes on with it"
        return f"{command} --epochs N trains it longer, with N above {self.recipe.epochs}"

    @property
    def collapsed(self) -> bool:
        """Returns whether the encoder mapped all images to the same vector when the run last looked at it."""
        rows = self.read_rows("metrics.jsonl")
        return any("collapsed" in row and row["step"] == rows[-1]["step"] for row in rows)

    @property
    def stages(self) -> tuple[int, ...]:
        """Returns the epochs of each schedule: of the first training, and of each extension. They add up to all.

        Raises:
            ValueError: if ``config.json`` says something else.
        """
        added = [entry["epochs"] for entry in self.config.get("extended", [])]
        stages = (self.recipe.epochs - sum(added), *added)
        if min(stages) < 1:
            raise ValueError(f"{self.path / 'config.json'}: extended: adds {added} epochs, of {sum(stages)} in all")
        return stages

    def extend(self, epochs: int) -> None:
        """Adds epochs to a finished run: ``config.json`` has ``epochs`` in all, and where the new schedule begins.

        Args:
            epochs: Number of epochs in all.
        """
        config, recipe = self.config, self.recipe
        longer = replace(recipe, epochs=epochs)
        extension = {"step": self.trained_steps, "epochs": epochs - recipe.epochs}
        config.setdefault("extended", []).append(extension)
        config |= {"recipe": to_json(longer), "changes": changed_settings(longer)}
        _write_json(self.path / "config.json", config)

    def __fspath__(self) -> str:
        return str(self.path)

    def check_images(self, images: dict[str, Any]) -> None:
        """Checks that the images are those that the run was started with, wherever they are now.

        Args:
            images: The images now, as in ``config.json``: ``data``, ``images`` (their number) and ``fingerprint``.

        Raises:
            ValueError: if they are others.
        """
        config = self.config
        if images["fingerprint"] != config["fingerprint"]:
            raise ValueError(
                f"--resume {self.path}: the images of {images['data']} are not those that the run was started with: "
                f"{config['images']} then, {images['images']} now, or others of these names or in another order"
            )

    def note_resumption(self, images: dict[str, Any], launch: dict[str, Any]) -> None:
        """Adds an entry to ``resumed`` in ``config.json``: where the images are now, the machine and the versions.

        Args:
            images: The images now, as in ``config.json``: the fields of ``DataLocation``, and ``times``.
            launch: The launch options now.
        """
        config = self.config
        kept = {"times", *(field.name for field in fields(DataLocation))}
        place = {name: value for name, value in images.items() if name in kept}
        config.setdefault("resumed", []).append({**place, "launch": launch, **provenance()})
        _write_json(self.path / "config.json", config)

    def append_row(self, file: str, row: dict[str, Any]) -> None:
        """Adds one line to ``metrics.jsonl``, ``results.jsonl`` or another file of JSON lines in the folder."""
        append_json_line(self.path / file, row)

    def cut_metrics(self, step: int) -> list[dict[str, Any]]:
        """Removes the rows from ``metrics.jsonl`` that a run resumed after ``step`` measures again; returns the others.

        Those are the rows after ``step``. Health is measured within the next step, so that of ``step`` itself goes too,
        with the verdicts that followed from it.
        """
        kept, is_health_cut = [], False
        for row in self.read_rows("metrics.jsonl"):
            is_health_cut = is_health_cut or ("health_rows" in row and row["step"] == step)
            of_health = "health_rows" in row or "verdict" in row
            if row["step"] < step or (row["step"] == step and not (of_health and is_health_cut)):
                kept.append(row)
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept

    def read_rows(self, file: str) -> list[dict[str, Any]]:
        """Reads the lines of ``metrics.jsonl`` or ``results.jsonl``, oldest first; no rows if there is no such file.

        A line that was truncated, by a full disk or a lost machine, is left out.

        Raises:
            ValueError: naming the file, the row and the key, if a value is of another type than a run writes.
        """
        path = self.path / file
        rows = read_json_lines(path) if path.exists() else []
        kinds = ROWS.get(file, {})
        for number, row in enumerate(rows, start=1):
            for key, value in row.items():
                if key in kinds or not isinstance(value, float):  # every float, as NaN, may stand for a measured value
                    parse_value(value, kinds.get(key, kinds.get("", Any)), f"{path}, row {number}: {key[:60]}")
            if missing := kinds.keys() - row.keys() - {""}:
                raise ValueError(f"{path}, row {number}: {min(missing)} is missing")
        return rows


@lru_cache(maxsize=MOST_KEPT)
def _recipe_and_images(folder: Path, state: tuple[int, int, int]) -> tuple[Recipe, int]:
    """Reads the recipe of a run and the number of its images, once for each state of ``config.json``."""
    config = Run(folder).config
    try:
        return recipe_from_json(config["recipe"], key="recipe"), config["images"]
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def resume_command(folder: str | PathLike[str]) -> str:
    """Returns the command that goes on with the run in a folder, as it can be typed."""
    return f"infomax pretrain --out {shlex.quote(os.fspath(folder))} --resume"


def trained_steps_of(folder: Path) -> int:
    """Returns the number of steps that the encoder in a folder was trained for; 0 if there is no encoder yet."""
    file = folder / "encoder.json"
    if not file.is_file():
        return 0
    description = parse_value(read_json(file), dict[str, Any], str(file))
    return parse_value(description.get("steps", 0), int, f"{file}: steps")


def run_of(encoder: str | PathLike[str]) -> Run | None:
    """Returns the run that an encoder was trained by; None if it is not known.

    Args:
        encoder: A run folder, or the folder of an encoder that was kept on the way, as ``runs/a/epochs/50``; any other
            encoder is of no run.
    """
    folder = Path(encoder)
    if (folder / "config.json").is_file():
        return Run(folder)
    if len(folder.parts) < 3:  # as in the working folder runs/a
        folder = Path(os.path.abspath(folder))
    holds_one = folder.name.isdecimal() and folder.parent.name == KEPT_ENCODERS and (folder / "encoder.json").is_file()
    run = folder.parent.parent
    return Run(run) if holds_one and (run / "config.json").is_file() else None


def kept_epoch_of(encoder: str | PathLike[str]) -> int | None:
    """Returns the epoch, from 1, after which an encoder was kept; None for that of a run folder, or any other one."""
    run = run_of(encoder)
    is_last = run is None or (Path(encoder) / "config.json").is_file()
    return None if is_last else int(Path(os.path.abspath(encoder)).name)


def describe_unfinished(encoder: str | PathLike[str]) -> str:
    """Returns how far the training of a run's encoder is, as ``unfinished: 58 of 4000 steps``.

    Args:
        encoder: A run folder, or any other encoder.

    Returns:
        The words; empty if the training is at its end, or the encoder is of no run, or was kept after an epoch.
    """
    run = run_of(encoder)
    if run is None or kept_epoch_of(encoder) is not None:
        return ""
    progress = run.progress(run.trained_steps)
    return f"unfinished: {progress}" if progress else ""


def check_output_folder(out: Path, *, overwrite: bool) -> None:
    """Checks that a new run may be written to ``out``: that it is empty or missing, or a run that may be overwritten.

    Raises:
        ValueError: if the folder holds anything else, or a run and ``overwrite`` is False.
    """
    if not out.exists() or (out.is_dir() and all(_is_ours(file) for file in out.iterdir())):
        return
    if not (out / "config.json").is_file():
        raise ValueError(f"--out {out} exists and is not a run folder; choose another")
    if not overwrite:
        raise ValueError(
            f"--out {out} exists; choose another, or --resume to go on with it, or --overwrite to replace it"
        )


def _is_ours(file: Path) -> bool:
    """Returns whether a file is one that a process leaves if it is killed before it has written ``config.json``."""
    return file.suffix == PARTIAL or file.name.startswith(LOCK_FILE) or file.name == INITIAL_FILE


def create_run_folder(
    out: Path,
    recipe: Recipe,
    *,
    data: dict[str, Any],
    launch: dict[str, Any],
    overwrite: bool,
    initial: bytes | None = None,
) -> Run:
    """Makes a run folder and its ``config.json``. Call :func:`check_output_folder` before.

    Args:
        out: The folder.
        recipe: The recipe with all changes.
        data: Keys of ``config.json`` that describe the images: the fields of ``DataLocation``, their number and their
            fingerprint.
        launch: The options of this machine, such as the device and the number of workers.
        overwrite: Whether to delete what is in ``out`` first, but not the lock.
        initial: Content of the file with the initial weights; None if they are random.
    """
    out.mkdir(parents=True, exist_ok=True)
    # config.json goes last: if this process is killed meanwhile, the folder is still one that may be overwritten
    for file in sorted(out.iterdir(), key=lambda file: file.name == "config.json") if overwrite else ():
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        elif not file.name.startswith(LOCK_FILE):
            file.unlink()
    config = {"recipe": to_json(recipe), "changes": changed_settings(recipe), **data, "launch": launch, **provenance()}
    if initial is not None:
        write_atomic(out / INITIAL_FILE, initial)
    _write_json(out / "config.json", config)
    return Run(out)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    write_atomic(file, json.dumps(content, indent=1).encode())


def changed_settings(recipe: Recipe) -> list[str]:
    """Lists the settings in which a recipe differs from the registered recipe of its name, as ``epochs=20``.

    The number of epochs is among them if the registered recipe leaves it open.
    """
    experiment = get_experiment(recipe.name, recipe.method.name)
    registered = flat_settings(experiment.recipe(epochs=recipe.epochs))
    if experiment.images_seen is not None:
        del registered["epochs"]
    return [f"{key}={value}" for key, value in flat_settings(recipe).items() if registered.get(key) != value]


def recipe_differences(old: Recipe, new: Recipe) -> list[str]:
    """Lists the settings in which two recipes differ, as ``epochs: 10 there, 20 asked for``, one text each."""
    before = {"method": old.method.name} | flat_settings(old)
    after = {"method": new.method.name} | flat_settings(new)
    return [
        f"{key}: {before.get(key)} there, {after.get(key)} asked for"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
