"""One file with the weights and all else that infomax needs to build the encoder, as on another machine."""

from pathlib import Path
from typing import TYPE_CHECKING

from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.head import classes_of
from infomax.exporting.preparation import prepare_by_pillow, reading_code

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder


def misfit(encoder: "Encoder") -> str:
    """Returns nothing for an encoder; a classifier has a folder of its own for infomax."""
    if classes_of(encoder):
        return "infomax opens the folder of a classifier itself, which is all that it needs"
    return ""


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes the file; any library of safetensors reads its tensors, and infomax all of it."""
    from infomax.models.encoder_files import save_encoder_file

    save_encoder_file(encoder, path)
    return {"architecture": f"infomax's {encoder.settings.backbone}; its tensors open with safetensors alone"}


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which infomax opens the file."""
    setup = f"""import numpy as np
import torch
from PIL import Image

from infomax.models.pretrained import open_encoder

model = open_encoder({quoted(path)})


{prepare_by_pillow(encoder, False)}
"""
    return LoadingCode(setup, "torch.from_numpy(prepare(image))", "model(batch)", reading_code(encoder))


SAFETENSORS = Format(
    name="safetensors",
    library="infomax",
    description="one file for infomax, whose tensors any library of safetensors reads",
    suffix=".safetensors",
    misfit=misfit,
    write=write,
    code=code,
)
