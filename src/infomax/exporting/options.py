"""Options of an export, shared by the command and Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.exporting.formats import FORMATS
from infomax.runtime.options import Shown


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A frozen dataclass that holds all options of ``infomax export`` and :func:`infomax.export`."""

    encoder: Annotated[str, Shown(metavar="ENCODER", positional=True)]
    """A run folder; timm:NAME, torchvision:NAME or hf:NAME; a checkpoint file; or the folder of a classifier by infomax
    classify fit, which is written with its classes."""
    format: Annotated[str, Shown(metavar="|".join(FORMATS))]
    """Format to write: a folder for timm, torchvision or transformers (huggingface); or one file for infomax
    (safetensors), for onnxruntime and other runtimes (onnx), or for torch alone (torch-export)."""
    out: Annotated[Path, Shown(metavar="PATH")]
    """Folder to make, or file, whose name ends in .safetensors, .onnx or .pt2."""
    normalise: Annotated[str, Shown(metavar="outside|inside")] = "outside"
    """Where pixels are normalised by the mean and standard deviation: outside, by whoever calls the model, as for every
    other format; or inside of the file of onnx or torch-export, which then takes pixels from 0 to 1."""
    push: Annotated[str | None, Shown(metavar="USER/NAME", default="nowhere")] = None
    """Name on the hub of Hugging Face to upload the export to, if you are logged in there. A new one is private."""
    overwrite: bool = False
    """Replace an export that is there."""
