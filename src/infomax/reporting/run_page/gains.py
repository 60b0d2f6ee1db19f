"""Section on whether an encoder is better than raw pixels, an untrained encoder and the one that it started from."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap

from infomax.data.splits import EVERY_FIFTH, why_not_labelled
from infomax.evaluation.intervals import MATCHED, Difference
from infomax.evaluation.paired import compare_rows, find_partner
from infomax.evaluation.result_row import Condition, ResultRow, row_fields
from infomax.evaluation.results import read_results, with_hits
from infomax.reporting.differences import BASELINES
from infomax.reporting.pages.blocks import Notice, Paragraph, TableBlock
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, headed
from infomax.reporting.run_page.shown_runs import ShownRun
from infomax.reporting.tables import EMPTY, Cell, make_table
from infomax.runs.public_words import public_data_name
from infomax.training.closing import COMPARED, gain_keys

COLUMNS = ("compared with", "verdict", "measured by", "encoder", "reference", "difference", "95 % interval")
FULL_PER_CENT = 100.0
BETTER, HIGHER, NOT_HIGHER = "clearly better", "higher", "not higher"
GRAVEST_FIRST = ("clearly worse", NOT_HIGHER, "not clearly better", HIGHER, BETTER)
Line = list[Cell | str]


def section(content: Content) -> Section | None:
    """Returns the section; None if there is no run folder."""
    if not content.runs:
        return None
    first: list[Block] = []
    tables: list[tuple[ShownRun, list[Line]]] = []
    kinds: dict[str, None] = {}
    for shown in content.runs:
        lines = []
        for line, kind in (*lines_of_results(shown), *lines_of_metrics(shown)):
            lines.append(line)
            kinds[kind] = None
        prefix = content.prefix(shown)
        first.append(_summary(lines, shown, prefix) if lines else _nothing_known(shown, prefix, content))
        tables.append((shown, lines))
    blocks = (*first, *_table(tables, [f"difference: {kind}" for kind in kinds]))
    text = (
        "A score says something about the training only if it beats what needs no training. Differences are of the "
        "same test images, in percentage points; an interval on one side of 0 is a clear difference."
    )
    if any(is_tested_on_training_images(shown) for shown in content.runs):
        text += " There is no labelled test split: the test images are every fifth image of each class of those to "
        text += "train on, which were trained on too, without their labels."
    return Section("Is it better than pixels, and than an untrained encoder?", text, blocks)


def is_tested_on_training_images(shown: ShownRun) -> bool:
    """Returns whether the images that a run is tested on are among those that it was trained on, without labels."""
    trained_on = str(shown.config.get("train_split", ""))
    return shown.config.get("tests_on") in (EVERY_FIFTH, f"{EVERY_FIFTH} of {trained_on}")


def _table(of_runs: Sequence[tuple[ShownRun, list[Line]]], notes: Sequence[str]) -> Iterator[TableBlock]:
    """Yields the table of all runs, which names the run in each line if there are several; none if it is empty."""
    if len(of_runs) == 1:
        columns, lines = COLUMNS, of_runs[0][1]
    else:
        columns = ("run", *COLUMNS)
        lines = [[shown.name, *line] for shown, of_run in of_runs for line in of_run]
    if lines:
        yield TableBlock(
            make_table(columns, lines, title="The encoder beside its references, scores in %", notes=notes)
        )


def _summary(lines: list[Line], shown: ShownRun, prefix: str) -> Notice:
    """Returns in one sentence whether the encoder is clearly better than all that it was compared with."""
    of_reference: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        name, verdict, measured = (cell.text if isinstance(cell, Cell) else cell for cell in line[:3])
        of_reference.setdefault(name, {}).setdefault(verdict, []).append(measured)
    by_verdict: dict[str, list[str]] = {}
    for name, verdicts in of_reference.items():  # of several measurements the gravest counts
        if (gravest := next((verdict for verdict in GRAVEST_FIRST if verdict in verdicts), None)) is not None:
            protocols = dict.fromkeys(measured.partition(",")[0] for measured in verdicts[gravest])
            differ = len(verdicts.keys() & set(GRAVEST_FIRST)) > 1
            by_verdict.setdefault(gravest, []).append(f"the {name}" + (f" by {' and by '.join(protocols)}" * differ))
    phrases = [
        f"{verdict} than {' and '.join(names)}" for verdict in GRAVEST_FIRST if (names := by_verdict.get(verdict))
    ]
    heading = headed(prefix, "; ".join(phrases))
    if not phrases:
        heading = headed(prefix, "not known: there are scores, but nothing to compare them with")
        return Notice("info", heading, "", _evaluate(shown))
    if by_verdict.keys() <= {HIGHER, BETTER}:
        if HIGHER not in by_verdict:
            return Notice("good", heading)
        if prefix:  # the table of several runs says why there are no intervals
            return Notice("info", heading)
        evidence = "Which images were right was not kept, so it is not known how far chance would move the difference."
        return Notice("info", heading, evidence, _evaluate(shown))
    if all(isinstance(line[3], Cell) and (line[3].value or 0) >= FULL_PER_CENT for line in lines):
        words = "the encoder is right about all of these images, so that nothing can be better than it"
        return Notice("info", heading, headed("", words), "")
    kind = "failed" if by_verdict.keys() & {"clearly worse", NOT_HIGHER} else "warning"
    advice = shown.run.describe_longer_training(shown.words)
    evidence = " ".join(filter(None, starmap(_where_they_differ, of_reference.items())))
    if any(verdict.state == "failed" for verdict in shown.standing or ()):
        advice = "the verdict says what to change; to train it longer would not help"
    return Notice(kind, heading, evidence, headed("", advice))


def _where_they_differ(reference: str, verdicts: Mapping[str, Sequence[str]]) -> str:
    """Returns by which measurements the encoder is clearly better than a reference, if by others it is not.

    Args:
        reference: Name of the reference.
        verdicts: The measurements that end in each verdict.
    """
    if BETTER not in verdicts or not verdicts.keys() - {BETTER, HIGHER, EMPTY}:
        return ""
    return f"It is clearly better than the {reference} by {' and by '.join(verdicts[BETTER])}."


def _nothing_known(shown: ShownRun, prefix: str, content: Content) -> Block:
    """Returns words for a run without scores."""
    source = content.sources.get(shown.name)
    reason = str(shown.config.get("no_labels_reason", "")) if source is None else why_not_labelled(source)
    if not reason:
        return Notice("info", headed(prefix, "not known: the encoder was not evaluated"), "", _evaluate(shown))
    few = f"infomax evaluate few-shot {shown.words} --data DIR"
    words = (
        f"not known: there are no labels to compare by ({reason}). Ten labelled images of each class would do: {few}. "
        "Without any, the neighbours below show whether it sees more than the untrained encoder."
    )
    return Paragraph(headed(prefix, words))


def _evaluate(shown: ShownRun) -> str:
    return f"infomax evaluate knn {shown.words} compares it with raw pixels and the untrained encoder"


def lines_of_results(shown: ShownRun) -> Iterator[tuple[Line, str]]:
    """Yields a line for each baseline of each evaluation of the run's last encoder, and the kind of its interval."""
    file = shown.run.path / "results.jsonl"
    rows: list[ResultRow] = list(with_hits(read_results(file), file)) if file.exists() else []
    own = [row for row in rows if row.representation == "trained encoder" and row.epoch is None][::-1]
    own = [row for row in own if row.trained_steps in (None, shown.trained_steps)]
    newest: dict[tuple[str, str], ResultRow] = {}
    for row in rows:
        if row.representation in BASELINES and row.classes and find_partner(row, own) is not None:
            newest[row.representation, measured_by(row, shown)] = row
    for (name, words), row in sorted(newest.items(), key=lambda item: BASELINES.index(item[0][0])):
        partner = find_partner(row, own)
        assert partner is not None
        difference = compare_rows(partner, row)
        known = difference if isinstance(difference, Difference) else None
        measured = f"{words}, {row.test_images:,} test images"
        yield (
            _line(name, measured, partner.score, row.score, known),
            known.kind if known else f"no interval, as {difference}",
        )


def measured_by(row: ResultRow, shown: ShownRun) -> str:
    """Returns words for an evaluation: its protocol, its conditions, and the images if they are not the run's own."""
    words = [row.protocol if row.metric == "top1" else f"{row.protocol}, {row.metric.replace('_', ' ')}"]
    for field in row_fields(type(row)):
        value = getattr(row, field.name)
        if isinstance(field.mark, Condition) and field.name != "data" and value not in (None, False, ""):
            words.append(field.mark.label if value is True else f"{field.mark.label} {value}")
    if row.data != shown.run.location.data:
        words.append(f"on {public_data_name(row.data)}")
    return ", ".join(words)


def lines_of_metrics(shown: ShownRun) -> Iterator[tuple[Line, str]]:
    """Yields a line for each reference that the run itself compared its encoder with at its end."""
    newest = {key: value for row in shown.rows if row["step"] == shown.trained_steps for key, value in row.items()}
    scores = {"initial": "initial_knn_top1", "untrained": "untrained_knn_top1", "pixels": "pixels_knn_top1"}
    for reference, words in COMPARED.items():
        keys = gain_keys(reference)
        if not all(isinstance(newest.get(key), int | float) for key in (*keys, "knn_top1", "knn_test_images")):
            continue
        gain = Difference(newest[keys[0]], newest[keys[1]], newest[keys[2]], MATCHED)
        measured = f"k-NN at the end of the training, {newest['knn_test_images']:,} test images"
        before = shown.last(scores[reference])
        yield _line(words.removeprefix("the "), measured, newest["knn_top1"], before, gain), gain.kind


def _line(name: str, measured: str, score: float, reference: float | None, difference: Difference | None) -> Line:
    scores = (Cell.per_cent(score), EMPTY if reference is None else Cell.per_cent(reference))
    if difference is not None:
        points, _, interval = difference.numbers.partition(" ")
        gained = (Cell(points, 100 * difference.value), interval.strip("()"))
        return [name, Cell(difference.verdict), measured, *scores, *gained]
    if reference is None:
        return [name, Cell(""), measured, *scores, EMPTY, EMPTY]
    gain = 100 * (score - reference)
    return [name, Cell(HIGHER if gain > 0 else NOT_HIGHER), measured, *scores, Cell(f"{gain:+.1f}", gain), EMPTY]
