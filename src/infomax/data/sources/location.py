"""Finds and opens the images that ``--data`` names, and keeps the classes or images that a text file lists."""

import errno
import os
import re
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.decoding.options import MAX_MEGAPIXELS, Decoding, ValueRange, parse_value_range
from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.measured_pixels import PixelChoice
from infomax.data.number_files import begins_as_image
from infomax.data.pixel_format import MAX_CHANNELS, parse_shown_channels
from infomax.data.sources.array_layouts import LAYOUTS
from infomax.data.sources.arrays import open_digits, open_npy, open_npz
from infomax.data.sources.assemble import check_labels
from infomax.data.sources.band_files import Bands, describe_unnamed_bands
from infomax.data.sources.folders import open_folder, open_folders
from infomax.data.sources.given import open_files
from infomax.data.sources.hugging_face import open_hugging_face
from infomax.data.sources.lists import open_list, read_lines
from infomax.data.sources.named import NAMED_DATASETS, open_named
from infomax.data.sources.shards import open_shards
from infomax.data.sources.shares import SHARES, draw_share, published_list
from infomax.data.sources.suffixes import IMAGE_SUFFIXES, suffix_of
from infomax.data.splits import Source
from infomax.runtime.files import cache_folder
from infomax.runtime.near_names import nearest, nearest_path
from infomax.runtime.stages import Stage

PREFIXES = ("hf:", "hf-stream:", "wds:")
ARRAYS = {".npz": open_npz, ".npy": open_npy}
LISTS = (".txt", ".tsv", ".csv")
ARCHIVE = re.compile(r"\.(zip|rar|7z|gz|tgz|bz2|xz|zst)$", re.IGNORECASE)
# Operating-system errors that a wrong path or wrong permissions cause; any other is a failure of the machine.
USER_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


@dataclass(frozen=True)
class DataLocation:
    """A frozen dataclass that says where images are: all that is needed to open the same ones again."""

    data: str
    """``digits``, the name of a data set, a folder, several folders or image files with commas between, a file of
    arrays or of paths, ``hf:NAME``, ``hf-stream:NAME`` or ``wds:SHARDS``."""
    data_dir: str | None = None
    """Folder that holds the data sets that have a name; None takes :func:`default_data_dir`."""
    classes: str | None = None
    """Text file with the classes to keep, one on each line; None keeps all."""
    subset: str | None = None
    """Text file with the training images to keep, one on each line; None keeps all. A line is a path, a file name with
    or without its suffix, or a number in an array. ``1percent`` and ``10percent`` are that share of the labelled
    images: SimCLR's of ImageNet, else drawn class by class."""
    bands: str | None = None
    """Words in names of files that name the bands of an image, as ``B02,B03,B04``, if each is a file of its own."""
    layout: str | None = None
    """``NHWC`` or ``NCHW``, the order of the axes of arrays of images; None finds it."""
    value_range: str | None = None
    """``LOW,HIGH``: the numbers that become 0 and 1 in images of more than 8 bits, or percentiles of the data set, as
    ``0.1%,99.9%``; None takes the format's range, and percentiles if it has none."""
    max_megapixels: float | None = None
    """The largest number of pixels of an image file, in millions; None takes
    :data:`infomax.data.decoding.options.MAX_MEGAPIXELS`."""
    channels: int | None = None
    """Number of channels of an image; None finds it. 3 makes RGB of images of one channel, 1 makes gray of RGB."""
    no_data: float | None = None
    """The number that stands for no measurement; None takes what files say."""
    show: str | None = None
    """The channels that are shown to people, counted from 1, as ``3,2,1``; None shows the first three."""

    def decoding(self) -> Decoding:
        """Returns what the user decided about how image files become pixels.

        Raises:
            ValueError: naming the option, if a value is not possible.
        """
        value_range = self._value_range()
        limit = MAX_MEGAPIXELS if self.max_megapixels is None else self.max_megapixels
        if not 0 < limit < inf:
            raise ValueError(f"--max-megapixels {limit:g}: want a number of millions above 0")
        if value_range is None or value_range.is_percentile:
            return Decoding(None, limit)
        return Decoding((value_range.low, value_range.high), limit)

    def _value_range(self) -> ValueRange | None:
        """Returns the range of ``value_range``; raises ValueError if it is none."""
        return None if self.value_range is None else parse_value_range(self.value_range)

    def pixel_choice(self) -> PixelChoice:
        """Returns what the user decided about images of other channels or depths than 8-bit RGB.

        Raises:
            ValueError: naming the option, if a value is not possible.
        """
        if self.channels is not None and not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"--channels {self.channels}: want a number from 1 to {MAX_CHANNELS}")
        if self.no_data is not None and not isfinite(self.no_data):
            raise ValueError(f"--no-data {self.no_data:g}: want a number; NaN is no measurement in any case")
        show = () if self.show is None else parse_shown_channels(self.show)
        return PixelChoice(self.channels, self._value_range(), self.no_data, show)

    def parsed_bands(self) -> Bands | None:
        """Returns the bands of an image, if each is a file of its own.

        Raises:
            ValueError: naming the option, if it is no list of words, or the images are no files.
        """
        if self.bands is None:
            return None
        is_array = Path(self.data).suffix.lower() in ARRAYS and not os.path.isdir(os.path.expanduser(self.data))
        if self.data in ("digits", *NAMED_DATASETS) or self.data.startswith(PREFIXES) or is_array:
            raise ValueError(
                f"--bands {self.bands} is for folders, lists and files of images, not for --data {self.data}"
            )
        return Bands.parse(self.bands)

    def _check_layout(self) -> None:
        if self.layout is None:
            return
        if self.layout not in LAYOUTS:
            raise ValueError(f"--layout {self.layout}: want {' or '.join(LAYOUTS)}, the order of the axes of arrays")
        if self.data and Path(self.data).suffix.lower() not in ARRAYS:
            raise ValueError(f"--layout {self.layout} is for arrays, .npz and .npy, not for --data {self.data}")

    def resolved(self) -> "DataLocation":
        """Returns the same location with absolute paths, so that it can be opened from any folder.

        Raises:
            ValueError: if ``data`` is empty.
        """
        given = {k: getattr(self, k) for k in ("data_dir", "classes", "subset")}
        files = {k: v and (v if v in SHARES else _absolute(v)) for k, v in given.items()}
        if self.data == "digits":
            return replace(self, **files)
        if self.data in NAMED_DATASETS:
            return replace(self, **{**files, "data_dir": files["data_dir"] or str(default_data_dir())})
        prefix = next((p for p in PREFIXES if self.data.startswith(p)), "")
        path = self.data.removeprefix(prefix)
        without_count = path.partition("#")[0]
        is_remote = prefix != "" and not Path(os.path.expanduser(without_count)).exists()
        if prefix == "wds:":
            is_remote = "://" in without_count
        if is_remote:
            return replace(self, **files)
        is_one_path = prefix != "" or _exists(path)
        paths = [path] if is_one_path else path.split(",")
        if not all(path.strip() for path in paths):
            raise ValueError("names no images")
        return replace(self, data=prefix + ",".join(map(_absolute, paths)), **files)

    def missing_option(self) -> str:
        """Returns the option that names the folders or files of this location, if one of them is not there."""
        if self.data == "digits" or self.data.startswith(PREFIXES):
            return ""
        if self.data in NAMED_DATASETS:
            return "" if os.path.isdir(self.data_dir or default_data_dir()) else "--data-dir"
        return "" if _exists(self.data) or all(map(_exists, self.data.split(","))) else "--data"

    def open(self, *, download: bool = False) -> Source:
        """Opens the images; keeps those of ``subset``, and of them the classes of ``classes``.

        Args:
            download: Whether to download a data set that has a name if it is not there.

        Raises:
            ValueError: if there are no such images, saying what was found instead.
            OSError: if the machine fails while they are opened.
        """
        is_there = self.data.startswith(PREFIXES) or self.data == "digits" or any(map(_exists, self.data.split(",")))
        if is_there and self.data not in NAMED_DATASETS and (self.data_dir is not None or download):
            option = "--download" if self.data_dir is None else f"--data-dir {self.data_dir}"
            raise ValueError(f"{option} is for data sets by name, as cifar10, not for --data {self.data}")
        self.decoding(), self.pixel_choice(), self.parsed_bands(), self._check_layout()  # before anything is listed
        with Stage(f"reading {self.data}") as stage:
            source = self._open(download)
            stage.detail = f"{len(source.pretraining):,} image{'' if len(source.pretraining) == 1 else 's'}"
        return source

    def _open(self, download: bool) -> Source:
        """Opens the images; see :meth:`open`."""
        try:
            location = self.resolved()
            data_dir = Path(location.data_dir or default_data_dir())
            source = _open(location, data_dir, download, as_given=self.data)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith("--data") else f"--data {self.data}: {message}") from error
        except OSError as error:
            if error.errno not in USER_ERRORS:
                raise
            raise ValueError(f"--data {self.data}: {error}") from error
        images = source.pretraining
        hint = describe_unnamed_bands(images) if isinstance(images, Images) else ""
        notes = (*source.notes, hint) if hint else source.notes
        # The name is the user's, with the number of images if shards have been counted.
        return self.select(replace(source, name=self.data + source.name.removeprefix(location.data), notes=notes))

    def select(self, source: Source) -> Source:
        """Returns a source with the images of ``subset`` alone, and of them the classes of ``classes``.

        Its files are decoded as this location says.

        Raises:
            ValueError: naming the option, if a value is not possible, or a file lists what is not there.
        """
        source = source.decoded_by(self.decoding())
        if self.subset is not None:
            source = _keep_subset(source, self.subset, Path(self.data_dir or default_data_dir()))
        if self.classes is not None:
            source = _keep_listed_classes(source, _read_lines("--classes", self.classes), self.classes)
        return source


@dataclass(frozen=True)
class OpenedImages:
    """A frozen dataclass that holds the images of a data set, and where they are."""

    location: DataLocation
    source: Source


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).resolve())


def default_data_dir() -> Path:
    """Returns the folder of the data sets that have a name: ``INFOMAX_DATA``, or ``data`` in the cache folder."""
    return Path(os.path.expanduser(os.environ.get("INFOMAX_DATA") or cache_folder() / "data"))


def open_source(data: str, *, data_dir: str | None = None, download: bool = False) -> Source:
    """Opens the images that ``data`` names; see :class:`DataLocation` and :meth:`DataLocation.open`."""
    return DataLocation(data, data_dir).open(download=download)


def _open(location: DataLocation, data_dir: Path, download: bool, *, as_given: str) -> Source:
    """Opens the images at a location whose paths are absolute; ``as_given`` is how the user wrote them."""
    data, bands = location.data, location.parsed_bands()
    if data == "digits":
        return open_digits()
    if data in NAMED_DATASETS:
        return open_named(data, data_dir, download=download)
    if data.startswith("wds:"):
        return open_shards(data, data.removeprefix("wds:"))
    if data.startswith(("hf:", "hf-stream:")):
        return open_hugging_face(data, data.partition(":")[2], stream=data.startswith("hf-stream:"))
    path = Path(data)
    if path.is_dir():
        return open_folder(data, path, bands)
    if path.is_file():
        if path.suffix.lower() in ARRAYS:
            return ARRAYS[path.suffix.lower()](data, path, location.layout)
        if path.suffix.lower() in LISTS:
            return open_list(data, path, bands=bands)
        if suffix_of(path.name) not in IMAGE_SUFFIXES and not begins_as_image(path):
            hint = f"; for shards, say wds:{data}" if path.suffix == ".tar" else ""
            if ARCHIVE.search(path.name) and not hint:
                raise ValueError("an archive must be unpacked first; then name its folder")
            raise ValueError(f"a file must be an image, an .npz or .npy of arrays, or a .txt or .csv of paths{hint}")
        return open_files(data, [as_given], bands=bands)
    paths = [Path(name) for name in data.split(",")]
    if len(paths) > 1:
        if all(path.is_file() for path in paths):
            return open_files(data, as_given.split(","), bands=bands)
        if missing := [given for given, path in zip(as_given.split(","), paths, strict=True) if not path.exists()]:
            files = "" if any(path.is_dir() for path in paths) else " or file"
            near = nearest_path(missing[0])
            raise ValueError(f"no such folder{files}: {', '.join(missing)}{f'; did you mean {near}?' if near else ''}")
        if files := [str(path) for path in paths if not path.is_dir()]:
            raise ValueError(f"{', '.join(files)} is no folder, as others are; want folders, or image files alone")
        return open_folders(data, paths, bands)
    near = nearest_path(as_given) or nearest(as_given, ("digits", *NAMED_DATASETS))
    if near:
        raise ValueError(f"no such folder or file; did you mean {near}?")
    raise ValueError(
        "no such folder or file; it can be a folder of images, several with commas between, image files, an "
        ".npz or .npy file, a .txt or .csv of paths, hf:NAME, hf-stream:NAME, wds:SHARDS, or one of digits, "
        f"{', '.join(NAMED_DATASETS)}"
    )


def _read_lines(option: str, file: str) -> list[str]:
    """Returns the lines of a text file, without blanks around them and without empty lines.

    Raises:
        ValueError: naming the option and the file, if it cannot be read or is empty.
    """
    try:
        lines = [line.text for line in read_lines(Path(file))]
    except (OSError, ValueError) as error:
        raise ValueError(f"{option} {file}: cannot be read as a text file: {error}") from error
    if not lines:
        raise ValueError(f"{option} {file}: is empty; want a name on each line")
    return lines


def _keep_listed_classes(source: Source, listed: list[str], file: str) -> Source:
    """Returns the source with the images of the listed classes only; these classes are numbered from 0.

    Args:
        source: The source, whose images have one label each.
        listed: Names of classes.
        file: The file that lists them, for errors.

    Raises:
        ValueError: if the source has no such labels, or lacks a listed class.
    """
    if not isinstance(source.train, Images) or source.train.labels is None or source.train.labels.ndim > 1:
        reason = f": {source.no_labels_reason}" if source.no_labels_reason else ""
        raise ValueError(f"--classes {file}: --data {source.name} has no classes, one for each image{reason}")
    if unknown := sorted(set(listed) - set(source.train.classes)):
        raise ValueError(
            f"--classes {file}: {unknown[0]!r} is not a class of {source.name}, as {source.train.classes[0]!r} is"
        )
    classes = [name for name in source.train.classes if name in set(listed)]
    new_number = np.full(len(source.train.classes), -1)
    new_number[[source.train.classes.index(name) for name in classes]] = np.arange(len(classes))

    def keep(images: Images | None) -> Any:
        if images is None or images.labels is None:
            return None
        labels = new_number[images.labels]
        return select_images(images, np.flatnonzero(labels >= 0), labels, classes)

    train, test, val = map(keep, (source.train, source.test, source.val))
    return check_labels(replace(source, train=train, test=test, val=val, unlabelled=None))


def _keep_subset(source: Source, subset: str, data_dir: Path) -> Source:
    """Returns the source with the training images that a file lists, or with a share of them."""
    file: str | None = subset
    if subset in SHARES:
        file = published_list(source.name, data_dir, subset)
    if file is None:
        return draw_share(source, subset)
    return _keep_listed_images(source, _read_lines("--subset", file), file)


def _keep_listed_images(source: Source, listed: list[str], file: str) -> Source:
    """Returns the source with the listed training images only; its test and validation images stay.

    Args:
        source: The source, whose training images are opened by their index.
        listed: Paths, file names with or without suffix, or numbers in an array.
        file: The file that lists them, for errors.

    Raises:
        ValueError: if the source is a stream, or a line names none of its training images.
    """
    images = source.train
    if not isinstance(images, Images):
        raise ValueError(f"--subset {file}: the images of a stream cannot be chosen by name")
    index_of = _match_names(images, listed)
    if missing := [line for line in listed if line not in index_of]:
        raise ValueError(
            f"--subset {file}: {len(missing)} of its {len(listed)} lines name no image of {source.name}, as "
            f"{missing[0]!r}; {images.name(0)!r} is the name of one"
        )
    if ambiguous := [line for line in listed if len(index_of[line]) > 1]:
        names = " and ".join(repr(images.name(i)) for i in index_of[ambiguous[0]])
        raise ValueError(f"--subset {file}: the line {ambiguous[0]!r} names {names}; give the path instead")
    index = sorted({i for matches in index_of.values() for i in matches})
    train, notes = select_images(images, np.array(index), images.labels, images.classes), list(source.notes)
    if repeated := len(listed) - len(index):
        notes.append(f"--subset {file}: {repeated} of its {len(listed)} lines name an image that another line names")
    return check_labels(replace(source, train=train, unlabelled=None, notes=tuple(notes)))


def _match_names(images: Images, listed: list[str]) -> dict[str, list[int]]:
    """Returns for each line the index of the image that it names; two of them if it is not clear which.

    A line is an image's whole name, perhaps with backslashes, or its file name with or without the suffix. The whole
    name counts first.
    """
    by_name = {line.replace("\\", "/"): line for line in listed} | {line: line for line in listed}
    whole: dict[str, list[int]] = {}
    partial: dict[str, list[int]] = {}
    for i in range(len(images)):
        name = images.name(i)
        if name in by_name:
            whole[by_name[name]] = [i]
        file_name = name.rsplit("/", 1)[-1]
        for part in {file_name, file_name.rsplit(".", 1)[0]} & by_name.keys():
            partial[by_name[part]] = [*partial.get(by_name[part], [])[:1], i]
    return partial | whole
