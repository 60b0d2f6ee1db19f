"""Measures real training steps of a recipe: their seconds, and the memory that they take.

Memory is measured in a process of its own, whose other work would count too: :func:`measure_in_process` starts this
file as a program, which prints what it measured as JSON.
"""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infomax.planning.step_cost import count_step_cost
from infomax.planning.step_time import step_maker
from infomax.recipes.registry import recipe_from_json
from infomax.recipes.schema import Recipe, to_json
from infomax.runtime.json_values import parse_value
from infomax.runtime.text import show
from infomax.runtime.threads import user_environment

PROC_STATUS, PROC_CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What makes Linux forget the largest memory of a process."""


@dataclass(frozen=True)
class MeasuredSteps:
    """A frozen dataclass that holds what real steps of a recipe took."""

    seconds: tuple[float, ...]
    """Time of each step, with making its views, without reading files."""
    peak_bytes: int | None
    """Largest memory during the steps, less that before the networks were built; None if the system does not say."""
    planned_bytes: int
    """Largest memory of tensors during a step, as ``infomax plan`` counts it."""


def measure_steps(recipe: Recipe, device: torch.device, *, warm_up: int, steps: int) -> MeasuredSteps:
    """Measures steps of a recipe on random images, in this process.

    Args:
        recipe: The recipe.
        device: Device to measure on.
        warm_up: Steps before those that are measured.
        steps: Steps that are measured.
    """
    planned = count_step_cost(recipe, device=device.type).memory.peak
    before = _reset_peak(device)
    step, seconds_of = step_maker(recipe, device)
    for _ in range(warm_up):
        step()
    seconds = tuple(seconds_of(step) for _ in range(steps))
    peak = _peak(device)
    return MeasuredSteps(seconds, None if peak is None or before is None else peak - before, planned)


def _reset_peak(device: torch.device) -> int | None:
    """Forgets the largest memory until now, and returns what is taken now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not PROC_CLEAR.exists():
        return None
    PROC_CLEAR.write_text(RESET_PEAK)
    return _status("VmRSS")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") if PROC_STATUS.exists() else None


def _status(field: str) -> int:
    """Returns a number of bytes that Linux knows of this process."""
    return next(1024 * int(line.split()[1]) for line in PROC_STATUS.read_text().splitlines() if line.startswith(field))


def measure_in_process(recipe: Recipe, device: torch.device, *, warm_up: int, steps: int) -> MeasuredSteps:
    """Measures steps of a recipe in a process of its own, where no earlier work has left memory behind.

    Raises:
        MemoryError: if the process was ended, as for lack of memory, or failed.
    """
    asked = {"recipe": to_json(recipe), "device": device.type, "warm_up": warm_up, "steps": steps}
    asked["threads"] = torch.get_num_threads()
    ended = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=user_environment(),
    )
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        raise MemoryError(lines[-1] if lines else f"the process was ended with code {ended.returncode}")
    return parse_value(json.loads(ended.stdout.splitlines()[-1]), MeasuredSteps, "the measurement")


def _answer(asked: dict[str, Any]) -> str:
    """Returns the measurement that the standard input asked for, as JSON."""
    torch.set_num_threads(asked["threads"])
    recipe, device = recipe_from_json(asked["recipe"]), torch.device(asked["device"])
    return json.dumps(dataclasses.asdict(measure_steps(recipe, device, warm_up=asked["warm_up"], steps=asked["steps"])))


if __name__ == "__main__":
    show(_answer(json.load(sys.stdin)))
