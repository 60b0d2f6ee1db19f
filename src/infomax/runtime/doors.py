"""Knows by which door the caller came, the command line or Python, so that messages use the caller's words.

Messages are written once, in the words of the command, as ``--batch-size must be ...``. For a caller of a public
function of Python they are rewritten where they leave the package: ``batch_size= must be ...``.
"""

import inspect
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from infomax.runtime.threads import watch_cores

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

RESUMED_BY_VARIABLE = "INFOMAX_RESUMED_BY"
"""Variable in which a process that starts trainings, as a sweep, says how a user goes on with them."""
_door: ContextVar[str] = ContextVar("door", default="")
_resume_words: ContextVar[str] = ContextVar("resume_words", default="--resume")
_own_flags: ContextVar[dict[str, bool]] = ContextVar("own_flags", default={})  # noqa: B039 - it is never changed
"""Whether each argument of the public function that is being called is True or False."""
_flags: set[str] = set()
"""Names of the arguments of any public function that are True or False."""

PYTHON_NAMES = {"set": "overrides"}
"""Arguments of Python by the options whose name they do not share."""
LONGEST_VALUE = 60
"""Letters of a value that a message repeats."""
AFTER_A_BARE_NAME = re.compile(
    "a|above|alone|an|and|are|as|at|by|exists?|extends|for|from|gives?|goes|has|helps|how|if|in|is|keeps?|leaves?|must|"
    "names?|named|of|on|or|out|says|takes|than|that|the|there|they|to|trains|twice|wants?|wanted|was|with|without"
)
"""Words of a sentence, which are no value of the option before them."""
OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?P<value>[ =](?P<word>[^\s,;:]+))?")
COMMAND_LINE = re.compile(r"\binfomax (?:[a-z-]+ )+[^;()]*")


@contextmanager
def command_door() -> Generator[None]:
    """Marks the block as the work of a command, also if it calls public functions of Python."""
    token = _door.set("command")
    try:
        yield
    finally:
        _door.reset(token)


def python_door(function: Callable[Parameters, Returned], name: str) -> Callable[Parameters, Returned]:
    """Returns a public function of Python, whose errors name its arguments as Python does.

    Args:
        function: The function.
        name: Its name in the package ``infomax``.
    """
    signature = inspect.signature(function)
    own_flags = {p.name: isinstance(p.default, bool) for p in signature.parameters.values()}
    _flags.update(name for name, is_flag in own_flags.items() if is_flag)

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        _check_arguments(signature, name, args, kwargs)
        if not _door.get():  # no public function calls this one
            watch_cores()
        token, flags_token = _door.set(_door.get() or "python"), _own_flags.set(own_flags)
        try:
            return function(*args, **kwargs)
        except (ValueError, ArithmeticError, OSError, RuntimeError) as error:
            match error.args:
                case (str(message),):
                    error.args = (in_callers_words(message),)
            raise
        finally:
            _door.reset(token)
            _own_flags.reset(flags_token)

    call.__module__, call.__qualname__ = "infomax", name  # by which it is pickled
    return call


def _check_arguments(signature: inspect.Signature, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Checks that a public function takes these arguments.

    Raises:
        TypeError: naming the function, and for an unknown argument the one that is near.
    """
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        from infomax.runtime.near_names import nearest_option

        parameters = signature.parameters
        unknown = [word for word in kwargs if word not in parameters]
        if not unknown:
            raise TypeError(_too_many_without_a_name(signature, name, args) or f"infomax.{name}: {error}") from None
        option_names = {option: python for option, python in PYTHON_NAMES.items() if python in parameters}
        option_names |= {key.replace("_", "-"): key for key in parameters if key not in PYTHON_NAMES.values()}
        option, _, value = (nearest_option(unknown[0], option_names) or "").partition(" ")
        near = f"{option_names[option]}={[value] if value else ''}" if option else ""
        hint = f"; did you mean {near}?" if near else f"; its arguments are {', '.join(parameters)}"
        raise TypeError(f"infomax.{name} has no argument {unknown[0]}={hint}") from None


def _too_many_without_a_name(signature: inspect.Signature, name: str, args: tuple[Any, ...]) -> str:
    """Returns a message if a function is given more values without a name than it takes; else an empty text."""
    kinds = inspect.Parameter
    parameters = signature.parameters.values()
    by_place = [p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters):
        return ""
    if len(args) <= len(by_place) or not by_name:
        return ""
    if by_place:
        places = ", ".join(by_place)
        return f"infomax.{name} takes {places} by place and all else by name, as {by_name[0]}=..."
    value = repr(args[0]) if isinstance(args[0], str) and len(args[0]) <= LONGEST_VALUE else "..."
    return f"infomax.{name} takes its arguments by name, as {by_name[0]}={value}"


def in_callers_words(message: str) -> str:
    """Returns a message with the options as the caller writes them: ``--data`` for a command, ``data=`` for Python."""
    if _door.get() != "python" or "--" not in message:
        return message
    commands = [match.span() for match in COMMAND_LINE.finditer(message)]

    def rewritten(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in commands):  # what to type in a shell stays as it is
            return match[0]
        option, value, word = match["name"].replace("-", "_"), match["value"] or "", match["word"]
        name = PYTHON_NAMES.get(option, option)
        if _own_flags.get().get(name, name in _flags):
            return f"{name}=True{value}"
        if word is None or AFTER_A_BARE_NAME.fullmatch(word):
            return f"{name}={value}"
        return f"{name}=[{word!r}]" if name != option else f"{name}={word}"

    return OPTION.sub(rewritten, message)


@contextmanager
def resumed_by(words: str) -> Generator[None]:
    """Sets the words by which a user goes on with the trainings of the block, as ``infomax demo --out runs/demo``."""
    token = _resume_words.set(words)
    try:
        yield
    finally:
        _resume_words.reset(token)


def resume_words() -> str:
    """Returns the words by which a user goes on with a training that is stopped: an option, or a command."""
    return _resume_words.get()


def is_command() -> bool:
    """Returns whether a command line is being carried out, and not a program that calls infomax."""
    return _door.get() == "command"
