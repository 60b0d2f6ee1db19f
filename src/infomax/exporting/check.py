"""Opens an export by its library alone, in a fresh process, and compares features and preprocessing with the encoder's.

A difference beyond rounding is an error: then the export gets no name, and nothing of it stays.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.pillow import PillowImages
from infomax.data.loading.evaluation import evaluation_batches
from infomax.exporting.export_format import Format
from infomax.exporting.head import output_name
from infomax.exporting.reference_images import ReferenceImage
from infomax.models.encoders import Encoder
from infomax.runtime.failures import MachineError

BATCHES = (1, 3, 8)
"""Numbers of images that go through the model at once."""
TOLERANCE = 1e-4
"""Largest difference of features, as a share of the largest feature; rounding in float32 leaves 1e-6 to 1e-5."""
PIXEL_TOLERANCE = 1.0
"""Largest mean difference of prepared pixels, in 255ths; resizing rounds by less."""
RELOAD = Path(__file__).with_name("reload.py")


@dataclass(frozen=True)
class Comparison:
    """A frozen dataclass that says how an export compares with its encoder."""

    library: str
    """Name of the library that opened the export."""
    version: str
    difference: float
    """Largest absolute difference of two features, over all batches."""
    scale: float
    """Largest absolute feature of the encoder."""
    pixel_difference: float
    """Mean absolute difference of the prepared pixels, in 255ths."""
    output: str = "features"
    """What was compared: ``features``, or the ``logits`` of a classifier."""

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest feature."""
        return self.difference / self.scale if self.scale else self.difference

    @property
    def output_word(self) -> str:
        """One of the values that were compared, in a word."""
        return self.output.removesuffix("s")

    def words(self) -> str:
        """Returns the comparison as a user reads it."""
        sizes = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
        if not self.difference:
            return f"the same bits at batches of {sizes}"
        share = f"which is {self.relative:.1g} times the largest {self.output_word}"
        return f"the same {self.output} at batches of {sizes}: largest difference {self.difference:.2g}, {share}"


@torch.no_grad()
def reference_features(encoder: Encoder, batch: Float[torch.Tensor, "n c h w"]) -> dict[int, np.ndarray]:
    """Returns the encoder's features of the first images of a batch, by their number.

    Raises:
        ValueError: if a feature is infinite or NaN.
    """
    features = {size: encoder(batch[:size]).numpy() for size in BATCHES}
    if not all(np.isfinite(values).all() for values in features.values()):
        raise ValueError("the encoder gives infinite or NaN features, and so cannot be compared with an export of it")
    return features


def compare_export(
    encoder: Encoder,
    kind: Format,
    path: Path,
    images: Sequence[ReferenceImage],
    folder: Path,
    *,
    normalise_inside: bool,
) -> Comparison:
    """Opens an export in a fresh process and compares it with the encoder that it was made of.

    Args:
        encoder: The encoder, in evaluation mode, in float32 on the CPU.
        kind: The format.
        path: The export.
        images: As many images as the largest of :data:`BATCHES`, arrays of numbers if the encoder takes no RGB.
        folder: Folder for what the two processes exchange.
        normalise_inside: Whether the export normalises the pixels itself.

    Raises:
        MachineError: if the library does not open the export, or gives other features, or prepares images otherwise.
        ValueError: if the encoder's own features are infinite or NaN.
    """
    shown = encoder.preprocessing
    batch = _prepare_batch(images, shown)
    expected = reference_features(encoder, batch)
    mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (shown.mean, shown.std))
    given = batch.numpy() * std + mean if normalise_inside else batch.numpy()
    np.save(folder / "batch.npy", given.astype(np.float32))
    files = [_save_image(image, folder / str(number)) for number, image in enumerate(images)]
    code = kind.code(encoder, str(path), normalise_inside)
    request = {
        "library": kind.library,
        "forbidden": [name for name in ("infomax",) if name != kind.library],
        "setup": code.setup,
        "prepare": code.prepare,
        "encode": code.encode,
        "takes_numpy": kind.library == "onnxruntime",
        "images": files,
        "batches": BATCHES,
    }
    answer = _run_alone(kind.library, request, folder)
    computed = {size: np.load(folder / f"features-{size}.npy") for size in BATCHES}
    difference = max(_largest_difference(computed[size], expected[size]) for size in BATCHES)
    scale = max(float(np.abs(values).max()) for values in expected.values())
    pixels = mean_pixel_difference(np.load(folder / "prepared.npy"), given, 1.0 if normalise_inside else std)
    comparison = Comparison(kind.library, answer["version"], difference, scale, pixels, output_name(encoder))
    _check_comparison(comparison)
    return comparison


def _prepare_batch(images: Sequence[ReferenceImage], preprocessing: Preprocessing) -> Float[torch.Tensor, "n c h w"]:
    """Returns images as the encoder is given them by infomax."""
    pillow = [image for image in images if isinstance(image, Image.Image)]
    sources = [PillowImages(pillow, None, [])] if pillow else []
    sources += [ArrayImages(image[None], None, []) for image in images if isinstance(image, np.ndarray)]
    batches = [
        batch
        for source in sources
        for batch in evaluation_batches(source, np.arange(len(source)), preprocessing, workers=0)
    ]
    return torch.cat(batches).contiguous()


def _save_image(image: ReferenceImage, stem: Path) -> str:
    """Writes an image without loss, and returns the name of its file."""
    if isinstance(image, np.ndarray):
        np.save(stem.with_suffix(".npy"), image)
        return str(stem.with_suffix(".npy"))
    image.save(stem.with_suffix(".png"))
    return str(stem.with_suffix(".png"))


def _check_comparison(comparison: Comparison) -> None:
    """Raises MachineError if an export differs from its encoder by more than rounding."""
    library = f"{comparison.library} {comparison.version}"
    if not comparison.relative <= TOLERANCE:  # nor is NaN
        raise MachineError(
            f"{library} opens the export, but gives other {comparison.output} than the encoder: the largest difference "
            f"is {comparison.difference:.3g}, which is {comparison.relative:.2g} times the largest "
            f"{comparison.output_word}, where {TOLERANCE:g} is allowed; nothing was written"
        )
    if not comparison.pixel_difference <= PIXEL_TOLERANCE:
        raise MachineError(
            f"{library} prepares images otherwise than the encoder: pixels differ by {comparison.pixel_difference:.2g} "
            f"of 255 in the mean where {PIXEL_TOLERANCE:g} is allowed; nothing was written"
        )


def _largest_difference(computed: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference; infinity if the shapes differ."""
    if computed.shape != expected.shape:
        return float("inf")
    return float(np.abs(computed.astype(np.float64) - expected.astype(np.float64)).max())


def mean_pixel_difference(
    prepared: Float[np.ndarray, "n c h w"], expected: Float[np.ndarray, "n c h w"], std: np.ndarray | float
) -> float:
    """Returns the mean absolute difference of two preparations of the same images, in 255ths.

    Libraries round half a pixel up or down where an odd number of pixels is cut off, so one preparation may be shifted
    by a pixel in each direction; the shift that fits best counts.

    Args:
        prepared: One preparation.
        expected: The other one.
        std: The standard deviations that pixels were divided by.
    """
    if prepared.shape != expected.shape:
        return float("inf")
    side = min(prepared.shape[2:])
    shifts = (-1, 0, 1) if side > 2 else (0,)
    differences = []
    for down in shifts:
        for right in shifts:
            moved = np.roll(prepared, (down, right), (2, 3))
            inner = (..., slice(1, -1), slice(1, -1)) if (down, right) != (0, 0) else ...
            differences.append(float(np.abs((moved - expected) * std)[inner].mean()))
    return 255 * min(differences)


def check_tensors(file: Path, expected: dict[str, torch.Tensor], folder: Path) -> str:
    """Reads a file of safetensors by that library alone, in a fresh process, and compares each tensor's bits.

    Returns:
        The version of the library.

    Raises:
        MachineError: if a tensor differs.
    """
    answer = _run_alone("safetensors", {"tensors": str(file), "forbidden": ["infomax", "torch"]}, folder)
    for name, tensor in expected.items():
        array = tensor.contiguous().numpy()
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()
        if answer["tensors"].get(name) != digest:
            raise MachineError(f"safetensors reads other values of {name} than were written; nothing was written")
    return answer["version"]


def _run_alone(library: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Carries out a request in a fresh process, and returns its answer.

    Raises:
        MachineError: if the process fails, or imports what it must not.
    """
    (folder / "request.json").write_text(json.dumps(request))
    (folder / "answer.json").unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-P", str(RELOAD), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"]
        raise MachineError(f"{library} does not open the export: {lines[-1][:300]}; nothing was written")
    answer = json.loads((folder / "answer.json").read_text())
    if answer["imported"]:
        raise MachineError(f"{library} opens the export only with {', '.join(answer['imported'])}; nothing was written")
    return answer
