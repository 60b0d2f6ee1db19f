"""Failures of the machine (memory, a worker, another rank, a compiler) and of a training, as opposed to mistakes."""

import sys
from typing import Any


class MachineError(RuntimeError):
    """An error that says how the machine failed, as by too little memory or a lost rank; no option was wrong."""


class CollapseError(RuntimeError):
    """An error that says why a training was ended by its own wish, ``--stop-on-collapse``: it learns nothing any more.

    All ranks raise it together, after the same step, which is saved.
    """


def describe_machine_failure(error: Exception, cure: str) -> str | None:
    """Returns one line that says what failed: memory, torch.compile or a worker; None for any other error.

    Args:
        error: The exception that was caught.
        cure: What the user can change if memory was too small, as ``a smaller --batch-size takes less``.
    """
    torch: Any = sys.modules.get("torch")  # without it, no error is torch's, and to import it takes seconds
    text = " ".join(str(error).split())
    signs = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    signs += ("MPS backend out of memory",)  # a plain RuntimeError
    # oneDNN says no more than this if it gets no memory for a convolution's code or its scratchpad. If it has no such
    # convolution, it says that it could not create a primitive descriptor.
    signs += ("could not create a primitive", "could not execute a primitive")
    if isinstance(error, (MemoryError, *((torch.OutOfMemoryError,) if torch else ()))) or (
        any(sign in text for sign in signs) and "primitive descriptor" not in text
    ):
        return f"out of memory; {cure} ({text[:200]})"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile failed: leave out --compile ({text[:200]})"
    # A DataLoader also raises RuntimeError for an error inside of a worker's own code, which is not the machine's.
    worker_died = isinstance(error, RuntimeError) and "DataLoader worker" in text and "Error in DataLoader" not in text
    if worker_died or isinstance(error, (ConnectionError, EOFError)):  # a worker's pipe breaks if the worker is killed
        reason = "a process that reads images was ended, as the system does if memory is short: lower --workers"
        return f"{reason} ({text})"
    return None
