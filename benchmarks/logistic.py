"""Compares time and losses of 45 logistic regressions with scikit-learn's.

python benchmarks/logistic.py          half an hour; writes docs/results/logistic.json
python benchmarks/logistic.py --toy    seconds, to see that it works; keeps nothing

The transfer protocol's grid of penalties, for 5,000 images of 100 classes with 2,048 features. scikit-learn goes as the
protocol does: L-BFGS of at most 100 iterations, from weak to strong, each solution the start of the next, by its usual
tolerance; in float32 and in float64, of which the faster one counts. That tolerance stops it far from the optimum where
the penalty is weak, so losses are kept for each penalty, all of them computed in float64.

Both run with one thread, in turn, and are compared within each turn by processor time, so that what other processes
take does not count; on a quiet machine it is the wall time, which is kept too. If there is a GPU, infomax is
compared with scikit-learn's wall time on all cores of the machine.

Features: `made` ones, of a random layer with ReLU on clusters whose variances fall as those of networks' features do;
and those of --features FILE.npz.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from infomax.evaluation.logistic import logistic_path
from infomax.runs import run_folder as runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "logistic.json"
SIZE = {"images": 5000, "features": 2048, "classes": 100, "penalties": 45, "repeats": 3}
TOY = {"images": 200, "features": 64, "classes": 5, "penalties": 9, "repeats": 1}
Solutions = list[tuple[Tensor, Tensor]]  # weight and bias for each penalty
Row = dict[str, Any]
Given = argparse.Namespace
warnings.filterwarnings("ignore", category=ConvergenceWarning)


def made(images: int, features: int, classes: int) -> tuple[Tensor, Tensor]:
    """Returns features as of a network's last ReLU, and labels.

    Features are not negative, 0.45 on average, and their variances fall as a power law.
    """
    rng = np.random.default_rng(0)
    labels, spectrum = rng.integers(0, classes, images), 1 / (1 + np.arange(features))
    latent = (
        0.3 * rng.standard_normal((classes, features))[labels] + rng.standard_normal((images, features))
    ) * spectrum
    x = np.maximum(latent @ rng.standard_normal((features, features)) / np.linalg.norm(spectrum) - 0.3, 0)
    return torch.from_numpy((0.45 / x.mean() * x).astype(np.float32)), torch.from_numpy(labels)


def scikit_learn(x: Tensor, labels: Tensor, penalties: list[float]) -> Solutions:
    model, path = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=100), []
    for penalty in penalties:
        model.set_params(C=1 / penalty).fit(x.numpy(), labels.numpy())
        path.append((torch.from_numpy(model.coef_.copy()), torch.from_numpy(model.intercept_.copy())))
    return path


def infomax(x: Tensor, labels: Tensor, penalties: list[float]) -> Solutions:
    fits = logistic_path(x, labels, classes=int(labels.max()) + 1, penalties=penalties)
    return [(fit.weight.cpu(), fit.bias.cpu()) for fit in fits]


def losses(x: Tensor, labels: Tensor, penalties: list[float], path: Solutions) -> list[float]:
    x, values = x.double(), []
    for penalty, (weight, bias) in zip(penalties, path, strict=True):
        loss = F.cross_entropy(x @ weight.double().T + bias.double(), labels, reduction="sum")
        values.append(float(loss + penalty / 2 * weight.double().square().sum()))
    return values


def timed(function: Callable[[], Solutions]) -> tuple[Solutions, float, float]:
    """Returns the solutions, processor seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    path = function()
    return path, time.process_time() - cpu, time.perf_counter() - wall


def against(
    contestants: dict[str, Callable[[], Solutions]], repeats: int
) -> tuple[dict[str, Solutions], dict[str, Row]]:
    """Returns solutions and seconds of each contestant; the order changes from turn to turn."""
    paths, rows = {}, {name: {"cpu_seconds": [], "wall_seconds": []} for name in contestants}
    for turn in range(repeats):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            paths[name], cpu, wall = timed(contestants[name])
            rows[name]["cpu_seconds"].append(cpu)
            rows[name]["wall_seconds"].append(wall)
            print(f"{name}: {cpu:.2f} s of processor time, {wall:.2f} s", flush=True)
    return paths, rows


def compared(x: Tensor, labels: Tensor, args: Given, device: str) -> Row:
    penalties = np.logspace(-6, 5, args.penalties).tolist()
    names = {torch.float32: "scikit-learn, float32", torch.float64: "scikit-learn, float64"}
    inputs = x.to(device), labels.to(device)
    if device == "cuda":
        infomax(*inputs, penalties)  # the first call loads kernels

    contestants: dict[str, Callable[[], Solutions]] = {"infomax": lambda: infomax(*inputs, penalties)}
    for dtype, name in names.items():
        contestants[name] = lambda dtype=dtype: scikit_learn(x.to(dtype), labels, penalties)
    paths, rows = against(contestants, args.repeats)
    for name, path in paths.items():
        rows[name]["losses"] = losses(x, labels, penalties, path)
    measure = "wall_seconds" if device == "cuda" else "cpu_seconds"
    faster = min(names.values(), key=lambda name: float(np.median(rows[name][measure])))
    ratios = np.array(rows[faster][measure]) / np.array(rows["infomax"][measure])
    better = [
        [a <= b for a, b in zip(rows["infomax"]["losses"], rows[n]["losses"], strict=True)] for n in names.values()
    ]
    row = {"device": device, "faster": faster, "compared_by": measure}
    row |= {"ratio": float(np.median(ratios)), "ratios": ratios.tolist(), "no_loss_higher": bool(np.all(better))}
    row |= {"images": len(x), "features": x.shape[1], "classes": int(labels.max()) + 1}
    return {**row, "penalties": penalties, "contestants": rows}


def sections(args: Given) -> Iterator[Row]:
    sets = {"made": made(args.images, args.features, args.classes)}
    if args.file:
        with np.load(args.file) as file:
            sets[args.file.stem] = (torch.from_numpy(file["x"]).float(), torch.from_numpy(file["labels"]).long())
    for name, (x, labels) in sets.items():
        for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
            threads = (os.cpu_count() or 1) if device == "cuda" else 1
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                yield {"data": name, "threads": threads, **compared(x, labels, args, device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", dest="file", type=Path, metavar="FILE.npz", help="x [n, d] and labels [n]")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--toy", action="store_true", help="small and once; keeps nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    vars(args).update({**(TOY if args.toy else SIZE), **({"repeats": args.repeats} if args.repeats else {})})
    provenance = runs.provenance()
    provenance["versions"]["scikit-learn"] = version("scikit-learn")
    if torch.cuda.is_available():
        provenance["machine"]["gpu"] = torch.cuda.get_device_name()
    rows = []
    for row in sections(args):
        rows.append(row)
        shown = ("data", "device", "ratio", "ratios", "faster", "no_loss_higher")
        print(json.dumps({key: row[key] for key in shown}), flush=True)
        if not args.toy:
            args.out.write_text(json.dumps({**provenance, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
