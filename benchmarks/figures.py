"""Times infomax figure: from Enter to the picture and the CSV of each figure, with the settings that it has by itself.

python benchmarks/figures.py                        some minutes on a machine that does nothing else
python benchmarks/figures.py --only spectrum        some of them; the others keep the times that they have
python benchmarks/figures.py --runs RUNS            keeps the runs in a folder, and takes those that are there
python benchmarks/figures.py --runs RUNS --prepare  makes the runs alone, on a machine that may be busy

The runs that the figures take are short trainings of the recipes digits, made first and not timed: what a figure costs
does not depend on how long a run was trained. Each figure is a new process, as a user starts it. Writes
docs/results/figures.json; the minutes in src/infomax/figures/catalogue are rounded from it, which a test checks.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infomax.figures.catalogue import FIGURES
from infomax.runs.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "figures.json"
RUNS = ("mira", "swav", "corinfomax", "simclr")
SWEEPS = {
    "prototypes": "mira/digits --vary method.prototypes=30,100,300 --evaluate linear --evaluate knn",
    "schedule": "carl/digits --vary method.kl_start=1,2,4 --evaluate linear",
    "clusters": "carl/digits --vary method.prototypes=30,100,300 --evaluate linear",
    "beta": "mveb/digits --vary method.entropy_weight=0.001,0.01,0.1 --evaluate linear",
    "batch": "mveb/digits --vary batch_size=64,128,256 --evaluate linear",
}
TAKES = {
    "mira-convergence": ("mira", "swav"),
    "mira-sweeps": ("prototypes",),
    "spectrum": ("corinfomax", "simclr"),
    "ldmi": ("corinfomax",),
    "tsne": ("corinfomax",),
    "carl-schedule": ("schedule",),
    "carl-prototypes": ("clusters",),
    "mveb-beta": ("beta",),
    "mveb-batch": ("batch",),
    "plane": ("corinfomax", "simclr", "mira"),
}
"""The runs and sweeps that a figure is made of; a figure that is not named takes none."""


def infomax(words: str, folder: Path) -> float:
    """Runs a command in a process of its own, and returns its seconds.

    Raises:
        RuntimeError: if it fails.
    """
    print(f"infomax {words}", flush=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "infomax", *shlex.split(words)], cwd=folder, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"infomax {words}: exit code {done.returncode}\n{done.stderr.decode()[-2000:]}")
    return time.perf_counter() - start


def make_run(name: str, folder: Path) -> None:
    """Trains a run or a sweep of a name, if it is not there."""
    if (folder / name).exists():
        return
    if name in RUNS:
        infomax(f"pretrain --recipe {name}/digits --data digits --epochs 3 --device cpu --out {name}", folder)
    else:
        infomax(f"sweep {SWEEPS[name]} --seeds 2 --epochs 1 --device cpu --out {name}", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--runs", type=Path, help="folder in which the runs are kept")
    parser.add_argument("--prepare", action="store_true", help="make the runs, and time nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.runs or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(name for figure in args.only for name in TAKES.get(figure, ())):
            make_run(name, folder)
        if not args.prepare:
            measure(args.only, folder)


def measure(figures: list[str], folder: Path) -> None:
    """Times some of the figures, and keeps the seconds beside those of the others."""
    kept = json.loads(OUT.read_text())["seconds"] if OUT.exists() else {}
    for figure in figures:
        words = " ".join(
            ["figure", figure, *TAKES.get(figure, ()), f"--device cpu --overwrite --no-cache --out {figure}.png"]
        )
        kept[figure] = round(infomax(words, folder), 1)
        print(f"{figure}: {kept[figure]} s", flush=True)
    seconds = {figure: kept[figure] for figure in FIGURES if figure in kept}
    result = {**provenance(), "command": "python benchmarks/figures.py", "seconds": seconds}
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
