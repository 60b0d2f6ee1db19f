"""A specification's hash is that of its content, in every process."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from infomax.runtime.identity import specification_hash


@dataclass(frozen=True)
class Job:
    name: str
    rates: tuple[float, ...]
    folder: Path | None = None


@dataclass(frozen=True)
class Task(Job):
    pass


def test_equal_specifications_have_equal_hashes():
    assert specification_hash(Job("a", (0.1, 1))) == specification_hash(Job("a", (0.1, 1), None))
    assert specification_hash({"b": 1, "a": [1, 2]}) == specification_hash({"a": (1, 2), "b": 1})


def test_every_difference_counts():
    jobs = [Job("a", (0.1,)), Job("b", (0.1,)), Job("a", (0.2,)), Job("a", (0.1, 0.1)), Job("a", (0.1,), Path("x"))]
    jobs += [Task("a", (0.1,)), {"name": "a", "rates": (0.1,), "folder": None}, Job("a", (True,)), Job("a", (1.0,))]
    assert len({specification_hash(job) for job in jobs}) == len(jobs)


def test_it_is_the_same_in_another_process():
    code = "from infomax.runtime.identity import specification_hash as h; print(h({'x': [1, 0.1, 'é', None, True]}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == specification_hash({"x": [1, 0.1, "é", None, True]})


def test_other_values_are_refused():
    with pytest.raises(TypeError, match="not ndarray"):
        specification_hash({"x": np.zeros(2)})
