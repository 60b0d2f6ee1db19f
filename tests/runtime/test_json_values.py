"""JSON of others: typed values, or one line that names the file and the key."""

import os
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from infomax.runtime.json_lines import MAX_LINE, append_json_line, read_json_lines
from infomax.runtime.json_values import MAX_BYTES, parse_json, parse_value, read_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    kind: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    sizes: tuple[int, int] = (1, 2)
    parts: tuple[Inner, ...] = ()
    limit: float | None = None


class Table(TypedDict):
    name: str
    counts: NotRequired[dict[str, int]]


def test_typed_values():
    plain = {"inner": {"rate": 1}, "sizes": [3, 4], "parts": [{"rate": 0.5, "kind": "adam"}], "limit": None}
    assert parse_value(plain, Outer, "") == Outer(
        inner=Inner(rate=1), sizes=(3, 4), parts=(Inner(rate=0.5, kind="adam"),)
    )
    table = {"name": "a", "counts": {"b": 3}, "more": [1]}
    assert parse_value(table, Table, "", other_keys=True) == table


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"inner": {"rate": "x"}}, Outer, "inner.rate must be a finite number, but is 'x'"),
        ({"inner": {"rate": float("nan")}}, Outer, "inner.rate must be a finite number, but is nan"),
        ({"inner": {"rate": 10**400}}, Outer, "inner.rate must be a finite number, but is 1000"),
        ({"inner": {"rate": True}}, Outer, "inner.rate must be a finite number, but is True"),
        ({"inner": {"rate": 1, "kind": "lars"}}, Outer, "inner.kind must be one of sgd, adam, but is 'lars'"),
        ({"inner": {"rate": 1, "kind": []}}, Outer, r"inner.kind must be one of sgd, adam, but is \[\]"),
        ({"inner": {"rat": 1}}, Outer, "inner.rat is no key that this version knows; did you mean rate?"),
        ({"inner": {}}, Outer, "inner.rate is missing"),
        ({}, Outer, "^inner is missing"),
        ([], Outer, r"the content must be an object with keys, but is \[\]"),
        ({"inner": {"rate": 1}, "sizes": [1]}, Outer, "sizes must be a list of 2 values"),
        ({"inner": {"rate": 1}, "sizes": [1, 2.5]}, Outer, "sizes.1 must be a whole number, but is 2.5"),
        ({"inner": {"rate": 1}, "sizes": [1, 2**70]}, Outer, "sizes.1 must be a whole number"),
        ({"inner": {"rate": 1}, "parts": {"rate": 1}}, Outer, "parts must be a list"),
        ({"inner": {"rate": 1}, "parts": [{"rate": None}]}, Outer, "parts.0.rate must be a finite number, but is None"),
        ({"inner": {"rate": 1}, "limit": "x" * 10**6}, Outer, r"limit must be a finite number, but is 'xxx"),
        ({"name": None}, Table, "name must be a text, but is None"),
        ({"name": "a", "counts": {"b": "c"}}, Table, "counts.b must be a whole number, but is 'c'"),
        ({"name": "a", "more": 3}, Table, "more is no key"),
        ("x", bool | int, "must be true or false or a whole number, but is 'x'"),
    ],
)
def test_the_key_is_named(value, kind, message):
    with pytest.raises(ValueError, match=message) as raised:
        parse_value(value, kind, "")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": NaN}', "NaN is no value of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no value of JSON"),
        (b"[" * 10**5, "is nested too deep"),
        (b'{"a":' * 10**5, "is nested too deep"),
        (b"1" * 5000, "4300"),
        (b"\xff\xfe{}", "byte 0 is no text in UTF-8"),
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"{} {}", "Extra data"),
        (bytes(range(256)), "is damaged"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_json(tmp_path / "a.json")
    assert str(raised.value).startswith(str(tmp_path / "a.json"))
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_mistake():
    assert parse_json(b'\xef\xbb\xbf{"a": "\\udce9"}', "x") == {"a": "\udce9"}


def test_what_is_no_small_regular_file_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="is a folder, but must be a file"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no regular file"):
        read_json(tmp_path / "pipe")
    with (tmp_path / "large.json").open("wb") as large:
        large.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="at most"):
        read_json(tmp_path / "large.json")


def test_lines(tmp_path):
    file = tmp_path / "a.jsonl"
    append_json_line(file, {"a": float("nan")})
    append_json_line(file, {"b": "\u2028"})
    file.write_bytes(file.read_bytes() + b'{"c": 3\n\xff\xfe\n{"d":' + b"[" * 10**5 + b'\n{"e": 1}\n{"f": 1}')
    (first, *rest) = read_json_lines(file)
    assert first["a"] != first["a"]
    assert rest == [{"b": "\u2028"}, {"e": 1}]


@pytest.mark.parametrize("line", [b"3", b"[]", b'"a"', b"null"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(ValueError, match="line 2 must be an object with keys"):
        read_json_lines(tmp_path / "a.jsonl")


def test_an_endless_line_is_not_read(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as large:
        large.write(b"{}\n")
        large.truncate(1 << 34)
    with pytest.raises(ValueError, match=f"line 2 is longer than {MAX_LINE} bytes"):
        read_json_lines(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="is no regular file"):
        read_json_lines(tmp_path)


def test_any_value_is_kept():
    value: Any = {"a": [1, {"b": None}]}
    assert parse_value(value, Any, "x") is value
