"""Compares all methods side by side, three seeds each, at equal images and at equal time, on three sets of images.

python benchmarks/comparison.py RUNS --labelled cifar10.npz --photographs clothing --precision bf16    five hours
python benchmarks/comparison.py RUNS --data digits     the embedded digits alone, which need no file
python benchmarks/comparison.py RUNS ... --seeds 1     the first seed of each comparison
python benchmarks/comparison.py RUNS --collect         keeps what is there, without training
python benchmarks/comparison.py RUNS --toy             two methods on digits for two minutes, to see that it works

The images are the embedded digits, the first 10,000 of CIFAR-10 with 2,500 test images, and a folder of photographs in
folders of their classes, which k-NN judges leave-one-out. None of CIFAR-10's are those that tuning.py searched settings
on. A run sees about 60,000 images, or trains for a minute. Processors that have bfloat16 are faster in it, and
benchmarks/precision.py says what it changes. Each comparison is a folder in RUNS by ``infomax compare``, two at a time
with one thread each, and goes on where it was ended. What they measured is kept in docs/results/comparison.json, beside
comparisons of which RUNS has none, as those of another day: ``python docs/results.py tables`` writes the page,
docs/picture_of_comparison.py its figure.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "docs" / "results" / "comparison.json"
SEEDS, IMAGES_SEEN, TIME = 3, 60_000, "60s"
PHOTOGRAPHS, TESTED = 10_000, 2500  # of CIFAR-10
BUDGETS = ("images", "time")


@dataclass(frozen=True)
class Data:
    """A frozen dataclass that says which images are compared on, and how."""

    name: str
    location: str
    """As ``--data`` takes it."""
    recipe: str
    images: int
    evaluation: str = "knn"
    """In the words of ``infomax evaluate``."""


def open_data(args: argparse.Namespace) -> Iterator[Data]:
    """Yields the sets of images that are there; those of CIFAR-10 are written to a file of their own first."""
    yield Data("digits", "digits", "digits", 1438)
    if args.labelled:
        file = args.runs / f"{args.labelled.stem}.npz"
        if not file.exists():
            with np.load(args.labelled) as arrays:
                parts = {f"train_{to}": arrays[f"train_{of}"][:PHOTOGRAPHS] for to, of in (("x", "x"), ("y", "label"))}
                parts |= {f"test_{to}": arrays[f"test_{of}"][:TESTED] for to, of in (("x", "x"), ("y", "label"))}
            np.savez(file, **parts)
        yield Data(args.labelled.stem, str(file), "small", PHOTOGRAPHS)
    if args.photographs:
        images = sum(file.suffix.lower() in (".jpg", ".jpeg", ".png") for file in args.photographs.rglob("*"))
        yield Data(args.photographs.name, str(args.photographs), "small", images, "knn --leave-one-out")


def command(data: Data, budget: str, args: argparse.Namespace) -> list[str]:
    """Returns the words of ``infomax compare`` for a set of images and a budget."""
    epochs = f"{max(1, round(IMAGES_SEEN / data.images))}epochs"
    words = ["infomax", "compare", "--data", data.location, "--methods", "mira,simclr" if args.toy else "all"]
    words += ["--recipe", data.recipe, "--seeds", str(args.seeds), "--device", "cpu", "--workers", "0", "--log", "none"]
    words += ["--precision", args.precision]
    words += ["--budget", {"images": "2epochs" if args.toy else epochs, "time": "5s" if args.toy else TIME}[budget]]
    return [*words, "--evaluate", data.evaluation, "--out", str(folder(data, budget, args))]


def folder(data: Data, budget: str, args: argparse.Namespace) -> Path:
    """Returns the folder of a comparison."""
    return args.runs / f"{data.name}-{budget}"


def run(data: Data, budget: str, args: argparse.Namespace) -> None:
    """Makes one comparison, or goes on with it, and keeps what it prints."""
    words = command(data, budget, args)
    out = folder(data, budget, args)
    print(shlex.join(words), flush=True)
    with out.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run([sys.executable, "-m", *words], env=environment, stdout=log, stderr=log).returncode
    print(f"{out.name}: {'done' if code == 0 else f'exit code {code}, see {out.name}.log'}", flush=True)


def collect(data: Data, budget: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Returns what a comparison measured so far; None if it was not begun."""
    file = folder(data, budget, args) / "compare.json"
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    methods = [
        {name: method[name] for name in ("method", "epochs", "seconds", "verdicts", "failures", "scores", "over_best")}
        for method in kept["methods"]
    ]
    sources: dict[str, dict[str, Any]] = {}  # compare.json itself names the commit that wrote it last
    for config in sorted(file.parent.glob("*-seed*/config.json")):
        made = json.loads(config.read_text())
        source = {name: made[name] for name in ("started", "commit", "machine", "versions")}
        sources[source["commit"]] = min(sources.get(source["commit"], source), source, key=lambda x: x["started"])
    baselines: dict[str, dict[str, float]] = {}
    for results in sorted(file.parent.glob("*-seed0/results.jsonl")):
        for row in map(json.loads, results.read_text().splitlines()):
            if row["representation"] != "trained encoder":
                baselines.setdefault(row["representation"], {})[row["protocol"]] = 100 * row["top1"]
    seeds = min(len(scores) for method in methods for scores in method["scores"].values())
    done = argparse.Namespace(**{**vars(args), "seeds": seeds})
    return {
        "data": data.name,
        "budget": budget,
        "command": shlex.join(command(data, budget, done)).replace(f"{args.runs}/", ""),
        "sources": sorted(sources.values(), key=lambda source: source["started"]),
        "recommendation": kept["recommendation"]["text"],
        "images": data.images,
        "images_per_second": kept["plan"]["images_per_second"],
        "methods": methods,
        "baselines": baselines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder for the runs")
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs in folders of their classes")
    parser.add_argument("--data", nargs="+", help="names of the sets of images to compare on; default: all given")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--precision", default="32", help="of the networks, as of infomax compare")
    parser.add_argument("--processes", type=int, default=2, help="comparisons at a time")
    parser.add_argument("--collect", action="store_true", help="keep what is there, without training")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if args.toy:
        args.seeds, args.out = 1, args.runs / OUT.name
    args.runs.mkdir(parents=True, exist_ok=True)
    sets = [data for data in open_data(args) if not args.data or data.name in args.data]
    queue = [(data, budget) for data in sets for budget in BUDGETS]
    if not args.collect:
        with ThreadPoolExecutor(args.processes) as pool:
            list(pool.map(lambda job: run(*job, args), queue))
    measured = [kept for job in queue if (kept := collect(*job, args)) is not None]
    kept = json.loads(args.out.read_text())["comparisons"] if args.out.exists() else []
    comparisons = {(one["data"], one["budget"]): one for one in (*kept, *measured)}  # the later one of a name stays
    result = {"command": "python benchmarks/comparison.py", "comparisons": [*comparisons.values()]}
    args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
