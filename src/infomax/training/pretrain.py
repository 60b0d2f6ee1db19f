"""Pretraining: a run folder is made of the options, and its recipe is trained by one process or many."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from multiprocessing.process import parent_process
from os import PathLike

from infomax.runs.run_folder import Run
from infomax.runtime.collectives import broadcast_from_rank0, process_group
from infomax.runtime.failures import MachineError
from infomax.runtime.locks import FIRST_RANK, FolderLock
from infomax.runtime.options import pick
from infomax.runtime.ranks import device_of, is_first_rank, rank_from_environment, run_ranks
from infomax.runtime.stages import stages_shown
from infomax.runtime.text import note
from infomax.runtime.threads import threads_within_quota
from infomax.training.closing import closing_lines
from infomax.training.loop import train
from infomax.training.opening import OpenedImages
from infomax.training.options import LaunchOptions, PretrainOptions
from infomax.training.prepare import PreparedRun, launch_options, prepare_run
from infomax.training.step_report import OnStep, check_on_step


def pretrain(
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
    method: str | None = None,
    recipe: str | None = None,
    seed: int | None = None,
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
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    on_step: OnStep | None = None,
) -> Run:
    """Trains an encoder without labels, as ``infomax pretrain`` does with the same words.

    With ``devices`` above 1, and under torchrun or srun, each process computes its share of every batch, and all
    together what one would, up to rounding. In a script, ``devices`` needs ``if __name__ == "__main__"``.

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
        method: Method to train with. Default: the recipe's, or mveb.
        recipe: Recipe to start from: digits; small, a small encoder at 32 pixels that a CPU can train; or a paper's, as
            corinfomax/cifar10, most of which need a GPU. infomax recipes lists them. Default: one that suits the images
            and the machine.
        seed: Seed of the weights, the order of the images and the views. Default: the recipe's.
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
        out: Run folder to make, as runs/a.
        resume: Continue the run in the folder out, from the step that it was saved at; other options must agree with
            it. More epochs extend a run that is finished. If data is given, the run is started if it is not there yet.
        overwrite: Replace the run in the folder out.
        quiet: Print no progress bar, and nothing of the run but its results, what was decided about the images, and
            what goes wrong.
        on_step: Function that is called after each step with an :class:`infomax.StepReport`: plain numbers, as
            ``report.step``, ``report.loss`` and ``report.run``. It is called on the first rank, and cannot change a bit
            of the result. If it raises an exception, the run is saved, and the exception leaves this function.

    Returns:
        The run folder; ``infomax.load(run)`` is its encoder.

    Raises:
        ValueError: if anything asked for is not possible, before anything is written; or later, naming a file, if too
            many images cannot be read.
        FloatingPointError: if the loss or the gradient becomes infinite or NaN; the run folder then has what is needed
            to see why.
        infomax.runtime.failures.CollapseError: if ``stop_on_collapse`` has ended the run. What was trained is saved.
        KeyboardInterrupt: after Ctrl-C; SystemExit after SIGTERM. What was trained is saved.
        infomax.runtime.failures.MachineError: if memory, a worker or another rank is lost. What was trained is saved.

    Example:
        >>> run = infomax.pretrain(data="digits", method="carl", epochs=1, out="runs/digits")  # doctest: +SKIP
        >>> infomax.load(run)(images).shape  # doctest: +SKIP
        torch.Size([16, 128])
    """
    options = pick(PretrainOptions, locals())
    is_shown = not options.quiet and is_first_rank()
    with stages_shown(is_shown):
        run = run_pretraining(options, on_step=on_step)
    for line in closing_lines(run) if is_shown else ():
        note(line)
    return run


@threads_within_quota()
def run_pretraining(options: PretrainOptions, opened: OpenedImages | None = None, on_step: OnStep | None = None) -> Run:
    """Trains a run to its end; see :func:`pretrain` for what it returns and raises.

    Args:
        options: All options of the training.
        opened: The images, if they are open already.
        on_step: Is called after each step, on the first rank.
    """
    rank_info = rank_from_environment()
    check_on_step(on_step, devices=1 if rank_info is not None else options.devices)
    if rank_info is not None:
        launch = launch_options(options)
        with (
            process_group(rank_info.rank, rank_info.world_size, device=device_of(launch.device, rank_info.local_rank)),
            ExitStack() as locks,
        ):
            # The first rank holds the lock, and each rank opens the images itself.
            run = broadcast_from_rank0(lambda: _prepare_and_hold(options, locks).run)
            train(run, launch, rank_info.local_rank, on_step=on_step)
        return run
    with ExitStack() as locks:
        prepared = _prepare_and_hold(options, locks, opened)
        if prepared.launch.world_size > 1:
            run_ranks(_train_rank, prepared.launch.world_size, prepared.run, prepared.launch, on_step)
        else:
            train(prepared.run, prepared.launch, source=prepared.source, on_step=on_step)
    return prepared.run


def _prepare_and_hold(options: PretrainOptions, locks: ExitStack, opened: OpenedImages | None = None) -> PreparedRun:
    """Prepares a run whose folder stays locked until ``locks`` is closed."""
    prepared = prepare_run(options, opened)
    locks.enter_context(prepared.lock)
    return prepared


@threads_within_quota()
def _train_rank(run: Run, launch: LaunchOptions, on_step: OnStep | None = None) -> None:
    """Trains as one of several processes on this machine."""
    rank_info = rank_from_environment()
    assert rank_info is not None
    with (
        process_group(rank_info.rank, rank_info.world_size, device=device_of(launch.device, rank_info.local_rank)),
        _lock_of_first_rank(run) if rank_info.rank == 0 else nullcontext(),
        stages_shown(rank_info.rank == 0 and not launch.quiet),
    ):
        train(run, launch, rank_info.local_rank, on_step=on_step)


def _lock_of_first_rank(run: Run) -> FolderLock:
    """Locks the run folder for the first rank too, which writes it even after the process that started it was killed.

    Raises:
        MachineError: if that process is killed already: another one may have begun to write the folder since.
    """
    lock = FolderLock(run.path, FIRST_RANK)
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        lock.release()
        raise MachineError(f"process {parent.pid}, which started the ranks, was ended")
    return lock
