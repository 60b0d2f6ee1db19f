"""Says on the standard error what is being done before a result can show, with the seconds that it took.

A command is so seen to be alive while it lists images, imports torch or compiles kernels::

    infomax: reading photos/ ... 3,457 images, 0.1 s
    infomax: importing torch ... 2.4 s
"""

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Self

from infomax.runtime.text import begin_line, continue_line, end_line

BEGIN_AFTER = 0.2  # seconds; a stage that fails before, for a mistake of the user, has printed nothing
STILL_EVERY = 15.0  # seconds after which a line says that its stage goes on
_shown: ContextVar[bool] = ContextVar("stages_shown", default=False)
_innermost: ContextVar["Stage | None"] = ContextVar("innermost_stage", default=None)  # of those that are shown


@contextmanager
def stages_shown(enabled: bool) -> Generator[None]:
    """Shows the stages of this thread until the block ends, or hides them; before, they are hidden."""
    token = _shown.set(enabled)
    try:
        yield
    finally:
        _shown.reset(token)


class Stage:
    """A context manager around one stage of the work before a result.

    Its line begins when the stage has taken 0.2 seconds, says every 15 seconds how long it has taken, and ends with the
    seconds that it took. Meanwhile a stage around it says nothing.

    Args:
        task: What is being done, as ``reading photos/``.
        at_once: Whether the line begins at once. This is for work that no mistake of the user ends.
        forks: Whether the work may fork this process. The line then begins at once, and says nothing on the way, for
            which a thread would have to wait meanwhile.
        slow_only: Whether nothing is said of a stage that is done before its line would begin.

    Attributes:
        detail: Words about the result, as ``3,457 images``, which stand before the seconds.
    """

    def __init__(self, task: str, *, at_once: bool = False, forks: bool = False, slow_only: bool = False):
        self.task, self.at_once, self.forks, self.slow_only = task, at_once or forks, forks, slow_only
        self.detail = ""
        self._shown, self._begun, self._done = _shown.get(), False, threading.Event()
        self._thread: threading.Thread | None = None
        self._start = 0.0
        self._outer: Stage | None = None
        self._inner: Stage | None = None

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if not self._shown:
            return self
        self._outer = _innermost.get()
        if self._outer is not None:
            self._outer._inner = self
        _innermost.set(self)
        if self.at_once:
            self._begin()
        if not self.forks:
            self._thread = threading.Thread(target=self._show_life, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        if not self._shown:
            return
        if self._thread is not None:
            self._done.set()
            self._thread.join()
        if self._outer is not None:
            self._outer._inner = None
        _innermost.set(self._outer)
        if kind is not None:
            if self._begun:
                end_line(None, self.task)
        elif self._begun or not self.slow_only:
            seconds = f"{self._seconds():.1f} s"
            end_line(f"{self.detail}, {seconds}" if self.detail else seconds, self.task)

    def _show_life(self) -> None:
        """Begins the line if the stage lasts, and continues it every 15 seconds, unless an inner stage does."""
        while not self._done.wait(STILL_EVERY if self._begun else BEGIN_AFTER):
            if self._inner is not None:
                continue  # its line says that work goes on
            if self._begun:
                continue_line(f"{self._seconds():.0f} s", self.task)
            else:
                self._begin()

    def _seconds(self) -> float:
        return time.perf_counter() - self._start

    def _begin(self) -> None:
        begin_line(self.task)
        self._begun = True


@contextmanager
def importing_torch() -> Generator[None]:
    """Shows the stage of importing torch, which takes seconds, around imports of modules that need it."""
    with Stage("importing torch", at_once=True) if "torch" not in sys.modules else nullcontext():
        yield
