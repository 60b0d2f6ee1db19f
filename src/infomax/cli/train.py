"""The words of the commands that train, and of those about training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from infomax.cli.options import RECIPE, Device, Images, Workers, option


@dataclass(frozen=True, kw_only=True)
class _Recipe(Images):
    """What is trained on, and the machine to train it."""

    data: Annotated[str | None, option(str, "DIR|FILE|NAME", "the recipe's data set, or digits")] = None
    """A folder of images, or several with commas between; an .npz or .npy of arrays; a .txt of paths; a data set's
    name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are needed."""
    backbone: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """small, resnet18, resnet34, resnet50, resnet101 or vit_small."""
    views: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """byol, simclr, moco, mira-cifar, dino or dino-wide; the last two add six small crops. NAME:G+L has G full views
    and L small ones."""
    image_size: Annotated[int | None, option(int, "PIXELS", RECIPE)] = None
    """Side of the full views."""
    epochs: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Passes over the images. A warm-up that they leave no room for is shortened to a tenth of them."""
    batch_size: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Images a step, over all devices. The learning rate is not changed with it."""
    micro_batch_size: Annotated[int | None, option(int, "N", "all at once")] = None
    """Images that go through the network at once, on each device. The gradient is exactly that of --batch-size, with
    BatchNorm in groups of N; memory is that of N images."""
    learning_rate: Annotated[float | None, option(float, "X", RECIPE)] = None
    """At its peak."""
    precision: Annotated[str | None, option(str, "64|32|bf16|16", RECIPE)] = None
    """Of the networks; the losses are computed in full."""
    overrides: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help_behavior_hint="(repeatable)")
    ] = ()
    """Any setting of the recipe, as in --set method.beta=0.5 --set optimizer.weight_decay=0."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    devices: Annotated[int, arg(metavar="N")] = 1
    """GPUs of this machine, or processes that share its CPU. More of them compute exactly what one would. Under
    torchrun or srun, leave it out."""
    workers: Workers = None
    """Processes that decode image files, for each device."""


@dataclass(frozen=True, kw_only=True)
class _Training(_Recipe):
    """What one run of a sweep has in common with a run of its own."""

    deterministic: bool = False
    """The same bits each time on a GPU too, by slower operations. On a CPU they are so anyway."""
    compile: bool = False
    """Fuse a step's operations by torch.compile: some minutes at the start, for faster steps on a GPU. On one
    device alone."""
    skip_nonfinite: Annotated[int, arg(metavar="N")] = 0
    """BatchSchedule with an infinite or NaN loss or gradient to leave out before the run stops."""
    skip_unreadable: Annotated[float, arg(metavar="SHARE")] = 0.01
    """Share of the images that may be damaged or missing before the run stops."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(_Training):
    """Train an encoder without labels, and keep everything about it in a run folder."""

    out: Path
    """The run folder to make."""
    method: Annotated[str | None, option(str, "mira|corinfomax|carl|mveb", "mira")] = None
    recipe: Annotated[str | None, option(str, "NAME", "one that suits the images and the machine")] = None
    """What to start from: digits; small, a small encoder at 32 pixels that a CPU can train; or a paper's, as
    corinfomax/cifar10, most of which need a GPU. infomax recipes lists them."""
    seed: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Of the weights, the order of the images and the views."""
    resume: bool = False
    """Continue the run in --out, from the step that it was saved at. With --data, start it if it is not there yet."""
    overwrite: bool = False
    """Replace the run in --out."""


@dataclass(frozen=True, kw_only=True)
class Sweep(_Training):
    """Train and judge several recipes or values, with several seeds, and compare them with what a paper prints."""

    what: Annotated[Positional[tuple[str, ...]], arg(metavar="TABLE|RECIPE [RECIPE ...]")]
    """A published table, as mira-14, for all recipes with a number in it (infomax report --table list names them); or
    recipes, as carl/small, or patterns of their names, as 'carl/stl10*'."""
    out: Path
    """The folder for all runs, the table and its figure. The same command goes on where it was stopped."""
    vary: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE,VALUE", help_behavior_hint="(repeatable)")
    ] = ()
    """Values of a setting to try with each recipe, as in --vary method.prototypes=100,300,1000."""
    seeds: Annotated[int, arg(metavar="N")] = 1
    """Runs of each, with the seeds from 0 up."""
    evaluate: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="WORDS", help_behavior_hint="(repeatable; default: as the table was measured, else knn)"),
    ] = ()
    """How to judge a run, by the words of infomax evaluate, as in --evaluate 'linear --probe mira'."""
    commands: bool = False
    """Print the commands that are left, one line for each run, instead of carrying them out; for a cluster."""


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the recipes, with what the papers report of them and what they cost; or print one in full."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME ...]")] = ()
    """Recipes, or patterns of their names, as 'mveb/imagenet*'."""
    paper: Annotated[str | None, option(str, "mira|corinfomax|carl|mveb", "all")] = None
    data: Annotated[str | None, option(str, "NAME", "all")] = None
    """Those for this data set."""
    hours: Annotated[float | None, option(float, "X", "all")] = None
    """Those whose arithmetic one GPU is likely to do in so many hours."""
    gpu: Annotated[str, arg(metavar="NAME")] = "A100"
    """Kind of GPU for the hours."""
    overrides: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help_behavior_hint="(repeatable)")
    ] = ()
    """Changes to the one recipe that is printed; they are marked."""


@dataclass(frozen=True, kw_only=True)
class Plan(_Recipe):
    """Say what pretrain with the same options will cost before it starts: steps, FLOPs, memory and time."""

    images: Annotated[int | None, option(int, "N", "those of --data")] = None
    """Plan for so many images, and open none. A paper's data set need not be there anyway."""
    method: Annotated[str | None, option(str, "mira|corinfomax|carl|mveb", "mira")] = None
    recipe: Annotated[str | None, option(str, "NAME", "one that suits the images and the machine")] = None
    """As corinfomax/cifar10; infomax recipes lists them."""
    gpu: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="(repeatable)")] = ()
    """Plan for this kind of GPU, as A100 or RTX-4090, and measure nothing here. Without it, for this machine."""


@dataclass(frozen=True, kw_only=True)
class Views(Images):
    """Draw some images beside the views that a recipe makes of them."""

    out: Path = Path("views.png")
    """The PNG to write."""
    data: Annotated[str | None, option(str, "DIR|FILE|NAME", "the recipe's data set, or digits")] = None
    """As for pretrain."""
    method: Annotated[str | None, option(str, "mira|corinfomax|carl|mveb", "mira")] = None
    recipe: Annotated[str | None, option(str, "NAME", "one that suits the images and the machine")] = None
    views: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """byol, simclr, moco, mira-cifar, dino or dino-wide; or NAME:G+L for G full views and L small ones."""
    image_size: Annotated[int | None, option(int, "PIXELS", RECIPE)] = None
    """Side of the full views."""
    seed: Annotated[int | None, option(int, "N", RECIPE)] = None
    overrides: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help_behavior_hint="(repeatable)")
    ] = ()
    """Any setting of the recipe, as in --set views.global_crops.0.blur=0.5."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train all four methods on handwritten digits, in minutes on a CPU, and compare what they learned."""

    out: Annotated[Path | None, option(Path, "PATH", "runs/demo, or the first free one of runs/demo-2, ...")] = None
    """Folder for the four run folders."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Make a step again whose loss or gradient was infinite or NaN, and show where that arises."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """What the run left, as in runs/a/nonfinite/step-00000123."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
