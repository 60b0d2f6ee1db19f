"""Makes the options of a command from options classes; the parser is imported by this package alone."""

import dataclasses
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from tyro.conf import Positional, UseAppendAction, arg

from infomax.cli.options_file import FileOptions
from infomax.runtime.options import OptionField, option_fields


def command_class(name: str, *option_classes: type, description: str = "") -> type:
    """Makes the dataclass that the parser fills for one command, from the fields of some options classes.

    The option that names a file of options comes last.

    Args:
        name: Name of the class.
        option_classes: Their fields in this order; a field of a later class replaces one of an earlier class.
        description: The command's help; by default the docstring of the last class.
    """
    fields = {field.name: field for cls in (*option_classes, FileOptions) for field in option_fields(cls)}
    command = dataclasses.make_dataclass(name, map(_parsed, fields.values()), frozen=True, kw_only=True)
    command.__doc__ = description or " ".join((option_classes[-1].__doc__ or "").split())
    return command


def _parsed(field: OptionField) -> tuple[str, Any, Any]:
    """Returns a field's name, its type with what the parser is to know of it, and its default."""
    shown, optional = field.shown, _without_none(field.type)
    words: dict[str, Any] = {"help": field.text}
    if shown.name is not None:
        words["name"] = shown.name
    if shown.metavar is not None:
        words["metavar"] = shown.metavar
    if shown.default is not None:
        words["help_behavior_hint"] = f"(default: {shown.default})"
    elif field.default == ():
        words["help_behavior_hint"] = "(optional)"
    if shown.repeatable:
        words["help_behavior_hint"] = f"(repeatable{f'; default: {shown.default}' if shown.default else ''})"
    if optional is not field.type:  # None is the default, but no word that a user can say
        words["constructor"] = optional
    hint: Any = field.type
    if shown.repeatable:
        hint = UseAppendAction[hint]
    if shown.positional:
        hint = Positional[hint]
    default = dataclasses.field() if field.default is dataclasses.MISSING else dataclasses.field(default=field.default)
    return field.name, Annotated[hint, arg(**words)], default


def _without_none(hint: Any) -> Any:
    """Returns the type of a value that is given, for one that may also be None."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        if len(kinds) == 1 and len(kinds) < len(get_args(hint)):
            return kinds[0]
    return hint
