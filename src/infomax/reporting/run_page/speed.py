"""Section with the speed of a training, and how long it waited for images."""

from statistics import median

from infomax.reporting.pages.blocks import SideBySide, TableBlock
from infomax.reporting.pages.page import Section
from infomax.reporting.run_page.content import Content
from infomax.reporting.run_page.curves import Plot, charts_of, common_axis
from infomax.reporting.run_page.shown_runs import ShownRun
from infomax.reporting.tables import EMPTY, Cell, make_table
from infomax.runtime.durations import duration

PLOTS = (
    Plot("Images per second", "images/s", {"images_per_second": "images per second"}),
    Plot("Waiting for images", "% of the time", {"waiting": "waiting"}, scale=100),
)
MUCH_WAITING = 0.05  # share of the time from which on faster loading is worth a thought


def section(content: Content) -> Section | None:
    """Returns the section; None if no run has measured its speed."""
    runs = [shown for shown in content.runs if shown.values("images_per_second")]
    if not runs:
        return None
    table = make_table(
        ["run", "images/s, median", "last", "waiting", "training", "device"], [line_of(shown) for shown in runs]
    )
    axis = common_axis(runs)
    charts = [chart for plot in PLOTS for chart in charts_of(plot, runs, axis)]
    waiting = [shown.name for shown in runs if mean_waiting(shown) > MUCH_WAITING]
    text = "Images whose views went through a step, scoring and saving left out."
    if waiting:
        of_runs = f" of {', '.join(waiting)}" if len(content.runs) > 1 else ""
        text += f" Much of the time{of_runs} went into waiting for images: more --workers, or smaller files, help."
    return Section("Speed and waiting", text, (TableBlock(table), SideBySide(tuple(charts))))


def mean_waiting(shown: ShownRun) -> float:
    """Returns the mean share of the time that a run waited for images, from its second line on."""
    values = [*shown.values("waiting").values()]
    values = values[1:] or values  # the first steps wait while workers start
    return sum(values) / len(values) if values else 0.0


def line_of(shown: ShownRun) -> list[Cell | str]:
    """Returns a run's line of the table."""
    speeds = [*shown.values("images_per_second").values()]
    seconds, launch = shown.last("seconds"), shown.run.launch
    devices = launch.get("devices", 1)
    device = str(launch.get("gpu") or launch.get("device", ""))
    return [
        shown.name,
        Cell(f"{median(speeds):,.0f}", median(speeds)),
        Cell(f"{speeds[-1]:,.0f}", speeds[-1]),
        Cell(f"{100 * mean_waiting(shown):.1f} %", 100 * mean_waiting(shown)),
        EMPTY if seconds is None else Cell(duration(seconds), seconds),
        device if devices in (1, None) else f"{devices} x {device}",
    ]
