"""Runs that stop at a step and go on, and the comparison of two states of training, for tests."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import torch

from infomax.runs.run_folder import Run
from infomax.training import loop
from infomax.training.options import LaunchOptions

LAUNCH = LaunchOptions(device="cpu", workers=0, quiet=True)


def train_until(run: Run, stop: int | None = None) -> None:
    """Trains on each rank, and receives SIGTERM after the step ``stop``."""
    train_step = loop.train_step

    def train_step_then_terminate(engine, microbatches, **owned):
        step = train_step(engine, microbatches, **owned)
        if engine.steps_done == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return step

    loop.train_step = train_step_then_terminate
    try:
        loop.train(run, LAUNCH)
    except SystemExit:  # as SIGTERM ends a process
        pass
    finally:
        loop.train_step = train_step


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns the names of the tensors and values in which two states differ, in any bit."""
    flat = [dict(flatten(state)) for state in (first, second)]
    assert flat[0].keys() == flat[1].keys()
    return [key for key in flat[0] if key != "seconds" and not same(flat[0][key], flat[1][key])]


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, value
    else:
        for name, item in items:
            yield from flatten(item, f"{key}.{name}".strip("."))
