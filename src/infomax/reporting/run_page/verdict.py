"""Section with the verdict on each training: what stands against it, with its evidence and what to change."""

from collections.abc import Iterator

from infomax.analysis.verdicts import NO_SIGN, Verdict, describe_no_verdict
from infomax.reporting.pages.blocks import Notice
from infomax.reporting.pages.page import Section
from infomax.reporting.run_page.content import Content, headed, public
from infomax.reporting.run_page.shown_runs import ShownRun
from infomax.runs.run_folder import resume_command
from infomax.training.closing import describe_few_steps, describe_gains, describe_spread

NO_GAIN = ("not clearly better", "clearly worse")
"""Words of a closing line that forbid a green notice."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there is no run folder."""
    if not content.runs:
        return None
    unmeasured = [shown for shown in content.runs if says_nothing(shown)]
    if len(unmeasured) == 1:
        unmeasured = []
    others = [shown for shown in content.runs if shown not in unmeasured]
    notices = tuple(notice for shown in others for notice in notices_of(shown, content.prefix(shown)))
    if unmeasured:
        names = ", ".join(shown.name for shown in unmeasured)
        notices += (Notice("info", f"{names}: the health of these trainings was not measured"),)
    text = (
        "What each training's own measurements say. No verdict does not mean that an encoder is good: it means "
        "that no sign of collapse, divergence or a wrong setting was seen. What it is worth is said below."
    )
    return Section("Verdict", text, notices)


def notices_of(shown: ShownRun, prefix: str = "") -> Iterator[Notice]:
    """Yields what is to be said of a training, the gravest first.

    Args:
        shown: The run.
        prefix: Words before each heading, as the run's name.
    """
    verdicts, line = shown.standing, gain_line(shown)
    if shown.run.collapsed:
        yield Notice("failed", headed(prefix, "all images have the same representation"), collapsed_evidence(shown))
    for verdict in verdicts or ():
        kind = "failed" if verdict.state == "failed" else "warning"
        heading = headed(prefix, f"{verdict.name}, {verdict.state} since step {verdict.step:,}")
        evidence, advice = (headed("", public(words)) for words in (verdict.evidence, verdict.advice))
        yield Notice(kind, heading, evidence, advice)
    for verdict in shown.current:
        if verdict.state == "watching":
            yield Notice("info", headed(prefix, f"{verdict.name} at the last measurement"), *_watched(verdict))
    if verdicts is None:
        command = resume_command(shown.words)
        advice = "" if not shown.progress else f"{command} goes on with it, and measures its health"
        yield Notice("info", headed(prefix, "the health of this training was not measured"), headed("", line), advice)
    elif not verdicts and not shown.run.collapsed:
        few, gains = describe_few_steps(shown.run), describe_gains(shown.rows, shown.trained_steps)
        if few:
            yield Notice("warning", headed(prefix, "almost nothing was trained"), few)
        gained = gains and not any(words in gains for words in NO_GAIN)
        heading = describe_no_verdict(shown.trained_steps, shown.run.recipe.steps(shown.run.config["images"]))
        kind = "good" if gained and not few and heading == NO_SIGN else "info"
        yield Notice(kind, headed(prefix, heading), headed("", line))
    elif line:
        yield Notice("info", headed(prefix, "what was measured at the end"), headed("", line))
    if shown.progress:
        evidence = f"It is in {shown.progress}. All that follows is of the encoder after {shown.trained_steps:,} steps."
        yield Notice("info", headed(prefix, "unfinished"), evidence)


def says_nothing(shown: ShownRun) -> bool:
    """Returns whether a run is at its end and its metrics say nothing of its health, as before it was measured."""
    return shown.standing is None and not shown.progress and not shown.run.collapsed and not gain_line(shown)


def _watched(verdict: Verdict) -> tuple[str, str]:
    evidence = f"{verdict.evidence}. One measurement may be an accident of its batch: three in a row make a verdict."
    return headed("", public(evidence)), headed("", public(verdict.advice))


def gain_line(shown: ShownRun) -> str:
    """Returns the line that the run ended with, on what it gained or on how its embeddings spread; empty if unknown."""
    if shown.run.collapsed:
        return ""
    return describe_gains(shown.rows, shown.trained_steps) or describe_spread(shown.rows)


def collapsed_evidence(shown: ShownRun) -> str:
    """Returns words for what shows that an encoder has collapsed."""
    steps = [row["step"] for row in shown.rows if "collapsed" in row]
    return f"The encoder that is kept maps different images to one vector (step {steps[-1]:,})."
