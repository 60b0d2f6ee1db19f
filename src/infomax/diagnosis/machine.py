"""Describes what infomax computes on: devices, threads, memory and disk."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from infomax.data.sources.location import default_data_dir
from infomax.diagnosis.entries import Entry, Section, anonymous, describe_size
from infomax.runtime.files import cache_folder
from infomax.runtime.memory import available_memory, machine_memory
from infomax.runtime.stages import importing_torch
from infomax.runtime.threads import COUNT_VARIABLES, available_cores, cores_to_run_on, describe_quota, user_environment

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MEMORY = 1 << 28
"""Bytes that eight workers need for the crops that wait to be trained on; 64 MB is what Docker gives."""
LEAST_DISK = 1 << 30
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "PYTORCH_CUDA_ALLOC_CONF", "ATEN_CPU_CAPABILITY", "HF_HUB_OFFLINE"),
    *(
        "INFOMAX_DATA",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "TORCH_HOME",
        "PYTHONPATH",
        "NUMBA_DISABLE_JIT",
        "TORCH_COMPILE_DEBUG",
    ),
    *(*COUNT_VARIABLES, "SLURM_JOB_ID", "WORLD_SIZE"),
)
"""Variables that change what infomax does."""


def describe_devices() -> Section:
    """Returns what torch can compute on, after one addition on each device."""
    driver = _nvidia_driver()
    try:
        with importing_torch():
            import torch
            import torchvision  # which fails if it was built for another torch

            del torchvision
    except Exception as error:  # whatever keeps torch from being imported is what is looked for
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        cure = "torch and torchvision must be a pair: install both anew, in an environment of their own"
        return Section("devices", [Entry("torch", "cannot be imported", False, f"{reason}; {cure}")])
    name, capability = _processor_name(), torch.backends.cpu.get_cpu_capability()
    text = f"{name}, {capability}" if name else capability
    entries = [Entry("cpu", text, {"name": name, "capability": capability})]
    entries += _cuda_entries(torch, driver)
    if torch.backends.mps.is_available():
        entries.append(_apple_gpu(torch))
    return Section("devices", entries)


def describe_threads() -> Section:
    """Returns the cores that the process may use, and how many threads torch takes."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    machine = f"{cores_to_run_on()} of {os.cpu_count()} cores to run on"
    entries = [
        Entry("cores", machine, {"usable": cores_to_run_on(), "machine": os.cpu_count(), "quota": available_cores()}),
        Entry("quota", describe_quota() or "none that leaves fewer cores", available_cores()),
    ]
    if threads is not None:
        entries.append(Entry("threads", f"{threads} of torch", threads))
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        text = f"{load:.1f} in the last minute"
        if load > (os.cpu_count() or load):  # of the whole machine, as the load is
            text += ", more than the machine has cores: other work slows infomax down"
        entries.append(Entry("load", text, round(load, 1)))
    return Section("threads", entries)


def describe_memory() -> Section:
    """Returns the memory and the disk that are free."""
    total, free = machine_memory(), available_memory()
    text = f"{describe_size(free)} free of {describe_size(total)}"
    entries = [Entry("memory", text, {"free": free, "total": total})]
    if SHARED_MEMORY.is_dir():
        entries.append(_shared_memory())
    folders = {"this folder": Path.cwd(), "caches": cache_folder(), "temporary": Path(tempfile.gettempdir())}
    entries += [entry for name, folder in folders.items() if (entry := _disk(name, folder)) is not None]
    return Section("free", entries)


def describe_variables() -> Section:
    """Returns those variables of the environment, as the user set them, that change what infomax does."""
    environment = user_environment()
    entries = [Entry(name, anonymous(environment[name])) for name in VARIABLES if environment.get(name)]
    return Section("environment", entries or [Entry("variables", "none of those that matter are set", {})])


def cache_folders() -> dict[str, Path]:
    """Returns the folders in which infomax, and the libraries that it uses, keep what they can make or fetch again."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    own = cache_folder()
    return {
        "features": own / "features",
        "data sets": default_data_dir(),
        "infomax": own,
        "hugging face": Path(os.path.expanduser(os.environ.get("HF_HOME") or home / "huggingface")),
        "torch": Path(os.path.expanduser(os.environ.get("TORCH_HOME") or home / "torch")),
    }


def _processor_name() -> str:
    """Returns the processor's name; empty if the system does not say."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return ""


def _cuda_entries(torch: Any, driver: str | None) -> list[Entry]:
    """Returns an entry for each GPU, or one that says why there is none."""
    built = torch.version.cuda or torch.version.hip
    if not torch.cuda.is_available():
        if not driver:
            return [Entry("cuda", f"no GPU is seen; torch is built for {f'CUDA {built}' if built else 'CPUs alone'}")]
        cure = (
            f"the driver {driver} may be too old for torch's CUDA {built}: update it, or install a torch for its CUDA"
            if built
            else "this torch is for CPUs alone: install one that is built for CUDA"
        )
        return [Entry("cuda", "a GPU is there, but torch cannot use it", False, f"torch cannot use the GPU: {cure}")]
    entries = [Entry("cuda", f"CUDA {built}, driver {driver or 'unknown'}, cuDNN {torch.backends.cudnn.version()}")]
    return entries + [_gpu(torch, number) for number in range(torch.cuda.device_count())]


def _apple_gpu(torch: Any) -> Entry:
    """Returns how much memory Apple's GPU may take, and whether it can add."""
    memory, problem = torch.mps.recommended_max_memory(), None
    try:
        if float(torch.ones(1, device="mps") + 1) != 2:
            raise RuntimeError("1 + 1 is not 2")
    except RuntimeError as error:
        problem = f"Apple's GPU cannot compute: {str(error).strip().splitlines()[0]}; --device cpu does without it"
    text = f"Apple's GPU may take {describe_size(memory)}; auto leaves it out, --device mps takes it"
    return Entry("mps", text, {"memory": memory}, problem)


def _gpu(torch: Any, number: int) -> Entry:
    """Returns a GPU's name and memory, and whether it can add."""
    properties = torch.cuda.get_device_properties(number)
    problem = None
    try:
        free, total = torch.cuda.mem_get_info(number)
        if float(torch.ones(1, device=f"cuda:{number}") + 1) != 2:
            raise RuntimeError("1 + 1 is not 2")
    except RuntimeError as error:
        free, total = 0, properties.total_memory
        reason = str(error).strip().splitlines()[0]
        problem = f"GPU {number} cannot compute: {reason}; CUDA_VISIBLE_DEVICES can leave it out"
    text = f"{properties.name}, {describe_size(free)} free of {describe_size(total)}"
    capability = f"{properties.major}.{properties.minor}"
    value = {"name": properties.name, "free": free, "total": total, "capability": capability}
    return Entry(f"cuda:{number}", f"{text}, capability {capability}", value, problem)


def _nvidia_driver() -> str | None:
    """Returns the version of NVIDIA's driver; None if there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _shared_memory() -> Entry:
    """Returns the shared memory, by which workers pass crops on; Docker gives little of it."""
    usage = shutil.disk_usage(SHARED_MEMORY)
    problem = None
    if usage.free < LEAST_SHARED_MEMORY:
        problem = (
            f"workers need {describe_size(LEAST_SHARED_MEMORY)} of shared memory: docker run --shm-size 2g, or "
            "infomax pretrain --workers 0"
        )
    if not os.access(SHARED_MEMORY, os.W_OK):
        problem = f"workers need {SHARED_MEMORY}, which you may not write: infomax pretrain --workers 0"
    text = f"{describe_size(usage.free)} free of {describe_size(usage.total)}"
    return Entry("shared memory", text, {"free": usage.free, "total": usage.total}, problem)


def _disk(name: str, folder: Path) -> Entry | None:
    """Returns the free disk where a folder is, or will be; None if the system does not say."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    problem = None
    if usage.free < LEAST_DISK:
        problem = f"less than {describe_size(LEAST_DISK)} of disk is left at {anonymous(folder)}"
    elif not os.access(folder, os.W_OK):
        problem = f"{anonymous(folder)} cannot be written"
    text = f"{describe_size(usage.free)} of disk"
    return Entry(name, text, {"free": usage.free, "total": usage.total}, problem)
