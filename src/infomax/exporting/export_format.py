"""The contract of a format: which encoders fit it, how it is written, and the code by which its library opens it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder


@dataclass(frozen=True)
class LoadingCode:
    """A frozen dataclass that holds the Python by which a library opens an export, as the model card prints it.

    The same text is run in a process of its own to compare features.
    """

    setup: str
    """Statements that load the model, and define what the two expressions use."""
    prepare: str
    """Expression of the ``batch`` [1, 3, height, width] that the PIL image ``image`` becomes."""
    encode: str
    """Expression of the features [B, width], or the logits of a classifier, of a ``batch`` [B, 3, height, width]."""

    def with_image(self, output: str = "features") -> str:
        """Returns a whole program that computes the features of one image file, or the output of another name."""
        lines = ['image = Image.open("cat.jpg").convert("RGB")', f"batch = {self.prepare}", f"{output} = {self.encode}"]
        setup = self.setup if "import Image" in self.setup else f"from PIL import Image\n{self.setup}"
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


def prepare_by_pillow(encoder: "Encoder", normalise_inside: bool) -> str:
    """Returns the Python of a function ``prepare``, which makes a batch [1, 3, size, size] of a PIL image.

    It needs numpy and Pillow alone.

    Args:
        encoder: The encoder whose preprocessing it is.
        normalise_inside: Whether the model normalises itself, and takes pixels from 0 to 1.
    """
    shown = encoder.preprocessing
    resample = "BICUBIC" if shown.bicubic else "BILINEAR"
    pixels = "pixels = np.asarray(image, np.float32) / 255"
    if not normalise_inside:
        mean, std = written_out(shown.mean), written_out(shown.std)
        pixels += f"\n    pixels = (pixels - np.float32({mean})) / np.float32({std})"
    return f"""def prepare(image):
    scale = {shown.resize} / min(image.size)
    width, height = (max({shown.resize}, round(side * scale)) for side in image.size)
    left, top = (width - {shown.size}) // 2, (height - {shown.size}) // 2
    image = image.resize((width, height), Image.Resampling.{resample})
    image = image.crop((left, top, left + {shown.size}, top + {shown.size}))
    {pixels}
    return pixels.transpose(2, 0, 1)[None]
"""


def prepare_by_torchvision(encoder: "Encoder") -> str:
    """Returns the Python of torchvision's transform ``prepare``, which makes [3, size, size] of a PIL image."""
    shown = encoder.preprocessing
    mode = "BICUBIC" if shown.bicubic else "BILINEAR"
    return f"""prepare = v2.Compose(
    [
        v2.Resize({shown.resize}, interpolation=v2.InterpolationMode.{mode}),
        v2.CenterCrop({shown.size}),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize({written_out(shown.mean)}, {written_out(shown.std)}),
    ]
)
"""
