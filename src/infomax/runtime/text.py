"""Prints text that others wrote, as file names, class names and error messages, so that it cannot act on a terminal.

Whatever is printed goes through this file, so that no place can forget to escape.
"""

import os
import sys
import threading
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
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

    end_begun_line()
    with unread_lines_are_dropped():
        tqdm.write(f"infomax: {escape(in_callers_words(str(line)))}", file=sys.stderr)


def show(text: object, *, file: TextIO | None = None) -> None:
    """Prints lines on the standard output, or on another stream."""
    end_begun_line()
    with unread_lines_are_dropped() if file is not None and file is sys.stderr else nullcontext():
        print(escape_lines(text), file=file, flush=True)


@contextmanager
def unread_lines_are_dropped() -> Generator[None]:
    """Lets the block write to the standard error, whether or not anybody reads it, or the disk has room for it.

    What is said on the way is not worth the work itself: ``infomax pretrain ... 2>&1 | tee log`` trains to its end, and
    saves itself after Ctrl-C, although ``tee`` has ended.
    """
    try:
        yield
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # a stream of Python alone has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
    except OSError:
        pass  # as of a full disk, which may have room for the next line


_no_fork = threading.Lock()
"""Is held while a thread of a stage writes: a process that is forked meanwhile would have the stream's lock, held for
ever."""
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)
_begun_line: list[str] = []
"""The line on the standard error that has begun and not ended; empty if there is none."""


def begin_line(text: object) -> None:
    """Prints the beginning of a line for the user on the standard error, which :func:`end_line` ends."""
    end_begun_line()
    if _bar_is_shown():
        return
    with _no_fork, unread_lines_are_dropped():
        sys.stderr.write(f"infomax: {escape(text)} ... ")
        sys.stderr.flush()
    _begun_line.append(escape(text))


def continue_line(words: object, text: object) -> None:
    """Adds words to the line that :func:`begin_line` began; begins it again if something else was printed since.

    Args:
        words: What is said meanwhile, as ``15 s``.
        text: The beginning of the line.
    """
    if _begun_line != [escape(text)]:
        begin_line(text)
    if _begun_line and not _bar_is_shown():
        with _no_fork, unread_lines_are_dropped():
            sys.stderr.write(f"{escape(words)} ... ")
            sys.stderr.flush()


def end_line(rest: object | None, text: object) -> None:
    """Ends the line that :func:`begin_line` began; prints the whole of it if something else was printed since.

    Args:
        rest: What is still to be said; None leaves the line as it is.
        text: The beginning of the line.
    """
    if _begun_line == [escape(text)] and not _bar_is_shown():
        _begun_line.clear()
        with unread_lines_are_dropped():
            sys.stderr.write(f"{escape('' if rest is None else rest)}\n")
            sys.stderr.flush()
    elif rest is not None:
        note(f"{text}: {rest}")


def end_begun_line() -> None:
    """Ends the line that has begun, before something else is printed."""
    if _begun_line:
        _begun_line.clear()
        with unread_lines_are_dropped():
            sys.stderr.write("\n")
            sys.stderr.flush()


def _bar_is_shown() -> bool:
    """Returns whether a progress bar stands on the line that would be printed on."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return any(not bar.disable for bar in list(getattr(tqdm, "_instances", ())))
