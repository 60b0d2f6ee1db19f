"""Options of a training, shared by the command, Python, plans, pictures of views and sweeps.

In: nothing but plain values; no torch, so that ``--help`` and mistakes are quick. Out: frozen dataclasses.
:mod:`infomax.training.prepare` makes a run of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from infomax.data.options import DataOptions
from infomax.recipes.registry import DEFAULT_METHOD, named_methods
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.devices import check_device_name
from infomax.runtime.options import CheckedOptions, Shown, option_names
from infomax.training.loggers import NONE, TOOLS

USUAL_UNREADABLE, FEW_UNREADABLE, MOST_UNREADABLE = 0.01, 3, 0.1
"""The share of the images that may be unreadable if nobody says another; so many images may be, if that is more and
they are at most the last share."""
UNREADABLE_DEFAULT = f"{USUAL_UNREADABLE:g}, or {FEW_UNREADABLE} images if those are more and at most a tenth"


def most_unreadable(share: float | None, images: int) -> int:
    """Returns how many images of a data set may be damaged or missing before a training stops.

    Args:
        share: The share of the images that the user gave; None takes the usual one.
        images: Number of images.

    Examples:
        >>> [most_unreadable(None, images) for images in (9, 20, 60, 1000)]
        [0, 2, 3, 10]
        >>> most_unreadable(0.05, 60)
        3
    """
    if share is not None:
        return int(share * images + 1e-9)  # a hundredth of 100 is one
    return max(int(USUAL_UNREADABLE * images), min(FEW_UNREADABLE, int(MOST_UNREADABLE * images)))


RECIPES_OWN = "the recipe's"


@dataclass(frozen=True, kw_only=True)
class RecipeNameOptions:
    """A frozen dataclass that says which recipe a training starts from."""

    method: Annotated[str | None, Shown(metavar=named_methods(), default=f"the recipe's, or {DEFAULT_METHOD}")] = None
    """Method to train with."""
    recipe: Annotated[str | None, Shown(metavar="NAME", default="one that suits the images and the machine")] = None
    """Recipe to start from: digits; small, a small encoder at 32 pixels that a CPU can train; or a paper's, as
    corinfomax/cifar10, most of which need a GPU. infomax recipes lists them."""
    seed: Annotated[int | None, Shown(metavar="N", default=RECIPES_OWN)] = None
    """Seed of the weights, the order of the images and the views."""


@dataclass(frozen=True, kw_only=True)
class ViewChangeOptions:
    """A frozen dataclass that holds changes to the views of a recipe; None leaves the recipe's own value."""

    views: Annotated[str | None, Shown(metavar="NAME", default=RECIPES_OWN)] = None
    """Set of views: byol, simclr, moco, infomin, mira-cifar, dino, dino-wide or swav; the last three add six
    local crops. NAME:G+L has G global crops and L local ones."""
    image_size: Annotated[int | None, Shown(metavar="PIXELS", default=RECIPES_OWN)] = None
    """Side of the global crops, in pixels."""

    def changes(self) -> dict[str, Any]:
        """Returns the changes by the names of :func:`infomax.recipes.customise.customise`."""
        return {name: getattr(self, name) for name in option_names(ViewChangeOptions)}


@dataclass(frozen=True, kw_only=True)
class RecipeChangeOptions(ViewChangeOptions):
    """A frozen dataclass that holds changes to a recipe; None leaves the recipe's own value."""

    backbone: Annotated[str | None, Shown(metavar="NAME", default=RECIPES_OWN)] = None
    """Network of the encoder: small, resnet18, resnet34, resnet50, resnet101 or vit_small; or timm:NAME,
    torchvision:NAME or hf:NAME, a model of that library without its weights."""
    init: Annotated[str | None, Shown(metavar="ENCODER", default="random weights")] = None
    """Encoder whose weights the training starts from, with its network and preprocessing: a run folder, timm:NAME,
    torchvision:NAME, hf:NAME, a checkpoint file, or FILE#PREFIX for one of several encoders in it."""
    epochs: Annotated[int | None, Shown(metavar="N", default=RECIPES_OWN)] = None
    """Passes over the images; of the recipe small, so many that it sees 600,000 images. A warm-up that they leave no
    room for is shortened to a tenth of them."""
    batch_size: Annotated[int | None, Shown(metavar="N", default=RECIPES_OWN)] = None
    """Images of a step, over all devices. The learning rate is not changed with it."""
    micro_batch_size: Annotated[int | None, Shown(metavar="N", default="all at once")] = None
    """Images that go through the network at once, on each device. The gradient is exactly that of the whole batch,
    with BatchNorm in groups of N; memory is that of N images."""
    learning_rate: Annotated[float | None, Shown(metavar="X", default=RECIPES_OWN)] = None
    """Peak learning rate."""
    freeze: Annotated[int | None, Shown(metavar="N", default=f"{RECIPES_OWN}, 0; for carl with --init 2")] = None
    """Stages of the encoder, from the input on, that are not trained: of a ResNet the stem and four, of a vision
    transformer the stem and each block."""
    backbone_rate: Annotated[
        float | None, Shown(metavar="FACTOR", default=f"{RECIPES_OWN}, 1; for carl with --init 0.1")
    ] = None
    """Factor of the learning rate of the encoder; what follows it has the whole rate."""
    precision: Annotated[str | None, Shown(metavar="64|32|bf16|16", default=RECIPES_OWN)] = None
    """Precision of the networks; the losses are computed in full."""
    overrides: Annotated[tuple[str, ...], Shown(name="set", metavar="KEY=VALUE", repeatable=True)] = ()
    """Any setting of the recipe, as in --set optimizer.weight_decay=0 --set method.dimension=128."""

    def changes(self) -> dict[str, Any]:
        """Returns the changes by the names of :func:`infomax.recipes.customise.customise`."""
        return {name: getattr(self, name) for name in option_names(RecipeChangeOptions)}


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RecipeChangeOptions, RecipeNameOptions, DataOptions):
    """A frozen dataclass that holds all that decides the result of a training."""

    def changes(self) -> dict[str, Any]:
        """Returns the changes to the recipe, the seed among them."""
        return {**super().changes(), "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class MachineOptions(CheckedOptions):
    """A frozen dataclass that says what a run computes on."""

    device: Annotated[str, Shown(metavar="auto|cpu|cuda|mps")] = "auto"
    """Kind of device; auto takes a CUDA GPU if there is one."""
    devices: Annotated[int, Shown(metavar="N")] = 1
    """GPUs of this machine, or processes that share its CPU. Any number of them computes the same result. Under
    torchrun or srun, leave it out."""
    workers: Annotated[int | None, Shown(metavar="N", default="one a core, at most 8")] = None
    """Processes that decode image files, for each device."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device_name(self.device)
        check_count("--devices", self.devices, low=1)
        if self.device == "mps" and self.devices > 1:
            raise ValueError(f"--devices {self.devices}: a Mac has one GPU; leave it out with --device mps")
        if self.workers is not None:
            check_count("--workers", self.workers, low=0)


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions(CheckedOptions):
    """A frozen dataclass that says how a training is carried out: how fast, and which failures it tolerates."""

    deterministic: bool = False
    """The same bits each time on a GPU too, by slower operations. A CPU gives them anyway."""
    compile: bool = False
    """Fuse a step's operations by torch.compile: some minutes at the start, for faster steps on a GPU. On one device
    alone."""
    skip_nonfinite: Annotated[int, Shown(metavar="N")] = 0
    """Steps with an infinite or NaN loss or gradient to leave out before the run stops."""
    stop_on_collapse: bool = False
    """End the run, saved, as soon as its health is said to have failed; the exit code is then 1."""
    skip_unreadable: Annotated[float | None, Shown(metavar="SHARE", default=UNREADABLE_DEFAULT)] = None
    """Share of the images, from 0 to 1, that may be damaged or missing before the run stops."""
    keep_decoded: Annotated[str, Shown(metavar="auto|off|GB")] = "auto"
    """Memory for decoded image files, so that they are decoded once and not in each epoch: a number of GB, off, or
    auto, a quarter of what is free. It changes no result."""
    log: Annotated[
        tuple[str, ...],
        Shown(metavar="|".join((*TOOLS, NONE)), repeatable=True, default="tensorboard; with resume, what it was"),
    ] = ()
    """Tool that shows the metrics, or several with commas between, in place of tensorboard; none writes metrics.jsonl
    alone. A run that is resumed goes on in the tool too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--skip-nonfinite", self.skip_nonfinite, low=0)
        if self.skip_unreadable is not None:
            check_number("--skip-unreadable", self.skip_unreadable, low=0, high=1, open_high=False)


@dataclass(frozen=True, kw_only=True)
class KeptEncoderOptions(CheckedOptions):
    """A frozen dataclass that says which encoders of before the end of a training are kept."""

    keep_epochs: Annotated[
        tuple[int | str, ...],
        Shown(metavar="N,N", repeatable=True, default="none; with resume, those that it was to keep"),
    ] = ()
    """Epochs after which the encoder is kept too, as 50,100,150: in the folders epochs/50, epochs/100 and epochs/150 of
    the run, each of which is an encoder for all commands. Those given with resume are added to those from before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_epochs:
            from infomax.training.kept_epochs import parse_keep_epochs  # which imports numpy

            parse_keep_epochs(self.keep_epochs)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(KeptEncoderOptions, ExecutionOptions, MachineOptions, RecipeOptions):
    """A frozen dataclass that holds all options of ``infomax pretrain`` and :func:`infomax.pretrain`."""

    out: Annotated[Path, Shown(metavar="DIR")]
    """Run folder to make, as runs/a."""
    resume: bool = False
    """Continue the run in the folder out, from the step that it was saved at; other options must agree with it. More
    epochs extend a run that is finished. If data is given, the run is started if it is not there yet."""
    overwrite: bool = False
    """Replace the run in the folder out."""
    quiet: bool = False
    """Print no progress bar, and nothing of the run but its results, what was decided about the images, and what goes
    wrong."""


@dataclass(frozen=True, kw_only=True)
class ViewsOptions(ViewChangeOptions, RecipeNameOptions, DataOptions):
    """A frozen dataclass that holds all options of ``infomax views`` and :func:`infomax.views`."""

    overrides: Annotated[tuple[str, ...], Shown(name="set", metavar="KEY=VALUE", repeatable=True)] = ()
    """Any setting of the recipe, as in --set views.global_crops.0.blur=0.5."""
    out: Annotated[Path | None, Shown(metavar="FILE", default="views.png for the command, none for Python")] = None
    """PNG file to write."""

    def changes(self) -> dict[str, Any]:
        """Returns the changes to the recipe, the seed among them."""
        return {**super().changes(), "overrides": self.overrides, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(CheckedOptions):
    """A frozen dataclass that holds all options of ``infomax replay``."""

    folder: Annotated[Path, Shown(metavar="FOLDER", positional=True)]
    """Folder that a run wrote when a step failed, as runs/a/nonfinite/step-00000123."""
    device: Annotated[str, Shown(metavar="auto|cpu|cuda|mps")] = "auto"
    """Kind of device; auto takes a CUDA GPU if there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device_name(self.device)


@dataclass(frozen=True, kw_only=True)
class RunFolderOptions:
    """A frozen dataclass that holds all options of ``infomax options``."""

    run: Annotated[Path, Shown(metavar="RUN", positional=True)]
    """Run folder, as runs/a."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(ExecutionOptions):
    """A frozen dataclass that says how one run is carried out, once the machine is known. It decides no result."""

    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    world_size: int = 1
    """Number of ranks."""
    workers: int | None = None
    """Processes that decode image files, for each rank; None takes one a core, at most 8."""
    quiet: bool = False
    """Whether nothing is printed."""
