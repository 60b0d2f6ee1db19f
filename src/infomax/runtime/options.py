"""Options of a command, held by frozen dataclasses that the command, Python and sweeps share.

A field's type and default say what is accepted. The text below a field documents it, for ``--help`` and for an editor
alike. What ``--help`` shows beside that is in :class:`Shown`. No parser is imported here:
:mod:`infomax.cli.command_class` makes the command's options of these classes.
"""

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from os import PathLike, fspath
from pathlib import Path
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from infomax.runtime.near_names import nearest_option

Options = TypeVar("Options")


class CheckedOptions:
    """Base of options classes that check values as soon as they are filled, before torch is imported.

    What one value alone shows to be impossible is checked in ``__post_init__``, which goes on with that of ``super()``:
    so every command that has the option refuses the value at once, and Python does too.
    """

    def __post_init__(self) -> None:
        """Raises ValueError if a value is impossible, naming its option."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A frozen dataclass that says how ``--help`` shows an option; it stands in the field's ``Annotated`` type."""

    metavar: str | None = None
    """The text in place of the value, as ``N`` or ``DIR``; None shows the type's own."""
    default: str | None = None
    """The text in place of the default, as ``the recipe's``; None shows the default itself."""
    name: str | None = None
    """The option's word without dashes; None takes the field's name."""
    positional: bool = False
    """Whether the value stands in its place on the command line, without the option's name."""
    repeatable: bool = False
    """Whether the option may be given several times, one value each time."""


@dataclass(frozen=True)
class OptionField:
    """A frozen dataclass that describes one field of an options class."""

    name: str
    type: Any
    """Without ``Annotated``."""
    default: Any
    """``dataclasses.MISSING`` if the option must be given."""
    shown: Shown
    text: str
    """The documentation below the field."""

    @property
    def word(self) -> str:
        """The option's word on the command line, as ``--batch-size``."""
        return "--" + (self.shown.name or self.name).replace("_", "-")

    @property
    def takes_several(self) -> bool:
        """Whether several values may follow each other."""
        kinds = (self.type, *get_args(self.type))
        return not self.shown.repeatable and any(get_origin(kind) is tuple for kind in kinds)


@cache
def option_fields(cls: type) -> tuple[OptionField, ...]:
    """Returns the fields of an options class in their order, those of its base classes first."""
    hints = get_type_hints(cls, include_extras=True)
    texts = _field_texts(cls)
    described = []
    for field in dataclasses.fields(cls):
        hint, shown = hints[field.name], Shown()
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            shown = next((note for note in notes if isinstance(note, Shown)), shown)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        described.append(OptionField(field.name, hint, default, shown, texts.get(field.name, "")))
    return tuple(described)


def _field_texts(cls: type) -> dict[str, str]:
    """Returns the string below each field, by the field's name; a subclass's replaces that of its base."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _texts_in_body(base)
    return texts


@cache
def _texts_in_body(cls: type) -> dict[str, str]:
    """Returns the string below each field in the body of the class itself, without those of its bases."""
    texts: dict[str, str] = {}
    definitions = _class_definitions(cls.__module__).get(cls.__name__, [])
    if len(definitions) == 1:
        body = definitions[0].body
    else:  # several classes have this name
        (definition,) = ast.parse(dedent(inspect.getsource(cls))).body
        assert isinstance(definition, ast.ClassDef)
        body = definition.body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(following.value.value).split())
    return texts


@cache
def _class_definitions(module: str) -> dict[str, list[ast.ClassDef]]:
    """Returns all classes that a module defines, by name. ``inspect.getsource`` would parse the module for each
    class."""
    definitions: dict[str, list[ast.ClassDef]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ClassDef):
            definitions.setdefault(node.name, []).append(node)
    return definitions


def option_names(cls: type) -> tuple[str, ...]:
    """Returns the names of all fields of an options class."""
    return tuple(field.name for field in option_fields(cls))


def pick(cls: type[Options], values: Mapping[str, Any]) -> Options:
    """Builds an options object from those of the values that are fields of the class.

    A path becomes text if the field holds text, and text becomes a path if it holds a path. If the field holds several
    values, any sequence becomes a tuple, and a single text a tuple of one.
    """
    fields = {field.name: field.type for field in option_fields(cls)}
    return cls(**{name: _as_field(fields[name], value) for name, value in values.items() if name in fields})


def _as_field(hint: Any, value: Any) -> Any:
    """Returns a value as a field of this type holds it; what cannot be converted is left for later checks."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = tuple(get_origin(kind) or kind for kind in kinds)
    if tuple in kinds and isinstance(value, Sequence):
        return (value,) if isinstance(value, str) else tuple(value)
    if isinstance(value, PathLike) and str in kinds:
        return fspath(value)
    if isinstance(value, str | PathLike) and Path in kinds:
        return Path(value)
    return value


def to_argv(options: Any) -> list[str]:
    """Returns the words of the command that stand for an options object; an option at its default is left out."""
    words: list[str] = []
    for field in option_fields(type(options)):
        value = getattr(options, field.name)
        if value == field.default or value is None:
            continue
        values = [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
        if field.shown.positional:
            words += values
        elif value is True:
            words.append(field.word)
        elif field.shown.repeatable:
            words += [word for item in values for word in (field.word, item)]
        else:
            words += [field.word, *values]
    return words


def from_argv(words: Sequence[str], *classes: type) -> tuple[Any, ...]:
    """Builds options objects of the words of a command, one of each class: the inverse of :func:`to_argv`.

    Args:
        words: Options and their values, as ``["--k", "5", "20"]``; nothing stands by its position.
        classes: Options classes; no two have a field of one name.

    Raises:
        ValueError: if there is no such option, a value is missing or there are too many, or it is of another type.
    """
    fields = {field.word: field for cls in classes for field in option_fields(cls)}
    values: dict[str, Any] = {}
    for word, texts in _split_options(words):
        if word not in fields:
            near = nearest_option(word.lstrip("-"), [known.removeprefix("--") for known in fields])
            hint = f"; did you mean --{near}?" if near else ""
            raise ValueError(f"there is no option {word}{hint}")
        field = fields[word]
        value = parse_option(field, texts)
        values[field.name] = (*values.get(field.name, ()), *value) if field.shown.repeatable else value
    return tuple(pick(cls, values) for cls in classes)


def _split_options(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns each option with the texts that follow it."""
    options: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            options.append((name.replace("_", "-"), [value] if equals else []))
        elif options:
            options[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} follows no option")
    return options


def split_words(
    words: Sequence[str], fields: Mapping[str, OptionField]
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Splits the words of a command into options and others.

    Args:
        words: The words, as ``["runs/a", "--k", "5", "20"]``.
        fields: The command's options by their words.

    Returns:
        Each option with its values, also those that the command does not have; and the words that follow no option.
    """
    options: list[tuple[str, list[str]]] = []
    others: list[str] = []
    free = 0.0  # number of values that the last option still takes
    for word in words:
        if re.match(r"--.|-[a-zA-Z]$", word):
            option, equals, value = word.partition("=")
            option = "--" + option.removeprefix("--").replace("_", "-") if option.startswith("--") else option
            options.append((option, [value] if equals else []))
            field = fields.get(option)
            free = inf if field is None or field.takes_several else 1
            if equals or (field is not None and field.type is bool):
                free = 0
        elif free > 0:
            options[-1][1].append(word)
            free -= 1
        else:
            others.append(word)
    return options, others


def parse_option(field: OptionField, texts: list[str]) -> Any:
    """Returns the value of an option.

    Raises:
        ValueError: if a value is missing or there are too many, or it is of another type.
    """
    kinds = get_args(field.type) if get_origin(field.type) in (Union, UnionType) else (field.type,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    if kind is bool:
        if texts:
            raise ValueError(f"{field.word} takes no value, but is followed by {texts[0]!r}")
        return True
    if get_origin(kind) is tuple:
        if not texts:
            raise ValueError(f"{field.word} wants at least one value")
        return tuple(_parse_text(field.word, get_args(kind)[0], text) for text in texts)
    if len(texts) != 1:
        raise ValueError(f"{field.word} wants one value, but is followed by {' '.join(texts) or 'none'}")
    return _parse_text(field.word, kind, texts[0])


def _parse_text(word: str, kind: Any, text: str) -> Any:
    """Returns the value that a text stands for."""
    if get_origin(kind) in (Union, UnionType):  # the first type that takes the text, as the parser has it
        first, *others = get_args(kind)
        try:
            return first(text)
        except ValueError:
            return _parse_text(word, others[0], text)
    try:
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number"}.get(kind, f"a {kind.__name__}")
        raise ValueError(f"{word} must be {expected}, but is {text!r}") from None
