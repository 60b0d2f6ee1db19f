"""Options that say which images are meant, shared by training and evaluation. No torch is imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.sources.location import DataLocation

WAYS_TO_NAME_DATA = (
    "a folder of images, or several with commas between; an .npz or .npy of arrays; a .txt or .csv "
    "of paths; a data set's name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS; --data digits is the embedded one"
)
LOCATION_PARTS = (
    "data",
    "data_dir",
    "bands",
    "layout",
    "classes",
    "subset",
    "value_range",
    "max_megapixels",
    "channels",
    "no_data",
    "show",
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """A frozen dataclass that says which images are meant."""

    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="the recipe's data set, if it has one")] = None
    """Images to train on: a folder of images, or several with commas between; an .npz or .npy of arrays; a .txt
    or .csv of paths; a data set's name, as cifar10; hf:NAME, hf-stream:NAME or wds:SHARDS. No labels are needed."""
    data_dir: Annotated[str | None, Shown(metavar="DIR", default="INFOMAX_DATA, or ~/.cache/infomax/data")] = None
    """Folder that holds the data sets that are given by name."""
    download: bool = False
    """Fetch a named data set that is not there."""
    bands: Annotated[str | None, Shown(metavar="WORD,...", default="one file is one image")] = None
    """Words in names of files that name the bands, as B02,B03,B04, if each band is a file of its own: files whose paths
    differ only in that word are one image, with these channels in this order."""
    layout: Annotated[str | None, Shown(metavar="NHWC|NCHW", default="found by the sizes")] = None
    """Order of the axes of arrays of images: NHWC if the channels are last, NCHW if they come before height and
    width."""
    classes: Annotated[str | None, Shown(metavar="FILE", default="all")] = None
    """Text file with the classes to keep, one on each line."""
    subset: Annotated[str | None, Shown(metavar="FILE|1percent|10percent", default="all")] = None
    """Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt; or the word 1percent
    or 10percent, for that share of the labelled images."""

    value_range: Annotated[str | None, Shown(metavar="LOW,HIGH", default="the format's, or percentiles")] = None
    """Numbers that become black and white in images of more than 8 bits, as 0,4095; or percentiles of the data set, as
    0.1%,99.9%, which floating-point numbers and those with a sign take. It is one range for all images."""
    max_megapixels: Annotated[float | None, Shown(metavar="N", default="120")] = None
    """Largest number of pixels of an image file, in millions; larger ones are not decoded, as memory could end."""
    channels: Annotated[int | None, Shown(metavar="N", default="what the images have")] = None
    """Channels of an image; 3 makes 8-bit RGB of images of one channel, and 1 makes gray of RGB."""
    no_data: Annotated[float | None, Shown(metavar="NUMBER", default="what files say")] = None
    """Number that stands for no measurement, as -9999; NaN does in any case."""
    show: Annotated[str | None, Shown(metavar="R,G,B", default="the first three")] = None
    """Channels, counted from 1, that pictures for people show as red, green and blue; or one, in gray."""

    def given_location(self) -> dict[str, Any]:
        """Returns the parts of the images' location that are given, by their names."""
        parts = {name: getattr(self, name) for name in LOCATION_PARTS}
        return {name: value for name, value in parts.items() if value is not None}

    def named_data(self, default: str | None, *, recipe: str = "") -> str:
        """Returns the images as the user names them, or else the default.

        Args:
            default: Name of the data set of the recipe; None if it has none.
            recipe: Name of the recipe, for the message, if there are several.

        Raises:
            ValueError: if neither names any images, or data are images themselves. Nothing stands in for those that a
                user forgot.
        """
        data = default if self.data is None else self.data
        if data is None:
            raise ValueError(f"--data is missing{f' for {recipe}' if recipe else ''}: {WAYS_TO_NAME_DATA}")
        if not isinstance(data, str):
            raise ValueError(
                f"--data must name images, as a folder does, but is of type {type(data).__name__}; the paths of single "
                "files can stand in a text file, one on each line"
            )
        return data

    def location(self, default: str | None) -> "DataLocation":
        """Returns where the images are.

        Args:
            default: Name of the data set of the recipe, taken if the user names none; None if it has none.

        Raises:
            ValueError: if neither names any images.
        """
        from infomax.data.sources.location import DataLocation

        parts: dict[str, Any] = {**self.given_location(), "data": self.named_data(default)}
        return DataLocation(**parts)
