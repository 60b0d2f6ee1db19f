"""What the commands of the guide on classification print, and what is none of a classifier's classes."""

import textwrap
from functools import partial

from result_tables.kept import DOCS, NOT_MEASURED, made_by, markdown, read

GUIDE = DOCS / "guide" / "classify-your-images.md"
COLUMNS = 118
PROGRESS = ("infomax: reading", "infomax: importing", "infomax: preparing", "classify: ")
"""How lines begin that say what is being done, which a terminal shows in one place."""


def printed(command: str) -> str:
    """The lines that a command printed, without those of progress, long ones in several."""
    kept = read("classifying.json")
    if kept is None:
        return NOT_MEASURED
    lines = []
    for line in kept["printed"][command]:
        if line.startswith(PROGRESS):
            continue
        lines += textwrap.wrap(line, COLUMNS, subsequent_indent=" " * 9) if len(line) > COLUMNS else [line]
    return "\n".join(("```text", *lines, "```"))


def none_table() -> str:
    kept = read("classifying.json")
    if kept is None:
        return NOT_MEASURED
    rows = [
        [name, f"{found['images']:,}", f"{100 * found['none'] / found['images']:.0f} %"]
        for name, found in kept["none of these"].items()
    ]
    return f"{markdown(['of images', 'number', 'none of these'], rows)}\n\n{made_by(kept)}"


TABLES = {
    "classify-fit": (GUIDE, partial(printed, "fit")),
    "classify-run": (GUIDE, partial(printed, "run")),
    "classify-test": (GUIDE, partial(printed, "test")),
    "classify-finetune": (GUIDE, partial(printed, "finetune")),
    "classify-none": (GUIDE, none_table),
}
