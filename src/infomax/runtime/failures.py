"""Failures of the machine (memory, a worker, another rank, a compiler), as opposed to a user's mistakes."""


class MachineError(RuntimeError):
    """Memory, a worker or another rank was lost: a failure of the world, not of what was asked for."""


def describe_machine_failure(error: Exception, cure: str) -> str | None:
    """What failed, in the user's words: memory, a worker, a compiler; None for any other error.

    Args:
        cure: For too little memory.
    """
    import torch

    text = " ".join(str(error).split())
    signs = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in text for sign in signs):
        return f"out of memory; {cure} ({text[:200]})"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile failed: leave out --compile ({text[:200]})"
    lost = isinstance(error, RuntimeError) and "DataLoader worker" in text and "Error in DataLoader" not in text
    if lost or isinstance(error, (ConnectionError, EOFError)):  # what it was about to send does not come
        what = "a process that reads images was ended, as the system does where memory is short: lower --workers"
        return f"{what} ({text})"
    return None
