"""Builds the page of some runs: collects what is to be shown, and puts the sections in their order."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from infomax.reporting.comparison import Report
from infomax.reporting.options import ReportOptions
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.run_page import (
    curves,
    detections,
    differing,
    environment,
    gains,
    groups,
    making,
    maps,
    neighbours,
    spectrum,
    speed,
    tables,
    verdict,
    views,
)
from infomax.reporting.run_page.collecting import collect
from infomax.reporting.run_page.content import Content, public
from infomax.reporting.run_page.shown_runs import Places, ShownRun
from infomax.runs.public_words import public_data_name
from infomax.runtime.devices import choose_device
from infomax.runtime.failures import MachineError, describe_machine_failure
from infomax.runtime.files import write_atomic
from infomax.runtime.threads import threads_within_quota

SECTIONS: tuple[Callable[[Content], Section | None], ...] = (
    differing.section,
    verdict.section,
    gains.section,
    curves.section,
    views.section,
    neighbours.section,
    maps.section,
    groups.section,
    detections.section,
    spectrum.section,
    speed.section,
    environment.section,
    tables.section,
    making.section,
)
"""All sections in the order of the page: what decides first, what is looked up last."""


@threads_within_quota()
def write_page(places: Places, report: Report | None, options: ReportOptions) -> int:
    """Writes the page of some runs, and returns its size in bytes.

    Args:
        places: The runs.
        report: The tables of results; None if there are none.
        options: The options of ``infomax report``, with ``out``.

    Raises:
        ValueError: if the device is not there.
        MachineError: if memory or a process was lost.
    """
    assert options.out is not None
    choose_device(options.device)  # its mistakes are not those of a data set
    try:
        html = build_page(collect(places, report, options)).html().encode()
    except Exception as error:
        cure = "a smaller --max-images takes less"
        if (failure := describe_machine_failure(error, cure)) is None:
            raise
        raise MachineError(f"{failure}. Features that were computed are kept, and the same command goes on") from error
    write_atomic(options.out, html)
    return len(html)


def build_page(content: Content) -> Page:
    """Returns the page of some runs.

    Args:
        content: What it is made of.
    """
    names = ", ".join(shown.name for shown in content.runs) or ", ".join(place.name for place in content.places.places)
    sections = (make_section(content) for make_section in SECTIONS)
    footer = f"infomax {version('infomax')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, seed {content.options.seed}."
    text = [describe_run(shown, content.prefix(shown)) for shown in content.runs]
    return Page(names, tuple(text), tuple(x for x in sections if x is not None), footer)


def describe_run(shown: ShownRun, prefix: str) -> str:
    """Returns a line on a run: its recipe, its images and how far it is.

    Args:
        shown: The run.
        prefix: Words before it, as the run's name.
    """
    data, images = public_data_name(shown.run.location.data), shown.config["images"]
    progress = f"unfinished, in {shown.progress}" if shown.progress else f"{shown.recipe.epochs} epochs"
    return public(f"{prefix}{shown.run.recipe_title}, trained on {images:,} images of {data}, {progress}.")
