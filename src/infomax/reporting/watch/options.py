"""Options of what is shown of runs while they train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.runtime.checks import check_count, check_number
from infomax.runtime.options import Shown


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """A frozen dataclass that holds all options of ``infomax watch``."""

    runs: Annotated[tuple[Path, ...], Shown(metavar="RUN [RUN ...]", positional=True)] = ()
    """Run folders, which need not exist yet; or folders of runs, as that of a sweep."""
    once: bool = False
    """Print one picture, and end."""
    every: Annotated[float, Shown(metavar="SECONDS")] = 30.0
    """Seconds between two lines of a run, if the output goes to a file or a pipe."""
    ascii: bool = False
    """Draw with ASCII alone, as in a terminal without Unicode."""
    serve: bool = False
    """Show a page in a browser of this machine, instead of the terminal, which changes while the runs train."""
    port: Annotated[int, Shown(metavar="N")] = 8765
    """Port of --serve on 127.0.0.1; 0 takes a free one."""

    def __post_init__(self) -> None:
        check_number("--every", self.every, low=0.1, high=86_400.0, open_high=False)
        check_count("--port", self.port, low=0)
        check_number("--port", self.port, low=0, high=65_535, open_high=False)
        if self.once and self.serve:
            raise ValueError("--once prints a picture and --serve shows a page: give one of them")
