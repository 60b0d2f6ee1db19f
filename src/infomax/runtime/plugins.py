"""Registries that other packages can add to by entry points."""

import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, TypeVar


class Named(Protocol):
    """A protocol for whatever a registry holds: it has a name."""

    @property
    def name(self) -> str:
        """The word by which it is found."""
        ...


Entry = TypeVar("Entry", bound=Named)


def registry(kind: type[Entry], word: str, entries: Iterable[Entry], group: str) -> dict[str, Entry]:
    """Returns our own entries and those of installed packages by their names, ours first.

    Args:
        kind: Class of the entries.
        word: What an entry is called in a message, as ``method``.
        entries: Our own.
        group: Group of entry points by which another package adds one.

    Raises:
        ValueError: if two entries have one name.
    """
    named: dict[str, Entry] = {}
    for entry in (*entries, *installed(kind, word, entry_points(group=group))):
        if entry.name in named:
            raise ValueError(f"two {word}s are named {entry.name}: uninstall one of the packages that bring them")
        named[entry.name] = entry
    return named


def installed(kind: type[Entry], word: str, points: Iterable[EntryPoint]) -> Iterator[Entry]:
    """Yields what entry points name; one that cannot be loaded is left out with a warning."""
    for point in points:
        try:
            entry = point.load()
            if not isinstance(entry, kind):
                raise TypeError(f"it is a {type(entry).__name__}, not a {kind.__name__}")
        except Exception as error:  # a package's fault must not stop the commands that do not need it
            warnings.warn(f"the {word} {point.name} ({point.value}) is left out: {error}", stacklevel=2)
        else:
            yield entry
