"""The report of runs and files of results: tables beside the papers', and a page that shows the runs."""

from os import PathLike

from infomax.papers import published
from infomax.reporting.comparison import Report
from infomax.reporting.comparison import report as compare_results
from infomax.reporting.options import PAGE_SUFFIXES, ReportOptions
from infomax.runtime.options import pick
from infomax.runtime.output_files import check_output_file
from infomax.runtime.stages import importing_torch


def report(
    *results: str | PathLike[str],
    table: str | None = None,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    data: str | PathLike[str] | None = None,
    max_images: int = 200_000,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    feature_precision: str = "32",
    no_cache: bool = False,
) -> Report:
    """Sets results beside the papers' tables that have a column for one of them, as ``infomax report`` does.

    With ``out`` it also writes a page that shows the runs: the verdicts on their trainings, curves, views, neighbours
    and groups of images, the spectrum, the settings, and the tables.

    Args:
        results: Run folders, or files of results.
        table: Show this table of a paper alone, as mira-5. Default: all with a column for one of the results.
        out: The .html file of the page to write. Default: none is written, and nothing is computed.
        overwrite: Replace the file if it exists.
        data: The images to show, if they are elsewhere now, or others. Default: what each run was trained on.
        max_images: Images of a data set whose features are computed, at most; of more, so many are drawn.
        seed: Seed of what is drawn: the images that are shown, and the starts of k-means.
        device: Kind of device; ``auto`` takes a CUDA GPU if there is one.
        workers: Processes that decode image files. Default: one a core, at most 8.
        feature_precision: Bits of each value of a feature, ``32`` or ``16``.
        no_cache: Neither keep features on disk nor use those that are there.

    Returns:
        The tables; ``print(infomax.report("runs/a"))`` shows them as the command does. Of a page of runs without
        results there are none.

    Raises:
        ValueError: if there are no results and no page is wanted, a row of them is damaged, there is no such table, or
            ``out`` cannot be written.

    Example:
        >>> import infomax
        >>> report = infomax.report("runs/a", "runs/b")  # doctest: +SKIP
        >>> print(report.tables[0].markdown())  # doctest: +SKIP
        >>> _ = infomax.report("runs/a", out="report.html")  # doctest: +SKIP
    """
    return make_report(pick(ReportOptions, locals()))[0]


def make_report(options: ReportOptions) -> tuple[Report, int]:
    """Returns the tables, and the number of bytes of the page that was written; see :func:`report`.

    Without a page, torch is not imported.
    """
    if options.out is None:
        return compare_results(*options.results, table=options.table), 0
    from infomax.reporting.run_page.shown_runs import open_places

    check_output_file(options.out, PAGE_SUFFIXES, overwrite=options.overwrite)
    places = open_places(options.results)
    report = None
    if options.table is not None:
        published.table(options.table)  # a mistake in its name is said, whether or not there are results
    if places.has_results or not places.runs:
        report = compare_results(*options.results, table=options.table)
    with importing_torch():
        from infomax.reporting.run_page.build import write_page

    size = write_page(places, report, options)
    return report or Report((), (), ()), size


def page_size(size: int) -> str:
    """Returns the size of a page in words, as ``2.1 MB``."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
