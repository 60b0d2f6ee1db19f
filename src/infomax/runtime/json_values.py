"""Reads JSON that anybody may have written into typed values; each error is a line that names the file and the key."""

import dataclasses
import json
import math
import stat
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints, is_typeddict

MAX_BYTES = 1 << 26  # 64 MB; no settings and no row of a result come near
MAX_INTEGER = 1 << 63
SHOWN_CHARACTERS = 60  # of a wrong value, in a message
WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    NoneType: "null",
    dict: "an object with keys",
}


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: naming the file, if it is no regular file, too large, no JSON, or has a key twice, NaN or infinity.
        OSError: if it cannot be read.
    """
    return parse_json(read_limited(file), str(file))


def read_limited(file: Path) -> bytes:
    """Reads a small regular file; raises ValueError for a folder, a pipe, or more bytes than any settings take."""
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{file} is a folder, but must be a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file} is no regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{file} has {status.st_size} bytes, but a file of this kind has at most {MAX_BYTES}")
    with file.open("rb") as opened:
        return opened.read()


def parse_json(content: bytes, where: str, *, allow_nan: bool = False) -> Any:
    """Returns the values of a JSON text.

    Args:
        content: The text in UTF-8, with or without a byte order mark.
        where: Words for the text in an error's message, as its file.
        allow_nan: Whether NaN and Infinity, which are no JSON but which Python writes, are values.

    Raises:
        ValueError: if it is no JSON, is nested too deep, or has a key twice.
    """

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no value of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {shorten(next(key for key in keys if keys.count(key) > 1))} is there twice")
        return table

    try:
        text = content.decode("utf-8-sig")
        return json.loads(text, parse_constant=float if allow_nan else refuse, object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is damaged: byte {error.start} is no text in UTF-8") from None
    except ValueError as error:  # JSON's own errors are of this class too
        raise ValueError(f"{where} is damaged: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is nested too deep") from None


def parse_value(value: Any, kind: Any, key: str, *, other_keys: bool = False) -> Any:
    """Returns a value of JSON as a type holds it.

    Args:
        value: The value.
        kind: The type: bool, int, float, str, None, Any, Literal, a union, a list, tuple or dict of such, a TypedDict,
            or a dataclass.
        key: The value's key, with dots, for messages.
        other_keys: Whether a TypedDict may have keys that it does not name; they are kept as they are.

    Raises:
        ValueError: naming the key, the value, and what it must be.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _parse_union(value, arguments, key)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            _refuse(key, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if origin in (tuple, list):
        return _parse_list(value, origin, arguments, key)
    if origin is dict:
        _check_object(value, key)
        return {name: parse_value(item, arguments[1], _joined(key, name)) for name, item in value.items()}
    if is_typeddict(kind):
        required = {str(name) for name in kind.__required_keys__}
        fields = {name: (hint, name in required) for name, hint in get_type_hints(kind).items()}
        return _parse_fields(value, fields, key, other_keys=other_keys)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _parse_dataclass(value, kind, key)
    if not _fits(value, kind):
        _refuse(key, WORDS.get(kind, str(kind)), value)
    return value


def shorten(value: Any) -> str:
    """Returns a value as Python writes it, of which at most the beginning is shown."""
    text = repr(value[:SHOWN_CHARACTERS] if isinstance(value, str | list) else value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}..."


def _fits(value: Any, kind: Any) -> bool:
    """Returns whether a value is of a plain type; a whole number is a number too."""
    if kind is float:
        try:
            return type(value) in (int, float) and math.isfinite(value)
        except OverflowError:
            return False
    if kind is int:
        return type(value) is int and abs(value) < MAX_INTEGER
    return type(value) is kind


def _parse_union(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    """Returns a value as the first type holds it that it fits."""
    if value is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) == 1:
        return parse_value(value, others[0], key)
    for kind in others:
        try:
            return parse_value(value, kind, key)
        except ValueError:
            continue
    _refuse(key, " or ".join(WORDS.get(kind, str(kind)) for kind in kinds), value)


def _parse_list(value: Any, make: Callable[[Any], Any], kinds: tuple[Any, ...], key: str) -> Any:
    """Returns a list of JSON as a list or a tuple."""
    if not isinstance(value, list | tuple):
        _refuse(key, "a list", value)
    if make is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        _refuse(key, f"a list of {len(kinds)} values", value)
    return make(parse_value(item, kind, f"{key}.{i}") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _parse_dataclass(value: Any, cls: type, key: str) -> Any:
    """Returns an object of JSON as a dataclass, which checks the ranges of its fields itself."""
    hints = get_type_hints(cls)
    missing = dataclasses.MISSING
    fields = {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(cls)
    }
    return cls(**_parse_fields(value, fields, key))


def _parse_fields(
    value: Any, fields: Mapping[str, tuple[Any, bool]], key: str, *, other_keys: bool = False
) -> dict[str, Any]:
    """Returns the fields of an object of JSON.

    Args:
        value: The object.
        fields: The type of each field, and whether it must be there.
        key: The object's key.
        other_keys: Whether it may have keys that are no fields.
    """
    _check_object(value, key)
    parsed = {}
    for name, item in value.items():
        if name in fields:
            parsed[name] = parse_value(item, fields[name][0], _joined(key, name))
        elif other_keys:
            parsed[name] = item
        else:
            near = get_close_matches(name[:SHOWN_CHARACTERS], fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{_joined(key, shorten(name)[1:-1])} is no key that this version knows{hint}")
    for name, (_, required) in fields.items():
        if required and name not in value:
            raise ValueError(f"{_joined(key, name)} is missing")
    return parsed


def _joined(key: str, name: str) -> str:
    """Returns the key of a field; a file's name, which ends in a colon, stands before the first key."""
    name = name[:SHOWN_CHARACTERS]
    return f"{key} {name}" if key.endswith(":") else f"{key}.{name}" if key else name


def _check_object(value: Any, key: str) -> None:
    if not isinstance(value, dict):
        _refuse(key.removesuffix(":") or "the content", WORDS[dict], value)


def _refuse(key: str, wanted: str, value: Any) -> NoReturn:
    raise ValueError(f"{key} must be {wanted}, but is {shorten(value)}")
