"""Reads weights that are in one file, or in several parts beside each other (``model-00001-of-00002.safetensors``)."""

import json
import re
from pathlib import Path
from typing import Any

from infomax.models.foreign_files import read_tensors

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)")
INDEX = ".index.json"
LISTED_NAMES = 3  # in a message


def read_weights_file(file: Path) -> Any:
    """Reads a file of weights as :func:`~infomax.models.foreign_files.read_tensors`; all parts, if it is one of many.

    Args:
        file: The file, one of several parts, or the index that names the part of each weight.

    Raises:
        ValueError: As :func:`~infomax.models.foreign_files.read_tensors`; or if a part is missing, or two parts hold
            weights of the same name.
    """
    if file.name.endswith(INDEX):
        return _read_parts(file, _parts_of_index(file))
    match = PART.fullmatch(file.name)
    if match is None or int(match["count"]) <= 1:
        return read_tensors(file)
    count = int(match["count"])
    names = [f"{match['stem']}-{number:05d}-of-{count:05d}{match['suffix']}" for number in range(1, count + 1)]
    return _read_parts(file, names)


def _parts_of_index(file: Path) -> list[str]:
    """Returns the names of the parts that an index names.

    Raises:
        ValueError: If it is no such index, or names files elsewhere.
    """
    try:
        table = json.loads(file.read_bytes())["weight_map"]
        names = sorted(set(table.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no index of weights in several files, which has a weight_map") from error
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{file} is no index of files beside it")
    return names


def _read_parts(file: Path, names: list[str]) -> dict[str, Any]:
    """Reads all parts of weights."""
    absent = [name for name in names if not (file.parent / name).exists()]
    if absent:
        listed = ", ".join(absent[:LISTED_NAMES]) + ", ..." * (len(absent) > LISTED_NAMES)
        raise ValueError(f"{file} is of weights in {len(names)} files, of which {len(absent)} are missing: {listed}")
    weights: dict[str, Any] = {}
    for name in names:
        part = read_tensors(file.parent / name)
        if not isinstance(part, dict) or weights.keys() & part.keys():
            raise ValueError(f"{file.parent / name} is no part of the weights beside it")
        weights |= part
    return weights
