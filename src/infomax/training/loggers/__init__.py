"""The tools that show metrics, one file each; this list is the only place that names them all.

In: the rows of ``metrics.jsonl``, the settings of a run, and how it ends. Out: one run of the tool, which goes on when
the run is resumed. No tool is imported here.
"""

from collections.abc import Sequence

from infomax.runtime.checks import choose
from infomax.training.loggers.mlflow import MLFLOW
from infomax.training.loggers.tensorboard import TENSORBOARD
from infomax.training.loggers.tool import Tool
from infomax.training.loggers.trackio import TRACKIO
from infomax.training.loggers.wandb import WANDB

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (TENSORBOARD, WANDB, MLFLOW, TRACKIO)}
"""The tools by name, in the order of ``--help``."""
DEFAULT_TOOLS = (TENSORBOARD.name,)
NONE = "none"
"""The word for no tool."""
OTHER_NAMES = {
    "tb": "tensorboard",
    "tensorboardx": "tensorboard",
    "wb": "wandb",
    "w&b": "wandb",
    "weights-and-biases": "wandb",
    "mlflow-skinny": "mlflow",
    "off": NONE,
    "no": NONE,
    "false": NONE,
}
"""Tools by other words that are usual for them."""


def parse_tools(words: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the tools that a user asked for; none of them is ``none``.

    Args:
        words: The values of ``--log``, each with one tool or several with commas between; empty for the default.

    Raises:
        ValueError: if there is no such tool, its package is not installed, or ``none`` stands beside another one.
    """
    if not words:
        return DEFAULT_TOOLS
    names = [name.strip() for word in words for name in str(word).split(",")]
    for name in names:
        if near := OTHER_NAMES.get(name.lower()):
            raise ValueError(f"--log must be one of {', '.join((*TOOLS, NONE))}, but is {name!r}; did you mean {near}?")
        choose("--log", name, (*TOOLS, NONE))
    if NONE in names:
        if len(set(names)) > 1:
            raise ValueError(f"--log {','.join(names)}: none is for no tool at all; leave it out")
        return ()
    for name in names:
        if missing := TOOLS[name].missing:
            wanted = f"package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            raise ValueError(f"--log {name} needs the {wanted}: {TOOLS[name].install}; --log none does without")
    return tuple(dict.fromkeys(names))
