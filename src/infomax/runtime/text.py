"""Prints text that others wrote, as file names, class names and error messages, so that it cannot act on a terminal.

Whatever is printed goes through this file, so that no place can forget to escape.
"""

import sys
import unicodedata
from typing import TextIO

from infomax.runtime.doors import in_callers_words

KEPT_FORMAT_CHARACTERS = {"\u200c", "\u200d"}
"""Joiners, which Persian, Hindi and emoji need; every other invisible character of this kind is shown by its number."""
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that show nothing: control, format (as those that turn the direction of text
around), lone surrogates, and separators of lines and paragraphs."""


def escape(text: object) -> str:
    r"""Returns a text as one line that acts on no terminal: ``\x1b`` stands for the escape character, and so on.

    Args:
        text: The text, or an object whose text is meant.

    Example:
        >>> print(escape("a\x1b[31m\nb"))
        a\x1b[31m\nb
    """
    text = str(text)
    if text.isprintable() and text.isascii():
        return text
    return "".join(_escaped(character) for character in text)


def escape_lines(text: object) -> str:
    """Returns a text with its line breaks, and with all else escaped as :func:`escape` does."""
    return "\n".join(escape(line) for line in str(text).split("\n"))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in ACTING or character in KEPT_FORMAT_CHARACTERS:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def note(line: object) -> None:
    """Prints one line for the user on the standard error, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"infomax: {escape(in_callers_words(str(line)))}", file=sys.stderr)


def show(text: object, *, file: TextIO | None = None) -> None:
    """Prints lines on the standard output, or on another stream."""
    print(escape_lines(text), file=file, flush=True)
