"""One file that holds an encoder whole: its weights as safetensors, and its architecture in the file's metadata."""

import json
from dataclasses import asdict
from os import PathLike
from pathlib import Path

import safetensors
import safetensors.torch

from infomax.models.encoders import Encoder, EncoderDescription, build_encoder
from infomax.models.foreign_files import read_tensors
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_json, parse_value

DESCRIPTION_KEY = "infomax"
"""The key of the metadata that says how the encoder is built and how an image becomes its input, as JSON."""


def save_encoder_file(encoder: Encoder, file: Path) -> None:
    """Writes an encoder as one file, which is all that :func:`load_encoder_file` needs.

    Args:
        encoder: The encoder, with its ``settings`` and its ``preprocessing``.
        file: The file to write.
    """
    description = {"encoder": asdict(encoder.settings), "preprocessing": asdict(encoder.preprocessing)}
    metadata = {"format": "pt", DESCRIPTION_KEY: json.dumps(description)}
    weights = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    write_atomic(file, safetensors.torch.save(weights, metadata))


def load_encoder_file(file: str | PathLike[str]) -> Encoder | None:
    """Loads an encoder that :func:`save_encoder_file` has written; None if the file is of another kind.

    Returns:
        The encoder, in evaluation mode on the CPU, with its ``preprocessing``.

    Raises:
        ValueError: If what the file says of the encoder cannot be, or the weights do not fit it.
    """
    content = _read_description(file)
    if content is None:
        return None
    try:
        description = parse_value(parse_json(content.encode(), DESCRIPTION_KEY), EncoderDescription, "")
        encoder = build_encoder(**asdict(description.encoder))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    encoder.preprocessing = description.preprocessing
    try:
        encoder.backbone.load_state_dict(read_tensors(Path(file)))
    except (RuntimeError, TypeError) as error:
        message = " ".join(str(error).split())[:300]
        raise ValueError(f"{file}: its weights do not fit the encoder that it describes: {message}") from error
    return encoder.eval()


def _read_description(file: str | PathLike[str]) -> str | None:
    """Returns the description in a file's metadata; None if it has none, or is no file of safetensors."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            return (opened.metadata() or {}).get(DESCRIPTION_KEY)
    except (OSError, safetensors.SafetensorError):
        return None
