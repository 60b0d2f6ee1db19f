"""Weights & Biases: a run in the user's account, or with ``WANDB_MODE=offline`` in the run folder."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infomax.training.loggers.tool import PROJECT, Session, State, Tool, numbers

FINISH_SECONDS = 25.0
"""Seconds that wandb itself waits at the end for what it has to upload; less than the run waits for it."""


class WandbLogger:
    """Writes rows to a run of Weights & Biases.

    Args:
        session: The run.

    Raises:
        ValueError: if the user is not logged in. Nothing is asked for: a training has no time for a question.
    """

    def __init__(self, session: Session):
        import wandb

        settings = wandb.setup().settings
        is_online = settings.mode in ("online", "run", "shared")
        if is_online and not wandb.login(prompt=False):
            raise ValueError("not logged in: wandb login does it; WANDB_MODE=offline keeps the run in its folder")
        kept = session.kept.get("id")
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or session.name,
            id=kept or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(session.folder.resolve()),  # wandb's process has a folder of its own
            config=dict(session.config),
            settings=wandb.Settings(console="off", silent=True, finish_timeout=FINISH_SECONDS),
        )
        self.run.config.update(dict(session.config), allow_val_change=True)
        session.keep({"id": self.run.id})
        self.last_step = 0
        if kept == self.run.id:
            # Offline, the rows of an earlier process are in a folder of their own, which only the server reads.
            self.last_step = self.run.starting_step - 1 if is_online else session.logged_step
        folder = Path(self.run.dir).parent
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        self.place = str(self.run.url) if is_online else f"offline; wandb sync {shown} uploads the run"
        if settings.mode == "disabled":
            self.place = "disabled by WANDB_MODE"

    def log(self, row: Mapping[str, float]) -> None:
        """Sends the numbers of a row; several rows of one step become one."""
        self.run.log(numbers(row), step=int(row["step"]))

    def finish(self, state: State) -> None:
        """Ends the run; one that was stopped is preempted in the words of Weights & Biases, and may go on."""
        if state == "stopped":
            self.run.mark_preempting()
        self.run.finish(exit_code=0 if state == "finished" else 1)


WANDB = Tool(name="wandb", start=WandbLogger, packages=("wandb",), install="pip install 'infomax[wandb]'")
