"""What is said of figures: the list of all, and all that is known of one. No torch is imported."""

from infomax.figures.catalogue import FIGURES
from infomax.figures.figure import Figure
from infomax.runtime.checks import choose
from infomax.runtime.options import option_fields


def list_figures() -> str:
    """Returns lines on all figures: what each shows, of which paper, what it takes, and how long it took."""
    width = max(map(len, FIGURES)) + 2
    lines = []
    for figure in FIGURES.values():
        minutes = "" if figure.minutes is None else f"; {minutes_words(figure)} min"
        lines.append(f"{figure.name.ljust(width)}{figure.title}")
        lines.append(f"{'':{width}}{figure.paper_words}; takes {needs_words(figure)}{minutes}")
    return "\n".join([*lines, "", MINUTES_NOTE])


MINUTES_NOTE = (
    "min: measured on two CPU cores with runs of the recipes digits, without their training; if it was measured."
)


def needs_words(figure: Figure) -> str:
    """Returns words for the runs that a figure takes."""
    if not figure.needs.runs:
        return "nothing"
    return figure.needs.runs if figure.needs.required else f"nothing, or {figure.needs.runs}"


def minutes_words(figure: Figure) -> str:
    """Returns the measured minutes of a figure; empty if there are none."""
    return "" if figure.minutes is None else f"{figure.minutes:.1f}"


def about_figure(name: str) -> str:
    """Returns all that is known of a figure, as lines.

    Raises:
        ValueError: if there is no such figure.
    """
    figure = FIGURES[choose("the figure", name, FIGURES)]
    lines = [f"{figure.name}: {figure.title} ({figure.paper_words})", "", figure.text, ""]
    lines += [f"Takes {needs_words(figure)}."]
    if figure.needs.commands:
        lines += ["Such runs are made by:", *(f"  {command}" for command in figure.needs.commands)]
    if settings := setting_rows(figure):
        lines += ["", "Settings (--set KEY=VALUE):", *_aligned([[f"{k}={v}", text] for k, v, text in settings])]
    lines += ["", "Columns of the CSV:", *_aligned([list(column) for column in figure.columns.items()])]
    return "\n".join(lines)


def setting_rows(figure: Figure) -> list[tuple[str, str, str]]:
    """Returns name, default and text of each setting of a figure."""
    rows = []
    for field in option_fields(figure.settings):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        rows.append((field.name, default, field.text))
    return rows


def _aligned(rows: list[list[str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name.ljust(width)}  {text}" for name, text in rows]
