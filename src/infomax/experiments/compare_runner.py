"""Carries out comparisons: measures each method's speed, trains and evaluates all runs, and keeps the results."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import Any

from infomax.experiments.compare import Contest, Entrant, describe_plan, describe_start, open_contest
from infomax.experiments.compare_page import comparison_page
from infomax.experiments.compare_results import Comparison
from infomax.experiments.options import DEFAULT_COMPARE_FOLDER, CompareOptions
from infomax.experiments.sweep import Sweep
from infomax.experiments.sweep_results import collect_results
from infomax.experiments.sweep_runner import carry_out_runs, check_runs, describe_runs, run_command
from infomax.runs.provenance import provenance
from infomax.runs.run_folder import Run
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.locks import FolderLock
from infomax.runtime.options import pick, to_argv
from infomax.runtime.stages import Stage
from infomax.runtime.text import note, show
from infomax.training.options import PretrainOptions

RESULTS, PAGE = "compare.json", "compare.html"
TRIAL = ".trial-"  # beginning of the name of a folder in which a method's speed is measured
TRIAL_SECONDS = 5.0  # of training, between two rows of its metrics
LONGEST_TRIAL = 60.0  # seconds, if a step is so slow that one row has to do
SHOWN_DIGITS = 4  # of a speed


def compare(
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
    deterministic: bool = False,
    compile: bool = False,  # noqa: A002 - the word of the command
    skip_nonfinite: int = 0,
    stop_on_collapse: bool = False,
    skip_unreadable: float | None = None,
    keep_decoded: str = "auto",
    log: Sequence[str] = (),
    methods: Sequence[str] = (),
    budget: str | None = None,
    seeds: int = 3,
    recipe: str | None = None,
    evaluate: Sequence[str] = (),
    out: str | PathLike[str] = DEFAULT_COMPARE_FOLDER,
) -> Comparison:
    """Trains several methods with equal budgets and says which is best, as ``infomax compare`` does.

    Each training and evaluation is a process of its own. What is done already is not done again.

    Args:
        data: Images to train on: a folder of images, or several with commas between; an .npz or .npy of arrays; a .txt
            or .csv of paths; a data set's name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are
            needed. Default: the recipe's data set, if it has one.
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
        views: Set of views: byol, simclr, moco, infomin, mira-cifar, dino, dino-wide or swav; the last three add six
            local crops. NAME:G+L has G global crops and L local ones. Default: the recipe's.
        image_size: Side of the global crops, in pixels. Default: the recipe's.
        backbone: Network of the encoder: small, resnet18, resnet34, resnet50, resnet101 or vit_small; or timm:NAME,
            torchvision:NAME or hf:NAME, a model of that library without its weights. Default: the recipe's.
        init: Encoder whose weights the training starts from, with its network and preprocessing: a run folder,
            timm:NAME, torchvision:NAME, hf:NAME, a checkpoint file, or FILE#PREFIX for one of several encoders in it.
            Default: random weights.
        epochs: Passes over the images of each run: the same as --budget Nepochs. Default: as the budget says.
        batch_size: Images of a step, over all devices. The learning rate is not changed with it. Default: the recipe's.
        micro_batch_size: Images that go through the network at once, on each device. The gradient is exactly that of
            the whole batch, with BatchNorm in groups of N; memory is that of N images. Default: all at once.
        learning_rate: Peak learning rate. Default: the recipe's.
        freeze: Stages of the encoder, from the input on, that are not trained: of a ResNet the stem and four, of a
            vision transformer the stem and each block. Default: the recipe's, 0; for carl with --init 2.
        backbone_rate: Factor of the learning rate of the encoder; what follows it has the whole rate. Default: the
            recipe's, 1; for carl with --init 0.1.
        precision: Precision of the networks; the losses are computed in full. Default: the recipe's.
        overrides: Any setting of the recipe, as in --set optimizer.weight_decay=0 --set method.dimension=128.
        device: Kind of device; auto takes a CUDA GPU if there is one.
        devices: GPUs of this machine, or processes that share its CPU. Any number of them computes the same result.
            Under torchrun or srun, leave it out.
        workers: Processes that decode image files, for each device. Default: one a core, at most 8.
        deterministic: The same bits each time on a GPU too, by slower operations. A CPU gives them anyway.
        compile: Fuse a step's operations by torch.compile: some minutes at the start, for faster steps on a GPU. On one
            device alone.
        skip_nonfinite: Steps with an infinite or NaN loss or gradient to leave out before the run stops.
        stop_on_collapse: End the run, saved, as soon as its health is said to have failed; the exit code is then 1.
        skip_unreadable: Share of the images, from 0 to 1, that may be damaged or missing before the run stops. Default:
            0.01, or 3 images if those are more and at most a tenth.
        keep_decoded: Memory for decoded image files, so that they are decoded once and not in each epoch: a number of
            GB, off, or auto, a quarter of what is free. It changes no result.
        log: Tool that shows the metrics, or several with commas between, in place of tensorboard; none writes
            metrics.jsonl alone. A run that is resumed goes on in the tool too. Default: tensorboard; with resume, what
            it was.
        methods: Methods to compare, with commas between; papers are those of the four papers, baselines all others, and
            all both. Default: papers, and a few strong baselines.
        budget: What each run has: training time, as 90s, 30m or 2h, or passes over the images, as 20epochs. The
            schedule of each run ends with it. Default: 10m.
        seeds: Number of runs of each method, with the seeds from 0 up, which are the same for all methods.
        recipe: Recipe of each method to start from, without the method's name, as small. Default: one that suits the
            images and the machine.
        evaluate: Evaluation of each run, in the words of infomax evaluate, as 'linear --probe mira'. Methods are ranked
            by the first. Default: linear, and knn; without labels none.
        out: Folder for all runs, compare.json and the page compare.html. The same command goes on if it was stopped.

    Returns:
        The methods with their scores, and the recommendation; ``print(result)`` shows what the command prints.

    Raises:
        ValueError: if anything asked for is not possible, before anything runs.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. What was trained is saved.

    Example:
        >>> result = infomax.compare(data="digits", methods=["all"], budget="20epochs")  # doctest: +SKIP
        >>> result.recommendation.methods  # doctest: +SKIP
    """
    work = CompareWork(pick(CompareOptions, locals()))
    work.carry_out()
    return work.result()


@dataclass
class CompareWork:
    """Carries out one comparison.

    Attributes:
        options: The options.
        contest: What is compared.
        speeds: Images a second of each method whose training could be tried, measured once and kept in the folder.
        failures: What failed of each run or method, by its name.
        measures: The measure without labels of each run that is trained, by the run's name.
    """

    options: CompareOptions
    speeds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    """Seconds that each training took to start whose speed was measured."""

    def __post_init__(self) -> None:
        self.contest: Contest = open_contest(self.options)
        self._read()

    @property
    def file(self) -> Path:
        """Returns the file with the plan and the results."""
        return self.options.out / RESULTS

    def _read(self) -> None:
        """Takes the plan of a comparison that was begun in the folder.

        Raises:
            ValueError: if it is of other options, or the file is damaged.
        """
        if not self.file.is_file():
            return
        kept = parse_value(read_json(self.file), dict[str, Any], str(self.file))
        plan = parse_value(kept.get("plan"), dict[str, Any], f"{self.file}: plan")
        before = parse_value(plan.get("options"), dict[str, Any], f"{self.file}: plan.options")
        for name, wanted in self.contest.identity.items():
            if before.get(name) != wanted:
                word = {"overrides": "set"}.get(name, name).replace("_", "-")
                there, asked = (_words(x) for x in (before.get(name), wanted))
                raise ValueError(
                    f"--out {self.options.out} has a comparison with another --{word}: {there} there, {asked} asked "
                    "for; choose another folder"
                )
        self.speeds |= parse_value(plan.get("images_per_second"), dict[str, float], f"{self.file}: images_per_second")
        self.measures |= parse_value(kept.get("measures", {}), dict[str, float], f"{self.file}: measures")

    def carry_out(self) -> None:
        """Measures the speed of each method, trains and evaluates all runs, and writes the results after each of them.

        Raises:
            ValueError: if a method refuses its settings, or another process writes the folder, before anything runs.
            KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. The run that was interrupted is saved.
        """
        check_runs(self.contest.trial_sweep())
        self.options.out.mkdir(parents=True, exist_ok=True)
        with FolderLock(self.options.out):
            self.measure_speeds()
            sweep = self.sweep()
            self.write(sweep)
            if any(run.remaining for run in sweep.runs):
                start = fmean(self.starts) if self.starts else None
                for line in describe_plan(self.contest, self.speeds, start_seconds=start):
                    show(line, file=sys.stderr)
            for run, failure in carry_out_runs(sweep, refused_runs_fail=True):
                if failure:
                    self.failures[run.folder.name] = failure
                self.write(sweep)
            self.measure_without_labels(sweep)
            self.write(sweep)

    def sweep(self) -> Sweep:
        """Returns the runs of all methods whose speed is known."""
        epochs = {e.method: self.contest.epochs(e, speed) for e, speed in self._tried()}
        return self.contest.sweep(epochs)

    def _tried(self) -> Iterator[tuple[Entrant, float]]:
        """Yields the methods whose speed is known, each with its images a second."""
        for entrant in self.contest.entrants:
            if entrant.method in self.speeds:
                yield entrant, self.speeds[entrant.method]

    def measure_speeds(self) -> None:
        """Trains each method whose speed is not known for some seconds; one that fails is noted, and left out."""
        unknown = [entrant for entrant in self.contest.entrants if entrant.method not in self.speeds]
        if unknown or any(run.remaining for run in self.sweep().runs):
            for line in describe_start(self.contest, measured=not unknown):
                show(line, file=sys.stderr)
        for number, entrant in enumerate(unknown, start=1):
            task = f"measuring the speed of {entrant.method}, {number} of {len(unknown)}"
            begin = time.perf_counter()
            with Stage(f"{task}: a training is started, and stopped after {TRIAL_SECONDS:.0f} s", at_once=True):
                speed, failure = measure_speed(self.contest, entrant)
            if speed:
                self.starts.append(max(0.0, time.perf_counter() - begin - TRIAL_SECONDS))
                self.speeds[entrant.method] = float(f"{speed:.{SHOWN_DIGITS}g}")
                self.write(self.sweep())
            else:
                self.failures[entrant.method] = failure or "made too few steps to measure its speed"
                note(f"{entrant.method} is left out: {self.failures[entrant.method]}")

    def measure_without_labels(self, sweep: Sweep) -> None:
        """Measures the runs that are trained by what the study trusts most, if there are no labels."""
        if not self.contest.why_no_labels:
            return
        from infomax.experiments.compare_measure import measure_run

        for run in sweep.runs:
            if run.trained and run.folder.name not in self.measures:
                try:
                    self.measures[run.folder.name] = measure_run(run, self.contest)
                except ValueError as error:
                    self.failures[run.folder.name] = f"could not be measured: {error}"

    def result(self) -> Comparison:
        """Returns what was measured so far."""
        return self._result(self.sweep())

    def _result(self, sweep: Sweep) -> Comparison:
        lines = [f"{name}: {failure}" for name, failure in self.failures.items()]
        return Comparison(self.contest, collect_results(sweep, lines), self.speeds, self.failures, self.measures)

    def write(self, sweep: Sweep) -> None:
        """Writes ``compare.json``, and ``compare.html`` once a run is trained."""
        result = self._result(sweep)
        plan = {"options": self.contest.identity, "images_per_second": self.speeds}
        content = {**provenance(), "plan": plan, **result.record(), "runs": describe_runs(sweep)}
        if self.measures:
            content["measures"] = self.measures
        write_atomic(self.file, json.dumps(content, indent=1).encode())
        if any(run.trained for run in sweep.runs):
            page = comparison_page(result).html().encode(errors="surrogateescape")
            write_atomic(self.options.out / PAGE, page)


def _words(value: Any) -> str:
    """Returns a kept option as a message shows it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def measure_speed(contest: Contest, entrant: Entrant) -> tuple[float, str]:
    """Trains a method for some seconds as its runs are trained, and returns its images a second.

    Args:
        contest: The comparison.
        entrant: The method.

    Returns:
        The speed, 0 if it is not known; and what failed, empty if nothing did.

    Raises:
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM.
    """
    folder = contest.options.out / f"{TRIAL}{entrant.method}"
    values: dict[str, Any] = {**vars(entrant.options), "recipe": entrant.experiment.name, "seed": 0, "out": folder}
    trial = pick(PretrainOptions, {**values, "log": ("none",), "overwrite": True})
    pace = _Pace(folder)
    try:
        ended = run_command(["pretrain", *to_argv(trial)], until=pace.is_known)
        if ended.received_signal == signal.SIGINT or ended.exit_code == 130:
            raise KeyboardInterrupt
        if ended.received_signal:
            sys.exit(0)
        if ended.exit_code:
            return 0.0, f"training {ended.words}"
        return pace.read(least=0.0) * entrant.recipe.batch_size, ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Pace:
    """Reads the steps a second of a run while it trains.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path):
        self.run = Run(folder)

    def is_known(self) -> bool:
        """Returns whether the run has been trained for long enough."""
        return self.read() > 0

    def read(self, *, least: float = TRIAL_SECONDS) -> float:
        """Returns the steps a second between the first row of the metrics and the last; 0 if these are not known.

        Args:
            least: Seconds that are to lie between the two.
        """
        rows = self._rows()
        if len(rows) > 1 and rows[-1]["seconds"] - rows[0]["seconds"] >= max(least, 1e-3):
            return (rows[-1]["step"] - rows[0]["step"]) / (rows[-1]["seconds"] - rows[0]["seconds"])
        if rows and (least == 0.0 or rows[0]["seconds"] > LONGEST_TRIAL):
            return rows[-1]["step"] / rows[-1]["seconds"]
        return 0.0

    def _rows(self) -> list[Mapping[str, float]]:
        file = self.run.path / "metrics.jsonl"
        if not file.is_file():
            return []
        return [row for row in self.run.read_rows("metrics.jsonl") if "seconds" in row]
