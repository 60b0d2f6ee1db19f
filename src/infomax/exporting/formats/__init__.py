"""The formats, one file each; this list is the only place that names them all. No torch is imported."""

from infomax.exporting.export_format import Format
from infomax.exporting.formats.huggingface import HUGGING_FACE
from infomax.exporting.formats.onnx import ONNX
from infomax.exporting.formats.safetensors import SAFETENSORS
from infomax.exporting.formats.timm import TIMM
from infomax.exporting.formats.torch_export import TORCH_EXPORT
from infomax.exporting.formats.torchvision import TORCHVISION

FORMATS: dict[str, Format] = {
    known.name: known for known in (TIMM, TORCHVISION, HUGGING_FACE, SAFETENSORS, ONNX, TORCH_EXPORT)
}
"""The formats by name, in the order of ``--help``."""
OTHER_NAMES = {
    "hf": "huggingface",
    "hugging-face": "huggingface",
    "transformers": "huggingface",
    "onnxruntime": "onnx",
    "pt2": "torch-export",
    "torch": "torch-export",
    "torchscript": "torch-export",
    "pth": "torchvision",
    "infomax": "safetensors",
}
"""Formats by other words that are usual for them."""
