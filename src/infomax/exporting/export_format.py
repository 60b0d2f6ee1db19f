"""The contract of a format: which encoders fit it, how it is written, and the code by which its library opens it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

READ_RGB = 'image = Image.open("cat.jpg").convert("RGB")'


@dataclass(frozen=True)
class LoadingCode:
    """A frozen dataclass that holds the Python by which a library opens an export, as the model card prints it.

    The same text is run in a process of its own to compare features.
    """

    setup: str
    """Statements that load the model, and define what the two expressions use."""
    prepare: str
    """Expression of the ``batch`` [1, C, height, width] that ``image`` becomes: a PIL image for encoders of 8-bit RGB,
    and an array [H, W, C] for others."""
    encode: str
    """Expression of the features [B, width], or the logits of a classifier, of a ``batch`` [B, C, height, width]."""
    read: str = READ_RGB
    """Statement that reads ``image`` from a file."""

    def with_image(self, output: str = "features") -> str:
        """Returns a whole program that computes the features of one image file, or the output of another name."""
        lines = [self.read, f"batch = {self.prepare}", f"{output} = {self.encode}"]
        needs_pillow = "Image." in self.read and "import Image" not in self.setup
        setup = f"from PIL import Image\n{self.setup}" if needs_pillow else self.setup
        return "\n".join([setup, *lines])


@dataclass(frozen=True, kw_only=True)
class Format:
    """A frozen dataclass that describes one format. No file of a format imports a library before it is used."""

    name: str
    """The word after ``--format``."""
    library: str
    """Name of the library that opens it, as it is imported."""
    description: str
    """Words for what is written, as ``a folder that timm.create_model opens``."""
    suffix: str = ""
    """Suffix of the file that it is; empty for a folder."""
    packages: tuple[str, ...] = ()
    """Modules without which it can be neither written nor checked."""
    install: str = ""
    """What installs them, as ``pip install 'infomax[onnx]'``."""
    takes_normalise: bool = False
    """Whether the normalisation of the pixels can be put inside of it."""
    misfit: Callable[["Encoder"], str]
    """Returns why an encoder has no such format; empty if it has."""
    write: Callable[["Encoder", Path, bool], dict[str, str]]
    """Writes an encoder to a path, which is an empty folder if the format is a folder and else a file that is not
    there; the third argument says whether to put the normalisation inside. Returns facts for the model card."""
    code: Callable[["Encoder", str, bool], LoadingCode]
    """Returns the code that opens what was written to a path."""

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


def quoted(text: str) -> str:
    """Returns a text as a Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def written_out(value: object) -> str:
    """Returns a value as Python writes it, with tuples of numbers as short as they are exact."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(written_out, value))})"
    return repr(value)
