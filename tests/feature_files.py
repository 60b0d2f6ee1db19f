"""Makes an encoder in a folder, and files of features, in milliseconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from infomax.data.augmentation.views import Preprocessing
from infomax.embeddings.feature_file import FeatureOrigin, FeatureTable, read_features, write_features
from infomax.models.encoders import build_encoder, save_encoder

SETTINGS = {"backbone": "small", "stem": "imagenet", "seed": 0}


def save_small_encoder(folder: Path, seed: int = 0) -> Path:
    """Saves an untrained encoder for images of 16 pixels, and returns the folder."""
    folder.mkdir()
    settings = {**SETTINGS, "seed": seed}
    save_encoder(build_encoder(**settings), settings, Preprocessing(resize=16, size=16), folder)
    return folder


def write_images(folder: Path, names: list[str], seed: int = 0) -> Path:
    """Writes an image of one colour and some noise for each name, and returns the folder."""
    rng = np.random.default_rng(seed)
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        colour, noise = rng.integers(0, 256, 3), rng.integers(-20, 20, (24, 20, 3))
        Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(file)
    return folder


def origin(count: int, dimension: int, **changes) -> FeatureOrigin:
    fields = {
        "images": count,
        "dimension": dimension,
        "precision": "32",
        "encoder": "runs/a",
        "encoder_hash": "0123456789ab",
        "preprocessing": Preprocessing(resize=16, size=16),
        "data": {"data": "nowhere"},
        "version": "0",
    }
    return FeatureOrigin(**{**fields, **changes})


def written(file: Path, features: np.ndarray, names: list[str], labels=None, **changes) -> FeatureTable:
    """Writes features in two parts, and returns what is read back."""
    precision = {"float32": "32", "float16": "16"}[str(features.dtype)]
    half = max(1, len(features) // 2)
    parts = [part for part in (features[:half], features[half:]) if len(part)]
    write_features(file, parts, names, labels, lambda d: origin(len(names), d, precision=precision, **changes))
    return read_features(file)
