"""Options of the commands about files of features: embed, search, duplicates, clusters. Torch is not imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.data.options import DataOptions
from infomax.evaluation.options import ComputeOptions
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.devices import check_device_name
from infomax.runtime.options import CheckedOptions, Shown

LISTING_SUFFIXES = (".html", ".jsonl", ".csv")
"""Suffixes of the files that search, duplicates and clusters write."""
ENGINES = ("exact", "faiss")
"""What may compute the cosines of a search."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(DataOptions, ComputeOptions):
    """Computes the features of all images and writes them to a file, with the images' names and labels."""

    encoder: Annotated[str, Shown(metavar="ENCODER", positional=True)]
    """A run folder; timm:NAME, torchvision:NAME or hf:NAME; or a checkpoint file of others."""
    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="what the run was trained on")] = None
    """Images to compute the features of, with labels or without: a folder of images or one image; an .npz or .npy of
    arrays; a .txt or .csv of paths; a data set's name, as cifar10; or hf:NAME."""
    out: Annotated[Path, Shown(metavar="FILE")] = Path("features.parquet")
    """File to write: .parquet, .npz or .npy, which has names and labels in a file beside it."""
    overwrite: bool = False
    """Replace the file if it exists."""
    skip_unreadable: Annotated[float, Shown(metavar="SHARE")] = 0.0
    """Share of the images, from 0 to 1, that may be damaged or missing: they have no features, and the file names
    them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("--skip-unreadable", self.skip_unreadable, low=0, high=1, open_high=False)


@dataclass(frozen=True, kw_only=True)
class FeatureFileOptions(CheckedOptions):
    """A frozen dataclass that says which features are used, and where the images are shown."""

    features: Annotated[Path, Shown(metavar="FEATURES", positional=True)]
    """File of features that infomax embed wrote: .parquet, .npz or .npy."""
    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="what the features are of")] = None
    """The images, if they are elsewhere now; in the same order."""
    out: Annotated[Path | None, Shown(metavar="FILE", default="print a table")] = None
    """File to write: .html is a page with the images, .jsonl has a line of JSON for each result, .csv is a table."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(FeatureFileOptions):
    """Finds the images that are most like a query: the nearest by the cosine of their features."""

    query: Annotated[str, Shown(metavar="FILE|DIR|NAME|FEATURES")]
    """One image, a folder of images, or the name of an image among the features; or another file of features."""
    k: Annotated[int, Shown(metavar="N")] = 12
    """Images to find for each query."""
    encoder: Annotated[str | None, Shown(metavar="ENCODER", default="the one that the features are of")] = None
    """The encoder of the query's features, if it has moved."""
    device: Annotated[str, Shown(metavar="auto|cpu|cuda|mps")] = "auto"
    """Kind of device for the query's features; auto takes a CUDA GPU if there is one."""
    engine: Annotated[str, Shown(metavar="exact|faiss")] = "exact"
    """What searches: infomax itself, or the IndexFlatIP of faiss, which is exact too and needs infomax[faiss]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--k", self.k, low=1)
        check_device_name(self.device)
        choose("--engine", self.engine, ENGINES)


@dataclass(frozen=True, kw_only=True)
class DuplicatesOptions(FeatureFileOptions):
    """Groups images whose features are nearly the same, and says which one of each group to keep."""

    above: Annotated[float, Shown(metavar="COSINE")] = 0.98
    """Smallest cosine of the features of two images that count as the same, from 0 to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.above <= 1:
            raise ValueError(f"--above must be a cosine above 0 and at most 1, but is {self.above}")


@dataclass(frozen=True, kw_only=True)
class ClustersOptions(FeatureFileOptions):
    """Groups images by k-means on their features; no labels are needed."""

    k: Annotated[int | None, Shown(metavar="N", default="the root of half the number of images")] = None
    """Number of clusters."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the starts of k-means."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None:
            check_count("--k", self.k, low=1)
