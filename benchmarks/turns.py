"""How the benchmarks of speed take time: in turns, because a machine's speed drifts, and as ratios within a turn."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 2  # turns that are not counted: the first ones allocate, and load kernels
Row = dict[str, Any]


def clock() -> float:
    """Seconds: of the processor on a CPU, where one thread computes, so that what others take does not count."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(function: Callable[[], Any]) -> float:
    start = clock()
    function()
    return clock() - start


def turns(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each call of each contestant, the order changing from turn to turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(WARM_UP + repeats):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            seconds[name].append(seconds_of(contestants[name]))
    return {name: np.array(x[WARM_UP:]) for name, x in seconds.items()}


def row(name: str, seconds: dict[str, np.ndarray], ours: str, other: str, **more: Any) -> Row:
    """One result: ``ratio`` is our time over the other's, so that less is better."""
    low, ratio, high = np.quantile(seconds[ours] / seconds[other], [0.25, 0.5, 0.75]).tolist()
    times = {"seconds": float(np.median(seconds[ours])), "seconds_of_other": float(np.median(seconds[other]))}
    found = {"ratio": ratio, "quartiles": [low, high], **times, "repeats": len(seconds[ours])}
    return {"name": name, "ours": ours, "other": other, **found, **more}


def rates(repeats: int) -> dict[str, float]:
    """What bounds everything else here: bytes a second of a sum of long vectors, and operations a second of products.

    The vectors are those of ResNet-50's parameters, and the first is overwritten: 12 bytes an element pass.
    """
    a, b = (torch.randn(25_557_032, device=DEVICE) for _ in range(2))
    side = 2048 if DEVICE.type == "cpu" else 8192
    x = torch.randn(side, side, device=DEVICE)
    done: dict[str, Callable[[], Any]] = {"memory": lambda: torch.add(a, b, out=a)}
    for dtype in (torch.float32, torch.float64, *([torch.bfloat16] if DEVICE.type == "cuda" else [])):
        y = x.to(dtype)
        done[str(dtype).removeprefix("torch.")] = lambda y=y: y @ y
    work = {name: 12 * len(a) if name == "memory" else 2 * side**3 for name in done}
    return {name: work[name] / float(np.median(found)) for name, found in turns(done, repeats).items()}
