"""Sweeps: several recipes or values and several seeds, one run after another; what is done is not done again."""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from infomax.data.sources.location import DataLocation
from infomax.papers import published
from infomax.papers.published import Table
from infomax.recipes import registry
from infomax.recipes.customise import customise
from infomax.recipes.experiment import Experiment
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run, recipe_differences
from infomax.runtime.checks import check_count, choose

PROTOCOLS = ("knn", "linear", "few-shot", "cluster", "finetune")
PROBES = sorted({column.probe for one in published.tables() for column in one.columns if column.probe})


@dataclass(frozen=True)
class Member:
    """A recipe of a sweep, with the values that the sweep gives to some of its settings."""

    experiment: Experiment
    values: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """As ``mira/cifar10, prototypes=300``."""
        return ", ".join([self.experiment.name, *self.changes])

    @property
    def changes(self) -> list[str]:
        """The values, as ``--set`` takes them."""
        return [f"{key}={value}" for key, value in self.values]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep and what it is judged by: commands of ``infomax``, each a list of words."""

    member: Member
    recipe: Recipe
    folder: Path
    training: list[str]
    judging: dict[str, list[str]]
    """By what the user calls them, as ``linear --probe mira``."""

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def trained(self) -> bool:
        """Whether its encoder is that of the last step."""
        return (self.folder / "config.json").is_file() and Run(self.folder).finished

    @property
    def left(self) -> list[list[str]]:
        """The commands that have not been done."""
        training = [] if self.trained else [self.training]
        return training + [words for name, words in self.judging.items() if not self.row(name)]

    def row(self, protocol: str) -> dict[str, Any]:
        """What this protocol found of the trained run; empty if it was not asked by the very command."""
        if protocol not in self.judging or not self.trained:
            return {}
        command, steps = shlex.join(["infomax", *self.judging[protocol]]), Run(self.folder).trained_steps
        rows = Run(self.folder).read_rows("results.jsonl")
        own = [row for row in rows if row.get("command") == command and row.get("trained_steps") == steps]
        return own[-1] if own else {}


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, and the published table that it is about, if it is about one."""

    out: Path
    members: list[Member]
    protocols: list[str]
    """All that runs are judged by, as ``linear --probe mira``."""
    trials: list[Trial]
    table: Table | None

    def of(self, member: Member) -> list[Trial]:
        return [trial for trial in self.trials if trial.member is member]


def sweep(
    what: Sequence[str],
    out: Path,
    *,
    vary: Sequence[str] = (),
    seeds: int = 1,
    evaluate: Sequence[str] = (),
    options: dict[str, Any],
    train: Sequence[str] = (),
) -> Sweep:
    """The runs of a sweep, all of whose settings are possible.

    Args:
        what: The id of a published table, for all recipes that have a number in it; or names of recipes, or patterns of
            names, as ``mira/imagenet_100_prototypes_*``.
        out: The folder for all run folders.
        vary: ``KEY=VALUE,VALUE``: each recipe with each of these values, and with all combinations where there are
            several.
        seeds: How many runs each recipe has, with the seeds from 0 up.
        evaluate: Words of ``infomax evaluate`` without the encoder, as ``linear --probe mira``; by default those of the
            table's columns, else ``knn``.
        options: Changes to the recipes, by the words of :func:`infomax.recipes.customise.customise`.
        train: The words of ``infomax pretrain`` that all runs have in common, these options among them.

    Raises:
        ValueError: if there is no such table or recipe, or a recipe cannot be changed so.
    """
    check_count("--seeds", seeds, low=1)
    experiments, one = _chosen(what)
    if one and vary:
        raise ValueError(f"--vary is for recipes; {one.id} says itself what varies")
    members = [Member(experiment, values) for experiment in experiments for values in _values(vary)]
    for words in evaluate:
        _check_protocol(words)
    trials = []
    for seed, member in product(range(seeds), members):  # a seed of all, then the next one: cut short, it compares all
        overrides = [*options["overrides"], *member.changes]
        if any(override.partition("=")[0] == "seed" for override in overrides):
            raise ValueError(
                "--set seed and --vary seed would give all runs the same; --seeds N has the seeds from 0 up"
            )
        changes: dict[str, Any] = {**options, "overrides": overrides, "seed": seed}
        recipe = customise(member.experiment.recipe(), **changes)
        trials.append(_trial(out, member, recipe, train, evaluate or _protocols(member, one)))
    if len({trial.folder for trial in trials}) < len(trials):
        raise ValueError(f"--vary gives a value twice: {' '.join(vary)}")
    for trial in trials:
        _check_same(trial)
    return Sweep(out, members, list(dict.fromkeys(name for trial in trials for name in trial.judging)), trials, one)


def _chosen(what: Sequence[str]) -> tuple[list[Experiment], Table | None]:
    """The recipes meant, and the table if it is one that names them."""
    if not what:
        raise ValueError("a sweep is of a published table, as mira-14, or of recipes, as carl/small")
    everything = registry.experiments()
    if len(what) == 1 and "/" not in what[0]:
        one = published.table(what[0])
        found = [e for e in everything.values() if any(number.table is one for number in e.numbers())]
        if not found:
            raise ValueError(f"{one.id} has no number that a recipe would give")
        return found, one
    found = {}
    for name in what:
        if "/" not in name:
            raise ValueError(f"a sweep is of one table, or of recipes with their methods, as mira/small, not {name!r}")
        near = [key for key in everything if fnmatchcase(key, name)] or [registry.get_experiment(name).name]
        found |= {key: everything[key] for key in near}
    return list(found.values()), None


def _values(vary: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """All combinations of the values, each as pairs of key and value."""
    axes = []
    for assignment in vary:
        key, equals, values = assignment.partition("=")
        if not equals or "" in values.split(","):
            raise ValueError(f"--vary {assignment}: want KEY=VALUE,VALUE, as in method.prototypes=100,300")
        axes.append([(key, value) for value in values.split(",")])
    return list(product(*axes))


def _check_protocol(words: str) -> None:
    try:
        name, *rest = shlex.split(words) or [""]
    except ValueError as error:
        raise ValueError(f"--evaluate {words}: {error}") from None
    choose("--evaluate", name, PROTOCOLS)
    if "--probe" in rest[:-1]:
        choose(f"--evaluate {words}: --probe", _after("--probe", rest), PROBES)


def _protocols(member: Member, one: Table | None) -> list[str]:
    """What is needed to fill the table's columns, as far as all labels of the pretraining data suffice."""
    if one is None:
        return ["knn"]
    found = []
    for column in (number.column for number in member.experiment.numbers() if number.table is one):
        if column.protocol in ("linear", "knn") and not column.subset:
            found.append(f"{column.protocol} --probe {column.probe}" if column.probe else column.protocol)
    if not found:
        raise ValueError(f"{one.id} has no linear or k-NN result; say with --evaluate how to judge the runs")
    return list(dict.fromkeys(found))


def _trial(out: Path, member: Member, recipe: Recipe, train: Sequence[str], protocols: Sequence[str]) -> Trial:
    name = "-".join([member.experiment.name.replace("/", "-"), *member.changes, f"seed{recipe.seed}"])
    folder = out / re.sub(r"[^\w.=+-]", "_", name)
    sets = [word for change in member.changes for word in ("--set", change)]
    data = [] if "--data" in train else ["--data", member.experiment.data or "digits"]
    command = ["pretrain", "--recipe", member.experiment.name, "--seed", str(recipe.seed), *data, *train, *sets]
    machine = [word for name in ("--device", "--workers") if name in train for word in (name, _after(name, train))]
    judging = {}
    for words in protocols:
        protocol, *rest = shlex.split(words)
        alone = [] if protocol == "finetune" else ["--no-baselines"]
        judging[words] = ["evaluate", protocol, str(folder), *alone, *machine, *rest]
    return Trial(member, recipe, folder, [*command, "--out", str(folder), "--resume"], judging)


def _after(word: str, words: Sequence[str]) -> str:
    return words[words.index(word) + 1]


def _check_same(trial: Trial) -> None:
    """Refuse to take a run that is there for one of this sweep, if it was trained otherwise."""
    if (trial.folder / "config.json").is_file():
        run, words = Run(trial.folder), trial.training
        lines = recipe_differences(run.recipe, trial.recipe)
        where = {w: _after(f"--{w}", words) for w in ("data", "classes", "subset") if f"--{w}" in words}
        there = {name: (getattr(run.location, name) or "none").partition("#")[0] for name in where}
        with suppress(ValueError):  # where the images are not, runs that are done can still be drawn
            where = vars(DataLocation(**where).resolved())
        lines += [f"{name}: {old} there, {where[name]} asked for" for name, old in there.items() if old != where[name]]
        if lines:
            raise ValueError(f"--out: {trial.folder} is of another sweep: {'; '.join(lines)}; choose another folder")
