"""Times functions in turns, because a machine's speed drifts, and as ratios within a turn."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 2  # turns that are not counted: the first ones allocate, and load kernels
Row = dict[str, Any]


def clock() -> float:
    """Returns the time in seconds; on a CPU it is processor time, so that other processes do not count."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(function: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    start = clock()
    function()
    return clock() - start


def turns(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Returns the seconds of each call of each contestant; the order changes from turn to turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(WARM_UP + repeats):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            seconds[name].append(seconds_of(contestants[name]))
    return {name: np.array(x[WARM_UP:]) for name, x in seconds.items()}


def row(name: str, seconds: dict[str, np.ndarray], ours: str, other: str, **more: Any) -> Row:
    """Returns one result; its ``ratio`` is our time over the other's, so that less is better."""
    low, ratio, high = np.quantile(seconds[ours] / seconds[other], [0.25, 0.5, 0.75]).tolist()
    times = {"seconds": float(np.median(seconds[ours])), "seconds_of_other": float(np.median(seconds[other]))}
    measured = {"ratio": ratio, "quartiles": [low, high], **times, "repeats": len(seconds[ours])}
    return {"name": name, "ours": ours, "other": other, **measured, **more}


def rates(repeats: int) -> dict[str, float]:
    """Returns the machine's rates: bytes per second of adding long vectors, and FLOPs per second of matrix products.

    The vectors are as long as ResNet-50 has parameters. The first is overwritten, so 12 bytes per element are moved.
    """
    a, b = (torch.randn(25_557_032, device=DEVICE) for _ in range(2))
    side = 2048 if DEVICE.type == "cpu" else 8192
    x = torch.randn(side, side, device=DEVICE)
    operations: dict[str, Callable[[], Any]] = {"memory": lambda: torch.add(a, b, out=a)}
    for dtype in (torch.float32, torch.float64, *([torch.bfloat16] if DEVICE.type == "cuda" else [])):
        y = x.to(dtype)
        operations[str(dtype).removeprefix("torch.")] = lambda y=y: y @ y
    work = {name: 12 * len(a) if name == "memory" else 2 * side**3 for name in operations}
    return {name: work[name] / float(np.median(seconds)) for name, seconds in turns(operations, repeats).items()}
