"""A failure of the machine is told from any other error, and in one line."""

import pytest
import torch

from infomax.runtime.failures import describe_machine_failure


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("none left"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, other allocations: 1.27 MB)"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not execute a primitive"),
    ],
)
def test_too_little_memory_names_the_cure(error):
    description = describe_machine_failure(error, "lower --batch-size")
    assert description is not None
    assert description.startswith("out of memory; lower --batch-size (")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("--k must be a whole number"),
    ],
)
def test_other_errors_are_not_the_machines(error):
    assert describe_machine_failure(error, "lower --batch-size") is None
