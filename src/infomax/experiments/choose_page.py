"""Makes the page of ranked encoders: how far to trust the order, the table, and charts of the measures."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from infomax.experiments.choose import TAKE, Candidate, Choice
from infomax.experiments.label_free import MEASURES
from infomax.reporting.pages.blocks import Notice, TableBlock
from infomax.reporting.pages.charts import BarChart, Curve, LineChart
from infomax.reporting.pages.page import Block, Page, Section
from infomax.runtime.files import write_atomic

FOOTER = "Made by infomax choose."


def choice_page(choice: Choice) -> Page:
    """Returns the page of ranked encoders.

    Args:
        choice: The encoders with their measures and ranks.
    """
    table = choice.table()
    notices = (*_trust_notices(choice), *_left_out_notices(choice))
    sections = [
        Section("How far to trust the order", blocks=notices),
        Section("The order", blocks=(TableBlock(replace(table, title="", notes=(TAKE,) if choice.chosen else ())),)),
    ]
    if charts := tuple(_charts(choice)):
        sections.append(Section("Measures", "What ranks the encoders of each method.", charts))
    return Page("Encoders ranked without labels", (f"{table.title}.",), tuple(sections), FOOTER)


def write_choice_page(file: Path, choice: Choice) -> None:
    """Writes the page of ranked encoders; see :func:`choice_page`."""
    write_atomic(file, choice_page(choice).html().encode(errors="surrogateescape"))


def _trust_notices(choice: Choice) -> Iterator[Notice]:
    """Yields what the study says of the order of each method's encoders."""
    for method, measure in choice.ranked_by.items():
        ranked = _ranked(choice, method)
        if len(ranked) < 2:
            yield Notice("info", f"{method}: nothing to rank", f"{ranked[0].encoder} is the only one of this method")
            continue
        trust, order = choice.trust[method], f"{method}: by {MEASURES[measure].label}, {MEASURES[measure].direction}"
        evidence = "The study says nothing of that: do not trust this order" if trust is None else trust.words()
        is_hint = trust is not None and trust.helps
        yield Notice(
            "info" if is_hint else "warning", order, f"{evidence[0].upper()}{evidence[1:]}", choice.epochs_words(method)
        )
    if len(choice.ranked_by) > 1:
        yield Notice("info", "Ranks are within a method", "Across methods no measure means the same")


def _left_out_notices(choice: Choice) -> Iterator[Notice]:
    """Yields which encoders are no candidates, and which are of runs that have not ended."""
    for candidate in choice.candidates:
        if candidate.left_out:
            yield Notice("failed", f"Left out: {candidate.encoder}", candidate.left_out)
        elif candidate.progress:
            evidence = f"{candidate.progress}; measures change while a run trains"
            yield Notice("warning", f"Not finished: {candidate.encoder}", evidence)


def _ranked(choice: Choice, method: str) -> list[Candidate]:
    return [c for c in choice.candidates if c.method == method and c.rank is not None]


def _charts(choice: Choice) -> Iterator[Block]:
    """Yields for each method a chart of what ranks, and of encoders from within runs one along their steps."""
    for method, name in choice.ranked_by.items():
        ranked = [candidate for candidate in _ranked(choice, method) if name in candidate.measures]
        label = MEASURES[name].label
        if len(ranked) < 2:
            continue
        folder = os.path.commonpath([os.path.dirname(candidate.encoder) for candidate in ranked])
        bars = tuple((os.path.relpath(c.encoder, folder or "."), c.measures[name]) for c in ranked)
        caption = f"Better: {MEASURES[name].direction}.{f' Encoders are in {folder}.' if folder else ''}"
        yield BarChart(f"{method}: {label}", "encoder", label, bars, caption)
        if any(candidate.epoch is not None for candidate in ranked):
            curves = tuple(_curves(ranked, name))
            yield LineChart(f"{method}: {label} while runs trained", "steps", label, curves)


def _run_of(candidate: Candidate) -> str:
    """Returns the folder of the run that an encoder is of."""
    encoder = Path(candidate.encoder)
    return str(encoder if candidate.epoch is None else encoder.parent.parent)


def _curves(ranked: Sequence[Candidate], name: str) -> Iterator[Curve]:
    """Yields a curve for each run, of its encoders in the order of their steps."""
    for style, run in enumerate(dict.fromkeys(map(_run_of, ranked))):
        of_run = sorted((c for c in ranked if _run_of(c) == run), key=lambda candidate: candidate.steps)
        values = tuple(candidate.measures[name] for candidate in of_run)
        yield Curve(run, tuple(float(candidate.steps) for candidate in of_run), values, style)
