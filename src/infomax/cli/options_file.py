"""Reads ``--options FILE``: options in TOML or YAML become the words that a user would type, and are checked as such.

Nothing in a file is run: TOML has values alone, and of YAML the plain values are taken, whose tags are refused.
"""

import re
import shlex
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from infomax.runtime.json_values import SHOWN_CHARACTERS, read_limited, shorten
from infomax.runtime.near_names import missing_path, nearest_option
from infomax.runtime.options import OptionField, Shown, parse_option, split_words
from infomax.runtime.ranks import is_first_rank
from infomax.runtime.text import note

OPTION = "--options"
SUFFIXES = (".toml", ".yaml", ".yml")
PREPARE_PRETRAIN = ("plan", "views")
"""Commands that take a file for ``infomax pretrain`` too, of which they leave out what they do not have."""
PLAIN_TYPES = ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp")
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in PLAIN_TYPES}
"""What YAML calls values that need no code."""


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """A frozen dataclass that holds the option of all commands that names a file of options."""

    options: Annotated[Path | None, Shown(metavar="FILE", default="none")] = None
    """File of TOML or YAML with options of this command, a line each, in which --some-option 64 is written
    some_option = 64. What stands on the command line wins. Paths in it are relative to the working folder."""


@dataclass(frozen=True)
class Entry:
    """A frozen dataclass that holds one option of a file: a text, a list of texts, or a table of them."""

    key: str
    value: Any
    line: int | None
    """Number of its line, from 1; None if it is not known."""


def insert_options_file(words: Sequence[str], commands: Mapping[str, Sequence[OptionField]]) -> list[str]:
    """Returns the words of a command with the options of its file in place of ``--options FILE``.

    A line says which options come from the file. What the command line has too is left out; of ``--set``, those of the
    command line follow, and win.

    Args:
        words: The words after ``infomax``.
        commands: The options of each command, as ``pretrain`` and ``evaluate knn``.

    Raises:
        ValueError: naming the file, the line and the option, if the file cannot be read or an option is impossible.
    """
    command = next((name for name in (" ".join(words[:2]), *words[:1]) if name in commands), None)
    names, rest = _take_out(words)
    if command is None or not names or {"-h", "--help"} & {*words}:
        return list(words)
    if len(names) > 1:
        raise ValueError(f"{OPTION} is given {len(names)} times, but options are read from one file")
    file = Path(names[0]).expanduser()
    fields = {field.name: field for field in commands[command] if field.word != OPTION}
    typed = rest[len(command.split()) :]
    options, others = split_words(typed, {field.word: field for field in fields.values()})
    given = {word for word, _ in options}
    first, last, replaced = [], [], []
    of_pretrain = _by_key(commands["pretrain"]) if command in PREPARE_PRETRAIN else {}
    of_file, left_out = _words_of_file(file, _by_key(fields.values()), command, of_pretrain.keys())
    for field, texts in of_file.items():
        if (field.shown.positional and others) or (field.word in given and not _takes_table(field)):
            replaced.append(field.name)
        elif field.shown.positional:
            first += texts
        else:
            last += texts
    if is_first_rank():
        line = f"options of {file}: {shlex.join([*first, *last]) or 'none'}"
        line += f"; the command line has its own {', '.join(replaced)}" if replaced else ""
        note(line + (f"; left out, as they are of pretrain alone: {', '.join(left_out)}" if left_out else ""))
    return [*rest[: len(command.split())], *first, *_between(last, typed)]


def _between(from_file: list[str], typed: list[str]) -> list[str]:
    """Returns the words of a file and those of the command line, so that no option takes a word of the other.

    Words that stand in their place come first on the command line, and repeated options count in their order.
    """
    position = next((number for number, word in enumerate(typed) if word.startswith("-")), len(typed))
    return [*typed[:position], *from_file, *typed[position:]]


def _take_out(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the files that ``--options`` names, and all other words."""
    files, others, waits = [], [], False
    for word in words:
        if waits:
            files.append(word)
            waits = False
        elif word == OPTION:
            waits = True
        elif word.startswith(f"{OPTION}="):
            files.append(word.removeprefix(f"{OPTION}="))
        else:
            others.append(word)
    if waits:
        raise ValueError(f"{OPTION} wants one value, but is followed by none")
    return files, others


def _words_of_file(
    file: Path, fields: Mapping[str, OptionField], command: str, of_others: Collection[str]
) -> tuple[dict[OptionField, list[str]], list[str]]:
    """Returns the words that stand for each option of a file, and the keys that are left out.

    Args:
        file: The file.
        fields: The options of the command by their keys.
        command: The command, for messages.
        of_others: Keys that are left out if the command does not have them.
    """
    words: dict[OptionField, list[str]] = {}
    left_out: list[str] = []
    for entry in read_entries(file):
        where = f"{file}{f', line {entry.line}' if entry.line else ''}"
        field = fields.get(entry.key.replace("-", "_"))
        if field is None and entry.key.replace("-", "_") in of_others:
            left_out.append(entry.key)
            continue
        if field is None:
            near = nearest_option(entry.key, [_file_key(field).replace("_", "-") for field in fields.values()])
            hint = f"; did you mean {near.replace('-', '_') if ' ' not in near else near}?" if near else ""
            raise ValueError(f"{where}: {shorten(entry.key)[1:-1]} is no option of infomax {command}{hint}")
        if field in words:
            raise ValueError(f"{where}: {entry.key} is there twice")
        try:
            words[field] = _words_of_entry(field, entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return words, left_out


def _by_key(fields: Iterable[OptionField]) -> dict[str, OptionField]:
    """Returns options by the keys that they have in a file: their names, and their words if these are others."""
    return {name: field for field in fields for name in (field.name, _file_key(field))}


def _file_key(field: OptionField) -> str:
    """Returns the key of an option in a file, as ``set``."""
    return (field.shown.name or field.name).replace("-", "_")


def _takes_table(field: OptionField) -> bool:
    """Returns whether an option is of settings with values, as ``--set KEY=VALUE``."""
    return (field.shown.metavar or "").startswith("KEY=")


def _words_of_entry(field: OptionField, entry: Entry) -> list[str]:
    """Returns the words of a command that stand for one option of a file; raises ValueError if it has no such value."""
    value, key = entry.value, _file_key(field)
    if isinstance(value, Mapping):
        if not _takes_table(field):
            raise ValueError(f"{key} takes a value, and no table")
        value = [f"{name}={text}" for name, text in _flat(value)]
    if field.type is bool:
        if value not in ("true", "false"):
            raise ValueError(f"{key} must be true or false, but is {shorten(value)}")
        return [field.word] if value == "true" else []
    if value is None:
        return []
    texts = [_one_text(key, item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list) and not (field.shown.repeatable or field.takes_several):
        raise ValueError(f"{key} takes one value, and no list")
    for text in [texts] if field.takes_several else [[text] for text in texts]:
        try:
            parse_option(field, text)
        except ValueError as error:
            raise ValueError(str(error).replace(field.word, key, 1)) from None
    if field.shown.positional:
        return texts
    if field.takes_several:
        return [field.word, *texts]
    return [f"{field.word}={text}" for text in texts]


def _one_text(key: str, value: Any) -> str:
    """Returns a value as it is typed; ``~`` stands for the home folder, as in a shell."""
    if not isinstance(value, str):
        raise ValueError(f"{key} takes values, and no {'table' if isinstance(value, Mapping) else 'list'} of them")
    return str(Path(value).expanduser()) if value.startswith("~/") else value


def _flat(table: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the settings of a table by keys with dots; a list becomes a text with commas."""
    for name, value in table.items():
        dotted = f"{key}.{name}" if key else name
        if isinstance(value, Mapping):
            yield from _flat(value, dotted)
        elif isinstance(value, list):
            yield dotted, ",".join(_one_text(dotted, item) for item in value)
        else:
            yield dotted, "none" if value is None else value


def read_entries(file: Path) -> list[Entry]:
    """Reads the options of a file, whose values are texts, lists and tables of texts, and None.

    Raises:
        ValueError: naming the file, and the line if it is known, if it is missing or broken, or no options.
    """
    if file.suffix == ".json" or (file / "config.json").is_file():
        run = file.parent if file.name == "config.json" else file if file.is_dir() else "RUN"
        raise ValueError(
            f"{OPTION} {file} must end in .toml, .yaml or .yml; infomax options {run} prints the options of a run so"
        )
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{OPTION} {file} must end in .toml, .yaml or .yml")
    if not file.exists():
        raise ValueError(f"{OPTION} {file}: {missing_path(file, 'file')}")
    try:
        text = read_limited(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{OPTION} {file} is no text in UTF-8: byte {error.start} is none") from None
    except OSError as error:
        raise ValueError(f"{OPTION} {file} cannot be read: {error.strerror}") from None
    return _toml_entries(file, text) if file.suffix == ".toml" else _yaml_entries(file, text)


def _toml_entries(file: Path, text: str) -> list[Entry]:
    """Returns the options of a text in TOML."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is no TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deep") from None
    lines = text.splitlines()
    return [Entry(key, _plain(file, key, value), _line_of(key, lines)) for key, value in table.items()]


def _line_of(key: str, lines: Sequence[str]) -> int | None:
    """Returns the number of the line on which a key of TOML is set; None if none is found."""
    pattern = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[.=\]]")
    return next((number for number, line in enumerate(lines, start=1) if pattern.match(line)), None)


def _plain(file: Path, key: str, value: Any) -> Any:
    """Returns a value of TOML as texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return [_plain(file, key, item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(file, f"{key}.{name}", item) for name, item in value.items()}
    raise ValueError(f"{file}: {key} is a date or a time; put quotes around it")


def _yaml_entries(file: Path, text: str) -> list[Entry]:
    """Returns the options of a text in YAML, whose values stay as they are written. No value is constructed."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{file} must be options with values, as epochs: 10")
        table = _yaml_table(file, node, set())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(
            f"{file}{line}: is no YAML: {getattr(error, 'problem', None) or 'it cannot be read'}"
        ) from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deep") from None
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    return [Entry(key, value, lines.get(key)) for key, value in table.items()]


def _yaml_table(file: Path, node: Any, seen: set[int]) -> dict[str, Any]:
    """Returns a mapping of YAML with texts as values."""
    import yaml

    table: dict[str, Any] = {}
    for key, value in node.value:
        where = f"{file}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.tag not in PLAIN_TAGS:
            raise ValueError(f"{where}: a key must be a name")
        if key.value in table:
            raise ValueError(f"{where}: {key.value[:SHOWN_CHARACTERS]} is there twice")
        table[key.value] = _yaml_value(file, value, seen)
    return table


def _yaml_value(file: Path, node: Any, seen: set[int]) -> Any:
    """Returns a value of YAML as texts."""
    import yaml

    where = f"{file}, line {node.start_mark.line + 1}"
    if node.tag not in PLAIN_TAGS:
        raise ValueError(f"{where}: the tag {node.tag[:SHOWN_CHARACTERS]} is refused; options are plain values")
    if id(node) in seen:  # many references to references would take all memory
        raise ValueError(f"{where}: an alias is refused; write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        return _yaml_table(file, node, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_yaml_value(file, item, seen) for item in node.value]
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool") and node.value.lower() in ("true", "false"):
        return node.value.lower()
    return node.value
