"""One hash for whatever is known by its specification: cached features, jobs that are resumed, runs of a sweep."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any


def specification_hash(specification: Any) -> str:
    """Returns 16 hexadecimal digits that are equal for equal specifications, in any process and on any machine.

    Args:
        specification: A frozen dataclass, mapping, list, tuple, path or plain value, nested to any depth. A dataclass
            counts with its name, so that two kinds of specification never share a hash.

    Raises:
        TypeError: if it holds anything else, for whose equality a hash could not speak.
    """
    return hashlib.sha256(json.dumps(_plain(specification), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a specification holds plain values and dataclasses, not {type(value).__name__}: {value!r}")
