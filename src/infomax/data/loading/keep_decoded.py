"""Reads ``--keep-decoded``: how much memory decoded images may take. It imports no torch."""

from math import inf

from infomax.runtime.memory import available_memory, machine_memory

SHARE = 0.25  # of the memory that is free may be taken if the user does not say how much


def parse_keep_decoded(text: str) -> float | None:
    """Returns the GB that ``--keep-decoded`` names: 0 for ``off``, None for ``auto``.

    Raises:
        ValueError: if it is no such word or number, or the machine has less memory.
    """
    if text in ("auto", "off"):
        return None if text == "auto" else 0.0
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < inf:
        raise ValueError(f"--keep-decoded {text}: want auto, off, or a number of GB above 0, as 4")
    if size > (memory := machine_memory() / 1e9):
        raise ValueError(f"--keep-decoded {text}: the memory of this machine is {memory:.1f} GB")
    return size


def memory_to_keep(text: str, processes: int) -> int:
    """Returns the bytes that each of several processes on this machine may keep; see :func:`parse_keep_decoded`."""
    size = parse_keep_decoded(text)
    return int((SHARE * available_memory() if size is None else 1e9 * size) / processes)
