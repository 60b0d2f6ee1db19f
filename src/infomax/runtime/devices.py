"""The kinds of device that networks compute on, and what is computed elsewhere because one of them cannot.

Apple's GPU, which torch calls ``mps``, has no float64. Beside it, all but the networks stays on the CPU: views, losses
with their running statistics, measures, probes and solvers, each as in a run on the CPU. The reasons are in
docs/decisions.md, apple-gpu.
"""

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from infomax.runtime.checks import choose

if TYPE_CHECKING:
    import torch

KINDS = ("auto", "cpu", "cuda", "mps")
APPLE_NOT_TAKEN = (
    "Apple's GPU is not taken by itself, as it was never tried on the hardware; --device mps takes it, for the networks"
)


def check_device_name(device: str) -> None:
    """Checks the kind of device that a user names, without a look at the machine, which takes an import of torch.

    Raises:
        ValueError: if it is none of :data:`KINDS`.
    """
    choose("--device", device, KINDS)


def choose_device(device: str) -> str:
    """Returns the kind of device to compute on: ``cpu``, ``cuda`` or ``mps``.

    Args:
        device: One of these, or ``auto``, which takes a CUDA GPU if there is one, and else the CPU.

    Raises:
        ValueError: if it is none of these, or torch finds no such device.
    """
    check_device_name(device)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: torch finds no Apple GPU here; use cpu or auto")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def check_precision(precision: str, device: str) -> None:
    """Checks that networks can compute on a device in a precision.

    Args:
        precision: ``64``, ``32``, ``bf16`` or ``16``.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ValueError: if they cannot, or nobody knows how they round there.
    """
    if device == "mps" and precision != "32":
        why = "there is no float64" if precision == "64" else "how it rounds in half precision was never tried"
        raise ValueError(f"--precision {precision} on Apple's GPU: {why}; take --precision 32, or --device cpu")


def check_ranks(device: str, world_size: int) -> None:
    """Checks that ranks can share a device; raises ValueError if several were started beside Apple's GPU.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        world_size: Number of ranks.
    """
    if device == "mps" and world_size > 1:
        raise ValueError(f"--device mps: {world_size} ranks cannot share Apple's GPU; start one process, or use cpu")


def leaves_apple_gpu(device: str) -> bool:
    """Returns whether ``auto`` takes the CPU of a machine whose Apple GPU torch could take.

    Args:
        device: The device as the user named it.
    """
    import torch

    return device == "auto" and not torch.cuda.is_available() and torch.backends.mps.is_available()


def float64_device(device: "torch.device | str") -> "torch.device":
    """Returns where everything but the networks is computed: on their device, if it has float64, else on the CPU.

    Example:
        >>> from infomax.runtime.devices import float64_device
        >>> [float64_device(device).type for device in ("cpu", "cuda", "mps")]
        ['cpu', 'cuda', 'cpu']
    """
    import torch

    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def network_layout(device: "torch.device | str") -> "torch.memory_format":
    """Returns the order of the axes in the memory of networks and views on a device: with the channels last, mostly.

    A CPU is twice as fast with it. On Apple's GPU, BatchNorm then had wrong gradients, without an error, until April
    2026 (https://github.com/pytorch/pytorch/issues/175189).
    """
    import torch

    return torch.contiguous_format if torch.device(device).type == "mps" else torch.channels_last


def place_network(network: "torch.nn.Module", device: "torch.device | str") -> None:
    """Moves a network to a device, in the layout of its weights that is right there.

    Raises:
        ValueError: if its weights are float64, which the device does not have.
    """
    import torch

    if torch.device(device).type == "mps":
        if any(parameter.dtype == torch.float64 for parameter in network.parameters()):
            raise ValueError("--device mps: this encoder's weights are float64, which Apple's GPU lacks; use cpu")
        network.to(memory_format=network_layout(device))  # pyrefly: ignore[no-matching-overload]
    network.to(device)


def to_network(
    images: "torch.Tensor", device: "torch.device | str", dtype: "torch.dtype | None" = None
) -> "torch.Tensor":
    """Returns images or views [b, c, h, w] on the device of a network, in the order of axes that it takes there.

    Args:
        images: The images; they are returned as they are if nothing is to change.
        device: The device of the network.
        dtype: The type of the result; None for that of the images.
    """
    import torch

    layout = network_layout(device)  # of the CPU and an NVIDIA GPU, only the speed depends on it
    kept = layout if layout == torch.contiguous_format else torch.preserve_format
    return images.to(device, dtype or images.dtype, memory_format=kept)


def random_state_kept(device: "torch.device") -> AbstractContextManager[None]:
    """Puts back torch's random state of the CPU and of a device when the block ends."""
    import torch

    return torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type)


def time_when_done(device: "torch.device") -> float:
    """Returns the time in seconds on the clock of ``time.perf_counter``, once a device has done all its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
