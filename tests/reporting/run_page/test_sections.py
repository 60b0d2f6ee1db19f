"""What sections of a run's page say, of run folders whose metrics and results are made up."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from infomax.evaluation.paired import pack_hits
from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.results import append_result, hash_hits
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.reporting.options import ReportOptions
from infomax.reporting.pages.blocks import Facts, Notice, Paragraph, SideBySide, TableBlock
from infomax.reporting.pages.charts import LineChart
from infomax.reporting.report import report
from infomax.reporting.run_page import curves, differing, environment, gains, speed, verdict
from infomax.reporting.run_page.content import Content
from infomax.reporting.run_page.decisions import Decisions
from infomax.reporting.run_page.shown_runs import open_places
from infomax.reporting.watch.picture import health_words
from infomax.reporting.watch.runs import WatchedRun
from infomax.runs.run_folder import create_run_folder
from infomax.training.closing import closing_lines

IMAGES = 640
HEALTHY = {"health_rows": 64, "embedding_mean_cosine": 0.1, "embedding_collapse_level": 0.1}
COLLAPSED = {"health_rows": 64, "embedding_mean_cosine": 0.999, "embedding_collapse_level": 0.97}


@pytest.fixture(autouse=True)
def few_images_are_enough(monkeypatch):
    monkeypatch.setattr("infomax.training.closing.FEW_IMAGES", 0)


def make_run(folder, rows, *, method="mveb", trained=None, data="digits", **changes):
    """Makes a run folder whose recipe has 10 steps in each of 10 epochs unless changes say otherwise."""
    recipe = customise(get_recipe(method, "small"), **{"epochs": 10, "batch_size": 64, **changes})
    content = {"data": data, "images": IMAGES, "fingerprint": "0"}
    run = create_run_folder(folder, recipe, data=content, launch={"device": "cpu"}, overwrite=False)
    for row in rows:
        run.append_row("metrics.jsonl", row)
    steps = recipe.steps(IMAGES) if trained is None else trained
    (folder / "encoder.json").write_text(f'{{"steps": {steps}}}')
    return run


def content_of(*runs, **options) -> Content:
    places = open_places([run.path for run in runs])
    return Content(places, ReportOptions(**options), None, {}, (), {}, {}, Decisions())


def notices(section):
    return [block for block in section.blocks if isinstance(block, Notice)]


def charts(section):
    beside = [block for blocks in section.blocks if isinstance(blocks, SideBySide) for block in blocks.blocks]
    return {block.title: block for block in beside if isinstance(block, LineChart)}


def words(section):
    return " ".join([section.text, *(block.text for block in section.blocks if isinstance(block, Paragraph))])


def test_a_collapse_comes_first_with_its_evidence_and_advice(tmp_path):
    rows = [{"step": 0, "epoch": 0, **HEALTHY}, *({"step": s, "epoch": s // 10, **COLLAPSED} for s in (50, 60, 70))]
    section = verdict.section(content_of(make_run(tmp_path / "a", rows)))
    first = notices(section)[0]
    assert (first.kind, first.heading) == ("failed", "Total collapse, failed since step 70")
    assert "0.999" in first.evidence
    assert "method.entropy_weight" in first.advice


def test_a_training_without_a_verdict_is_not_called_good(tmp_path):
    rows = [{"step": s, "epoch": s // 10, **HEALTHY, "embedding_effective_rank": 9.0} for s in (0, 50, 99)]
    (notice,) = notices(verdict.section(content_of(make_run(tmp_path / "a", rows))))
    assert notice.heading == "No sign of collapse or divergence"
    assert notice.evidence == "Embeddings: effective rank from 9.0 to 9.0, mean cosine from 0.10 to 0.10"


def test_a_perfect_score_is_not_advised_to_be_trained_longer(tmp_path):
    values = {"data": "digits", "encoder": "", "metric": "top1", "classes": 2, "test_images": 4, "seconds": 1.0}
    values |= {"top1": 1.0, "top5": 1.0, "k": 20, "temperature": 0.07}
    run = make_run(tmp_path / "a", [])
    for name in ("trained encoder", "raw pixels"):
        append_result(run.path / "results.jsonl", KnnRow(representation=name, **values))
    notice = notices(gains.section(content_of(run)))[0]
    assert notice.evidence == "The encoder is right about all of these images, so that nothing can be better than it"
    assert (notice.kind, notice.advice) == ("info", "")


def test_the_page_says_that_the_test_images_were_trained_on(tmp_path):
    words = "every fifth image of each class of those to train on, which were trained on too, without their labels"
    run = make_run(tmp_path / "a", [])
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    for tests_on, is_said in (("every fifth image of each class", True), ("test", False)):
        file.write_text(json.dumps({**config, "tests_on": tests_on}))
        assert (words in gains.section(content_of(run)).text) == is_said


def test_a_run_whose_beginning_alone_was_trained_is_not_called_healthy(tmp_path):
    """Of 4,000 steps the verdicts are said from 200 on: the page, the picture and the last line say the same."""
    rows = [{"step": s, "epoch": 0, **HEALTHY} for s in (0, 20, 58)]
    run = make_run(tmp_path / "a", rows, epochs=400, trained=58)
    early = "too early to judge its health: verdicts are said from step 200 on"
    first = notices(verdict.section(content_of(run)))[0]
    assert (first.kind, first.heading) == ("info", early.capitalize())
    assert closing_lines(run)[0].endswith(f": {early}")
    assert health_words(WatchedRun(run.path).update()) == early


def test_what_is_seen_at_the_last_measurement_alone_is_said_as_such(tmp_path):
    rows = [{"step": s, "epoch": s // 10, **(COLLAPSED if s == 99 else HEALTHY)} for s in (0, 50, 99)]
    kinds = [(x.kind, x.heading) for x in notices(verdict.section(content_of(make_run(tmp_path / "a", rows))))]
    assert ("info", "Total collapse at the last measurement") in kinds


def test_a_run_whose_health_was_not_measured_gets_no_good_word(tmp_path):
    (notice,) = notices(verdict.section(content_of(make_run(tmp_path / "a", [{"step": 20, "loss": 1.0}]))))
    assert (notice.kind, notice.heading) == ("info", "The health of this training was not measured")


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    run = make_run(tmp_path / "a", [{"step": 25, "epoch": 2, "loss": 1.0}], trained=20)
    notice = notices(verdict.section(content_of(run)))[-1]
    assert notice.evidence.startswith(
        "It is in epoch 3 of 10: 25 of 100 steps. All that follows is of the encoder after 20"
    )


def test_several_runs_are_named_in_their_verdicts(tmp_path):
    runs = [make_run(tmp_path / name, [{"step": 0, "epoch": 0, **HEALTHY}]) for name in "ab"]
    assert [x.heading.partition(":")[0] for x in notices(verdict.section(content_of(*runs)))] == ["a", "b"]


def test_finished_runs_whose_health_was_not_measured_are_named_together(tmp_path):
    finished = [make_run(tmp_path / name, [{"step": 100, "loss": 1.0}]) for name in "ab"]
    rows = [{"step": s, "epoch": s // 10, **HEALTHY} for s in (0, 50, 99)]
    headings = [x.heading for x in notices(verdict.section(content_of(*finished, make_run(tmp_path / "c", rows))))]
    assert headings == ["c: no sign of collapse or divergence", "a, b: the health of these trainings was not measured"]


def gain_row(untrained, pixels):
    row = {"step": 100, "epoch": 9, "knn_top1": 0.8, "knn_test_images": 500}
    for name, (value, low, high) in (("untrained", untrained), ("pixels", pixels)):
        row |= {f"knn_over_{name}": value, f"knn_over_{name}_low": low, f"knn_over_{name}_high": high}
    return row | {"pixels_knn_top1": 0.8 - pixels[0]}


def test_gains_at_the_end_of_a_training_are_told_with_their_interval(tmp_path):
    rows = [{"step": 10, "untrained_knn_top1": 0.6}, gain_row((0.2, 0.15, 0.25), (0.01, -0.02, 0.04))]
    section = gains.section(content_of(make_run(tmp_path / "a", rows)))
    heading = "Not clearly better than the raw pixels; clearly better than the untrained encoder"
    assert notices(section)[0].heading == heading
    assert notices(section)[0].kind == "warning"
    (table,) = [block.table for block in section.blocks if isinstance(block, TableBlock)]
    measured = "k-NN at the end of the training, 500 test images"
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["untrained encoder", "clearly better", measured, "80.0", "60.0", "+20.0", "+15.0 to +25.0"],
        ["raw pixels", "not clearly better", measured, "80.0", "79.0", "+1.0", "-2.0 to +4.0"],
    ]


def test_gains_of_several_runs_stand_in_one_table(tmp_path):
    row = gain_row((0.2, 0.15, 0.25), (0.01, -0.02, 0.04))
    section = gains.section(content_of(*(make_run(tmp_path / name, [row]) for name in "ab")))
    (table,) = [block.table for block in section.blocks if isinstance(block, TableBlock)]
    assert [[cell.text for cell in line[:2]] for line in table.rows] == [
        [name, reference] for name in "ab" for reference in ("untrained encoder", "raw pixels")
    ]
    assert [x.heading[:2] for x in notices(section)] == ["a:", "b:"]


@pytest.mark.parametrize(
    ("untrained", "pixels", "kind"),
    [
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), "good"),
        ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), "failed"),
        ((0.0, -0.1, 0.1), (0.2, 0.1, 0.3), "warning"),
    ],
)
def test_a_gain_is_good_only_over_all_references(tmp_path, untrained, pixels, kind):
    section = gains.section(content_of(make_run(tmp_path / "a", [gain_row(untrained, pixels)])))
    assert notices(section)[0].kind == kind


def test_of_several_measurements_of_a_reference_the_gravest_is_the_headline(tmp_path):
    row = gain_row((0.2, 0.15, 0.25), (-0.01, -0.04, 0.02))
    run = make_run(tmp_path / "a", [row])
    on_more_images = np.arange(400) < 100
    append_result(run.path / "results.jsonl", knn_row("trained encoder", on_more_images, trained_steps=100))
    append_result(run.path / "results.jsonl", knn_row("raw pixels", np.arange(400) < 200))
    notice = notices(gains.section(content_of(run)))[0]
    assert notice.heading == "Clearly worse than the raw pixels by knn; clearly better than the untrained encoder"
    assert notice.kind == "failed"


def test_measurements_that_differ_are_named_in_the_headline_and_below_it(tmp_path):
    run = make_run(tmp_path / "a", [gain_row((0.2, 0.15, 0.25), (-0.01, -0.04, 0.02))])
    assert notices(gains.section(content_of(run)))[0].evidence == ""
    append_result(run.path / "results.jsonl", knn_row("trained encoder", np.arange(400) < 300, trained_steps=100))
    append_result(run.path / "results.jsonl", knn_row("raw pixels", np.arange(400) < 200))
    notice = notices(gains.section(content_of(run)))[0]
    first, second = notice.heading.split("; ")
    assert first == "Not clearly better than the raw pixels by k-NN at the end of the training"
    assert second == "clearly better than the untrained encoder"
    assert re.fullmatch(r"It is clearly better than the raw pixels by knn, .*, 400 test images\.", notice.evidence)


def test_a_run_that_gained_nothing_or_had_few_steps_has_no_green_notice(tmp_path):
    rows = [{"step": s, "epoch": s // 10, **HEALTHY} for s in (0, 50, 99)]
    gained = make_run(tmp_path / "a", [*rows, gain_row((0.2, 0.15, 0.25), (0.2, 0.1, 0.3))])
    assert [x.kind for x in notices(verdict.section(content_of(gained)))] == ["good"]
    not_gained = make_run(tmp_path / "b", [*rows, gain_row((0.2, 0.15, 0.25), (0.01, -0.02, 0.04))])
    assert [x.kind for x in notices(verdict.section(content_of(not_gained)))] == ["info"]
    short = make_run(tmp_path / "c", [{"step": s, "epoch": 0, **HEALTHY} for s in (0, 5, 9)], epochs=1)
    few, other = notices(verdict.section(content_of(short)))
    assert (few.kind, few.heading, other.kind) == ("warning", "Almost nothing was trained", "info")
    assert few.evidence.startswith("10 steps of 64 images change an encoder little: the recipe itself has ")


def knn_row(name, right, *, kept=True, **fields):
    """A row of k-NN that got some images right, and keeps which ones if wanted."""
    counts = {"classes": 2, "labelled_images": 9, "test_images": len(right)}
    conditions = {"data": "digits", "metric": "top1", "k": 20, "temperature": 0.07}
    scores = {"top1": float(np.mean(right)), "top5": 1.0, "seconds": 1.0}
    row = KnnRow(representation=name, encoder=name, **counts, **conditions, **scores, **fields)
    if not kept:
        return row
    row = replace(row, hits=pack_hits(np.array(right), images="same"))
    return replace(row, hits_hash=hash_hits(row))


def test_results_of_all_test_images_come_before_those_of_the_training(tmp_path):
    run = make_run(tmp_path / "a", [gain_row((0.2, 0.1, 0.3), (0.2, 0.1, 0.3))])
    right = np.arange(200) < 150
    for row in (
        knn_row("trained encoder", right, recipe=run.recipe_title, trained_steps=100),
        knn_row("raw pixels", np.arange(200) < 190),
    ):
        append_result(run.path / "results.jsonl", row)
    section = gains.section(content_of(run))
    assert notices(section)[0].heading.startswith("Clearly worse than the raw pixels")
    (table,) = [block.table for block in section.blocks if isinstance(block, TableBlock)]
    words = "knn, k 20, T 0.07, 200 test images"
    assert [cell.text for cell in table.rows[0]][:6] == ["raw pixels", "clearly worse", words, "75.0", "95.0", "-20.0"]
    assert len(table.rows) == 3


def test_without_what_was_right_a_difference_has_no_interval_and_is_not_called_good(tmp_path):
    run = make_run(tmp_path / "a", [])
    for row in (
        knn_row("trained encoder", np.arange(200) < 150, kept=False, recipe=run.recipe_title, trained_steps=100),
        knn_row("raw pixels", np.arange(200) < 100, kept=False),
    ):
        append_result(run.path / "results.jsonl", row)
    section = gains.section(content_of(run))
    (table,) = [block.table for block in section.blocks if isinstance(block, TableBlock)]
    cells = [cell.text for cell in table.rows[0]]
    assert (cells[1], *cells[5:]) == ("higher", "+25.0", "")
    assert table.notes == ("difference: no interval, as which images were right was not kept",)
    assert (notices(section)[0].kind, notices(section)[0].heading) == ("info", "Higher than the raw pixels")


def test_results_of_an_earlier_encoder_are_not_those_of_this_one(tmp_path):
    run = make_run(tmp_path / "a", [])
    for row in (
        knn_row("trained encoder", np.arange(200) < 150, recipe=run.recipe_title, trained_steps=50),
        knn_row("raw pixels", np.arange(200) < 100),
    ):
        append_result(run.path / "results.jsonl", row)
    assert not [block for block in gains.section(content_of(run)).blocks if isinstance(block, TableBlock)]


def test_curves_have_gaps_where_a_loss_was_nan_and_count_steps_made_twice_once(tmp_path):
    rows = [{"step": s, "loss": float("nan") if s == 40 else 1.0} for s in (20, 40, 60)]
    rows += [{"step": 60, "loss": 3.0}, {"step": 80, "loss": 4.0}]
    (curve,) = charts(curves.section(content_of(make_run(tmp_path / "a", rows))))["Loss"].curves
    assert (tuple(curve.x), tuple(curve.y)) == ((20, 40, 60, 80), (1.0, None, 3.0, 4.0))


def test_many_points_become_means_in_a_band(tmp_path):
    rows = [{"step": s, "loss": float(s % 2)} for s in range(1, 4 * curves.MOST_POINTS + 1)]
    (curve,) = charts(curves.section(content_of(make_run(tmp_path / "a", rows))))["Loss"].curves
    assert len(curve.x) == curves.MOST_POINTS
    assert set(curve.y) == {0.5}
    assert (set(curve.low), set(curve.high)) == ({0.0}, {1.0})


def test_the_untrained_level_stands_in_the_chart_of_accuracies(tmp_path):
    rows = [{"step": s, "knn_top1": 0.5, "linear_top1": 0.4} for s in (50, 100)] + [
        {"step": 50, "untrained_knn_top1": 0.3}
    ]
    chart = charts(curves.section(content_of(make_run(tmp_path / "a", rows))))[curves.ACCURACY]
    assert {curve.name: tuple(curve.y) for curve in chart.curves} == {
        "k-NN": (50.0, 50.0),
        "linear": (40.0, 40.0),
        "k-NN, untrained encoder": (30.0, 30.0),
    }
    assert len({curve.style for curve in chart.curves}) == 3


def test_runs_have_a_style_each_and_a_common_axis(tmp_path):
    rows = [{"step": s, "loss": 1.0, "alignment": 0.5} for s in (10, 20)]
    runs = [make_run(tmp_path / "a", rows), make_run(tmp_path / "b", rows, batch_size=32)]
    section = curves.section(content_of(*runs))
    loss = charts(section)["Loss"]
    assert [(curve.name, curve.style, tuple(curve.x)) for curve in loss.curves] == [
        ("a", 0, (1, 2)),
        ("b", 1, (0.5, 1)),
    ]
    assert loss.x_label == "epoch"
    assert "Term of the loss: alignment" in charts(section)  # a term of the method's own loss


def test_events_of_a_run_stand_beside_its_curves(tmp_path):
    rows = [
        {"step": 20, "loss": 1.0},
        {"step": 70, "verdict": "total collapse", "state": "failed", "evidence": "", "advice": ""},
    ]
    run = make_run(tmp_path / "a", rows)
    run.extend(12)
    run.note_resumption({}, {})
    text = words(curves.section(content_of(run)))
    assert "Verdicts: total collapse, failed at step 70 (epoch 7.0)." in text
    assert "Extended by 2 epochs after step 100" in text
    assert "Resumed once" in text


def test_what_differs_between_runs_comes_first_and_what_is_equal_is_left_out(tmp_path):
    runs = [make_run(tmp_path / "a", []), make_run(tmp_path / "b", [], seed=3)]
    (block,) = differing.section(content_of(*runs)).blocks
    assert [[cell.text for cell in row] for row in block.table.rows] == [["seed", "0", "3"]]
    assert block.table.columns == ("setting", "a", "b")
    assert differing.section(content_of(runs[0])) is None


def test_of_other_recipes_the_main_settings_and_those_that_were_changed_are_told(tmp_path):
    changed = ["views.global_crops.0.blur=0.25"]
    runs = [make_run(tmp_path / "a", []), make_run(tmp_path / "b", [], method="carl", overrides=changed)]
    (block,) = differing.section(content_of(*runs)).blocks
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in block.table.rows}
    assert lines["recipe"] == ["mveb/small", "carl/small"]
    assert lines["views.global_crops.0.blur"] == ["0.0", "0.25"]
    assert "method.prototypes" not in lines
    assert "further settings of these recipes differ" in block.table.notes[0]


def test_settings_of_many_digits_are_rounded():
    assert differing.setting_cell((0.75, 4 / 3)).text == "0.75, 1.33333"
    assert differing.setting_cell(50_000_000).text == "50000000"
    assert [differing.setting_cell(x).text for x in (True, None, 1e-05)] == ["yes", "-", "1e-05"]


def test_the_recipe_stands_beside_its_own_values(tmp_path):
    run = make_run(tmp_path / "a", [], overrides=["optimizer.weight_decay=0.5"])
    (table,) = [x.table for x in environment.section(content_of(run)).blocks if isinstance(x, TableBlock)]
    own = get_recipe("mveb", "small").optimizer.weight_decay
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert lines["optimizer.weight_decay"] == ["0.5", str(own), "changed"]
    assert lines["optimizer.momentum"][1:] == ["", ""]
    assert table.rows[0][3].text == "changed"


def test_commands_are_those_that_were_typed_and_facts_name_no_folder(tmp_path):
    run = make_run(tmp_path / "a", [], data=str(tmp_path / "secret" / "photos"))
    config = run.config
    config["command"] = ["/somewhere/bin/infomax", "pretrain", "--data", "/home/x/my photos"]
    (run.path / "config.json").write_text(json.dumps(config))
    section = environment.section(content_of(run))
    assert section.blocks[0].text == "infomax pretrain --data '/home/x/my photos'"
    facts = {name: value for block in section.blocks if isinstance(block, Facts) for name, value in block.pairs}
    assert facts["trained on"] == "photos: 640 images"
    assert str(tmp_path) not in str(facts)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["/a/b/infomax", "demo"], "infomax demo"),
        (["/a/infomax/__main__.py", "demo"], "python -m infomax demo"),
        (["/a/my study.py"], "'my study.py'"),
    ],
)
def test_a_program_is_named_without_its_folder(argv, text):
    assert environment.command_text(argv) == text


def test_waiting_is_told_apart_from_the_first_line(tmp_path):
    rows = [
        {"step": s, "images_per_second": 10.0 * s, "waiting": 0.9 if s == 1 else 0.2, "seconds": 60.0 * s}
        for s in (1, 2, 3)
    ]
    section = speed.section(content_of(make_run(tmp_path / "a", rows)))
    table = section.blocks[0].table
    assert [cell.text for cell in table.rows[0]] == ["a", "20", "30", "20.0 %", "3 min", "cpu"]
    assert "more --workers" in section.text


def test_at_most_eight_runs_are_on_a_page(tmp_path):
    runs = [make_run(tmp_path / str(number), []) for number in range(9)]
    with pytest.raises(ValueError, match="at most 8 runs, but 9 are named"):
        content_of(*runs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "page.htm"}, r"the suffix of --out must be one of \.html"),
        ({"out": "taken.html"}, "--out .*taken.html exists; name another file, or give --overwrite"),
        ({"out": "nowhere/page.html"}, "nowhere"),
        ({"data": "digits"}, "--data is for a page of images; --out FILE.html writes one"),
        ({"out": "page.html", "max_images": 1}, "--max-images must be a whole number of at least 2"),
        ({"out": "page.html", "max_images": 200_001}, "--max-images must be at most 200,000"),
        ({"out": "page.html", "table": "list"}, "--table list prints the names"),
        ({"out": "page.html", "table": "mira-77"}, "did you mean mira-7"),
    ],
)
def test_mistakes_are_said_before_anything_is_computed(tmp_path, options, message):
    run = make_run(tmp_path / "a", [])
    append_result(run.path / "results.jsonl", knn_row("trained encoder", np.ones(5, bool)))
    (tmp_path / "taken.html").touch()
    if "out" in options:
        options = {**options, "out": tmp_path / options["out"]}
    with pytest.raises(ValueError, match=message):
        report(run.path, **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "taken.html"]
