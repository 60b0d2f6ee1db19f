"""What ``--data`` can name, and the images that it stands for."""

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images import Images, select_images
from infomax.data.sources.arrays import open_digits, open_npy, open_npz
from infomax.data.sources.folders import open_folder, open_folders, open_list
from infomax.data.sources.hugging_face import open_hugging_face
from infomax.data.sources.named import NAMED_DATASETS, open_named
from infomax.data.sources.shards import open_shards
from infomax.data.splits import Source
from infomax.runtime.files import cache_folder

PREFIXES = ("hf:", "hf-stream:", "wds:")
FILES = {".npz": open_npz, ".npy": open_npy, ".txt": open_list, ".tsv": open_list}


@dataclass(frozen=True)
class DataLocation:
    """Where images are: all that is needed to find the same ones again."""

    data: str
    """``digits``, a data set's name, a folder, several with commas between, a file of arrays or of paths, ``hf:NAME``,
    ``hf-stream:NAME`` or ``wds:SHARDS``."""
    data_dir: str | None = None
    """Folder that holds data sets that ``data`` names."""
    classes: str | None = None
    """Text file with the classes to keep, one on each line."""
    subset: str | None = None
    """Text file with the training images to keep, one on each line: their paths, or file names with or without suffix,
    or numbers in an array."""

    def resolved(self) -> "DataLocation":
        """The same, as it can be opened from any folder: paths absolute, names as they are.

        Raises:
            ValueError: if it names nothing.
        """
        files = {k: v and _absolute(v) for k, v in vars(self).items() if k != "data"}
        if self.data == "digits":
            return DataLocation(self.data, **files)
        if self.data in NAMED_DATASETS:
            return DataLocation(self.data, **{**files, "data_dir": files["data_dir"] or str(default_data_dir())})
        prefix = next((p for p in PREFIXES if self.data.startswith(p)), "")
        rest = self.data.removeprefix(prefix)
        address = rest.partition("#")[0]
        if ":" in address if prefix == "wds:" else prefix and not Path(os.path.expanduser(address)).exists():
            return DataLocation(self.data, **files)
        paths = [rest] if prefix or (rest and Path(os.path.expanduser(rest)).exists()) else rest.split(",")
        if not all(path.strip() for path in paths):
            raise ValueError("names no images")
        return DataLocation(prefix + ",".join(map(_absolute, paths)), **files)

    def open(self, *, download: bool = False) -> Source:
        """The images.

        Args:
            download: Fetch a named data set if it is not there.

        Raises:
            ValueError: if there are no images, saying what was found instead.
        """
        if self.data not in NAMED_DATASETS and (self.data_dir is not None or download):
            option = "--download" if self.data_dir is None else f"--data-dir {self.data_dir}"
            raise ValueError(f"{option} is for data sets by name, as cifar10, not for --data {self.data}")
        try:
            place = self.resolved()
            source = _open(place.data, Path(place.data_dir or default_data_dir()), download)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith("--data") else f"--data {self.data}: {message}") from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
                raise
            raise ValueError(f"--data {self.data}: {error}") from error
        source = replace(source, name=self.data + source.name.removeprefix(place.data))  # shards have been counted
        if self.subset is not None:
            source = _named(source, _lines("--subset", self.subset), self.subset)
        if self.classes is not None:
            source = _of_classes(source, _lines("--classes", self.classes), self.classes)
        return source


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).resolve())


def default_data_dir() -> Path:
    """Where named data sets are looked for: ``INFOMAX_DATA``, or ``data`` in the cache folder."""
    return Path(os.path.expanduser(os.environ.get("INFOMAX_DATA") or cache_folder() / "data"))


def open_source(data: str, *, data_dir: str | None = None, download: bool = False) -> Source:
    """The images that ``data`` names; see :class:`DataLocation`."""
    return DataLocation(data, data_dir).open(download=download)


def _open(data: str, data_dir: Path, download: bool) -> Source:
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
        return open_folder(data, path)
    if path.is_file():
        if path.suffix.lower() in FILES:
            return FILES[path.suffix.lower()](data, path)
        tar = f"; for shards, say wds:{data}" if path.suffix == ".tar" else ""
        raise ValueError(
            f"a file must be an .npz or .npy of arrays, or a .txt of paths; for images, name their folder{tar}"
        )
    folders = [Path(name) for name in data.split(",")]
    if len(folders) > 1:
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            raise ValueError(f"no such folder: {', '.join(missing)}")
        return open_folders(data, [open_folder(str(folder), folder) for folder in folders])
    raise ValueError(
        "no such folder or file; it can be a folder of images, several with commas between, an .npz or .npy file, a "
        f".txt of paths, hf:NAME, hf-stream:NAME, wds:SHARDS, or one of digits, {', '.join(NAMED_DATASETS)}"
    )


def _lines(what: str, file: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(file).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {file}: cannot be read as a text file: {error}") from error
    if not lines:
        raise ValueError(f"{what} {file}: is empty; want a name on each line")
    return lines


def _of_classes(source: Source, wanted: list[str], file: str) -> Source:
    """The images of some classes, which are numbered anew."""
    if not isinstance(source.train, Images) or source.train.labels is None or source.train.labels.ndim > 1:
        raise ValueError(f"--classes {file}: --data {source.name} has no classes, one for each image")
    if unknown := sorted(set(wanted) - set(source.train.classes)):
        raise ValueError(
            f"--classes {file}: {unknown[0]!r} is not a class of {source.name}, as {source.train.classes[0]!r} is"
        )
    classes = [name for name in source.train.classes if name in set(wanted)]
    number = np.full(len(source.train.classes), -1)
    number[[source.train.classes.index(name) for name in classes]] = np.arange(len(classes))

    def keep(images: Images | None) -> Any:
        if images is None or images.labels is None:
            return None
        labels = number[images.labels]
        return select_images(images, np.flatnonzero(labels >= 0), labels, classes)

    parts = map(keep, (source.train, source.test, source.val))
    return Source(source.name, *parts, folders=source.folders)


def _named(source: Source, wanted: list[str], file: str) -> Source:
    """The training images whose paths or file names are listed."""
    images = source.train
    if not isinstance(images, Images):
        raise ValueError(f"--subset {file}: the images of a stream cannot be chosen by name")
    names, index, seen = set(wanted), [], set()
    for i in range(len(images)):
        path = images.name(i)
        base = path.rsplit("/", 1)[-1]
        called = names.intersection((path, base, base.rsplit(".", 1)[0]))
        if called:
            index.append(i)
            seen |= called
    if missing := [line for line in wanted if line not in seen]:
        raise ValueError(
            f"--subset {file}: {len(missing)} of its {len(wanted)} lines name no image of {source.name}, as "
            f"{missing[0]!r}; {images.name(0)!r} is the name of one"
        )
    train = select_images(images, np.array(index), images.labels, images.classes)
    return Source(source.name, train, source.test, source.val, folders=source.folders)
