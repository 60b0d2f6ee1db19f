"""Verdicts follow from rows of metrics alone: each rule by made rows, and none on what healthy runs look like."""

import json
import math
import re
from dataclasses import fields

import pytest

from infomax.analysis.verdict_rules import RULES
from infomax.analysis.verdicts import VerdictTracker, verdicts_of
from infomax.recipes.registry import METHODS
from infomax.training.options import PretrainOptions

STEPS, PER_EPOCH, K = 1000, 10, 50
HEALTHY = {
    "health_rows": 128,
    "embedding_mean_cosine": 0.3,
    "embedding_collapse_level": 0.2,
    "embedding_effective_rank": 50.0,
    "embedding_participation_ratio": 20.0,
    "embedding_norm": 5.0,
    "embedding_uniformity": -2.0,
    "embedding_alignment": 0.4,
    "feature_mean_cosine": 0.7,
    "feature_collapse_level": 0.5,
    "feature_effective_rank": 60.0,
    "feature_participation_ratio": 12.0,
}
CLUSTERS = {
    "prototypes": K,
    "prototypes_in_use": 0.9,
    "assignment_mutual_information": 0.5 * math.log(K),
    "assignment_marginal_entropy": 0.98 * math.log(K),
}
LOGGED = {"loss": 1.0, "gradient_norm": 0.5, "learning_rate": 0.1, "waiting": 0.01}
POINT = {"embedding_mean_cosine": 0.98, "embedding_collapse_level": 0.86}
ONE_CLUSTER = {"assignment_marginal_entropy": 0.01, "assignment_mutual_information": 0.0}
UNIFORM = {"assignment_mutual_information": 0.0, "assignment_marginal_entropy": math.log(K)}
FLAT = {"embedding_effective_rank": 3.0, "feature_participation_ratio": 2.0}
BEFORE = {"pixel_std": 0.2, "near_duplicate_share": 0.0}


def health(step, **changes):
    return {"step": step, "epoch": step // PER_EPOCH, **HEALTHY, **changes}


def logged(step, **changes):
    return {"step": step, "epoch": step // PER_EPOCH, **LOGGED, **changes}


def tracker(method="mveb", steps=STEPS):
    return VerdictTracker(method=method, total_steps=steps, steps_per_epoch=PER_EPOCH)


def said(rows, method="mveb", steps=STEPS):
    """Returns the name, state and step of all that is said of rows."""
    of_run = tracker(method, steps)
    return [(verdict.name, verdict.state, verdict.step) for row in rows for verdict in of_run.update(row)]


def course(start=None, *, last=200, logged_changes=None, **changes):
    """Returns the rows of a run that is ill, by these measurements, from step 1 on."""
    rows = [health(0, **BEFORE, **(start or {}))]
    for step in range(10, last + 1, 10):
        rows += [logged(step, **(logged_changes or {})), health(step, **(start or {}) | changes)]
    return rows


def test_a_healthy_course_has_no_verdict():
    assert said(course()) == []
    assert said(course(CLUSTERS), "mira") == []


@pytest.mark.parametrize(
    ("rows", "method", "expected"),
    [
        (course(**POINT), "mveb", ("total collapse", "warning", 50)),
        (course(**POINT | {"embedding_mean_cosine": 0.999}), "mveb", ("total collapse", "failed", 50)),
        (course(**FLAT), "corinfomax", ("dimensional collapse", "warning", 50)),
        (course(CLUSTERS, **ONE_CLUSTER), "carl", ("cluster collapse", "failed", 50)),
        (
            course(CLUSTERS, **ONE_CLUSTER | {"assignment_marginal_entropy": 1.5}),
            "carl",
            ("cluster collapse", "warning", 50),
        ),
        (course(CLUSTERS, prototypes_in_use=0.1), "mira", ("dead prototypes", "warning", 50)),
        (course(embedding_norm=6000.0), "mveb", ("divergence", "failed", 50)),
    ],
    ids=lambda value: "-".join(value[:2]).replace(" ", "_") if isinstance(value, tuple) else None,
)
def test_each_rule_on_measurements_names_its_ill_alone_as_soon_as_it_may(rows, method, expected):
    assert said(rows, method) == [expected]


def test_uniform_assignment_is_named_with_a_loss_that_is_that_of_guessing():
    guessing = {"loss": math.log(K)}
    names = said(course(CLUSTERS, logged_changes=guessing, last=300, **UNIFORM), "mira")
    assert [(name, state) for name, state, _ in names] == [
        ("uniform assignment", "warning"),
        ("uniform assignment", "failed"),
    ]
    assert names[1][2] >= 250
    assert said(course(CLUSTERS, logged_changes={"loss": 0.9 * math.log(K)}, **UNIFORM), "mira") == []


@pytest.mark.parametrize(("growth", "names"), [(1.3, []), (1.1, ["uniform assignment"]), (0.9, ["uniform assignment"])])
def test_uniform_assignment_is_not_said_while_assignments_tell_ever_more(growth, names):
    """Healthy MIRA with wide embeddings was uniform until 9 % of its steps, and its information grew all the time."""
    rows = [health(0, **BEFORE, **CLUSTERS)]
    for number, step in enumerate(range(10, 201, 10)):
        information = min(1e-4 * growth**number, 0.005 * math.log(K))
        rows += [
            logged(step, loss=math.log(K)),
            health(step, **CLUSTERS | {"assignment_mutual_information": information}),
        ]
    assert [name for name, _, step in said(rows, "mira") if step < 120] == names


def test_a_loss_far_above_the_steps_before_is_divergence():
    calm = [logged(step, loss=1 + 0.01 * (step % 3)) for step in range(20, 220, 20)]
    jump = [logged(step, loss=3.0 + step / 1000) for step in range(220, 320, 20)]
    assert said(calm + jump) == [("divergence", "warning", 260)]
    falling = [logged(step, loss=1000.0 / step) for step in range(220, 320, 20)]  # as after a schedule began anew
    assert said(calm + falling) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_is_divergence_at_once(value):
    assert said([logged(20), {"step": 21, "epoch": 2, "loss": value}]) == [("divergence", "failed", 21)]


def test_a_gradient_that_grows_tenfold_is_a_rate_too_high():
    rows = [logged(step, gradient_norm=0.5 if step <= 100 else 8.0) for step in range(20, 400, 20)]
    assert said(rows) == [("rate too high", "warning", 160)]  # it is a cause that has acted, and is not withdrawn


@pytest.mark.parametrize(("rate", "names"), [(20.0, ["rate too high"]), (0.1, [])])
def test_a_burst_in_the_first_steps_is_a_rate_too_high_if_the_rate_is_high(rate, names):
    early = [health(step, **POINT, embedding_norm=100.0) for step in (1, 2, 5, 10)]
    rows = [health(0, **BEFORE), *early, logged(20, learning_rate=rate), health(40), health(80), health(90)]
    assert [name for name, _, _ in said(rows)] == names
    of_run = tracker()
    evidence = [verdict.evidence for row in rows for verdict in of_run.update(row)]
    numbers = "after step 10 a mean norm of 100 (untrained 5) and a mean cosine of 0.98 (untrained 0.3)"
    assert all(numbers in text for text in evidence)
    back = [health(0, **BEFORE), *early[:3], health(10), logged(20, learning_rate=rate), health(40), health(80)]
    assert said(back) == []  # as healthy runs of CorInfoMax


def test_embeddings_that_collapse_as_they_grow_are_named_by_the_collapse_unless_the_rate_is_high():
    ill = {**POINT, "embedding_norm": 6000.0}
    assert {name for name, _, _ in said(course(**ill))} == {"total collapse"}
    high = course(logged_changes={"learning_rate": 20.0}, **ill)
    assert {name for name, _, _ in said(high)} == {"divergence", "rate too high"}


def test_waiting_is_starved_after_the_first_steps():
    rows = [logged(step, waiting=0.6) for step in range(20, 200, 20)]
    assert said(rows) == [("starved", "warning", 80)]  # 60 steps after the first 20
    assert said([logged(step, waiting=0.6 if step <= 40 else 0.1) for step in range(20, 200, 20)]) == []
    every_second = [logged(step, waiting=0.6 if step % 40 else 0.1) for step in range(20, 400, 20)]
    assert said(every_second) == []


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"pixel_std": 1e-4, "near_duplicate_share": 1.0, "embedding_alignment": 0.0}, ("equal images", "failed", 0)),
        ({"embedding_alignment": 1e-6}, ("equal views", "warning", 0)),
        ({"near_duplicate_share": 0.4}, ("near-duplicates", "warning", 0)),
    ],
)
def test_images_and_views_are_judged_before_training(measured, expected):
    before = health(0, **BEFORE) | measured
    assert said([before, health(10), health(20)]) == [expected]
    assert said([health(0, **BEFORE), *(health(step, **measured) for step in (10, 20, 40, 50, 60))]) == []


def test_equal_images_explain_whatever_collapses():
    rows = course(CLUSTERS, **POINT, **ONE_CLUSTER)
    rows[0] |= {"pixel_std": 0.0}
    assert said(rows, "carl") == [("equal images", "failed", 0)]


def test_names_come_in_the_order_cluster_uniform_total_dimensional():
    guessing = {"loss": math.log(K)}
    everything = {**UNIFORM, **POINT, **FLAT}
    names = [name for name, _, _ in said(course(CLUSTERS, logged_changes=guessing, **everything), "mira")]
    assert names == ["uniform assignment"]  # total collapse could be said sooner, and waits
    assert [name for name, _, _ in said(course(CLUSTERS, **everything | ONE_CLUSTER), "carl")] == ["cluster collapse"]
    assert [name for name, _, _ in said(course(**POINT, **FLAT), "mveb")] == ["total collapse"]


def test_nothing_is_said_too_early():
    rows = [health(0, **BEFORE), *(health(step, **POINT) for step in (1, 2, 5, 10, 20, 29))]
    assert said(rows, steps=400) == []
    assert said([*rows, health(30, **POINT)], steps=400) == [("total collapse", "warning", 30)]
    assert said([*rows, health(30, **POINT), health(499, **POINT)], steps=10_000) == []
    assert said([*rows, health(500, **POINT)], steps=10_000) == [("total collapse", "warning", 500)]


def test_three_measurements_in_a_row_are_needed():
    rows = [health(0, **BEFORE)]
    rows += [health(step, **(POINT if step % 30 else {})) for step in range(40, 400, 10)]  # two of three
    assert said(rows) == []


def test_embeddings_that_spread_again_are_waited_for():
    cosines = [0.999, 0.998, 0.995, 0.99, 0.98, 0.96, 0.9, 0.8]
    rows = [
        health(50 + 10 * i, embedding_mean_cosine=cosine, embedding_collapse_level=0.9)
        for i, cosine in enumerate(cosines)
    ]
    assert said([health(0, **BEFORE), *rows]) == []


def test_embeddings_at_a_point_are_waited_for_while_assignments_tell_ever_more():
    """Healthy MIRA with seed 3 had a mean cosine of .97 until 8 % of its steps, and its information had doubled."""

    def rows(growth):
        informations = [0.02 * growth**number for number in range(5)]
        changes = [CLUSTERS | POINT | {"assignment_mutual_information": information} for information in informations]
        return [health(0, **BEFORE), *(health(50 + 10 * i, **changes[i]) for i in range(5))]

    assert said(rows(1.5), "mira") == []
    assert [name for name, _, _ in said(rows(1.05), "mira")] == ["total collapse"]


def test_few_dimensions_are_said_while_embeddings_leave_a_point():
    """CorInfoMax with embeddings of rank 3 began at a mean cosine of 1, and spread, but never to a fourth dimension."""
    spreads = (1e-4, 4e-4, 2e-3, 8e-3, 2e-2)
    changes = [FLAT | {"embedding_mean_cosine": 1 - spread, "embedding_collapse_level": 0.9} for spread in spreads]
    rows = [health(0, **BEFORE), *(health(50 + 10 * i, **changes[i]) for i in range(5))]
    assert [name for name, _, _ in said(rows, "corinfomax")] == ["dimensional collapse"]


def test_a_verdict_is_said_once_and_withdrawn_aloud():
    ill, well = (lambda steps: [health(s, **POINT) for s in steps]), (lambda steps: [health(s) for s in steps])
    rows = [
        health(0, **BEFORE),
        *ill(range(50, 150, 10)),
        *well((150, 160)),
        *ill((170,)),
        *well((180, 190, 200)),
        *ill((210, 220, 230)),
    ]
    states = ["warning", "withdrawn", "warning"]
    assert said(rows) == [("total collapse", state, step) for state, step in zip(states, (70, 200, 230), strict=True)]
    of_run = tracker()
    standing = [[verdict.state for verdict in of_run.current] for row in rows if of_run.update(row) is not None]
    assert standing[1] == ["watching"]
    assert standing[rows.index(health(160))] == ["warning"]
    assert standing[rows.index(health(200))] == []


def test_a_warning_that_becomes_a_failure_is_said_again():
    rows = [health(0, **BEFORE), *(health(step, **POINT) for step in range(50, 100, 10))]
    rows += [health(step, **POINT | {"embedding_mean_cosine": 0.997}) for step in range(100, 200, 10)]
    assert said(rows) == [("total collapse", "warning", 70), ("total collapse", "failed", 120)]


def test_a_resumed_run_says_the_same_and_recorded_verdicts_change_nothing():
    rows = course(**POINT)
    first = tracker()
    before = [verdict for row in rows[:20] for verdict in first.update(row)]
    recorded = [
        {"step": v.step, "epoch": v.epoch, "verdict": v.name, "state": v.state, "evidence": v.evidence} for v in before
    ]
    again = tracker()
    assert [verdict for row in [*rows[:20], *recorded] for verdict in again.update(row)] == before
    later = [[verdict for row in rows[20:] for verdict in of_run.update(row)] for of_run in (first, again)]
    assert later[0] == later[1]
    assert first.current == again.current
    assert len(before) == 1


def test_rows_of_steps_that_were_made_twice_count_once():
    rows = [health(0, **BEFORE), health(50, **POINT), health(60, **POINT)]
    assert said([*rows, health(50, **POINT), health(60, **POINT), health(60, **POINT)]) == []


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"step": None},
        {"step": "7", **POINT},
        {"step": True, **POINT},
        {"step": 500, "knn_top1": 0.5},
        {"step": 500, "embedding_mean_cosine": None, "embedding_collapse_level": None},
        {"step": 500, "embedding_mean_cosine": math.nan, "embedding_collapse_level": 0.9},
        {"step": 500, "embedding_mean_cosine": "0.99", "embedding_collapse_level": True},
        {"step": 500, "prototypes": 0, "assignment_mutual_information": 0.0, "assignment_marginal_entropy": 0.0},
        {"step": 500, "prototypes": K, "assignment_marginal_entropy": 0.0},
        {"step": 500, "waiting": None, "gradient_norm": 3},
        {"step": 0, "pixel_std": None, "near_duplicate_share": math.inf},
    ],
)
def test_odd_rows_silence_a_rule_and_break_nothing(odd):
    assert said([odd] * 5) == []
    rows = course(**POINT)
    assert said([*rows[:3], odd, *rows[3:]])[0][:2] == ("total collapse", "warning")


def test_without_measurements_of_step_0_rules_that_need_them_are_silent():
    assert said(course(**FLAT)[1:]) == []
    of_run = tracker()
    (verdict,) = [verdict for row in course(**POINT)[1:] for verdict in of_run.update(row)]
    assert "untrained" not in verdict.evidence


def test_fewer_images_than_prototypes_are_no_cluster_collapse():
    """128 images that have a cluster of 3,000 each: their mean assignment has at most an entropy of ln 128."""
    many = {**CLUSTERS, "prototypes": 3000, "assignment_marginal_entropy": 0.8 * math.log(128)}
    assert said(course(many), "mira") == []


def test_a_rank_of_other_numbers_of_images_is_not_compared():
    assert said([health(0), *(health(step, **FLAT, health_rows=12) for step in range(10, 200, 10))], "corinfomax") == []


def test_evidence_is_a_sentence_with_numbers_and_says_if_features_are_alive():
    def evidence(**changes):
        of_run = tracker()
        return next(verdict.evidence for row in course(**POINT, **changes) for verdict in of_run.update(row))

    assert evidence().startswith("the embeddings of 128 images have a mean cosine of 0.980 (untrained 0.300)")
    assert "still differ: mean cosine 0.700 (untrained 0.700), effective rank 60.0 (untrained 60.0)" in evidence()
    assert "have collapsed with them" in evidence(feature_mean_cosine=0.999)
    assert "still differ" not in evidence(feature_effective_rank=10.0)


def everything_said(method):
    """Returns all verdicts that the ill courses of this file give."""
    guessing = {"loss": math.log(K)}
    ill = [
        course(**POINT),
        course(**FLAT),
        course(CLUSTERS, **ONE_CLUSTER),
        course(CLUSTERS, logged_changes=guessing, **UNIFORM),
        course(CLUSTERS, prototypes_in_use=0.1),
        course(embedding_norm=6000.0),
        [logged(step, gradient_norm=0.5 if step <= 100 else 8.0) for step in range(20, 400, 20)],
        [logged(step, waiting=0.6) for step in range(20, 200, 20)],
        [health(0, pixel_std=0.0)],
        [health(0, embedding_alignment=0.0)],
        [health(0, near_duplicate_share=0.9)],
        [logged(20), logged(21, loss=math.nan)],
    ]
    return [v for rows in ill for of_run in (tracker(method),) for row in rows for v in of_run.update(row)]


@pytest.mark.parametrize("method", [*METHODS, "another"])
def test_advice_names_options_that_exist(method):
    verdicts = everything_said(method)
    assert {verdict.name for verdict in verdicts} == {rule.name for rule in RULES}
    options = {"set", *(field.name.replace("_", "-") for field in fields(PretrainOptions))}
    for verdict in verdicts:
        assert set(re.findall(r"--([a-z-]+)", verdict.advice)) <= options
        for name in re.findall(r"--set method\.(\w+)=", verdict.advice):
            if name != "prototypes":
                assert hasattr(METHODS[method].settings, name)
        for text in (verdict.evidence, verdict.advice):
            assert text
            assert text[-1] != "."
    assert any("--learning-rate 0.01" in verdict.advice for verdict in verdicts)


# The runs of which measured courses are known: digits, batch 256, 64 dimensions. The columns are cosine, effective rank
# and participation ratio before training, at their worst, and at the end of 60 steps or more.
LOOK_ILL_EARLY = {
    "corinfomax": ((0.80, 49, 12), (5, 0.998, 18, 1.2), (0.64, 57, 22), {}),
    "mveb": ((0.32, 55, 23), (8, 0.87, 55, 15), (0.68, 60, 38), {}),
    "carl": ((0.29, 54, 18), (40, 0.29, 14, 2.1), (0.09, 15, 4.4), {"information": (0.0, 0.0, 0.65)}),
    "mira": ((0.32, 55, 23), (30, 0.951, 13, 1.2), (0.39, 19, 5.1), {"information": (0.1, 0.004, 0.32)}),
}


@pytest.mark.parametrize("method", LOOK_ILL_EARLY)
@pytest.mark.parametrize("steps", [250, 1000])
def test_healthy_runs_that_look_ill_early_have_no_verdict(method, steps):
    before, (worst_step, *worst), last, more = LOOK_ILL_EARLY[method]
    share_of_features = {"feature_participation_ratio": 12.0, "feature_mean_cosine": 0.72}
    rows = []
    for step in (0, 1, 2, 5, 10, 20, *range(30, steps, 10)):
        part = min(1.0, max(0.0, (step - worst_step) / (2 * worst_step + 40)))
        values = before if step == 0 else [w + part * (e - w) for w, e in zip(worst, last, strict=True)]
        cosine, rank, ratio = values
        row = health(step, embedding_mean_cosine=cosine, embedding_collapse_level=max(0.0, 1 - math.sqrt(1 - cosine)))
        row |= {"embedding_effective_rank": rank, "embedding_participation_ratio": ratio, **share_of_features}
        if information := more.get("information"):
            start, low, end = information
            share = start if step == 0 else low + part * (end - low)
            loss = {"loss": math.log(K) * (1 - 0.3 * part)}
            row |= {**CLUSTERS, "assignment_mutual_information": share * math.log(K)}
        else:
            loss = {"loss": 10 + 15 * math.sin(part * math.pi)}
        rows += [row, logged(step, **loss)]
    assert said(rows, method, steps) == []


def test_verdicts_of_a_run_folder_are_those_of_its_metrics(tmp_path):
    recipe = {"method": {"name": "mveb", "beta": 1}, "batch_size": 10, "epochs": 100, "other": None}
    (tmp_path / "config.json").write_text(json.dumps({"recipe": recipe, "images": 105, "data": "x"}))
    assert verdicts_of(tmp_path) == ()
    lines = [json.dumps(row) for row in course(**POINT)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 210, "embedding_me']))
    (verdict,) = verdicts_of(str(tmp_path))
    assert (verdict.name, verdict.state, verdict.step, verdict.epoch) == ("total collapse", "warning", 50, 5)
    assert "method.entropy_weight=0.01" in verdict.advice


@pytest.mark.parametrize(
    ("config", "words"),
    [({}, "recipe"), ({"recipe": {"method": {"name": 3}}}, "images"), ({"recipe": []}, "config.json: recipe")],
)
def test_a_folder_that_is_no_runs_is_refused_with_the_key(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        verdicts_of(tmp_path)
