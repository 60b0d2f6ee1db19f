"""Makes the page of runs that are being trained, in parts that a browser replaces one by one when they change."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from infomax.analysis.verdicts import Verdict
from infomax.reporting.pages.blocks import Commands, Facts, Notice, Paragraph, TableBlock
from infomax.reporting.pages.charts import LineChart
from infomax.reporting.pages.page import Block, Ids, Page, Refresh, Section, safe
from infomax.reporting.run_page.curves import curve_charts
from infomax.reporting.run_page.shown_runs import MOST_RUNS, ShownRun
from infomax.reporting.tables import EMPTY, Cell, make_table
from infomax.reporting.watch.picture import describe_left, health_words, knn_words, position_words, speed_words
from infomax.reporting.watch.runs import Snapshot
from infomax.runs.run_folder import Run
from infomax.runtime.progress import format_rate
from infomax.runtime.text import escape

SECONDS_BETWEEN_LOOKS = 3.0  # of the browser
NOW, CURVES = "Now", "Curves"
COLUMNS = ("run", "state", "done", "left", "loss", "k-NN, %", "untrained, %", "images/s", "health")
ASSETS = ("watch.js", *LineChart("", "", "", ()).assets, *TableBlock(make_table(COLUMNS, ())).assets)
"""Files that the page has from its beginning: its script, and what charts and tables need, which may come later."""


class _PartIds(Ids):
    """The ids of one part, which no other part of the page has, and which stay the same when other parts come.

    Args:
        key: The key of the part.
    """

    def __init__(self, key: str):
        super().__init__()
        self._prefix = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]

    def new(self, kind: str) -> str:
        """Returns an id that no other element of the page has."""
        return f"part-{self._prefix}-{super().new(kind)}"


@dataclass(frozen=True)
class Part:
    """A frozen dataclass that holds a block of the page with the key by which a browser finds it again."""

    key: str
    content: str
    """The block as HTML, with ids that no other part has."""
    assets: tuple[str, ...]
    """Names of files that the page needs for the block, and for keeping it up to date."""

    @property
    def version(self) -> str:
        """Returns a word that is another one for other content."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields the block as it was made."""
        yield f'<div data-part="{safe(self.key)}" data-version="{self.version}">\n{self.content}\n</div>'


@dataclass(frozen=True)
class LivePage:
    """A frozen dataclass that holds the page, and its parts alone."""

    html: str
    tab: str
    """The title for the tab of the browser, which says how far the runs are."""
    sections: list[list[tuple[str, str, str]]]
    """Keys, versions and contents of the parts of each section, in their order."""


@dataclass(frozen=True)
class LiveRun(ShownRun):
    """A frozen dataclass that holds a run whose rows are those that were read already."""

    rows: list[dict[str, Any]] = field(default_factory=list)


def page_key(snapshots: Sequence[Snapshot]) -> Any:
    """Returns what is another value whenever the page is another one."""
    return [
        (
            *(shown.folder, shown.settings, shown.phase, shown.describe_phase(), shown.problem),
            *(shown.verdicts, shown.closing, shown.changed_at if shown.rows else None, len(shown.rows)),
        )
        for shown in snapshots
    ]


def live_page(snapshots: Sequence[Snapshot], address: str) -> LivePage:
    """Makes the page.

    Args:
        snapshots: What is known of the runs.
        address: Where the browser finds the parts anew.
    """
    now = _parts(_blocks_of_one(snapshots[0]) if len(snapshots) == 1 else _blocks_of_several(snapshots))
    curves = _parts(_curve_blocks(snapshots), ASSETS)
    title = "Training of " + ", ".join(str(shown.folder) for shown in snapshots[:3])
    page = Page(
        title=title if len(snapshots) <= 3 else f"{title} and {len(snapshots) - 3} more",
        text=("This page follows the files of the run, and can change nothing in it.",),
        sections=(Section(NOW, blocks=tuple(now)), Section(CURVES, blocks=tuple(curves))),
        refresh=Refresh(SECONDS_BETWEEN_LOOKS, address),
    )
    parts = [[(part.key, part.version, part.content) for part in section] for section in (now, curves)]
    return LivePage(page.html(), _tab(snapshots), parts)


def _tab(snapshots: Sequence[Snapshot]) -> str:
    """Returns how far the slowest run is, after what may be wrong, and the names."""
    states = {verdict.state for shown in snapshots for verdict in shown.verdicts} & {"failed", "warning"}
    words = [*sorted(states)[:1], f"{min((shown.share for shown in snapshots), default=0.0):.0%}"]
    return escape(f"{', '.join(words)}: {', '.join(str(shown.folder) for shown in snapshots)}")


def _parts(blocks: Iterable[tuple[str, Block]], assets: tuple[str, ...] = ()) -> list[Part]:
    """Returns blocks as parts, each of which has another key."""
    counts: Counter[str] = Counter()
    parts = []
    for name, block in blocks:
        counts[name] += 1
        key = f"{name} {counts[name]}"
        parts.append(Part(key, "\n".join(block.html(_PartIds(key))), (*block.assets, *assets)))
    return parts


def _blocks_of_one(shown: Snapshot) -> Iterator[tuple[str, Block]]:
    """Yields what is said of a run, and how far it is, each with a key."""
    for number, notice in enumerate(_notices(shown)):
        yield f"notice {number}", notice
    if shown.settings is not None:
        yield "facts", Facts(tuple(_facts(shown)))
    if shown.phase == "stopped":
        yield "command", Commands(shown.resume_command, "goes on with it")


def _blocks_of_several(snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, Block]]:
    """Yields what is wrong with runs, and a table of all, each with a key."""
    for shown in snapshots:
        for number, notice in enumerate(_notices(shown, f"{shown.folder}: ")):
            if notice.kind in ("warning", "failed") and shown.phase != "stopped":
                yield f"notice {number} {shown.folder}", notice
    rows = [_table_row(shown) for shown in snapshots]
    yield "runs", TableBlock(make_table(COLUMNS, rows))


def _table_row(shown: Snapshot) -> tuple[Cell, ...]:
    """Returns a run's cells for :data:`COLUMNS`."""
    verdicts = [f"{verdict.name} ({verdict.state})" for verdict in shown.verdicts if verdict.state != "watching"]
    left, loss, rate = shown.seconds_left, shown.newest("loss"), shown.newest("images_per_second")
    shares = [shown.newest(key) for key in ("knn_top1", "untrained_knn_top1")]
    is_running = shown.phase == "running" and left is not None
    words = describe_left(left, shown).removesuffix(" left") if is_running else ""
    return (
        Cell(str(shown.folder)),
        Cell("no run yet" if shown.phase == "absent" else shown.phase),
        Cell(f"{shown.share:.0%}", 100 * shown.share),
        Cell(words, left) if words else EMPTY,
        EMPTY if loss is None else Cell(f"{loss:.4g}", loss),
        *(EMPTY if share is None else Cell.per_cent(share) for share in shares),
        EMPTY if rate is None else Cell(format_rate(rate), rate),
        Cell(", ".join(verdicts) or health_words(shown).partition(":")[0]),
    )


def _notices(shown: Snapshot, prefix: str = "") -> Iterator[Notice]:
    """Yields the verdicts on a run, the gravest first, and what it is doing."""
    phase = shown.describe_phase()
    if shown.settings is None:
        yield Notice("warning" if shown.problem else "info", f"{prefix}no run yet", phase)
        return
    for verdict in shown.verdicts:
        yield _verdict_notice(verdict, prefix)
    if shown.phase == "finished":
        kind = "info" if shown.verdicts else "good"
        yield Notice(kind, f"{prefix}finished", shown.closing[0] if shown.closing else "")
    elif words := health_words(shown):
        yield Notice("info", f"{prefix}{words}")
    if shown.phase == "stopped":
        yield Notice("warning", f"{prefix}stopped", f"No process writes it; {shown.steps:,} steps are done.")
    if shown.phase == "silent":
        heading, _, evidence = phase.partition(": ")
        yield Notice("warning", prefix + heading, evidence)
    if shown.problem:
        yield Notice("warning", f"{prefix}a file of the run cannot be read", shown.problem)


def _verdict_notice(verdict: Verdict, prefix: str) -> Notice:
    if verdict.state == "watching":
        heading = f"{prefix}{verdict.name} at the last measurement"
        return Notice("info", heading, f"{verdict.evidence}. It may pass: three measurements make a verdict.")
    heading = f"{prefix}{verdict.name}, {verdict.state} since step {verdict.step:,}"
    return Notice("failed" if verdict.state == "failed" else "warning", heading, verdict.evidence, verdict.advice)


def _facts(shown: Snapshot) -> Iterator[tuple[str, str]]:
    settings = shown.settings
    if settings is None:
        return
    yield "Recipe", settings.title
    yield "Images", f"{settings.data}: {settings.images:,} images, in batches of {settings.batch_size:,}"
    yield "State", shown.phase if shown.rows or shown.phase != "starting" else shown.describe_phase()
    if not shown.rows:
        return
    yield "Done", ", ".join([f"{shown.share:.0%}", *position_words(shown)])
    if shown.phase == "running" and (left := describe_left(shown.seconds_left, shown)):
        yield "Left", left.removesuffix(" left")
    if speed := speed_words(shown):
        yield "Speed", ", ".join(speed)
    if (loss := shown.newest("loss")) is not None:
        yield "Loss", f"{loss:.4g}"
    if shown.newest("knn_top1") is not None:
        yield "k-NN", knn_words(shown)


def _curve_blocks(snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, Block]]:
    """Yields the charts of all runs that have rows, each with a key."""
    runs, problems = [], []
    for shown in snapshots:
        if shown.settings is None or not shown.rows or len(runs) == MOST_RUNS:
            continue
        run = LiveRun(str(shown.folder), Run(shown.folder), len(runs), list(map(dict, shown.rows)))
        try:
            _ = run.config, run.recipe
        except (ValueError, OSError) as error:  # as of a method whose package is not installed here
            problems.append(f"{shown.folder} has no curves here: {error}")
        else:
            runs.append(run)
    for problem in problems:
        yield problem, Paragraph(problem)
    if not runs:
        yield "none", Paragraph("There are no curves before the first row of the metrics.")
        return
    if len(snapshots) > len(runs) == MOST_RUNS:
        yield "left out", Paragraph(f"Curves are drawn of the first {MOST_RUNS} runs.")
    for chart in curve_charts(runs):
        yield f"chart {chart.title}", chart
