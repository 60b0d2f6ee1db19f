"""Carries out sweeps, one run after another, each in a process of its own, and keeps what they measured."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from infomax.data.sources.location import default_data_dir
from infomax.data.sources.shares import SHARES, published_list
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import Sweep, SweepRun, define_sweep
from infomax.experiments.sweep_page import sweep_page
from infomax.experiments.sweep_results import BASELINES, INITIAL, SweepResult, collect_results, training_seconds
from infomax.runs.provenance import provenance
from infomax.runs.run_folder import Run
from infomax.runtime.doors import RESUMED_BY_VARIABLE
from infomax.runtime.files import write_atomic
from infomax.runtime.locks import FolderLock
from infomax.runtime.options import pick
from infomax.runtime.signals import ERROR_FILE_VARIABLE, PARENT_VARIABLE
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import show
from infomax.runtime.threads import user_environment

POLL = 0.1  # seconds between two looks at a command that is to be stopped


def sweep(
    what: Sequence[str],
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
    keep_epochs: Sequence[int | str] = (),
    out: str | PathLike[str],
    vary: Sequence[str] = (),
    seeds: int = 1,
    evaluation_seeds: int | None = None,
    evaluate: Sequence[str] = (),
    commands: bool = False,
) -> SweepResult:
    """Trains and evaluates several recipes or values with several seeds, as ``infomax sweep`` does.

    Each training and evaluation is a process of its own. What is done already is not done again.

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
        keep_epochs: Epochs after which the encoder is kept too, as 50,100,150: in the folders epochs/50, epochs/100 and
            epochs/150 of the run, each of which is an encoder for all commands. Those given with resume are added to
            those from before. Default: none; with resume, those that it was to keep.
        what: A published table, as mira-14, for all recipes with a number in it (infomax report --table list names
            them), or for those of them that follow, as mira-5 'mira/*'; or recipes, as carl/small, or patterns, as
            'carl/stl10*'.
        out: Folder for all runs, the table, its figure and a page. The same command goes on if it was stopped.
        vary: Values of a setting to try with each recipe, as method.prototypes=100,300,1000.
        seeds: Number of runs of each recipe, with the seeds from 0 up.
        evaluation_seeds: Number of times that each run is evaluated, with the seeds of the evaluation from its own up;
            what is not random is evaluated once. Default: as many as the table's numbers are the mean of, else 1.
        evaluate: Evaluation of each run, in the words of infomax evaluate, as 'linear --probe mira'. Default: as the
            table or the recipe's paper measured it, else knn.
        commands: Only list the commands that are left, one line for each run, instead of carrying them out; for a
            cluster.

    Returns:
        The runs and the cells of the table; ``result.table().text()`` is what the command prints.

    Raises:
        ValueError: if anything asked for is not possible, before anything runs; or if a run refuses its options.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. What was trained is saved.

    Example:
        >>> result = infomax.sweep(["carl/digits", "mira/digits"], out="runs/s", seeds=3)  # doctest: +SKIP
        >>> [(cell.line, cell.scores) for cell in result.cells]  # doctest: +SKIP
    """
    options = pick(SweepOptions, locals())
    planned = define_sweep(options)
    failures = [] if options.commands else run_sweep(planned)
    return collect_results(planned, failures)


def run_sweep(sweep: Sweep) -> list[str]:
    """Trains and evaluates what is left of a sweep, and writes ``sweep.json``, ``sweep.png`` and ``sweep.html`` at
    the end.

    Returns:
        A line for each run that failed.

    Raises:
        ValueError: if a recipe is not possible or another sweep writes the folder, before anything runs; or if a run
            refuses its options.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. The run that was interrupted is saved.
    """
    _check_lists(sweep)
    _check_images(sweep)
    _check_settings(sweep)
    sweep.out.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with FolderLock(sweep.out):
        try:
            for run, failure in carry_out_runs(sweep):
                if failure:
                    failures.append(f"{run.folder.name}: {failure}")
        finally:
            write_results(sweep, failures)
    return failures


def check_runs(sweep: Sweep) -> None:
    """Checks that all runs are possible, as far as that is known before they begin.

    Raises:
        ValueError: if a method refuses its settings, or a list of images is missing that an evaluation wants.
    """
    _check_lists(sweep)
    _check_settings(sweep)


def carry_out_runs(sweep: Sweep, *, refused_runs_fail: bool = False) -> Iterator[tuple[SweepRun, str]]:
    """Trains and evaluates what is left of each run, and yields it with what failed; empty if nothing did.

    Runs of which nothing is left are passed over.

    Args:
        sweep: The sweep, whose folder this process has locked.
        refused_runs_fail: Whether a training that refuses its options is a failure like others, after which the other
            runs go on.

    Raises:
        ValueError: if a run refuses its options, unless that is a failure.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. The run that was interrupted is saved.
    """
    for number, run in enumerate(sweep.runs, start=1):
        if commands := run.remaining:
            title = f"{number} of {len(sweep.runs)}: {run.folder.name}"
            yield run, _carry_out(run, commands, title, refused_runs_fail)


def _check_lists(sweep: Sweep) -> None:
    """Checks that the published lists of images are there that evaluations want, not after weeks of training.

    Raises:
        ValueError: naming the file, if one is missing.
    """
    for run in sweep.runs:
        data, data_dir = run.options.data or "", Path(run.options.data_dir or default_data_dir())
        for share in {e.data.subset for e in run.evaluations if run.result(e) is None} & {*SHARES}:
            try:
                published_list(data, data_dir, share or "")
            except ValueError as error:
                raise ValueError(f"{error}; --evaluate names evaluations that do without") from None


def _check_images(sweep: Sweep) -> None:
    """Opens the images of the runs that are not trained, before torch is imported; raises ValueError if one cannot."""
    opened = {run.options.location(None): run.options.download for run in sweep.runs if not run.trained}
    for location, download in opened.items():
        location.open(download=download)


def _check_settings(sweep: Sweep) -> None:
    """Checks that the method of each run accepts its settings; raises ValueError if not."""
    with importing_torch():
        from infomax.recipes.building import build_without_memory

    for run in sweep.runs:
        build_without_memory(run.specification.recipe)


def _carry_out(run: SweepRun, commands: list[list[str]], title: str, refused_runs_fail: bool) -> str:
    """Trains and evaluates one run by the commands that are left, and returns what failed; empty if nothing did.

    A data set that an encoder is transferred to may be missing: the others are evaluated all the same.
    """
    missing = []
    for argv in commands:
        training = argv[0] == "pretrain"
        task = "training" if training else " ".join(argv[:2])
        show(f"{title}, {task}", file=sys.stderr)
        ended = run_command(argv)
        if ended.received_signal == signal.SIGINT or ended.exit_code == 130:
            raise KeyboardInterrupt
        if ended.received_signal:
            sys.exit(0)  # SIGTERM ends a run with exit code 0 too
        if ended.exit_code == 2 and "--data" in argv and not training:
            missing.append(argv[argv.index("--data") + 1])
            continue
        if ended.exit_code == 2 and not refused_runs_fail:
            raise ValueError(f"the command that was refused is: {shlex.join(['infomax', *argv])}")
        if ended.exit_code != 0 or not run.trained:
            return f"{task} {ended.words}"
    return f"could not be evaluated on {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class EndedCommand:
    """A frozen dataclass that says how a command ended."""

    exit_code: int
    received_signal: int
    """The signal that this process received meanwhile and passed on; 0 if none."""
    error: str
    """The line that the command printed about its failure; empty if there is none."""

    @property
    def words(self) -> str:
        """Returns how it ended, as ``ended with exit code 1: the loss is NaN``."""
        ending = f"ended with exit code {self.exit_code}" if self.exit_code else "was stopped"
        return f"{ending}: {self.error}" if self.error else ending


def run_command(argv: Sequence[str], *, until: Callable[[], bool] | None = None) -> EndedCommand:
    """Runs a command in a process of its own, and passes signals on to it.

    Args:
        argv: The words after ``infomax``.
        until: Is called a few times a second; as soon as it returns True, the command is stopped by SIGTERM, and is
            heard by nobody: its progress is not shown.
    """
    received = 0

    def pass_on(number: int, _: Any) -> None:
        nonlocal received
        received = received or number
        process.send_signal(number)

    with tempfile.NamedTemporaryFile(prefix="infomax-error-") as error_file:
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "infomax", *argv],  # -P: no module of the current folder hides another
            stdout=subprocess.DEVNULL,
            stderr=None if until is None else subprocess.DEVNULL,
            env={
                **user_environment(),
                PARENT_VARIABLE: str(os.getpid()),  # it ends if this process is killed
                ERROR_FILE_VARIABLE: error_file.name,
                RESUMED_BY_VARIABLE: "the same command",
            },
            process_group=0,  # else Ctrl-C would reach it twice, which stops it without saving
        ) as process:
            handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                while until is not None and process.poll() is None and not received:
                    if until():
                        process.terminate()
                        break
                    time.sleep(POLL)
                exit_code = process.wait()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return EndedCommand(exit_code, received, Path(error_file.name).read_text(errors="replace"))


def write_results(sweep: Sweep, failures: Sequence[str] = ()) -> None:
    """Writes ``sweep.json``, ``sweep.png`` and ``sweep.html`` if any run has been evaluated.

    Args:
        sweep: The sweep.
        failures: A line for each run that failed.
    """
    result = collect_results(sweep, failures)
    if result.has_scores:
        differences = [difference.record() for difference in result.compared()]
        content = {**provenance(), "runs": describe_runs(sweep), "differences": differences}
        write_atomic(sweep.out / "sweep.json", json.dumps(content, indent=1).encode())
        write_atomic(sweep.out / "sweep.png", result.figure())
        write_atomic(sweep.out / "sweep.html", sweep_page(result).html().encode(errors="surrogateescape"))


def describe_runs(sweep: Sweep) -> list[dict[str, Any]]:
    """Returns each run with its command, where and of which commit it was trained, and its results; for a file."""
    rows = []
    for run in sweep.runs:
        if not (run.folder / "config.json").is_file():
            continue
        config = Run(run.folder).config
        results = {evaluation.words: run.result(evaluation) for evaluation in run.evaluations}
        baselines = {
            name: {e.words: row.to_json() for e in run.evaluations if (row := run.baseline_result(e, name)) is not None}
            for name in (INITIAL, *BASELINES)
        }
        rows.append(
            {
                "recipe": run.variant.experiment.name,
                "changes": config.get("changes", []),
                "seed": run.seed,
                "specification": run.specification.hash,
                "command": shlex.join(["infomax", *run.training_argv]),
                **{key: config[key] for key in ("started", "commit", "machine", "versions", "data", "images")},
                "training_seconds": training_seconds(run.folder),
                "results": {words: row.to_json() for words, row in results.items() if row is not None},
                "baselines": {name: rows_of_name for name, rows_of_name in baselines.items() if rows_of_name},
            }
        )
    return rows
