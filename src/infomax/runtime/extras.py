"""Says what each optional part of infomax is for, and how it is installed."""

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution

EXTRAS = {
    "detection": "infomax evaluate detect, and dense on folders in COCO's format",
    "dicom": "images in DICOM files",
    "faiss": "infomax search --engine faiss",
    "huggingface": "encoders hf:NAME, and export --format huggingface",
    "mlflow": "--log mlflow",
    "onnx": "export --format onnx",
    "parquet": "features in .parquet files, as infomax embed writes them",
    "streams": "data hf:NAME, hf-stream:NAME, and wds:SHARDS at an address",
    "tiff": "TIFF files of several channels that are compressed, as by LZW or ZSTD",
    "trackio": "--log trackio",
    "wandb": "--log wandb",
}
"""What each extra of ``pyproject.toml`` gives."""


def how_to_install(extra: str) -> str:
    """Returns the words that install an extra, as ``pip install 'infomax[parquet]'``; those of a clone within one.

    Args:
        extra: Name of the extra in ``pyproject.toml``.
    """
    if is_clone():
        return f"in the clone, uv run --extra {extra} infomax ..., or pip install -e '.[{extra}]'"
    return f"pip install 'infomax[{extra}]'"


@cache
def is_clone() -> bool:
    """Returns whether infomax is installed from a folder, which no package index replaces."""
    try:
        origin = distribution("infomax").read_text("direct_url.json")
    except PackageNotFoundError:  # the source alone is on the path
        return True
    return origin is not None and "dir_info" in json.loads(origin)
