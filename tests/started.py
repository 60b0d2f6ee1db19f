"""Functions for tests to call in processes of their own, which can import them from here."""

import atexit
import os
from pathlib import Path

import numpy as np
import torch

from infomax.data.loading.kept_images import KeptImages
from infomax.training.step_report import StepReport


def keep_one(kept: KeptImages, row: int, value: int, writer: int | None) -> None:
    """Keeps a small image of one value."""
    kept.keep(row, np.full((4, 6, 3), value, np.uint8), full_size=(12, 8), divisor=2, writer=writer)


def write_rank_variables(folder: Path) -> None:
    """Writes a rank's variables of OpenMP, and the number of torch's threads, into a file of its name."""
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "LOCAL_WORLD_SIZE")
    text = " ".join([*(os.environ.get(name, "-") for name in names), str(torch.get_num_threads())])
    (folder / os.environ["RANK"]).write_text(text)


def crash_when_all_is_done(folder: Path, error: str) -> None:
    """Writes a file and ends, or raises an error if one is given; the interpreter then crashes at its end."""
    atexit.register(os.abort)
    if error:
        raise ValueError(error)
    (folder / os.environ["RANK"]).touch()


def note_step(report: StepReport) -> None:
    """Adds the rank and the step to a file in the run folder."""
    with (report.run.path / "steps.txt").open("a") as file:
        file.write(f"{os.environ['RANK']}:{report.step}\n")


def fail_at_two(report: StepReport) -> None:
    """Fails after the second step."""
    if report.step == 2:
        _ = 1 / 0
