"""The words of the commands that judge encoders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

from infomax.cli.options import Device, Images, Seed, Workers, option


@dataclass(frozen=True, kw_only=True)
class _Judge(Images):
    encoder: Annotated[Positional[str | None], option(str, "ENCODER", "what --encoder says")] = None
    """A run folder; timm:NAME, torchvision:NAME or hf:NAME; or a checkpoint file of a ResNet."""
    named: Annotated[str | None, arg(name="encoder", constructor=str, metavar="ENCODER", help_behavior_hint="")] = None
    """The same, as an option."""
    data: Annotated[str | None, option(str, "DIR|FILE|NAME", "what the run was trained on")] = None
    """Images with labels: a sub-folder for each class, arrays of labels, or a data set's name."""
    out: Annotated[Path | None, option(Path, "FILE", "the run's results.jsonl, or one in this folder")] = None
    """Where a line is added for each result."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    workers: Workers = None
    """Processes that decode image files."""
    feature_precision: Annotated[str, arg(metavar="32|16")] = "32"
    """Of the features; 16 takes half the memory and disk."""
    no_cache: bool = False
    """Neither keep features on disk nor use those that are there."""


@dataclass(frozen=True, kw_only=True)
class _Compare(_Judge):
    alone: bool = False
    """Leave out what the encoder must beat: itself untrained, and the raw pixels."""


@dataclass(frozen=True, kw_only=True)
class Knn(_Compare):
    """Weighted vote of the k nearest neighbours, by cosine, as in MIRA's Table 3."""

    k: Annotated[tuple[int, ...], arg(metavar="N [N ...]")] = (20,)
    """Neighbours that vote; several are judged from one search."""
    temperature: Annotated[tuple[float, ...], arg(metavar="T [T ...]")] = (0.07,)
    """A neighbour's vote weighs exp(cosine / T)."""
    leave_one_out: bool = False
    """Classify each training image by the others, instead of the test images."""


@dataclass(frozen=True, kw_only=True)
class Linear(_Compare):
    """A linear classifier on the frozen features: solved to its optimum, or trained as a paper trains its own."""

    probe: Annotated[str | None, option(str, "NAME", "logistic regression, its penalty chosen on a fifth")] = None
    """mira, mira-lars, corinfomax, corinfomax-imagenet, carl or mveb. These judge the encoder alone."""
    learning_rate: Annotated[
        tuple[float, ...], arg(metavar="X [X ...]", help_behavior_hint="(default: the probe's)")
    ] = ()
    """Several are trained in one pass, and one is chosen on a tenth of the training images."""
    epochs: Annotated[int | None, option(int, "N", "the probe's")] = None
    batch_size: Annotated[int | None, option(int, "N", "the probe's")] = None
    no_augmentation: bool = False
    """Train the probe on features that are computed once, not on random crops: about a hundred times faster."""
    seed: Seed = 0
    """Of the probe."""


@dataclass(frozen=True, kw_only=True)
class Few(_Compare):
    """k-NN and a linear classifier with a few labels of each class, over many draws of which images have them."""

    labels: Annotated[tuple[int, ...], arg(metavar="N [N ...]")] = (1, 5, 10)
    """Of each class."""
    draws: Annotated[int, arg(metavar="N")] = 20
    """The interval is that of the mean over them."""
    seed: Seed = 0
    """Of the draws."""


@dataclass(frozen=True, kw_only=True)
class Cluster(_Compare):
    """Clusters of the test images beside their classes: k-means on the features, and a run's own prototypes."""

    clusters: Annotated[int | None, option(int, "N", "the number of classes")] = None
    """For k-means."""
    seed: Seed = 0
    """Of its starts."""


@dataclass(frozen=True, kw_only=True)
class Transfer(_Judge):
    """A linear classifier on frozen features of other data sets, as in MIRA's Table 5 and MVEB's Table 4."""

    data: Annotated[str | None, option(str, "NAME,NAME|DIR", "those of the 11 that are in --data-dir")] = None
    """Data sets by name with commas between: aircraft, caltech101, cars, cifar10, cifar100, dtd, flowers, food101,
    pets, sun397, voc2007; or any images with labels."""
    as_published: bool = False
    """Solve with scikit-learn and stop it after 100 iterations, as the published results were; much slower."""


@dataclass(frozen=True, kw_only=True)
class Finetune(_Judge):
    """Train encoder and classifier together, on few labels (--subset) or on another data set."""

    setting: Annotated[str, arg(metavar="NAME")] = "mira-10"
    """mira-1, mira-10, corinfomax-1, corinfomax-10, mveb-1 or mveb-10, for 1 and 10 % of ImageNet's labels; or
    transfer, MVEB's Table 4: 20 pairs of learning rate and weight decay, one chosen on validation images, on --data
    as for infomax evaluate transfer."""
    epochs: Annotated[int | None, option(int, "N", "the setting's")] = None
    steps: Annotated[int | None, option(int, "N", "5000")] = None
    """Of each run of transfer."""
    batch_size: Annotated[int | None, option(int, "N", "the setting's")] = None
    budget: Annotated[int | None, option(int, "N", "all 20")] = None
    """Pairs that transfer tries."""
    seed: Seed = 0
    """Of the classifier, the order of the images and their crops."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results beside the published ones."""

    results: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN|FILE [RUN|FILE ...]")] = ()
    """Run folders, or files of results."""
    table: Annotated[str | None, option(str, "ID", "all with a column for one of the results")] = None
    """One table of a paper, as mira-5; list names them all."""


Evaluate = Annotated[
    Annotated[Knn, subcommand("knn")]
    | Annotated[Linear, subcommand("linear")]
    | Annotated[Few, subcommand("few")]
    | Annotated[Cluster, subcommand("cluster")]
    | Annotated[Finetune, subcommand("finetune")]
    | Annotated[Transfer, subcommand("transfer")],
    subcommand("evaluate", description="Judge an encoder by one of the papers' protocols."),
]
PROTOCOLS = (Knn, Linear, Few, Cluster, Finetune, Transfer)
