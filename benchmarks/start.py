"""Times the start of commands: from Enter to the first line, and to the first step, the first picture or the result.

python benchmarks/start.py [--quick] [--lightly-train PYTHON]

Each command is a new process, as a user starts it, with the files in the page cache and the kernels compiled. The
commands and `python -c "import torch"` take turns, so that all meet the same machine; a ratio is one within a turn.
--lightly-train names the Python of an environment with lightly-train, which then trains on the same photographs.
Writes docs/results/start.json. It takes some five minutes, or one with --quick, on a machine that does nothing else.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from infomax import pretrain
from infomax.runs.provenance import provenance

OUT = Path(__file__).parent.parent / "docs" / "results" / "start.json"
PHOTOGRAPHS, SIDE = 700, 128
FEATURES = 1000
REFERENCE = "import torch"
FIRST_TIME = ("infomax views, 4 images", "infomax pretrain --data digits")
"""Commands that are also timed with kernels that are to be compiled."""
LIGHTLY_TRAIN = """
import sys
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: print("one step", file=sys.stderr, flush=True))
import lightly_train
lightly_train.train(
    out=sys.argv[2], data=sys.argv[1], model="torchvision/resnet18", method="simclr", epochs=1, batch_size=64,
    accelerator="cpu", num_workers=2, overwrite=True,
)
"""
"""Prints a line after each step of any optimiser, because a progress bar shows it later."""


@dataclass(frozen=True)
class Case:
    """A frozen dataclass that describes one command."""

    name: str
    words: tuple[str, ...]
    """The program and its arguments; NEW stands for a path that does not exist yet."""
    result: str = ""
    """What is waited for, in words: ``first step``, ``picture`` or ``result``; empty if it is the process's end."""
    sign: str | None = None
    """A regular expression of what is printed then; None waits for the process's end."""
    environment: dict[str, str] = field(default_factory=dict)


def infomax(name: str, *words: str, result: str, sign: str | None = None, **environment: str) -> Case:
    """Returns a command of infomax, whose name is that of its words."""
    return Case(name, (sys.executable, "-m", "infomax", *words), result, sign, environment)


def cases(folder: Path) -> list[Case]:
    """Returns the commands that take turns; their data lie in the folder."""
    first_step = r"first step \.\.\. .* s"
    return [
        Case(REFERENCE, (sys.executable, "-c", "import torch")),
        infomax("infomax --help", "--help", result="result"),
        infomax(
            "infomax pretrain --data digits",
            *("pretrain", "--data", "digits", "--out", "NEW"),
            result="first step",
            sign=first_step,
        ),
        infomax(
            f"infomax pretrain, {PHOTOGRAPHS} photographs",
            *("pretrain", "--data", str(folder / "photographs"), "--out", "NEW"),
            result="first step",
            sign=first_step,
        ),
        infomax(
            "infomax views, 4 images", "views", "--data", str(folder / "four"), "--out", "NEW.png", result="picture"
        ),
        infomax(
            f"infomax evaluate knn, {FEATURES:,} features in the cache",
            *("evaluate", "knn", str(folder / "run"), "--data", str(folder / "thousand.npz")),
            result="result",
        ),
        infomax("infomax plan --data digits", "plan", "--data", "digits", result="result"),
    ]


def write_data(folder: Path) -> None:
    """Writes the images of all commands, and a run whose encoder is evaluated."""
    rng = np.random.default_rng(0)
    for name, count in (("photographs", PHOTOGRAPHS), ("four", 4)):
        for number in range(count):
            waves = rng.normal(size=(SIDE // 16, SIDE // 16, 3)) * 60 + 128
            file = folder / name / f"{number % 4}" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(waves.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE)).save(file)
    images, labels = rng.integers(0, 256, (FEATURES, 32, 32, 3), np.uint8), np.arange(FEATURES) % 10
    np.savez(folder / "thousand.npz", images=images, labels=labels)
    pretrain(data=folder / "thousand.npz", recipe="small", epochs=1, out=folder / "run", quiet=True)


def seconds_of(case: Case, folder: Path, turn: str) -> dict[str, float]:
    """Runs a command up to its result; returns the seconds to its first line and to its result.

    Args:
        case: The command.
        folder: The working folder.
        turn: A word that no other turn has, for what is written.
    """
    words = [word.replace("NEW", f"{turn}-{abs(hash(case.name))}") for word in case.words]
    environment = {**os.environ, **case.environment}
    start, seconds, printed = time.perf_counter(), {}, ""
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    while part := os.read(process.stdout.fileno(), 65536):
        now = time.perf_counter() - start
        printed += part.decode(errors="replace")
        seconds.setdefault("first_line", now)
        if case.sign is not None and re.search(case.sign, printed):
            seconds["result"] = now
            os.killpg(process.pid, signal.SIGKILL)
            break
    code = process.wait()
    if case.sign is None and code == 0:
        seconds["result"] = time.perf_counter() - start
    if "result" not in seconds:
        raise RuntimeError(f"{' '.join(words[:6])}: exit code {code}\n{printed[-2000:]}")
    return seconds


def row(case: Case, turns: list[dict[str, float]], reference: list[dict[str, float]]) -> dict[str, Any]:
    """Returns what is kept of one command: medians, and the ratio to ``import torch`` within a turn."""
    ratios = [own["result"] / other["result"] for own, other in zip(turns, reference, strict=True)]
    first_lines = [own["first_line"] for own in turns if "first_line" in own]
    return {
        "name": case.name,
        "result": case.result,
        "first_line": median(first_lines) if first_lines else None,
        "seconds": median(own["result"] for own in turns),
        "ratio": median(ratios),
        "ratios": ratios,
        "repeats": len(turns),
    }


def measure(folder: Path, repeats: int, lightly_train: str | None) -> list[dict[str, Any]]:
    """Returns a row for each command; those of a first start on a machine come last."""
    compared = cases(folder)
    if lightly_train is not None:
        words = (lightly_train, "-c", LIGHTLY_TRAIN, str(folder / "photographs"), "NEW")
        compared.append(Case(f"lightly-train, {PHOTOGRAPHS} photographs", words, "first step", "one step"))
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for turn in range(1 + repeats):  # the first one fills caches
        for case in compared[:: -1 if turn % 2 else 1]:
            taken = seconds_of(case, folder, f"turn-{turn}")
            print(f"{turn} {case.name}: {taken}", flush=True)
            if turn:
                seconds[case.name].append(taken)
    rows = [row(case, seconds[case.name], seconds[REFERENCE]) for case in compared]
    for case in compared:
        if case.name in FIRST_TIME:
            rows.append(first_time(case, compared[0], folder, min(repeats, 3)))
    return rows


def first_time(case: Case, reference: Case, folder: Path, repeats: int) -> dict[str, Any]:
    """Returns the row of a command's first start on a machine, which compiles kernels."""
    first, others = [], []
    for turn in range(repeats):
        kernels = {"NUMBA_CACHE_DIR": str(folder / f"kernels-{turn}-{abs(hash(case.name))}")}
        first.append(seconds_of(replace(case, environment=kernels), folder, f"first-{turn}"))
        others.append(seconds_of(reference, folder, f"first-{turn}"))
        print(f"{turn} {case.name}, the first time: {first[-1]}", flush=True)
    return row(replace(case, name=f"{case.name}, the first time on a machine"), first, others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--lightly-train", metavar="PYTHON")
    options = parser.parse_args()
    command = "python benchmarks/start.py" + " --quick" * options.quick
    result: dict[str, Any] = {**provenance(), "command": command}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.environ.pop("NUMBA_CACHE_DIR", None)
        write_data(folder)
        result["rows"] = measure(folder, 1 if options.quick else 5, options.lightly_train)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
