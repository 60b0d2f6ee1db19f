"""Reads the tensors in anybody's file, of torch.save or safetensors, without running code from it.

torch.load with ``weights_only`` refuses a whole file because of one argparse.Namespace beside the tensors. Such a file
is read here by an unpickler of its own. The names in a pickle are never looked up: each is replaced by a function of
this file that builds a tensor or a plain value, or by a :class:`Placeholder`, which does nothing.
"""

import io
import json
import pickle
import pickletools
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from infomax.runtime.text import note

INERT_STANDARD_TYPES = {
    "argparse": {"Namespace"},
    "builtins": {"bool", "complex", "dict", "float", "int", "list", "object", "range", "slice", "str", "tuple"},
    "collections": {"ChainMap", "Counter", "UserDict", "UserList", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "enum": {"Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "typing": {"Any", "Optional", "Union"},
    "uuid": {"UUID"},
}
"""Types of the standard library that a file may name: data, which placeholders stand for. Any other name of the
standard library belongs to no data, so that the file is refused."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; that of the library
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LISTED_NAMES = 3  # in a message


class _NoDataError(pickle.UnpicklingError):
    """Says what a file asks for that is neither a tensor nor data."""


class Placeholder(dict[Any, Any]):
    """Stands for an object of a class in a pickle: keeps its items and attributes, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # the second one is of __slots__
        for part in parts:
            if isinstance(part, dict):
                self.update(part)

    def append(self, item: Any) -> None:
        """Takes an item of a list, and forgets it."""

    extend = add = append

    def __hash__(self) -> int:  # a file may have it as a key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Function:
    """A function that a pickle may call, without attributes that a pickle could set."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise _NoDataError("a function has no state")


class _Storage:
    """The numbers of one storage in a file; they may be read after the tensors that are views of them.

    Args:
        dtype: Their type.
        count: Their number.
    """

    __slots__ = ("values",)

    def __init__(self, dtype: torch.dtype, count: int):
        self.values = torch.zeros(count, dtype=dtype)

    def __setstate__(self, _: Any) -> None:
        raise _NoDataError("a storage has no state")

    def fill(self, content: bytes) -> None:
        """Sets the numbers, from bytes in the order of a PC's processor."""
        if len(content) != self.values.nbytes:
            raise ValueError(f"a storage has {len(content)} bytes instead of {self.values.nbytes}")
        if content:
            self.values.copy_(torch.frombuffer(bytearray(content), dtype=self.values.dtype))


def _build_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Builds the tensor that torch's function of this purpose would build, after a check of its bounds."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, _Storage) or len(size) != len(stride) or not all(type(n) is int for n in numbers):
        raise _NoDataError("a tensor without a storage, an offset, sizes and strides")
    if min(numbers) < 0 or max(numbers) >= 1 << 62:
        raise _NoDataError(f"a tensor of the size {tuple(size)} with the strides {tuple(stride)}")
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if prod(size) else offset
    # Strides of zero would make a tensor of any size out of a few bytes.
    if end > len(storage.values) or prod(size) > max(1, len(storage.values)):
        raise _NoDataError(f"a tensor of the size {tuple(size)} beyond its {len(storage.values)} numbers")
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    if not isinstance(function, _Function):
        raise _NoDataError("a tensor of an unknown kind")
    return function(*arguments)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Returns the bytes that pickles of protocol 2 hold as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise _NoDataError(f"bytes in the encoding {encoding!r}")
    return text.encode(encoding)


def _no_items(*_: Any) -> Placeholder:
    return Placeholder()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _build_tensor,
    "torch._utils._rebuild_tensor_v2": _build_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *_: "device",
    "_codecs.encode": _encode,
    "builtins.set": lambda *_: Placeholder(),
    "builtins.frozenset": lambda *_: Placeholder(),
    "builtins.bytearray": lambda *_: Placeholder(),
    "copyreg._reconstructor": _no_items,
}
"""What a name stands for if a pickle calls it; no other function is ever called."""
LEGACY_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that looks up no name, and so can call nothing but the functions above.

    Attributes:
        placeholders: The names that a placeholder stands for.
    """

    def __init__(self, file: BinaryIO, storage: Callable[..., _Storage]):
        super().__init__(file, encoding="latin1")
        self.storage = storage
        self.placeholders: set[str] = set()

    @classmethod
    def read(cls, file: BinaryIO, storage: Callable[..., _Storage]) -> tuple[Any, set[str]]:
        """Reads one pickle from the place where the file stands.

        Returns:
            Its content, and the names that placeholders stand for.

        Raises:
            UnpicklingError: If it would take more memory than any pickle of its length needs.
        """
        start = file.tell()
        _check_memo(file)
        file.seek(start)
        unpickler = cls(file, storage)
        return unpickler.load(), unpickler.placeholders

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Returns what stands for a name; each time a new object, so that no file changes what another one gets."""
        module = LEGACY_MODULES.get(module_name, module_name)
        name = f"{module}.{global_name}"
        if name == "collections.OrderedDict":
            return OrderedDict  # a type in C, whose attributes cannot be set
        if name in FUNCTIONS:
            return _Function(FUNCTIONS[name])
        if module == "torch" and isinstance(dtype := getattr(torch, global_name, None), torch.dtype):
            return dtype
        if module in ("torch", "torch.cuda", "torch.storage") and global_name.endswith("Storage"):
            return _Function(lambda: _storage_dtype(global_name))
        package = module.partition(".")[0]
        if package in sys.stdlib_module_names and global_name not in INERT_STANDARD_TYPES.get(module, ()):
            raise _NoDataError(f"it asks for {name}")
        self.placeholders.add(name)
        return type("Placeholder", (Placeholder,), {})

    def persistent_load(self, pid: Any, /) -> Any:
        """Returns the storage of an identifier, or the placeholder of a module's class, beside which old files of
        torch.save keep the class's source code."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and _is_placeholder_type(pid[1]):
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _Function):
            raise _NoDataError("it refers to something that is no tensor")
        dtype, key, count = pid[1](), str(pid[2]), pid[4]
        if not isinstance(dtype, torch.dtype) or type(count) is not int or count < 0:
            raise _NoDataError("a storage of an unknown type")
        if any(pid[5:]):
            raise _NoDataError("a storage that is part of another one")
        return self.storage(dtype, key, count)


def _check_memo(file: BinaryIO) -> None:
    """Reads over one pickle, and raises UnpicklingError if it numbers an object beyond the count of its bytes.

    pickle gets memory for as many objects as the largest number says, which a file of 500 bytes can set to 4 thousand
    millions (https://github.com/python/cpython/issues/115952).
    """
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        length = (position or start) - start
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > length:
            raise _NoDataError(f"it gives an object in its first {length} bytes the number {argument}")


def _is_placeholder_type(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Placeholder)


def _storage_dtype(name: str) -> torch.dtype | None:
    """Returns the type of the numbers in a storage, by the storage's name in a pickle."""
    kinds = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"}
    kinds |= {"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8"}
    kinds |= {"ComplexFloat": "complex64", "ComplexDouble": "complex128"}
    kind = kinds.get(name.removesuffix("Storage"))
    return None if kind is None else getattr(torch, kind)


def read_tensors(file: Path) -> Any:
    """Reads a file of torch.save or safetensors, with all tensors on the CPU. No code in it is run.

    Objects beside the tensors are kept as :class:`Placeholder`; a line on the standard error names their classes.

    Args:
        file: The file. Its content tells the format, not its name.

    Returns:
        The content: nested dictionaries and placeholders with tensors in them.

    Raises:
        ValueError: saying what the file is instead, if it is no such file, is damaged, or asks for a function of the
            standard library.
    """
    try:
        start = _check_start(file)
        if _is_safetensors(start):
            return _read_safetensors(file)
        try:
            with warnings.catch_warnings(action="ignore"), file.open("rb") as opened:  # an error below says the same
                return torch.load(opened, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return _read_inert(file)
    except _NoDataError as error:
        raise ValueError(f"{file} holds more than tensors and data: {error}; nothing of it was run") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise ValueError(f"{file} holds more than fits into the memory of this machine") from error
    except Exception as error:  # torch and pickle raise any kind of error if a file is none of theirs
        if isinstance(error, ValueError) and str(file) in str(error):
            raise
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} is no file of tensors by torch.save or safetensors, or is damaged; nothing of it was run ({text})"
        ) from error


def _refuse(file: Path, reason: str) -> NoReturn:
    raise ValueError(f"{file} {reason}")


def _check_start(file: Path) -> bytes:
    """Returns the first bytes of a file; raises ValueError if they are those of something else."""
    if not file.exists():
        raise ValueError(f"there is no file {file}")
    if file.is_dir():
        _refuse(file, "is a folder; name the file of weights in it")
    if not file.is_file():
        _refuse(file, "is no regular file")
    with file.open("rb") as opened:
        start = opened.read(1024)
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    if not start:
        _refuse(file, "is empty")
    if start.startswith(LFS_POINTER):
        _refuse(file, "is a Git LFS pointer, which stands for the weights: git lfs pull fetches the file itself")
    if text[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        _refuse(file, "is a web page, as a server sends instead of a file that it does not give out; download it anew")
    for signature, kind in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if start.startswith(signature):
            _refuse(file, f"is compressed by {kind}; unpack it first")
    if start[257:262] == b"ustar":
        _refuse(file, "is a tar archive; unpack it first, and name the file of weights in it")
    if start[:4] == b"PK\x03\x04":
        _check_zip(file)
    elif not _is_safetensors(start) and _is_text(start):
        _refuse(file, f"is a text file, which begins with {start[:40].decode(errors='replace')!r}, and no weights")
    return start


def _is_text(start: bytes) -> bool:
    """Returns whether bytes are text; a pickle of protocol 0, which no torch.save writes, counts as text too."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] < SAFETENSORS_HEADER_LIMIT


def _check_zip(file: Path) -> None:
    """Checks that a zip file is whole and of torch.save; raises ValueError if not."""
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        wanted = _wanted_bytes(file)
        extent = f": {size} of more than {wanted} bytes" if wanted and wanted > size else f" after {size} bytes"
        _refuse(file, f"breaks off{extent}; download or copy it again")
    if any(name.endswith("/constants.pkl") for name in names):
        _refuse(file, "is a TorchScript program, which would have to be run; save the state dict of its model instead")
    if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        listed = ", ".join(names[:LISTED_NAMES])
        _refuse(file, f"is a zip archive of other files ({listed or 'none'}); unpack it first")


def _wanted_bytes(file: Path) -> int | None:
    """Returns how many bytes the tensors of a torn zip file of torch.save take; None if its beginning is torn too."""
    sizes: dict[str, int] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        sizes[key] = count * dtype.itemsize
        return _Storage(dtype, 0)

    with file.open("rb") as opened:
        header = opened.read(30)
        if len(header) < 30:
            return None
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        if not opened.read(name_length).endswith(b"data.pkl"):
            return None
        opened.seek(extra_length, io.SEEK_CUR)
        try:
            _SizesUnpickler.read(opened, storage)
        except Exception:
            return None
    return sum(sizes.values())


class _SizesUnpickler(_InertUnpickler):
    """An unpickler that finds out the sizes of storages alone."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Returns what stands for a name; no tensors are built."""
        stand_in = super().find_class(module_name, global_name)
        builds_tensor = isinstance(stand_in, _Function) and stand_in.function is _build_tensor
        return _Function(_no_items) if builds_tensor else stand_in


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; raises ValueError with the number of bytes that are missing, if there are some."""
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        size, reason = file.stat().st_size, " ".join(str(error).split())[:200]
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = opened.read(length)
        if len(header) < length:
            _refuse(file, f"breaks off: {size} bytes, but its header alone takes {8 + length}; download it again")
        try:
            entries = json.loads(header)
        except (ValueError, RecursionError):
            entries = {}
        tables = entries.values() if isinstance(entries, dict) else ()
        ends = [table.get("data_offsets") for table in tables if isinstance(table, dict)]
        bounds = [pair[1] for pair in ends if isinstance(pair, list) and len(pair) == 2 and type(pair[1]) is int]
        if (wanted := 8 + length + max(bounds, default=0)) > size:
            _refuse(file, f"breaks off: {size} of {wanted} bytes; download or copy it again")
        _refuse(file, f"cannot be read: its header is not that of a safetensors file ({reason})")


def _read_inert(file: Path) -> Any:
    """Reads a file of torch.save by the inert unpickler, and says which classes it has left out."""
    content, names = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    if names:
        listed = ", ".join(sorted(names)[:LISTED_NAMES]) + ", ..." * (len(names) > LISTED_NAMES)
        note(f"{file}: tensors alone are read, without the objects of {listed} around them, which are not run")
    return content


def _read_zip(file: Path) -> tuple[Any, set[str]]:
    """Reads the zip file that torch.save writes since 2020; returns its content, and the names left out."""
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError(f"{file} is a compressed zip file, as torch.save writes none; unpack it first")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError(f"{file} was written by a machine of another byte order; save it anew")

        def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
            if key not in storages:
                content = archive.read(entries[f"data/{key}"])
                if len(content) != count * dtype.itemsize:
                    raise _NoDataError(f"storage {key} has {len(content)} bytes, but {count} {dtype}")
                storages[key] = _Storage(dtype, count)
                storages[key].fill(content)
            return storages[key]

        return _InertUnpickler.read(io.BytesIO(archive.read(entries["data.pkl"])), storage)


def _read_legacy(file: Path) -> tuple[Any, set[str]]:
    """Reads the file that torch.save wrote before 2020; returns its content, and the names left out."""
    size, storages = file.stat().st_size, dict[str, _Storage]()

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        if count * dtype.itemsize > size:
            raise _NoDataError(f"it breaks off: {size} bytes, but one tensor takes {count * dtype.itemsize}")
        if key not in storages:
            storages[key] = _Storage(dtype, count)
        return storages[key]

    with file.open("rb") as opened:
        (magic, _), (version, _), _ = (_InertUnpickler.read(opened, storage) for _ in range(3))
        if magic != LEGACY_MAGIC or version != 1001:
            raise ValueError(f"{file} is no file of torch.save")
        content, names = _InertUnpickler.read(opened, storage)
        for key in _InertUnpickler.read(opened, storage)[0]:
            if (wanted := storages.get(str(key))) is None:
                raise ValueError(f"{file} is damaged: it has a storage of no tensor")
            (count,) = struct.unpack("<q", opened.read(8))
            values = opened.read(wanted.values.nbytes)
            if count != len(wanted.values) or len(values) != wanted.values.nbytes:
                raise ValueError(f"{file} breaks off: {size} bytes are not all of its tensors; download it again")
            wanted.fill(values)
    return content, names
