"""Times a linear probe on features that are computed once, and one that runs the encoder for every batch.

python benchmarks/probes.py          minutes, on a machine that does nothing else; a GPU is used if there is one
python benchmarks/probes.py --toy    seconds, to see that it works; keeps nothing

Both see the images as they are tested, without random crops, so that the heads that come out are the same and only the
time differs. Of the probe that runs the encoder one epoch is trained, and its time is multiplied by the number of
epochs, because all epochs do the same. The probe on features is trained to its end. Repeats take turns.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.loading.training import BatchSchedule
from infomax.data.splits import Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.probes import PROBES, LinearProbes, train_probes
from infomax.evaluation.probing import probe
from infomax.models.encoders import build_encoder, save_encoder
from infomax.runs import run_folder as runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "probes.json"
CASES = (  # encoder, stem, side, images
    ("small", "imagenet", 32, 10_000),
    ("resnet18", "imagenet", 32, 2_000),
    ("resnet18", "cifar", 32, 300),
)
EPOCHS, PROBE = 100, "corinfomax"


def images(count: int, side: int) -> Source:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 10
    pixels = rng.integers(0, 256, (count, side, side, 3), np.uint8) // 2
    pixels[:, :8, :8] += (labels * 12).astype(np.uint8)[:, None, None, None]
    names = [str(i) for i in range(10)]
    test = ArrayImages(pixels[: count // 10], labels[: count // 10], names)
    return Source("made", ArrayImages(pixels, labels, names), test)


def by_running(encoder: Any, source: Source, preprocessing: Preprocessing, epochs: int, device: torch.device) -> float:
    """Returns the seconds of some epochs of a probe that runs the encoder."""
    settings, train = PROBES[PROBE], source.train
    assert isinstance(train, ArrayImages)
    assert train.labels is not None
    per_epoch = len(train) // settings.batch_size
    encoder.eval().to(device)
    heads = LinearProbes(encoder.width, 10, [settings.learning_rate], settings, seed=0, device=device)
    plan = BatchSchedule(len(train), settings.batch_size, 0, 0, epochs * per_epoch, settings.batch_size, 0, 1)

    @torch.no_grad()
    def batches() -> Any:
        for epoch, index in plan:
            for batch in evaluation_batches(train, index, preprocessing, workers=0):
                yield epoch, encoder(batch.to(device)), index

    start = time.perf_counter()
    list(train_probes(heads, settings, batches(), torch.from_numpy(train.labels).to(device), None))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def by_features(folder: Path, source: Source, device: torch.device) -> float:
    """Returns the seconds of a whole probe on features, the features included."""
    start = time.perf_counter()
    with patch.dict("os.environ", XDG_CACHE_HOME=tempfile.mkdtemp(dir=folder)):
        probe(
            folder,
            source,
            name=PROBE,
            no_augmentation=True,
            epochs=EPOCHS,
            evaluation=EvaluationOptions(device=device.type),
        )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    toy = parser.parse_args().toy
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {**runs.provenance(), "rows": []}
    if device.type == "cuda":
        result["machine"]["gpu"] = torch.cuda.get_device_name()
    repeats, epochs = (1, 1) if toy else (3, 1)
    for backbone, stem, side, count in CASES:
        count = 600 if toy else count
        source, preprocessing = images(count, side), Preprocessing(resize=side, size=side)
        encoder = build_encoder(backbone, stem=stem, seed=0)
        settings = {"backbone": backbone, "stem": stem, "stem_padding": 1, "zero_init_residual": True, "seed": 0}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            save_encoder(encoder, settings, preprocessing, folder)
            running, cached = [], []
            for _ in range(repeats):
                running.append(by_running(encoder, source, preprocessing, epochs, device) * EPOCHS / epochs)
                cached.append(by_features(folder, source, device))
        row = {
            "encoder": f"{backbone}, {stem} stem",
            "side": side,
            "images": count,
            "epochs": EPOCHS,
            "seconds_running": median(running),
            "seconds_features": median(cached),
            "ratio": median(a / b for a, b in zip(running, cached, strict=True)),
        }
        print(json.dumps(row), flush=True)
        result["rows"].append(row)
    if not toy:
        OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
