"""trackio: a run in trackio's folder, on a Space of Hugging Face or on a server, as its variables say."""

import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from infomax.runtime.extras import how_to_install
from infomax.training.loggers.tool import PROJECT, Session, State, Tool, numbers

LEVELS = {"finished": "info", "stopped": "warn", "failed": "error"}


class TrackioLogger:
    """Writes rows to a run of trackio.

    Args:
        session: The run.
    """

    def __init__(self, session: Session):
        trackio: Any = import_module("trackio")  # which is not where types are checked, as it wants an older Pillow
        _silence(trackio)
        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        kept = session.kept.get("name") if session.kept.get("project") == project else None
        name = kept or _free_name(trackio, project, session.name)
        options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}  # rows alone, from this thread
        run: Any = trackio.init(
            project=project,
            name=name,
            config=dict(session.config),
            resume="never" if kept is None else "allow",
            **options,
        )
        self.run, self._alert_level = run, trackio.AlertLevel
        session.keep({"project": project, "name": name})
        self.last_step = 0 if kept is None else max(0, run._next_step - 1)
        self.place = f"run {name} in project {project}; trackio show --project {project} shows it"

    def log(self, row: Mapping[str, float]) -> None:
        """Sends the numbers of a row."""
        self.run.log(numbers(row), step=int(row["step"]))

    def finish(self, state: State) -> None:
        """Ends the run. trackio knows no states, so an alert says how it has ended."""
        self.run.alert(f"run {state}", level=self._alert_level(LEVELS[state]))
        self.run.finish()


def _free_name(trackio: Any, project: str, name: str) -> str:
    """Returns the name for a new run: trackio finds a run again by its name, which another folder may have too."""
    try:
        taken = {run.name for run in trackio.Api().runs(project)}
    except ValueError:  # there is no such project yet
        taken = set()
    return f"{name}-{secrets.token_hex(3)}" if name in taken else name


def _silence(trackio: Any) -> None:
    """Keeps trackio's modules from printing to the standard output, which is for results."""
    for module in (trackio, trackio.run, trackio.utils):
        module.print = lambda *words, **options: None


TRACKIO = Tool(name="trackio", start=TrackioLogger, packages=("trackio",), install=how_to_install("trackio"))
