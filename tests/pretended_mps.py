"""A pretended Apple GPU: real numbers on the CPU, in tensors that say that they are on ``mps`` and are refused what it
lacks.

Torch's fake tensors cannot pass a step: its backward pass looks for the driver of the device, and reading the loss asks
for a number. So the numbers here are real, and a run must come to those of the CPU. What is refused is float64; an
operation with tensors of both devices; one for which the installed torch declares no kernel for ``mps``; and a
convolution or BatchNorm whose tensors have their channels last in memory (https://github.com/pytorch/pytorch/issues/175189).

Not simulated are: how the hardware rounds; operations that torch declares for ``mps`` but that fail for some types,
shapes or releases of macOS; autocast; the fused and foreach forms of torch's own optimisers, which take no tensors of
another class; memory; and what runs at the same time.
"""

import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

MPS = torch.device("mps", 0)
CROSSING = {"aten::copy_", "aten::_foreach_copy_", "aten::_to_copy"}  # take tensors of two devices
CHANNELS_FIRST = ("convolution", "batch_norm")


class LackedByMpsError(AssertionError):
    """An error that says what Apple's GPU would have been asked for and does not have."""


class PretendedTensor(Tensor):
    """A tensor whose numbers are on the CPU and that says that it is on Apple's GPU."""

    held: Tensor
    """The numbers. Torch itself takes the wrapper for a tensor of the CPU: its backward pass needs no driver."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        if held.dtype in (torch.float64, torch.complex128):
            raise LackedByMpsError(f"a tensor of {held.dtype} on mps")
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        wrapper = Tensor._make_wrapper_subclass(cls, held.shape, **layout, device="cpu")
        wrapper.held = held
        return wrapper

    device = property(lambda self: MPS)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # a checkpoint is read with all tensors on the CPU

    def __repr__(self, **options: Any) -> str:
        return f"PretendedTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _ToCpu(torch.autograd.Function):
    """The copy to the CPU, whose gradient is copied back."""

    @staticmethod
    def forward(ctx: Any, x: PretendedTensor) -> Tensor:
        return x.held.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return PretendedTensor(gradient)


class _ToMps(torch.autograd.Function):
    """The copy to the pretended GPU, whose gradient is copied back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return PretendedTensor(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: PretendedTensor) -> Tensor:
        return gradient.held


@contextmanager
def pretended_mps() -> Generator[None]:
    """Lets torch have a device ``mps`` until the block ends, in this process and thread."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # Module.to cannot change a tensor's class
    try:
        with _Copies(), _Operations():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


class _Copies(TorchFunctionMode):
    """Copies between the devices, and what torch reads of a tensor without an operation."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.to:
            return _to(*args, **kwargs)
        if args and isinstance(args[0], PretendedTensor):
            if function is Tensor.cpu:
                return _ToCpu.apply(args[0])
            if function is Tensor.tolist:
                return args[0].held.tolist()
            if function is Tensor.numpy:
                raise LackedByMpsError("numpy() of a tensor on mps")
        return function(*args, **kwargs)


def _to(x: Tensor, *words: Any, **named: Any) -> Tensor:
    if words and isinstance(words[0], Tensor):
        device, dtype, layout = words[0].device, words[0].dtype, None
    else:
        device, dtype, _, layout = torch._C._nn._parse_to(*words, **named)
    is_on_mps = isinstance(x, PretendedTensor)
    if device is not None and device.type == "cpu" and is_on_mps:
        x = _ToCpu.apply(x)
    x = Tensor.to(x, dtype=dtype or x.dtype, memory_format=layout or torch.preserve_format)
    return _ToMps.apply(x) if device is not None and device.type == "mps" and not is_on_mps else x


class _Operations(TorchDispatchMode):
    """Operations without a tensor of the pretended device among their arguments, which may make one."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    pretended = [x for x in tensors if isinstance(x, PretendedTensor)]
    device = kwargs.get("device")
    on_mps = bool(pretended) if device is None else torch.device(device).type == "mps"
    if pretended or on_mps:
        _check(operation, args, tensors, pretended)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    real_args, real_kwargs = tree_map_only(PretendedTensor, lambda x: x.held, (args, kwargs))
    result = operation(*real_args, **real_kwargs)
    if not on_mps:
        return result
    if operation._schema.name.endswith("_") and operation._schema.returns:
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map_only(Tensor, PretendedTensor, result)


def _check(operation: Any, args: Any, tensors: list[Tensor], pretended: list[PretendedTensor]) -> None:
    name = operation._schema.name
    # If an output of chunk or split has no gradient, torch makes zeros where it takes the wrapper to be.
    is_of_split = name == "aten::cat" and torch._C._current_graph_task_id() != -1
    if name not in CROSSING and pretended and not is_of_split:
        for x in tensors:
            if not isinstance(x, PretendedTensor) and x.ndim > 0:
                raise LackedByMpsError(f"{name} of tensors on mps and on the CPU, {list(x.shape)}")
    for argument in args:
        if name in CROSSING and isinstance(argument, list) and len({x.device for x in argument}) > 1:
            raise LackedByMpsError(f"{name} of a list with tensors on mps and on the CPU")
    if name.removeprefix("aten::") + _overload(operation) in lacked_operations():
        raise LackedByMpsError(f"{name}, for which this torch has no kernel on mps")
    if any(part in name for part in CHANNELS_FIRST):
        for x in pretended:
            if x.ndim == 4 and not x.is_contiguous():
                raise LackedByMpsError(f"{name} of a tensor with the strides {x.stride()} on mps")


def _overload(operation: Any) -> str:
    return "." + operation._schema.overload_name if operation._schema.overload_name else ""


@functools.cache
def lacked_operations() -> frozenset[str]:
    """Returns the operations of the installed torch that have a kernel for the CPU and none for ``mps``.

    Its own table says so, which its build is made from. Its operations that are made of others have no kernels.
    """
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.load(table.read_text(), Loader=loader)}

    def devices(name: str) -> set[str]:
        entry = entries[name]
        found = {device.strip() for keys in entry.get("dispatch", {}) for device in keys.split(",")}
        return found | (devices(entry["structured_delegate"]) if "structured_delegate" in entry else set())

    by_name = {name: devices(name) for name in entries}
    return frozenset(
        name
        for name, found in by_name.items()
        if "CPU" in found and "MPS" not in found and not any(device.startswith("Composite") for device in found)
    )
