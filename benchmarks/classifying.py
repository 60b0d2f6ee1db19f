"""Measures what docs/guide/classify-your-images.md says: a classifier of photographs, and what is none of its classes.

python benchmarks/classifying.py --labelled cifar10.npz --photographs clothing     ten minutes of one core
python benchmarks/classifying.py ... --toy             an encoder of one epoch, to see that it works; nothing is kept

The encoder is trained by ``mveb/small`` on the first 10,000 images of CIFAR-10. The photographs are a folder with two
parts, ``validation`` and ``test``, in folders of their classes: the classifier is fitted on the first. What is printed
is kept in docs/results/classifying.json, and ``python docs/results.py tables`` writes it into the guide.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "docs" / "results" / "classifying.json"
TRAINED, OTHERS, EPOCHS = 10_000, 1000, 20
LEFT_OUT = "shoes"
"""The class without which a second classifier is fitted."""


def infomax(*words: str, folder: Path) -> list[str]:
    """Runs a command, and returns the lines that it prints."""
    print("infomax", *words, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "infomax", *words]
    ended = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(ended.stdout, flush=True)
    if ended.returncode != 0:
        sys.exit(f"infomax {words[0]} has ended with exit code {ended.returncode}")
    return ended.stdout.splitlines()


def write_images(folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """Writes all images into the folder, as the guide names them; returns what is no clothing, by its name."""
    shutil.copytree(args.photographs / "validation", folder / "labelled")
    shutil.copytree(args.photographs / "test", folder / "others")
    for part in ("labelled", "others"):
        shutil.copytree(folder / part, folder / "new", dirs_exist_ok=True)
    shutil.copytree(folder / "labelled", folder / f"without-{LEFT_OUT}")
    shutil.rmtree(folder / f"without-{LEFT_OUT}" / LEFT_OUT)
    shutil.copytree(folder / "new" / LEFT_OUT, folder / LEFT_OUT)
    with np.load(args.labelled) as arrays:
        np.save(folder / "photographs.npy", arrays["train_x"][:TRAINED])
        np.save(folder / "cifar10.npy", arrays["test_x"][:OTHERS])
    random = np.random.default_rng(0)
    np.save(folder / "noise.npy", random.integers(0, 256, (OTHERS, 64, 64, 3), dtype=np.uint8))
    colours = random.integers(0, 256, (OTHERS, 1, 1, 3), dtype=np.uint8)
    np.save(folder / "colours.npy", np.broadcast_to(colours, (OTHERS, 64, 64, 3)))
    return {
        "digits": "digits",
        "images of one colour": "colours.npy",
        "images of noise": "noise.npy",
        "photographs of CIFAR-10": "cifar10.npy",
    }


def share_of_none(classifier: str, data: str, folder: Path) -> dict[str, Any]:
    """Returns how many images are none of a classifier's classes, of how many."""
    infomax("classify", "run", classifier, "--data", data, "--out", "labels.jsonl", "--device", "cpu", folder=folder)
    labels = [json.loads(line)["label"] for line in (folder / "labels.jsonl").read_text().splitlines()]
    (folder / "labels.jsonl").unlink()
    return {"none": labels.count("none of these"), "images": len(labels)}


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the lines that the guide's commands print, and the shares of images that are none of the classes."""
    strange = write_images(folder, args)
    words = ["--recipe", "mveb/small", "--epochs", str(1 if args.toy else EPOCHS), "--workers", "0", "--log", "none"]
    infomax("pretrain", "--data", "photographs.npy", *words, "--device", "cpu", "--out", "runs/a", folder=folder)
    fit = ("classify", "fit", "runs/a", "--device", "cpu", "--data")
    printed = {
        "fit": infomax(*fit, "labelled", "--out", "clothes", folder=folder),
        "run": infomax("classify", "run", "clothes", "--data", "new", "--out", "labels.csv", folder=folder),
        "test": infomax("classify", "test", "clothes", "--data", "others", "--out", "clothes-test", folder=folder),
        "finetune": infomax(*fit, "labelled", "--finetune", "--out", "tuned", folder=folder),
    }
    none = {name: share_of_none("clothes", data, folder) for name, data in strange.items()}
    infomax(*fit, f"without-{LEFT_OUT}", "--out", "fewer", folder=folder)
    none[f"{LEFT_OUT}, fitted without {LEFT_OUT}"] = share_of_none("fewer", LEFT_OUT, folder)
    return {"epochs": EPOCHS, "printed": printed, "none of these": none}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, required=True, help="an .npz file with train_x and test_x of CIFAR-10")
    parser.add_argument("--photographs", type=Path, required=True, help="a folder with validation and test")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    from infomax.runs.provenance import provenance

    result: dict[str, Any] = {
        **provenance(),
        "command": "python benchmarks/classifying.py --labelled cifar10.npz --photographs clothing",
    }
    with tempfile.TemporaryDirectory() as folder:
        result |= measure(Path(folder), args)
    if not args.toy:
        OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
