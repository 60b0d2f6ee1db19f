"""An encoder as a program of torch.export with any batch size, which torch-export and ONNX are written from."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infomax.exporting.head import classes_of, output_words

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

EXAMPLES = 2  # images to trace with: torch takes a batch of 1 for a constant


def export_program(encoder: "Encoder", normalise_inside: bool) -> Any:
    """Traces an encoder in evaluation mode, with a batch of any size.

    Args:
        encoder: The encoder, on the CPU.
        normalise_inside: Whether the program takes pixels from 0 to 1 and normalises them itself.

    Returns:
        A ``torch.export.ExportedProgram`` with the input ``images`` [B, C, size, size].

    Raises:
        ValueError: if torch cannot trace it, or only for one batch size.
    """
    import torch

    from infomax.exporting.normalised import Normalised

    size = encoder.preprocessing.size
    network = Normalised(encoder) if normalise_inside else encoder
    images = torch.zeros(EXAMPLES, encoder.settings.channels, size, size)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(network.eval(), (images,), dynamic_shapes={"images": {0: batch}})
    except Exception as error:  # of many kinds, and with many lines
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"torch.export cannot trace {encoder.settings.backbone}: {reason}") from error


def input_words(encoder: "Encoder", normalise_inside: bool) -> str:
    """Returns words for what the model takes."""
    size, channels = encoder.preprocessing.size, encoder.settings.channels
    kind = "pixels from 0 to 1, which it normalises itself" if normalise_inside else "normalised pixels"
    return f"images [B, {channels}, {size}, {size}] in float32: {kind}"


def description(encoder: "Encoder", normalise_inside: bool) -> str:
    """Returns what a program's file holds beside it, as JSON: architecture, preprocessing, input and output."""
    return json.dumps(
        {
            "encoder": asdict(encoder.settings),
            "preprocessing": asdict(encoder.preprocessing),
            "input": input_words(encoder, normalise_inside),
            "output": output_words(encoder),
            **({"classes": list(classes)} if (classes := classes_of(encoder)) else {}),
        }
    )
