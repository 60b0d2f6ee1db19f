"""Times infomax export: from Enter to a file or folder of each format, opened and compared by its own library.

python benchmarks/export.py [--quick]

Each export is a new process, as a user starts it, with the libraries in the page cache. The exports and `python -c
"import torch"` take turns, so that all meet the same machine; a ratio is one within a turn. Writes
docs/results/export.json. It takes some ten minutes on a machine that does nothing else, or two with --quick, which has
one turn and leaves out the vision transformer.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from infomax.data.augmentation.views import Preprocessing
from infomax.exporting.formats import FORMATS
from infomax.models.encoders import build_encoder, save_encoder
from infomax.runs.provenance import provenance

OUT = Path(__file__).parent.parent / "docs" / "results" / "export.json"
ENCODERS = {
    "small, 32 pixels": ({"backbone": "small", "stem": "cifar"}, Preprocessing(resize=36, size=32)),
    "resnet50, 224 pixels": ({"backbone": "resnet50", "stem": "imagenet"}, Preprocessing(resize=256, size=224)),
    "vit_small, 224 pixels": ({"backbone": "vit_small", "stem": "imagenet"}, Preprocessing(resize=256, size=224)),
}
REFERENCE = "import torch"


def write_encoders(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """Writes some of the encoders, and returns the formats that fit each, by its name."""
    fitting = {}
    for name in names:
        settings, preprocessing = ENCODERS[name]
        encoder = build_encoder(**settings, seed=0).eval()
        encoder.preprocessing = preprocessing
        place = folder / settings["backbone"]
        place.mkdir()
        save_encoder(encoder, asdict(encoder.settings), preprocessing, place)
        fitting[name] = [kind.name for kind in FORMATS.values() if not kind.misfit(encoder)]
    return fitting


def seconds_of(words: list[str], folder: Path) -> tuple[float, str]:
    """Runs a command; returns its seconds and what it printed.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def measure(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each encoder and format."""
    names, repeats = list(ENCODERS)[: 2 if quick else None], 1 if quick else 3
    cases = [(name, kind) for name, kinds in write_encoders(folder, names).items() for kind in kinds]
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    reference, printed, sizes = [], {}, {}
    for turn in range(1 if quick else 0, 1 + repeats):  # the first one fills caches
        imported, _ = seconds_of([sys.executable, "-c", REFERENCE], folder)
        for name, kind in cases[:: -1 if turn % 2 else 1]:
            out = f"{turn}-{ENCODERS[name][0]['backbone']}-{kind}{FORMATS[kind].suffix}"
            words = ["export", str(ENCODERS[name][0]["backbone"]), "--format", kind, "--out", out]
            taken, printed[name, kind] = seconds_of([sys.executable, "-m", "infomax", *words], folder)
            sizes[name, kind] = size_of(folder / out)
            print(f"{turn} {name}, {kind}: {taken:.1f} s", flush=True)
            if turn:
                seconds[name, kind].append(taken)
        reference += [imported] if turn else []
    rows = []
    for case in cases:
        found = re.search(r"largest difference (\S+), (\S+) of", printed[case])
        rows.append(
            {
                "encoder": case[0],
                "format": case[1],
                "seconds": median(seconds[case]),
                "ratio": median(own / other for own, other in zip(seconds[case], reference, strict=True)),
                "bytes": sizes[case],
                "difference": float(found[1]) if found else 0.0,
                "relative_difference": float(found[2]) if found else 0.0,
                "repeats": repeats,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    command = "python benchmarks/export.py" + " --quick" * options.quick
    result: dict[str, Any] = {**provenance(), "command": command}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        result["rows"] = measure(Path(temporary), quick=options.quick)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
