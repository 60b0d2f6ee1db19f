"""Opens an export in a process of its own and computes features: python -P reload.py FOLDER

This file is run as a script. It imports no infomax, so that the export is opened by its library alone; ``request.json``
in the folder says what to do, and the answer is written beside it.
"""

import contextlib
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def hash_tensors(file: str) -> dict[str, str]:
    """Returns a hash of each tensor in a file of safetensors, by its name."""
    from safetensors.numpy import load_file

    return {
        name: hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()
        for name, array in load_file(file).items()
    }


def read_image(file: str) -> Image.Image | np.ndarray:
    """Returns a PIL image in RGB, or the array [h, w, channels] of numbers in a .npy file."""
    if file.endswith(".npy"):
        return np.load(file)
    with Image.open(file) as image:
        return image.convert("RGB")


def compute_features(request: dict[str, Any], folder: Path) -> None:
    """Runs the loading code of a request, and writes what comes out.

    ``prepared.npy`` holds the images [N, C, height, width] as the library prepares them, and ``features-B.npy`` the
    features [B, width] of the first B of the images in ``batch.npy``.
    """
    names: dict[str, Any] = {}
    exec(compile(request["setup"], "the model card", "exec"), names)
    torch = sys.modules.get("torch")
    batch = np.load(folder / "batch.npy")
    with contextlib.nullcontext() if torch is None else torch.no_grad():
        prepared = []
        for file in request["images"]:
            prepared.append(np.asarray(eval(request["prepare"], {**names, "image": read_image(file)})))
        np.save(folder / "prepared.npy", np.concatenate(prepared))
        for size in request["batches"]:
            part = batch[:size] if request["takes_numpy"] or torch is None else torch.from_numpy(batch[:size])
            np.save(folder / f"features-{size}.npy", np.asarray(eval(request["encode"], {**names, "batch": part})))


def main(folder: Path) -> None:
    """Carries out the request in a folder."""
    request = json.loads((folder / "request.json").read_text())
    if "tensors" in request:
        answer: dict[str, Any] = {"tensors": hash_tensors(request["tensors"]), "version": version("safetensors")}
    else:
        compute_features(request, folder)
        answer = {"version": version(request["library"])}
    answer["imported"] = sorted(name for name in request["forbidden"] if name in sys.modules)
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
