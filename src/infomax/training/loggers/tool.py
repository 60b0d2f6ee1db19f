"""The contract of a tool that shows metrics: what it is told of a run, and what it does with each row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["finished", "failed", "stopped"]
"""How a run ends: by its last step, by an error, or by a signal after which it can be resumed."""
PROJECT = "infomax"
"""The project or experiment that runs belong to, unless a variable of the tool names another."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A frozen dataclass that holds what a tool is told when a run starts or goes on."""

    folder: Path
    """The run folder."""
    name: str
    """Name of the run folder."""
    config: Mapping[str, Any]
    """The recipe, the launch options and the data, as ``config.json`` holds them."""
    step: int
    """The last step that was made before this process; 0 for a new run."""
    logged_step: int
    """The step of the last row that an earlier process has logged, which may be after ``step``: a run that is resumed
    makes the steps since its last checkpoint again."""
    kept: Mapping[str, str]
    """What :attr:`keep` was given when the run was last started, as its identifier; empty for a new run."""
    keep: Callable[[Mapping[str, str]], None]
    """Writes what the tool needs to go on with its run into the run folder."""


class Logger(Protocol):
    """A protocol for a run of a tool that has been started. All is called by one thread, in this order."""

    place: str
    """Words for where the run can be seen; empty if nothing is to be said."""
    last_step: int
    """The last step that the tool has a row of. Rows up to it are not sent again."""

    def log(self, row: Mapping[str, float]) -> None:
        """Sends a row of ``metrics.jsonl``, of whose numbers ``step`` is one."""
        ...

    def finish(self, state: State) -> None:
        """Sends what is left, and how the run has ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A frozen dataclass that describes one tool. No file of a tool imports a library before it is used."""

    name: str
    """The word after ``--log``."""
    start: Callable[[Session], Logger]
    """Starts a run of the tool, or goes on with it. It may raise any exception."""
    packages: tuple[str, ...] = ()
    """Modules that it needs."""
    install: str = ""
    """What installs them, as ``pip install 'infomax[wandb]'``."""

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a row without those that say where it belongs, ``step`` and ``epoch``."""
    return {name: float(value) for name, value in row.items() if name not in ("step", "epoch") and _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def flat(config: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """Returns nested settings by keys with dots, as ``recipe.optimizer.learning_rate``."""
    settings: dict[str, Any] = {}
    for name, value in config.items():
        dotted = f"{key}.{name}" if key else name
        if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        settings |= flat(value, dotted) if isinstance(value, Mapping) else {dotted: value}
    return settings
