"""TensorBoard: files of events in the run folder, which ``tensorboard --logdir runs`` shows."""

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from infomax.training.loggers.tool import Session, State, Tool, numbers


class TensorBoardLogger:
    """Writes rows to files of events. Rows of an earlier process after the step that a run goes on from are purged.

    Args:
        session: The run.
    """

    place = ""

    def __init__(self, session: Session):
        from torch.utils.tensorboard import SummaryWriter

        silence_writer_threads()
        folder = session.folder / "tensorboard"
        self.last_step = session.step if folder.is_dir() else 0
        writer: Any = SummaryWriter(folder, purge_step=session.step + 1)
        self.writer = writer
        if self.last_step == 0:
            self.writer.add_text("config", f"```\n{json.dumps(session.config, indent=1)}\n```")

    def log(self, row: Mapping[str, float]) -> None:
        """Writes the numbers of a row."""
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, int(row["step"]))

    def finish(self, state: State) -> None:
        """Closes the file. TensorBoard knows no states of runs."""
        self.writer.close()


def silence_writer_threads() -> None:
    """Keeps TensorBoard's threads from printing a traceback if they cannot write.

    The thread of a writer hands its error on to the next call of the writer, which says it in one line.
    """
    if threading.excepthook is not _except_hook:
        _former_hook.append(threading.excepthook)
        threading.excepthook = _except_hook


_former_hook: list[Callable[[Any], object]] = []


def _except_hook(failure: Any) -> None:
    """Passes what a thread raised on to the former hook, but for an error of writing in a thread of TensorBoard."""
    of_tensorboard = type(failure.thread).__module__.partition(".")[0] == "tensorboard"
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        _former_hook[-1](failure)


TENSORBOARD = Tool(name="tensorboard", start=TensorBoardLogger)
