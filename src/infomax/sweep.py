"""Sweeps: several recipes or values and several seeds, one run after another; what is done is not done again."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from infomax import published, recipes
from infomax.arguments import check_count, choose
from infomax.published import Table
from infomax.recipes.experiments import Experiment
from infomax.runs import Run, append_row, circumstances, rows_of
from infomax.storage import write_whole

DONE = "done.jsonl"
"""In the sweep's folder: the runs that have been trained, and how long that took."""


@dataclass(frozen=True)
class Member:
    """A recipe of a sweep, with the values that the sweep gives to some of its settings."""

    experiment: Experiment
    values: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """As ``mira/cifar10, prototypes=300``."""
        return ", ".join([self.experiment.name, *(f"{key.split('.')[-1]}={value}" for key, value in self.values)])


@dataclass(frozen=True)
class Trial:
    """One run of a sweep and what it is judged by: commands of ``infomax``, each a list of words."""

    member: Member
    seed: int
    folder: Path
    training: list[str]
    judging: list[list[str]]

    @property
    def trained(self) -> bool:
        """Whether the sweep saw its training end."""
        done = self.folder.parent / DONE
        return done.is_file() and any(row["run"] == self.folder.name for row in rows_of(done))

    @property
    def left(self) -> list[list[str]]:
        """The commands that have not been done."""
        training = [] if self.trained else [self.training]
        return training + [words for words in self.judging if not self.row(words[1:])]

    def row(self, words: Sequence[str]) -> dict[str, Any]:
        """What ``infomax evaluate`` found of this run by these words, the last time; empty if it did not yet."""
        if not (self.folder / "config.json").is_file():
            return {}
        probe = words[words.index("--probe") + 1] if "--probe" in words else None
        rows = [row for row in Run(self.folder).rows("results.jsonl") if row.get("representation") == "trained encoder"]
        same = [row for row in rows if row["protocol"] == words[0] and row.get("probe") == probe]
        return same[-1] if same else {}


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, and the published table that it is about, if it is about one."""

    out: Path
    members: list[Member]
    protocols: list[list[str]]
    """The words of ``infomax evaluate`` that every run is judged by."""
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
        options: Changes to the recipes, by the words of :func:`infomax.recipes.customise`.
        train: The words of ``infomax pretrain`` that all runs have in common, these options among them.

    Raises:
        ValueError: if there is no such table or recipe, or a recipe cannot be changed so.
    """
    check_count("--seeds", seeds, low=1)
    experiments, one = _chosen(what)
    members = [Member(experiment, values) for experiment in experiments for values in _values(vary)]
    for member in members:
        overrides = [*options["overrides"], *(f"{key}={value}" for key, value in member.values)]
        changes: dict[str, Any] = {**options, "overrides": overrides}
        recipes.customise(member.experiment.recipe(), **changes)
    protocols = [shlex.split(words) for words in evaluate] or (_protocols(one) if one else [["knn"]])
    for words in protocols:
        choose("--evaluate", words[0] if words else "", ("knn", "linear", "few", "cluster", "finetune"))
    trials = [
        _trial(out, member, seed, train, protocols) for seed, member in product(range(seeds), members)
    ]  # a seed of all, then the next one: a sweep that is cut short compares all
    return Sweep(out, members, protocols, trials, one)


def _chosen(what: Sequence[str]) -> tuple[list[Experiment], Table | None]:
    """The recipes meant, and the table if it is one that names them."""
    if not what:
        raise ValueError("a sweep is of a published table, as mira-14, or of recipes, as carl/small")
    everything = recipes.experiments()
    if len(what) == 1 and "/" not in what[0]:
        one = published.table(what[0])
        found = [e for e in everything.values() if any(cells.table == one.id for cells in e.cells)]
        if not found:
            raise ValueError(f"{one.id} has no number that a recipe would give")
        return found, one
    found = {}
    for name in what:
        near = [key for key in everything if fnmatchcase(key, name)] or [recipes.get_experiment(name).name]
        found |= {key: everything[key] for key in near}
    return list(found.values()), None


def _values(vary: Sequence[str]) -> Iterator[tuple[tuple[str, str], ...]]:
    """All combinations of the values, each as pairs of key and value."""
    axes = []
    for assignment in vary:
        key, equals, values = assignment.partition("=")
        if not equals or "" in values.split(","):
            raise ValueError(f"--vary {assignment}: want KEY=VALUE,VALUE, as in method.prototypes=100,300")
        axes.append([(key, value) for value in values.split(",")])
    return product(*axes)


def _protocols(one: Table) -> list[list[str]]:
    """What is needed to fill the table's columns, as far as all labels of the pretraining data suffice."""
    found = {}
    for column in one.columns:
        if column.protocol in ("linear", "knn") and not column.subset:
            found[(column.protocol, *(("--probe", column.probe) if column.probe else ()))] = True
    if not found:
        raise ValueError(f"{one.id} has no linear or k-NN result; say with --evaluate how to judge the runs")
    return [list(words) for words in found]


def _trial(out: Path, member: Member, seed: int, train: Sequence[str], protocols: Sequence[Sequence[str]]) -> Trial:
    name = "-".join([member.experiment.name.replace("/", "-"), *(f"{k.split('.')[-1]}={v}" for k, v in member.values)])
    folder = out / f"{name}-seed{seed}"
    sets = [word for key, value in member.values for word in ("--set", f"{key}={value}")]
    data = [] if "--data" in train else ["--data", member.experiment.data or "digits"]
    command = ["pretrain", "--recipe", member.experiment.name, "--seed", str(seed), *data, *train, *sets]
    judging = [["evaluate", *words, str(folder), "--alone"] for words in protocols]
    return Trial(member, seed, folder, [*command, "--out", str(folder), "--resume"], judging)


def commands(sweep: Sweep) -> list[str]:
    """A line of the shell for each run that is not done: to train and to judge it."""
    left = [trial.left for trial in sweep.trials]
    return [" && ".join(shlex.join(["infomax", *words]) for words in lines) for lines in left if lines]


def run(sweep: Sweep) -> list[str]:
    """Train and judge one run after another, each in a process of its own; the runs that failed.

    Raises:
        ValueError: if a run refuses what it is told, which the next ones would too.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM; the run that it met is saved.
    """
    sweep.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, trial in enumerate(sweep.trials, start=1):
        for words in trial.left:
            what = "training" if words is trial.training else " ".join(words[:2])
            print(f"{number} of {len(sweep.trials)}: {trial.folder.name}, {what}", file=sys.stderr)
            code, told = _carried_out(words)
            if told == signal.SIGINT or code == 130:
                raise KeyboardInterrupt
            if told:
                sys.exit(0)  # as a run ends that is told to
            if code == 2:
                raise ValueError(f"the command that was refused is: {shlex.join(['infomax', *words])}")
            if code != 0 or not _finished(trial.folder):
                how = f"ended with exit code {code}" if code else "was stopped"
                failed.append(f"{trial.folder.name}: {what} {how}")
                break
            if words is trial.training:
                append_row(sweep.out / DONE, {"run": trial.folder.name, "seconds": seconds_of(trial.folder)})
    return failed


def _carried_out(words: Sequence[str]) -> tuple[int, int]:
    """The exit code of a command in a process of its own, and the signal that came meanwhile, which it is sent too."""
    told = 0

    def passed_on(number: int, _: Any) -> None:
        nonlocal told
        told = told or number
        process.send_signal(number)

    with subprocess.Popen(
        [sys.executable, "-m", "infomax", *words],
        stdout=subprocess.DEVNULL,
        process_group=0,  # else Ctrl-C would reach it twice, which means at once
    ) as process:
        before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait(), told
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _finished(folder: Path) -> bool:
    """Whether the training has made its last step."""
    run = Run(folder)
    steps = [row["step"] for row in run.rows("metrics.jsonl") if "loss" in row]
    return bool(steps) and steps[-1] == run.config["images"] // run.recipe.batch_size * run.recipe.epochs


def seconds_of(folder: Path) -> float:
    """That the training took, without what it took to start it."""
    rows = [row for row in Run(folder).rows("metrics.jsonl") if "seconds" in row]
    return round(rows[-1]["seconds"], 1) if rows else 0.0


def write(sweep: Sweep, figure: bytes) -> None:
    """``sweep.json`` and ``sweep.png``."""
    content = {**circumstances(), "runs": described(sweep)}
    write_whole(sweep.out / "sweep.json", json.dumps(content, indent=1).encode())
    write_whole(sweep.out / "sweep.png", figure)


def described(sweep: Sweep) -> list[dict[str, Any]]:
    """Each run with its command, where and of which commit it was trained, and its results; for a file."""
    rows = []
    for trial in sweep.trials:
        if not (trial.folder / "config.json").is_file():
            continue
        config = json.loads((trial.folder / "config.json").read_text())
        found = {" ".join(words): trial.row(words) for words in sweep.protocols}
        rows.append(
            {
                "recipe": trial.member.experiment.name,
                "changes": config.get("changes", []),
                "seed": trial.seed,
                "command": shlex.join(["infomax", *trial.training]),
                **{key: config[key] for key in ("started", "commit", "machine", "versions", "data", "images")},
                "training_seconds": seconds_of(trial.folder),
                "results": {words: row for words, row in found.items() if row},
            }
        )
    return rows
