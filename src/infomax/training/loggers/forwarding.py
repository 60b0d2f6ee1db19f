"""Passes the rows of a run on to tools, each in a thread of its own, so that none of them can stop or slow the run."""

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from infomax.runs.run_folder import Run
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.stages import Stage
from infomax.training.loggers.tool import Logger, Session, State, Tool

KEPT_FILE = "loggers.json"
"""Name of the file in a run folder that keeps what tools need to go on with their runs."""
MOST_ROWS = 10_000  # that wait for a tool
LONGEST_REASON = 300  # characters
PATIENCE: dict[State, float] = {"finished": 30.0, "failed": 30.0, "stopped": 5.0}
"""Seconds that the end of a run waits for its tools; after SIGTERM the process may soon be killed."""
CONFIG_KEYS = (
    "recipe", "changes", "data", "bands", "layout", "classes", "subset", "value_range", "images", "commit", "versions"
)  # fmt: skip
_kept_lock = threading.Lock()


class Forwarder:
    """Passes rows on to some tools. If one fails, a line says so, and the run goes on without it.

    Args:
        run: The run folder.
        tools: The tools.
        step: The step that the run goes on from; 0 for a new run.
        logged_step: The step of the last row of an earlier process.
        say: Prints a line for the user.
    """

    def __init__(self, run: Run, tools: Sequence[Tool], *, step: int, logged_step: int, say: Callable[[str], object]):
        self.say, self.began = say, False
        self._run, self._step = run, step
        start = partial(_session, run, step=step, logged_step=logged_step)
        self._threads = [_ToolThread(tool, partial(start, tool.name), say) for tool in tools]

    def send(self, row: Mapping[str, Any]) -> None:
        """Passes a row on. The first call starts the tools, which are imported while the next steps are made."""
        if not self._threads:
            return
        if not self.began:
            self.began = True
            earlier = [row for row in self._run.read_rows("metrics.jsonl") if row["step"] <= self._step]
            for thread in self._threads:
                thread.begin(earlier if self._step else [])
        for thread in self._threads:
            thread.send(row)

    def close(self, state: State) -> None:
        """Tells the tools how the run has ended, and waits some seconds for what they still have to send."""
        running = [thread for thread in self._threads if self.began and thread.ask_to_finish(state)]
        if not running:
            return
        until = time.monotonic() + PATIENCE[state]
        with Stage(f"sending the last metrics to {', '.join(thread.tool.name for thread in running)}", slow_only=True):
            for thread in running:
                thread.wait(until - time.monotonic())
        for thread in running:
            if thread.give_up():
                self.say(
                    f"{thread.tool.name} had not taken all rows {PATIENCE[state]:g} seconds after the run's end; "
                    "metrics.jsonl has them"
                )


class _ToolThread:
    """A thread that starts a tool's run and hands it rows, until the tool fails or the run ends."""

    def __init__(self, tool: Tool, session: Callable[[], Session], say: Callable[[str], object]):
        self.tool, self._session, self._say = tool, session, say
        self._rows: queue.Queue[Mapping[str, Any] | State] = queue.Queue(MOST_ROWS)
        self._state: Literal["working", "failed", "abandoned"] = "working"
        self._full = False
        self._thread = threading.Thread(target=self._work, name=f"infomax-{tool.name}", daemon=True)

    def begin(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Starts the thread.

        Args:
            earlier: Rows of earlier processes, which the tool may not have.
        """
        self._earlier = earlier
        self._thread.start()

    def send(self, row: Mapping[str, Any]) -> None:
        """Hands a row over; if too many are waiting, it is left out, which is said once."""
        if self._state != "working":
            return
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            if not self._full:
                self._say(f"{self.tool.name} does not keep up, and misses rows; metrics.jsonl has them")
            self._full = True

    def ask_to_finish(self, state: State) -> bool:
        """Hands over how the run has ended; returns whether the tool is at work."""
        if self._state != "working":
            return False
        try:
            self._rows.put_nowait(state)
        except queue.Full:
            return True  # close() says so
        return True

    def wait(self, seconds: float) -> None:
        """Waits for the thread to end."""
        self._thread.join(max(0.0, seconds))

    def give_up(self) -> bool:
        """Lets the thread alone if it is still at work; returns whether it is."""
        if not self._thread.is_alive():
            return False
        self._state = "abandoned"
        return True

    def _work(self) -> None:
        try:
            logger = self.tool.start(self._session())
            if logger.place:
                self._say(f"{self.tool.name}: {logger.place}")
            self._pass_on(logger)
        except BaseException as error:  # a tool may even raise SystemExit
            if self._state == "working":
                self._state = "failed"
                self._say(f"{self.tool.name} is left out from now on; metrics.jsonl has all rows: {_reason(error)}")

    def _pass_on(self, logger: Logger) -> None:
        """Hands the tool the rows that it does not have, until the run ends."""
        last_step = logger.last_step or -1  # a tool without rows gets that of step 0 too
        for row in self._earlier:
            if row["step"] > last_step:
                logger.log(row)
        while isinstance(row := self._rows.get(), Mapping):
            if row["step"] > last_step:
                logger.log(row)
        logger.finish(row)


def _reason(error: BaseException) -> str:
    """Returns the first line of an error, without the password that an address in it may have."""
    lines = str(error).strip().splitlines() or [""]
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    text = re.sub(r"//[^/@\s]+@", "//", f"{kind}{lines[0]}".removesuffix(": "))
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def _session(run: Run, tool: str, *, step: int, logged_step: int) -> Session:
    """Returns what a tool is told of a run."""
    config = run.config
    newest = (config.get("resumed") or [config])[-1]
    settings = {key: config[key] for key in CONFIG_KEYS if config.get(key) is not None}
    return Session(
        folder=run.path,
        name=run.path.resolve().name,
        config={**settings, "launch": newest.get("launch", {})},
        step=step,
        logged_step=logged_step,
        kept=read_kept(run).get(tool, {}),
        keep=partial(_keep, run, tool),
    )


def read_kept(run: Run) -> dict[str, dict[str, str]]:
    """Returns what tools have kept in a run folder, by their names; nothing if there is no such file.

    Raises:
        ValueError: if it is damaged.
    """
    file = run.path / KEPT_FILE
    if not file.is_file():
        return {}
    return parse_value(read_json(file), dict[str, dict[str, str]], f"{file}:")


def _keep(run: Run, tool: str, values: Mapping[str, str]) -> None:
    """Writes what a tool needs to go on with its run."""
    with _kept_lock:
        kept = {**read_kept(run), tool: dict(values)}
        write_atomic(run.path / KEPT_FILE, json.dumps(kept, indent=1).encode())
