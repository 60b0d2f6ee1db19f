"""A graph in ONNX, which onnxruntime and others run without torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.head import output_name
from infomax.exporting.preparation import prepare_by_pillow, reading_code
from infomax.exporting.program import description, export_program
from infomax.runtime.extras import how_to_install

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

LARGEST = 2**31 - 2**20  # bytes; one file of protobuf holds no more than 2 GB


def misfit(encoder: "Encoder") -> str:
    """Returns why an encoder is no file of ONNX; empty if it may be."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    return f"a file of ONNX holds 2 GB, and its weights take {size / 1e9:.1f}" if size > LARGEST else ""


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes the graph with its weights in one file; ``metadata_props`` hold the preprocessing."""
    import torch

    program: Any = torch.onnx.export(
        export_program(encoder, normalise_inside),
        input_names=["images"],
        output_names=[output_name(encoder)],
        dynamo=True,
        verbose=False,
    )
    model = program.model
    description_of_encoder = json.loads(description(encoder, normalise_inside))
    model.metadata_props["infomax"] = json.dumps(description_of_encoder)
    for key, value in description_of_encoder["preprocessing"].items():
        model.metadata_props[f"preprocessing.{key}"] = json.dumps(value)
    model.metadata_props["input"] = description_of_encoder["input"]
    program.save(path, external_data=False)
    return {
        "architecture": f"infomax's {encoder.settings.backbone} as a graph of ONNX, for any batch size",
        "opset": str(model.opset_imports[""]),
    }


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which onnxruntime opens the file."""
    setup = f"""import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({quoted(path)}, providers=["CPUExecutionProvider"])


{prepare_by_pillow(encoder, normalise_inside)}
"""
    return LoadingCode(setup, "prepare(image)", 'session.run(None, {"images": batch})[0]', reading_code(encoder))


ONNX = Format(
    name="onnx",
    library="onnxruntime",
    description="one file for onnxruntime and other runtimes of ONNX",
    suffix=".onnx",
    packages=("onnx", "onnxscript", "onnxruntime"),
    install=how_to_install("onnx"),
    takes_normalise=True,
    misfit=misfit,
    write=write,
    code=code,
)
