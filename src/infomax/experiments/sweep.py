"""Sweeps: several recipes or values and several seeds, one run after another; what is done is not done again.

A run is known by the frozen specification of its training, and an evaluation by that of its protocol: never by the text
of a command. The commands that carry them out are made of the same options.
"""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.data.sources.location import DataLocation
from infomax.evaluation.result_row import ResultRow
from infomax.evaluation.results import read_results
from infomax.experiments.evaluations import (
    Evaluation,
    column_evaluations,
    paper_evaluations,
    parse_evaluation,
    why_not_measured,
    with_seeds,
)
from infomax.experiments.options import SweepOptions
from infomax.models.backbone_names import check_encoder_name, library_of
from infomax.papers import published
from infomax.papers.published import Column, Table
from infomax.recipes import registry
from infomax.recipes.customise import chosen_epochs, customise_experiment
from infomax.recipes.experiment import Experiment
from infomax.recipes.pixels import pixels_of, with_pixels
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run, recipe_differences, trained_steps_of
from infomax.runtime.identity import specification_hash
from infomax.runtime.near_names import nearest
from infomax.runtime.options import pick, to_argv
from infomax.runtime.stages import importing_torch
from infomax.training.kept_epochs import parse_keep_epochs
from infomax.training.opening import check_machine
from infomax.training.options import PretrainOptions

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder


@dataclass(frozen=True)
class Variant:
    """A frozen dataclass that holds a recipe of a sweep, with the values that the sweep gives to some settings."""

    experiment: Experiment
    values: tuple[tuple[str, str], ...] = ()
    """Pairs of key and value."""

    @property
    def label(self) -> str:
        """Names the variant, as ``mira/cifar10, prototypes=300``."""
        return ", ".join([self.experiment.name, *self.overrides])

    @property
    def overrides(self) -> tuple[str, ...]:
        """Returns the values as ``--set`` takes them."""
        return tuple(f"{key}={value}" for key, value in self.values)


@dataclass(frozen=True)
class TrainingSpecification:
    """A frozen dataclass that holds all that decides the encoder of one run."""

    recipe: Recipe
    """The recipe with all changes and the seed."""
    data: str
    """The images, as the user names them."""
    classes: str | None
    """File with the classes to keep; None keeps all."""
    subset: str | None
    """File with the training images to keep; None keeps all."""
    value_range: str | None
    """Numbers that become black and white; None takes the format's."""

    @property
    def hash(self) -> str:
        """Returns 16 hexadecimal digits that are equal for equal specifications."""
        return specification_hash(self)


@dataclass(frozen=True)
class SweepRun:
    """A frozen dataclass that holds one run of a sweep: what is trained, how, and how it is evaluated."""

    variant: Variant
    specification: TrainingSpecification
    options: PretrainOptions
    """Options of the training: those that decide its result, and those of the machine."""
    evaluations: tuple[Evaluation, ...]
    """Evaluations of the encoders that are kept on the way, and then those of the last one."""
    missed_epochs: tuple[int, ...] = ()
    """Epochs whose encoder was wanted, but not kept by the run that is there."""
    measures_baselines: bool = False
    """Whether the untrained encoder and the raw pixels are evaluated with this run, as with the first one of each
    network."""

    @property
    def missed(self) -> str:
        """Returns a line on the epochs whose encoder was not kept; empty if there is none."""
        epochs = ", ".join(map(str, self.missed_epochs))
        return f"{self.folder} did not keep its encoder after epoch {epochs}, and can no longer" if epochs else ""

    @property
    def folder(self) -> Path:
        """Returns the run folder."""
        return self.options.out

    @property
    def seed(self) -> int:
        """Returns the seed of the run."""
        return self.specification.recipe.seed

    @property
    def trained(self) -> bool:
        """Returns whether the encoder in the folder is that of the last step."""
        return (self.folder / "config.json").is_file() and Run(self.folder).finished

    @property
    def training_argv(self) -> list[str]:
        """Returns the words of the command that trains it."""
        return ["pretrain", *to_argv(self.options)]

    @property
    def remaining(self) -> list[list[str]]:
        """Returns the words of each command that has not been carried out."""
        training = [] if self.trained else [self.training_argv]
        left = [evaluation for evaluation in self.evaluations if self.result(evaluation) is None]
        commands = [e.argv(self.folder, with_baselines=self._measures_baselines(e)) for e in left]
        return training + commands

    def _measures_baselines(self, evaluation: Evaluation) -> bool:
        """Returns whether an evaluation of this run is one of its baselines too."""
        if evaluation.epoch is not None or not (evaluation.baselines and evaluation.protocol.baselines):
            return False
        return self.measures_initial_encoder or (self.measures_baselines and not evaluation.repetition)

    @property
    def measures_initial_encoder(self) -> bool:
        """Returns whether the initial encoder is evaluated with this run, as with the first seed of each recipe."""
        return self.seed == 0 and self.specification.recipe.encoder.init is not None

    def baseline_result(self, evaluation: Evaluation, name: str) -> ResultRow | None:
        """Returns the last result of a baseline by this evaluation; None if there is none.

        Args:
            evaluation: The evaluation.
            name: ``initial encoder``, from which the run started; ``untrained encoder``; or ``raw pixels``.
        """
        if not self._measures_baselines(evaluation) or not (self.folder / "config.json").is_file():
            return None
        run = Run(self.folder)
        hashes = evaluation.hashes(run)
        matching = [row for row in self._rows(run, evaluation) if row.evaluation in hashes]
        return next((row for row in reversed(matching) if row.representation == name), None)

    def result(self, evaluation: Evaluation) -> ResultRow | None:
        """Returns the last result of the trained encoder by this evaluation; None if there is none yet."""
        if evaluation not in self.evaluations or not self.trained:
            return None
        run, epoch = Run(self.folder), evaluation.epoch
        steps = trained_steps_of(run.path if epoch is None else run.kept_encoder(epoch))
        hashes, rows = evaluation.hashes(run), self._rows(run, evaluation)
        rows = [row for row in rows if row.trained_steps == steps and row.epoch == epoch]
        matching = [row for row in rows if row.evaluation in hashes]
        return matching[-1] if matching else None

    def _rows(self, run: Run, evaluation: Evaluation) -> Sequence[ResultRow]:
        """Returns all results of the evaluation's protocol in the run folder."""
        file = run.path / "results.jsonl"
        protocols = [row.protocol for row in evaluation.protocol.rows]  # rows of others may be of another version
        return read_results(file, protocols=protocols) if file.is_file() else []


@dataclass(frozen=True)
class Sweep:
    """A frozen dataclass that holds all runs of a sweep, and the published table that it is about, if there is one."""

    out: Path
    variants: tuple[Variant, ...]
    evaluations: tuple[Evaluation, ...]
    """All evaluations that any run has."""
    runs: tuple[SweepRun, ...]
    table: Table | None
    changes: tuple[str, ...]
    """Changes that all runs make to their recipes, as words of the command."""
    not_measured: tuple[str, ...] = ()
    """A line for each reason why some columns of the table are not measured."""

    def runs_of(self, variant: Variant) -> list[SweepRun]:
        """Returns the runs of a variant, one for each seed."""
        return [run for run in self.runs if run.variant is variant]

    def commands(self) -> list[str]:
        """Returns a line of the shell for each run that is not done, which trains and evaluates it."""
        remaining = [run.remaining for run in self.runs]
        return [" && ".join(shlex.join(["infomax", *argv]) for argv in commands) for commands in remaining if commands]


def define_sweep(options: SweepOptions) -> Sweep:
    """Returns the runs of a sweep, all of whose settings are possible. Nothing is written.

    Raises:
        ValueError: if there is no such table, recipe or protocol, a recipe cannot be changed so, or the folder has runs
            of another sweep.
    """
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} must be a folder")
    experiments, table = _choose_experiments(options)
    check_machine(options)
    if table and options.vary:
        raise ValueError(f"--vary is for recipes; {table.id} says itself what varies")
    variants = tuple(Variant(experiment, values) for experiment in experiments for values in _combine(options.vary))
    named = tuple(dict.fromkeys(parse_evaluation(words, options) for words in options.evaluate))
    named = with_seeds(named, options.evaluation_seeds or 1)
    runs: list[SweepRun] = []
    not_measured = [] if table is None else _not_measured(table, experiments, options)
    if table and not named and len(not_measured) == len(table.columns):
        raise ValueError(
            f"{'; '.join(_group_reasons(table, not_measured))}; say with --evaluate how to evaluate the runs"
        )
    counts: dict[DataLocation, int] = {}
    initial = initial_encoder(options)
    networks: set[str] = set()
    for seed, variant in product(range(options.seeds), variants):  # all variants of a seed before the next seed
        evaluations = named or _default_evaluations(variant, table, options)
        wanted = _wanted_epochs(variant, table, options)
        run = define_run(options, variant, seed, evaluations, wanted, counts, initial)
        network = describe_network(run)
        runs.append(replace(run, measures_baselines=seed == 0 and network not in networks))
        networks.add(network)
    if len({run.specification.hash for run in runs}) < len(runs):
        raise ValueError(f"--vary gives a value twice: {' '.join(options.vary)}")
    for run in runs:
        check_same_run(run)
    used = tuple(dict.fromkeys(evaluation for run in runs for evaluation in run.evaluations))
    lines = [] if table is None or named else _group_reasons(table, not_measured)
    lines += [line for run in runs if (line := run.missed)]
    return Sweep(options.out, variants, used, tuple(runs), table, _common_changes(options), tuple(lines))


def _not_measured(table: Table, experiments: Sequence[Experiment], options: SweepOptions) -> list[tuple[Column, str]]:
    """Returns the columns of a table that no run of its recipes is measured for, each with the reason."""
    reached = {column.name for experiment in experiments for _, column in experiment.positions(table.id)}
    on_the_way = {column.name for e in experiments for _, column in e.positions_on_the_way(table.id)}
    reasons = []
    for column in table.columns:
        reason = why_not_measured(column)
        if not reason and column.name in on_the_way - reached:
            reason = _why_not_on_the_way(column, options)
        elif not reason and column.name not in reached:
            reason = "no recipe is trained for it"
        reasons.append((column, reason))
    return [(column, reason) for column, reason in reasons if reason]


def _why_not_on_the_way(column: Column, options: SweepOptions) -> str:
    """Returns why the encoder of a column, from within a run, is not had; empty if it is."""
    epochs, schedule = chosen_epochs(options.changes()), column.conditions.schedule_epochs
    if epochs in (None, schedule):
        return ""
    return f"it is of the encoder after {column.kept_epoch} of {schedule} epochs, and these runs have {epochs}"


def _wanted_epochs(variant: Variant, table: Table | None, options: SweepOptions) -> tuple[int, ...]:
    """Returns the epochs after which a variant keeps its encoder: the user's, and those of columns of the table."""
    on_the_way = () if table is None else variant.experiment.positions_on_the_way(table.id)
    columns = [column for _, column in on_the_way if not _why_not_on_the_way(column, options)]
    kept = {column.kept_epoch for column in columns if column.kept_epoch is not None}
    return tuple(sorted({*parse_keep_epochs(options.keep_epochs), *kept}))


def _group_reasons(table: Table, columns: Sequence[tuple[Column, str]]) -> list[str]:
    """Returns a line for each reason, with the columns that it holds for and their protocol."""
    groups: dict[tuple[str, str], list[str]] = {}
    for column, reason in columns:
        groups.setdefault((reason, column.protocol), []).append(column.name)
    return [
        f"{table.id}: {', '.join(names)} ({protocol}) cannot be measured: {reason}"
        for (reason, protocol), names in groups.items()
    ]


def _default_evaluations(variant: Variant, table: Table | None, options: SweepOptions) -> tuple[Evaluation, ...]:
    """Returns the evaluations that measure a variant as its table does, or its paper, or else by k-NN."""
    if table is None:
        evaluations = paper_evaluations(variant.experiment, options) or (parse_evaluation("knn", options),)
        return with_seeds(evaluations, options.evaluation_seeds or 1)
    columns = [column for _, column in variant.experiment.positions(table.id)]
    return tuple(dict.fromkeys(e for column in columns for e in column_evaluations(column, options)))


def _common_changes(options: SweepOptions) -> tuple[str, ...]:
    """Returns the words of all changes that the runs share, without those of the machine."""
    places = {name: value for name, value in options.given_location().items() if name != "data_dir"}
    common = {**options.changes(), **places}
    words = to_argv(pick(PretrainOptions, {**common, "out": options.out}))
    return tuple(words[: words.index("--out")])


def _choose_experiments(options: SweepOptions) -> tuple[list[Experiment], Table | None]:
    """Returns the recipes that are meant, and the table if it is one that names them."""
    what = options.what
    if not what:
        raise ValueError("a sweep is of a published table, as mira-14, or of recipes, as carl/small")
    everything = registry.experiments()
    if "/" not in what[0] and all("/" in name for name in what[1:]):
        ids = [table.id for table in published.tables()]
        if what[0] not in ids:
            by_bare_name = {key.partition("/")[2]: key for key in everything}
            near = nearest(what[0], [*ids, *everything, *by_bare_name])
            near = by_bare_name.get(near or "", near)
            raise ValueError(
                f"there is no published table {what[0]!r} (infomax report --table list names them), and recipes are "
                f"named as mira/small (infomax recipes lists them){f'; did you mean {near}?' if near else ''}"
            )
        table = published.table(what[0])
        experiments = [e for e in everything.values() if e.positions(table.id)]
        if not experiments:
            raise ValueError("; ".join(_group_reasons(table, _not_measured(table, [], options))))
        return _narrow(experiments, what[1:], table), table
    chosen = {}
    for name in what:
        if "/" not in name:
            raise ValueError(f"a sweep is of one table, or of recipes with their methods, as mira/small, not {name!r}")
        matching = [key for key in everything if fnmatchcase(key, name)] or [registry.get_experiment(name).name]
        chosen |= {key: everything[key] for key in matching}
    return list(chosen.values()), None


def _narrow(experiments: list[Experiment], patterns: Sequence[str], table: Table) -> list[Experiment]:
    """Returns the recipes of a table that a pattern fits, or all of them if there is no pattern.

    Raises:
        ValueError: if a pattern fits none of them.
    """
    for pattern in patterns:
        if not any(fnmatchcase(experiment.name, pattern) for experiment in experiments):
            names = ", ".join(experiment.name for experiment in experiments)
            raise ValueError(f"no recipe of {table.id} is {pattern}; its recipes are {names}")
    return [e for e in experiments if not patterns or any(fnmatchcase(e.name, pattern) for pattern in patterns)]


def _combine(vary: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Returns all combinations of the values, each as pairs of key and value."""
    axes = []
    for assignment in vary:
        key, equals, values = assignment.partition("=")
        if not equals or "" in values.split(","):
            raise ValueError(f"--vary {assignment}: want KEY=VALUE,VALUE, as in method.prototypes=100,300")
        axes.append([(key, value) for value in values.split(",")])
    return list(product(*axes))


def define_run(
    options: SweepOptions,
    variant: Variant,
    seed: int,
    evaluations: tuple[Evaluation, ...],
    wanted_epochs: tuple[int, ...],
    counts: dict[DataLocation, int],
    initial: "Encoder | None",
) -> SweepRun:
    """Returns the run of a variant with one seed.

    Args:
        options: What the sweep is of.
        variant: The recipe and the values to train with.
        seed: Seed of the run.
        evaluations: How its encoder is evaluated.
        wanted_epochs: Epochs after which the encoder is kept and evaluated too, unless the run is there and has not.
        counts: Is filled with the number of images of each data set that had to be opened to know the epochs.
        initial: The encoder that all runs start from; None for random weights.
    """
    overrides = (*options.overrides, *variant.overrides)
    if any(override.partition("=")[0] == "seed" for override in overrides):
        raise ValueError("--set seed and --vary seed would give all runs the same; --seeds N has the seeds from 0 up")
    changes: dict[str, Any] = {**options.changes(), "overrides": overrides, "seed": seed}
    name = "-".join([variant.experiment.name.replace("/", "-"), *variant.overrides, f"seed{seed}"])
    folder = options.out / re.sub(r"[^\w.=+-]", "_", name)
    missed = _missed_epochs(folder, wanted_epochs)
    kept = [epoch for epoch in wanted_epochs if epoch not in missed]
    training: dict[str, Any] = {
        **vars(options),
        "data": options.named_data(variant.experiment.data, recipe=variant.experiment.name),
        "recipe": variant.experiment.name,
        "seed": seed,
        "overrides": overrides,
        "keep_epochs": [",".join(map(str, kept))] if kept else (),
        "out": folder,
        "resume": True,
    }
    train = pick(PretrainOptions, training)
    assert train.data is not None
    images = None
    if variant.experiment.images_seen is not None and chosen_epochs(changes) is None:
        images = _count_images(train, counts)
    recipe = _settle_recipe(variant.experiment, images, changes, initial)
    specification = TrainingSpecification(recipe, train.data, train.classes, train.subset, train.value_range)
    if beyond := [epoch for epoch in kept if epoch > recipe.epochs]:
        raise ValueError(f"--keep-epochs {beyond[0]}: {variant.label} has {recipe.epochs} epochs")
    on_the_way = [e.at_epoch(epoch) for epoch in kept for e in evaluations if not e.protocol.needs_run]
    return SweepRun(variant, specification, train, (*on_the_way, *evaluations), missed)


def describe_network(run: SweepRun) -> str:
    """Returns a text that is equal for runs with the same baselines: the network, its preprocessing and the images.

    Decisions: sweep-baselines.
    """
    specification = run.specification
    images = (specification.data, specification.classes, specification.subset, specification.value_range)
    return repr((specification.recipe.encoder, specification.recipe.preprocessing, images))


def _missed_epochs(folder: Path, epochs: Sequence[int]) -> tuple[int, ...]:
    """Returns the epochs whose encoder a run that is there can no longer keep."""
    if not (folder / "config.json").is_file():
        return ()
    run = Run(folder)
    return tuple(epoch for epoch in epochs if run.has_missed(epoch))


def initial_encoder(options: SweepOptions) -> "Encoder | None":
    """Opens the encoder that all runs start from; None for random weights. Torch is imported for the former alone."""
    if options.init is None:
        return None
    check_encoder_name(options.init)
    with importing_torch():
        from infomax.training.initial import open_initial

    return open_initial(options.init)


def _settle_recipe(
    experiment: Experiment, images: int | None, changes: dict[str, Any], initial: "Encoder | None"
) -> Recipe:
    """Returns the recipe that ``infomax pretrain`` would train by. Torch is imported only for a library's network."""
    if initial is None:
        recipe = customise_experiment(experiment, images=images, **changes)
        if library_of(recipe.encoder.backbone) is None:
            return recipe
    with importing_torch():
        from infomax.training.initial import settle_recipe

    return settle_recipe(experiment, images=images, initial=initial, changes=changes)


def _count_images(train: PretrainOptions, counts: dict[DataLocation, int]) -> int:
    """Returns the number of images of a run, and adds it to ``counts``.

    Raises:
        ValueError: if the images cannot be opened, and the run has not been started.
    """
    location = train.location(None)
    if location not in counts:
        try:
            counts[location] = len(location.open(download=train.download).pretraining)
        except ValueError:
            if not (train.out / "config.json").is_file():
                raise
            return int(Run(train.out).config["images"])  # runs that are done can still be drawn
    return counts[location]


def check_same_run(run: SweepRun) -> None:
    """Checks that a run in the folder was trained as this sweep trains it; raises ValueError if not."""
    if not (run.folder / "config.json").is_file():
        return
    existing = Run(run.folder)
    # Pixels that are not 8-bit RGB are measured when a run starts, and not when a sweep is described.
    wanted_recipe = with_pixels(run.specification.recipe, pixels_of(existing.recipe))
    differences = recipe_differences(existing.recipe, wanted_recipe)
    machine = ("data_dir", "max_megapixels")  # what changes no image that is read
    wanted = {name: value for name, value in run.options.given_location().items() if name not in machine}
    before = {name: (getattr(existing.location, name) or "none").partition("#")[0] for name in wanted}
    with suppress(ValueError):  # if the images are not here, runs that are done can still be drawn
        wanted = vars(DataLocation(**wanted).resolved())
    differences += [
        f"{name}: {old} there, {wanted[name]} asked for" for name, old in before.items() if old != wanted[name]
    ]
    if differences:
        raise ValueError(f"--out: {run.folder} is of another sweep: {'; '.join(differences)}; choose another folder")
