"""Options that several commands share, and how they are read and shown."""

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg


def option(kind: type, metavar: str, default: str) -> Any:
    """An option that may be left out: how it is read, and how --help shows it."""
    return arg(constructor=kind, metavar=metavar, help_behavior_hint=f"(default: {default})")


RECIPE = "the recipe's"
Device = Annotated[str, arg(metavar="auto|cpu|cuda")]
Seed = Annotated[int, arg(metavar="N")]
Workers = Annotated[int | None, option(int, "N", "one a core, at most 8")]


@dataclass(frozen=True, kw_only=True)
class Images:
    """Which images."""

    data_dir: Annotated[str | None, option(str, "DIR", "INFOMAX_DATA, or ~/.cache/infomax/data")] = None
    """Folder that holds data sets that --data names."""
    download: bool = False
    """Fetch a named data set that is not there."""
    classes: Annotated[str | None, option(str, "FILE", "all")] = None
    """Text file with the classes to keep."""
    subset: Annotated[str | None, option(str, "FILE", "all")] = None
    """Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt."""
