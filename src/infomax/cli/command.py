"""Describes a command of ``infomax``: its name, its options and the function that carries it out."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from tyro.conf import subcommand

from infomax.cli.command_class import command_class
from infomax.runtime.options import pick


@dataclass(frozen=True)
class Command:
    """A frozen dataclass that describes one command."""

    name: str
    """Its word, or two, as ``classify fit``."""
    options: type
    """The options class."""
    description: str
    """Text about the command in ``--help``."""
    function: Callable[[Any], None]
    """Takes the options and prints what comes out."""

    @cached_property
    def parsed_class(self) -> type:
        """Returns the dataclass that the parser fills."""
        return command_class(re.sub(r"\W", "", self.name.title()), self.options, description=self.description)

    @property
    def subcommand(self) -> Any:
        """Returns the parser's type for the command."""
        return Annotated[self.parsed_class, subcommand(self.name.rpartition(" ")[2], description=self.description)]

    def run(self, parsed: Any) -> None:
        """Carries out the command with the options that the parser has filled."""
        self.function(pick(self.options, vars(parsed)))
