"""A program of torch.export (.pt2), which torch alone runs: the graph, the weights and the preprocessing."""

from pathlib import Path
from typing import TYPE_CHECKING

from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.preparation import prepare_by_pillow, reading_code
from infomax.exporting.program import description, export_program

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder


def misfit(encoder: "Encoder") -> str:
    """Returns nothing: any encoder may fit, and torch says if one does not."""
    return ""


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes the program, which takes any number of images at once."""
    import torch

    program = export_program(encoder, normalise_inside)
    torch.export.save(program, path, extra_files={"infomax.json": description(encoder, normalise_inside)})
    return {"architecture": f"infomax's {encoder.settings.backbone} as a graph of torch.export, for any batch size"}


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which torch opens the file."""
    setup = f"""import numpy as np
import torch
from PIL import Image

model = torch.export.load({quoted(path)}).module()


{prepare_by_pillow(encoder, normalise_inside)}
"""
    return LoadingCode(setup, "torch.from_numpy(prepare(image))", "model(batch)", reading_code(encoder))


TORCH_EXPORT = Format(
    name="torch-export",
    library="torch",
    description="one file for torch.export.load",
    suffix=".pt2",
    takes_normalise=True,
    misfit=misfit,
    write=write,
    code=code,
)
