"""What ``--data`` can name, and the images that it stands for."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infomax.data.arrays import open_digits, open_npy, open_npz
from infomax.data.folders import open_folder, open_folders, open_list
from infomax.data.hub import open_hugging_face
from infomax.data.images import ArrayImages, Images, Subset
from infomax.data.named import NAMED, open_named
from infomax.data.shards import open_shards
from infomax.data.splits import Source

PREFIXES = ("hf:", "hf-stream:", "wds:")
FILES = {".npz": open_npz, ".npy": open_npy, ".txt": open_list, ".tsv": open_list}


@dataclass(frozen=True)
class Location:
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

    def located(self) -> "Location":
        """The same, as it can be opened from any folder: paths absolute, names as they are."""
        files = {k: v and str(Path(v).expanduser().resolve()) for k, v in vars(self).items() if k != "data"}
        if self.data == "digits" or self.data in NAMED:
            if self.data != "digits" and files["data_dir"] is None:
                files["data_dir"] = str(default_data_dir())
            return Location(self.data, **files)
        prefix = next((p for p in PREFIXES if self.data.startswith(p)), "")
        rest = self.data.removeprefix(prefix)
        if (prefix.startswith("hf") and not Path(rest.partition("#")[0]).exists()) or (
            prefix == "wds:" and ":" in rest
        ):
            return Location(self.data, **files)
        folders = [rest] if prefix or Path(rest).expanduser().exists() else rest.split(",")
        return Location(prefix + ",".join(str(Path(f).expanduser().resolve()) for f in folders), **files)

    def open(self, *, download: bool = False) -> Source:
        """The images.

        Args:
            download: Fetch a named data set if it is not there.

        Raises:
            ValueError: if there are no images, saying what was found instead.
        """
        try:
            source = _open(
                self.data, Path(self.data_dir).expanduser() if self.data_dir else default_data_dir(), download
            )
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith("--data") else f"--data {self.data}: {message}") from error
        except PermissionError as error:
            raise ValueError(f"--data {self.data}: {error}") from error
        if self.classes is not None:
            source = _of_classes(source, _lines("--classes", self.classes), self.classes)
        if self.subset is not None:
            source = replace(source, train=_named(source.train, _lines("--subset", self.subset), self.subset))
        return source


def default_data_dir() -> Path:
    """Where named data sets are looked for: ``INFOMAX_DATA``, or ``~/.cache/infomax/data``."""
    return Path(os.environ.get("INFOMAX_DATA") or "~/.cache/infomax/data").expanduser()


def open_source(data: str, *, data_dir: str | None = None, download: bool = False) -> Source:
    """The images that ``data`` names; see :class:`Location`."""
    return Location(data, data_dir).open(download=download)


def _open(data: str, data_dir: Path, download: bool) -> Source:
    if data == "digits":
        return open_digits()
    if data in NAMED:
        return open_named(data, data_dir, download=download)
    if data.startswith("wds:"):
        return open_shards(data, data.removeprefix("wds:"))
    if data.startswith(("hf:", "hf-stream:")):
        return open_hugging_face(data, data.partition(":")[2], stream=data.startswith("hf-stream:"))
    path = Path(data).expanduser()
    if path.is_dir():
        return open_folder(data, path)
    if path.is_file():
        if path.suffix.lower() in FILES:
            return FILES[path.suffix.lower()](data, path)
        tar = f"; for shards, say wds:{data}" if path.suffix == ".tar" else ""
        raise ValueError(
            f"a file must be an .npz or .npy of arrays, or a .txt of paths; for images, name their folder{tar}"
        )
    folders = [Path(name).expanduser() for name in data.split(",")]
    if len(folders) > 1:
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            raise ValueError(f"no such folder: {', '.join(missing)}")
        return open_folders(data, [open_folder(str(folder), folder) for folder in folders])
    raise ValueError(
        "no such folder or file; it can be a folder of images, several with commas between, an .npz or .npy file, a "
        f".txt of paths, hf:NAME, hf-stream:NAME, wds:SHARDS, or one of digits, {', '.join(NAMED)}"
    )


def _lines(what: str, file: str) -> list[str]:
    try:
        return [line.strip() for line in Path(file).expanduser().read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {file}: cannot be read as a text file: {error}") from error


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

    def keep(images: Images | None) -> Images | None:
        if images is None or images.labels is None:
            return images
        labels = number[images.labels]
        return _take(images, np.flatnonzero(labels >= 0), labels, classes)

    train, test, val = keep(source.train), keep(source.test), keep(source.val)
    assert train is not None
    return Source(source.name, train, test, val)


def _named(images: object, wanted: list[str], file: str) -> Images:
    """The images whose paths or file names are listed."""
    if not isinstance(images, Images):
        raise ValueError(f"--subset {file}: the images of a stream cannot be chosen by name")
    names = set(wanted)
    index = []
    for i in range(len(images)):
        name = images.name(i)
        base = name.rsplit("/", 1)[-1]
        if name in names or base in names or base.rsplit(".", 1)[0] in names:
            index.append(i)
    if not index:
        raise ValueError(
            f"--subset {file}: none of its {len(wanted)} lines names an image; {images.name(0)!r} is the name of one"
        )
    return _take(images, np.array(index), images.labels, images.classes)


def _take(images: Images, index: np.ndarray, labels: np.ndarray | None, classes: list[str]) -> Images:
    own = None if labels is None else labels[index]
    if isinstance(images, ArrayImages):
        return ArrayImages(images.pixels[index], own, classes)
    return Subset(images, index, own, classes)
