"""Times the search for nearest neighbours beside the bare matrix product and other searches. For Linux.

python benchmarks/knn.py          twenty minutes; writes docs/results/knn.json
python benchmarks/knn.py --toy    seconds, to see that it works; keeps nothing

On one thread on one core. Contestants take turns with the same features and are compared within each turn, by
processor time, so that what other processes take does not count; the wall time is kept too. The bare product is the
faster one of two plain ways: float32 tiles by torch into a buffer that stays in the cache, and large ones by NumPy.
"DINO" is its evaluation as the paper describes it: a hundredth of the queries at a time, their product with the whole
bank, and topk. scikit-learn searches by Euclidean distance, which on features of length 1 gives the same order, and for
which it has its fastest code. All but infomax are given features of length 1, float32.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from infomax.evaluation.knn_vote import knn_scores, vote
from infomax.features.nearest_neighbours import nearest
from infomax.runs import run_folder as runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "knn.json"
SIZES, TOY = [(10_000, 50_000, 512), (3_000, 50_000, 2048)], [(600, 30_000, 32), (512, 40_000, 16)]  # m, n, d
LARGE, TOY_LARGE = (50_000, 1_281_167, 2048), (500, 3000, 64)  # ImageNet's on a GPU
K, CLASSES = 20, 100
Row = dict[str, Any]


def features(kind: str, n: int, m: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns bank, labels and queries: noise, or features as of a network, in the order of their classes.

    The latter are means of four places' ReLUs, of a random layer on clusters: not negative, some features much larger
    than others, many nearly 0, all cosines positive.
    """
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    labels = torch.arange(n) * CLASSES // n
    if kind == "noise":
        return draw(n, d), labels, draw(m, d)
    weight, bias, gain = draw(48, d) / 48**0.5, 0.1 - 0.7 * torch.rand(d, generator=generator), draw(d).abs() + 0.05
    centres = draw(CLASSES, 48)

    def of(its: Tensor) -> Tensor:
        parts = []
        for part in its.split(8192):
            image = 0.8 * centres[part] + 0.6 * draw(len(part), 48)
            parts.append(sum(torch.relu((image + 0.8 * draw(len(part), 48)) @ weight + bias) for _ in range(4)) * gain)
        return torch.cat(parts)

    return of(labels), labels, of(torch.randint(CLASSES, (m,), generator=generator))


def tiles(bank: Tensor, queries: Tensor, tile: int = 512) -> None:
    buffer = torch.empty(tile * tile)
    for q, b in itertools.product(queries.split(tile), bank.split(tile)):
        torch.mm(q, b.T, out=buffer[: len(q) * len(b)].view(len(q), len(b)))


def large_tiles(bank: Tensor, queries: Tensor, tall: int = 1024, wide: int = 4096) -> None:
    buffer = np.empty(tall * wide, np.float32)
    for q, b in itertools.product(queries.split(tall), bank.split(wide)):
        np.matmul(q.numpy(), b.numpy().T, out=buffer[: len(q) * len(b)].reshape(len(q), len(b)))


def dino(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    parts = [(q @ bank.T).topk(K, dim=1, largest=True, sorted=True) for q in queries.chunk(100)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def sklearn(bank: Tensor, queries: Tensor) -> Any:
    search = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="euclidean").fit(bank.numpy())
    return search.kneighbors(queries.numpy())


CONTESTANTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "infomax": lambda bank, queries: nearest(bank, queries, K),
    "product, tiles by torch": tiles,
    "product, large tiles by NumPy": large_tiles,
    "DINO": dino,
    "scikit-learn": sklearn,
}


def alone() -> None:
    """Restricts this process to one thread on one core."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the first ones serve the machine's interrupts


def searches(sizes: list[tuple[int, int, int]], repeats: int) -> Iterator[Row]:
    for kind, (m, n, d) in itertools.product(("noise", "clusters"), sizes):
        bank, labels, queries = features(kind, n, m, d)
        inputs = dict.fromkeys(CONTESTANTS, (bank, queries))
        unit = F.normalize(bank), F.normalize(queries)
        inputs |= {name: unit for name in CONTESTANTS if name != "infomax"}
        seconds, wall = np.empty((2, len(CONTESTANTS), repeats))
        for turn, place in itertools.product(range(repeats), range(len(CONTESTANTS))):
            number = (turn + place) % len(CONTESTANTS)
            name, search = list(CONTESTANTS.items())[number]
            starts = time.process_time(), time.perf_counter()
            search(*inputs[name])
            seconds[number, turn], wall[number, turn] = time.process_time() - starts[0], time.perf_counter() - starts[1]
        product = seconds[1:3].min(0)
        row = {"features": kind, "queries": m, "bank": n, "dimension": d, "repeats": repeats}
        row |= {"product_gflops": 2e-9 * m * n * d / float(np.median(product)), **agreement(bank, labels, queries)}
        for number, name in enumerate(CONTESTANTS):
            row[name] = {
                "seconds": float(np.median(seconds[number])),
                "wall_seconds": float(np.median(wall[number])),
                "of_product": np.quantile(seconds[number] / product, [0.25, 0.5, 0.75]).tolist(),
                "times_infomax": np.quantile(seconds[number] / seconds[0], [0.25, 0.5, 0.75]).tolist(),
            }
        yield row


def agreement(bank: Tensor, labels: Tensor, queries: Tensor) -> Row:
    """Compares infomax with DINO: largest difference of a similarity, and share of queries with the same prediction."""
    theirs, index = dino(F.normalize(bank), F.normalize(queries))
    predicted = vote(theirs, index, labels, classes=CLASSES, k=K, temperature=0.07).argmax(1)
    same = knn_scores(bank, labels, queries, classes=CLASSES, k=K).argmax(1) == predicted
    error = (nearest(bank, queries, K)[0] - theirs).abs().max()
    return {"largest_difference": float(error), "same_predictions": float(same.double().mean())}


def memory(sizes: list[tuple[int, int, int]]) -> Iterator[Row]:
    """Yields the bytes that a search needs beside the features, each measured in a process of its own."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; a larger tensor that is freed leaves at once
    for (m, n, d), (dtype, limit) in itertools.product(
        sizes, [(torch.float32, 2**30), (torch.float16, 2**30), (torch.float16, 2**27)]
    ):
        with mp.get_context("spawn").Pool(1) as fresh:
            peak = fresh.apply(_peak, (m, n, d, dtype, limit))
        yield {"queries": m, "bank": n, "dimension": d, "dtype": str(dtype), "memory": limit, "peak": peak}


def _peak(m: int, n: int, d: int, dtype: torch.dtype, limit: int) -> int:
    """Returns by how many bytes a search raises the resident memory after a search of few dimensions."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

    alone()
    bank, queries = (torch.randn(rows, d, dtype=dtype) for rows in (n, m))
    nearest(torch.randn(40_000, 8), torch.randn(600, 8), K)
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew from what is resident now
    before = resident("VmRSS")
    nearest(bank, queries, K, memory=limit)
    return resident("VmHWM") - before


def on_a_gpu(m: int, n: int, d: int) -> Iterator[Row]:
    """Times a search in a bank of ImageNet's size, in float16, of random features."""
    if not torch.cuda.is_available():
        return
    draw = partial(torch.randn, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    bank, queries = torch.empty(n, d, dtype=torch.float16, device="cuda"), draw(m, d)
    for part in bank.split(65536):
        part.copy_(draw(len(part), d).relu_())
    nearest(bank[:100_000], queries[:5000], K)
    before = torch.cuda.memory_allocated()
    for limit in (2**30, 2**32):
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        start = time.perf_counter()
        nearest(bank, queries, K, memory=limit)
        torch.cuda.synchronize()
        row = {"gpu": torch.cuda.get_device_name(), "queries": m, "bank": n, "dimension": d, "memory": limit}
        peak = torch.cuda.max_memory_allocated() - before
        yield {**row, "seconds": time.perf_counter() - start, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sets, and nothing is kept")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    result: Row = runs.provenance()
    alone()
    sizes, large = (TOY, TOY_LARGE) if args.toy else (SIZES, LARGE)
    nearest(torch.randn(40_000, 8), torch.randn(600, 8), K)  # compiles
    with threadpool_limits(1):
        groups = {"searches": searches(sizes, args.repeats), "memory": memory(sizes[-1:]), "gpu": on_a_gpu(*large)}
        for name, rows in groups.items():
            result[name] = []
            for row in rows:
                print(f"{name}{' (toy)' if args.toy else ''}: {json.dumps(row)}", flush=True)
                result[name].append(row)
    if not args.toy:
        OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
