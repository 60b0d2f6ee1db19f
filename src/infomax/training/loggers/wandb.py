"""Weights & Biases: a run in the user's account, or with ``WANDB_MODE=offline`` in the run folder."""

import os
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from infomax.runtime.extras import how_to_install
from infomax.training.loggers.tool import PROJECT, Session, State, Tool, numbers

BLOCK_BYTES, HEADER_BYTES = 32768, 7
WHOLE, LAST_PART = 1, 4
"""Kinds of the parts of records in LevelDB's logs after which a record is complete."""
FINISH_SECONDS = 25.0
"""Seconds that wandb itself waits at the end for what it has to upload; less than the run waits for it."""
WRITTEN_SECONDS, LOOK_SECONDS = 2.0, 0.02
"""Seconds after that for an offline file to be whole, and between two looks at it."""


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
        folder = Path(os.environ.get("WANDB_DIR") or session.folder).resolve()  # wandb's process has another folder
        on_disk = _last_offline_step(folder / "wandb", kept) if kept and not is_online else None
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or session.name,
            id=kept or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            resume="allow",
            dir=str(folder),
            config=dict(session.config),
            settings=wandb.Settings(console="off", silent=True, finish_timeout=FINISH_SECONDS),
        )
        self.run.config.update(dict(session.config), allow_val_change=True)
        session.keep({"id": self.run.id})
        self.last_step = 0
        if kept == self.run.id:
            self.last_step = self.run.starting_step - 1 if is_online else session.logged_step
            if on_disk is not None:  # a process that was killed may have lost its last rows
                self.last_step = on_disk
        files = Path(self.run.dir).parent
        is_offline = not is_online and settings.mode != "disabled"
        self.offline_file = files / f"run-{self.run.id}.wandb" if is_offline else None
        shown = files.relative_to(Path.cwd()) if files.is_relative_to(Path.cwd()) else files
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
        until = time.monotonic() + WRITTEN_SECONDS  # run.finish returns before wandb's process has written all
        while self.offline_file and not _is_whole(self.offline_file) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)


def _last_offline_step(folder: Path, run_id: str) -> int | None:
    """Returns the last step that the offline files of a run have; None if there are no such files.

    Args:
        folder: The folder in which wandb has a folder for each process.
        run_id: The run's identifier.
    """
    files, steps = list(folder.glob(f"offline-run-*/run-{run_id}.wandb")), [0]
    for file in files:
        for record in _records(file):
            steps.append(record.history.step.num if record.HasField("history") else 0)
    return max(steps) if files else None


def _is_whole(file: Path) -> bool:
    """Returns whether an offline file is there and has the record that ends a run."""
    return file.exists() and any(record.HasField("exit") for record in _records(file))


def _records(file: Path) -> Iterator[Any]:
    """Yields the records of an offline file that are written, as messages of wandb."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")  # whose classes are made when it is imported
    for content in _log_records(file.read_bytes()):
        record = messages.Record()
        try:
            record.ParseFromString(content)
        except Exception:  # protobuf's own error, of the record that was being written
            return
        yield record


def _log_records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a file of wandb, which has LevelDB's format of logs behind a header of its own."""
    position, record = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(content):
        if (left := BLOCK_BYTES - position % BLOCK_BYTES) < HEADER_BYTES:  # no header crosses the end of a block
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + HEADER_BYTES : position + HEADER_BYTES + length]
        position += HEADER_BYTES + length
        if kind in (WHOLE, LAST_PART):
            yield record
            record = b""


WANDB = Tool(name="wandb", start=WandbLogger, packages=("wandb",), install=how_to_install("wandb"))
