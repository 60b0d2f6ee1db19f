"""The command. The only file that knows the argument parser; no torch before there is something to compute."""

import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import (
    FlagCreatePairsOff,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    Positional,
    UseAppendAction,
    arg,
    subcommand,
)

from infomax import commands
from infomax.arguments import MachineError


def option(kind: type, metavar: str, default: str) -> Any:
    """An option that may be left out: how it is read, and how --help shows it."""
    return arg(constructor=kind, metavar=metavar, help_behavior_hint=f"(default: {default})")


RECIPE = "the recipe's"
Device = Annotated[str, arg(metavar="auto|cpu|cuda")]
Workers = Annotated[int | None, option(int, "N", "one a core, at most 8")]


@dataclass(frozen=True, kw_only=True)
class _Images:
    data_dir: Annotated[str | None, option(str, "DIR", "INFOMAX_DATA, or ~/.cache/infomax/data")] = None
    """Folder that holds data sets that --data names."""
    download: bool = False
    """Fetch a named data set that is not there."""
    classes: Annotated[str | None, option(str, "FILE", "all")] = None
    """Text file with the classes to keep."""
    subset: Annotated[str | None, option(str, "FILE", "all")] = None
    """Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(_Images):
    """Train an encoder without labels, and keep everything about it in a run folder."""

    out: Path
    """The run folder to make."""
    data: Annotated[str | None, option(str, "DIR|FILE|NAME", "digits")] = None
    """A folder of images, or several with commas between; an .npz or .npy of arrays; a .txt of paths; a data set's
    name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are needed."""
    method: Annotated[str | None, option(str, "mira|corinfomax|carl|mveb", "mira")] = None
    recipe: Annotated[str | None, option(str, "NAME", "one that suits the images and the machine")] = None
    """What to start from: digits; small, a small encoder at 32 pixels that a CPU can train; cifar10; or the method's
    larger ones, imagenet100, stl10, imagenet_batch256 or imagenet, which need a GPU."""
    backbone: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """small, resnet18, resnet34, resnet50 or resnet101."""
    views: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """byol, simclr, moco, mira-cifar, dino or dino-wide; the last two add six small crops. NAME:G+L has G full views
    and L small ones."""
    image_size: Annotated[int | None, option(int, "PIXELS", RECIPE)] = None
    """Side of the full views."""
    epochs: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Passes over the images. A warm-up that they leave no room for is shortened to a tenth of them."""
    batch_size: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Images a step, over all devices. The learning rate is not changed with it."""
    device_batch: Annotated[int | None, option(int, "N", "all at once")] = None
    """Images that go through the network at once, on each device. The gradient is exactly that of --batch-size, with
    BatchNorm in groups of N; memory is that of N images."""
    learning_rate: Annotated[float | None, option(float, "X", RECIPE)] = None
    """At its peak."""
    seed: Annotated[int | None, option(int, "N", RECIPE)] = None
    """Of the weights, the order of the images and the views."""
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
    deterministic: bool = False
    """The same bits each time on a GPU too, by slower operations. On a CPU they are so anyway."""
    skip_nonfinite: Annotated[int, arg(metavar="N")] = 0
    """Steps with an infinite or NaN loss or gradient to leave out before the run stops."""
    skip_unreadable: Annotated[float, arg(metavar="SHARE")] = 0.01
    """Share of the images that may be damaged or missing before the run stops."""
    resume: bool = False
    """Continue the run in --out, from the step that it was saved at. With --data, start it if it is not there yet."""
    overwrite: bool = False
    """Replace the run in --out."""


@dataclass(frozen=True, kw_only=True)
class Views(_Images):
    """Draw some images beside the views that a recipe makes of them."""

    out: Path = Path("views.png")
    """The PNG to write."""
    data: Annotated[str, arg(metavar="DIR|FILE|NAME")] = "digits"
    """As for pretrain."""
    method: Annotated[str, arg(metavar="mira|corinfomax|carl|mveb")] = "mira"
    recipe: Annotated[str | None, option(str, "NAME", "one that suits the images and the machine")] = None
    views: Annotated[str | None, option(str, "NAME", RECIPE)] = None
    """byol, simclr, moco, mira-cifar, dino or dino-wide; or NAME:G+L for G full views and L small ones."""
    image_size: Annotated[int | None, option(int, "PIXELS", RECIPE)] = None
    """Side of the full views."""
    seed: Annotated[int | None, option(int, "N", RECIPE)] = None
    overrides: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help_behavior_hint="(repeatable)")
    ] = ()
    """Any setting of the recipe, as in --set views.full.0.blur=0.5."""


@dataclass(frozen=True, kw_only=True)
class _Judge(_Images):
    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run folder."""
    data: Annotated[str | None, option(str, "DIR|FILE|NAME", "what the run was trained on")] = None
    """Images with labels: a sub-folder for each class, arrays of labels, or a data set's name."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    workers: Workers = None
    """Processes that decode image files."""


@dataclass(frozen=True, kw_only=True)
class Knn(_Judge):
    """Weighted k-nearest-neighbour vote on the features, by cosine."""

    k: int = 20
    """Neighbours that vote."""
    temperature: float = 0.07
    """A neighbour's vote weighs exp(cosine / temperature)."""


@dataclass(frozen=True, kw_only=True)
class Linear(_Judge):
    """Linear classifier on the frozen features, its penalty chosen on a part of the training images."""


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


Evaluate = Annotated[
    Annotated[Knn, subcommand("knn")] | Annotated[Linear, subcommand("linear")],
    subcommand("evaluate", description="Judge the encoder of a run, beside the untrained encoder and the raw pixels."),
]
Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Pretrain, subcommand("pretrain")]
    | Annotated[Views, subcommand("views")]
    | Evaluate
    | Annotated[Replay, subcommand("replay")]
)
NO_ACCUMULATION = (
    "these losses compare the images of a whole batch, so gradients added up over small batches would be those of "
    "another loss; --device-batch N takes --batch-size images through the device N at a time, with the exact gradient"
)
ABOUT = "Train image encoders without labels by information maximisation, and see how good they are."


def main() -> None:
    """Run the command. Exit codes: 0 done, 1 something failed, 2 a user's mistake, 130 interrupted."""
    for word in sys.argv[1:]:
        if word.startswith("--") and "accum" in word:
            _fail(f"{word}: {NO_ACCUMULATION}", code=2)
    config = (OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    command: Any = tyro.cli(Command, prog="infomax", description=ABOUT, config=config)  # pyrefly: ignore
    actions = {
        Demo: commands.demo,
        Pretrain: commands.pretrain,
        Views: commands.views,
        Knn: partial(commands.evaluate, "knn"),
        Linear: partial(commands.evaluate, "linear"),
        Replay: commands.replay,
    }
    try:
        actions[type(command)](**asdict(command))
    except ValueError as error:
        _fail(str(error), code=2)
    except (FloatingPointError, OSError, MachineError) as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as interruption:
        _fail(f"interrupted{interruption}", code=130)


def _fail(message: str, *, code: int) -> None:
    if message.startswith("Caught "):  # a worker's error carries its traceback; its last line says what
        message = message.strip().splitlines()[-1].removeprefix("ValueError: ")
    print(f"infomax: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
