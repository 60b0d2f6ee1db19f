"""Comparisons: budgets, equal encoders, what is kept and refused, paired differences, and the recommendation."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import PATIENCE, run_command, start_command, wait_for
from html_pages import CheckedPage
from infomax.data.sources.location import DataLocation
from infomax.evaluation.intervals import SEEDED_IMAGES, compare_seeds_and_images, compare_shares
from infomax.evaluation.paired import compare_over_seeds, pack_hits
from infomax.evaluation.protocols.knn import KnnOptions, KnnRow
from infomax.evaluation.results import append_result, hash_hits
from infomax.evaluation.run import evaluation_hash
from infomax.experiments import compare_runner, sweep_runner
from infomax.experiments.compare import (
    Budget,
    Contest,
    choose_methods,
    describe_plan,
    describe_start,
    open_contest,
    parse_budget,
)
from infomax.experiments.compare_page import comparison_page
from infomax.experiments.compare_results import Comparison
from infomax.experiments.compare_runner import CompareWork, measure_speed
from infomax.experiments.options import CompareOptions
from infomax.experiments.sweep_runner import EndedCommand
from infomax.recipes import registry
from infomax.runs.run_folder import create_run_folder
from infomax.runtime.options import pick

IMAGES, TEST_IMAGES = 1438, 400
RNG = np.random.default_rng(0)
DIFFICULTY = RNG.random(TEST_IMAGES)
KNOWN_BY = evaluation_hash(KnnOptions(), DataLocation("digits"), "32")


def options(out: Path, **changes: Any) -> CompareOptions:
    values = {"data": "digits", "methods": "mveb,carl,simclr", "budget": "3epochs", "seeds": 2, "evaluate": "knn"}
    return pick(CompareOptions, {**values, "out": out, **changes})


def right(share: float, noise: int) -> np.ndarray:
    """Which images are right: mostly the easy ones, so that results of two methods have many in common."""
    return DIFFICULTY + 0.03 * np.random.default_rng(noise).standard_normal(TEST_IMAGES) < share


def row(right: np.ndarray, name: str = "trained encoder", **changes: Any) -> KnnRow:
    values: dict[str, Any] = {"data": "digits", "encoder": "x", "metric": "top1", "classes": 10, "k": 20, "top5": 1.0}
    values |= {"labelled_images": 9, "test_images": len(right), "temperature": 0.07, "seconds": 1.0}
    values |= {"representation": name, "top1": float(right.mean()), "evaluation": KNOWN_BY, "interval": (0.1, 0.9)}
    made = KnnRow(**{**values, "hits": pack_hits(right, images="same"), **changes})
    return replace(made, hits_hash=hash_hits(made))


def begin(out: Path, **changes: Any) -> CompareWork:
    """Returns a comparison whose speeds are measured."""
    asked = options(out, **changes)
    plan = {"options": open_contest(asked).identity, "images_per_second": dict.fromkeys(registry.METHODS, 719.0)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps({"plan": plan}))
    return CompareWork(asked)


def finish(
    work: CompareWork, shares: dict[str, float], *, untrained: float = 0.5, others: dict[str, float] | None = None
) -> Comparison:
    """Makes the folders of all runs, as if they were trained and evaluated, with other baselines by their names."""
    for run in work.sweep().runs:
        recipe, method = run.specification.recipe, run.variant.experiment.method
        data = {"data": "digits", "images": IMAGES, "fingerprint": "0"}
        create_run_folder(run.folder, recipe, data=data, launch={}, overwrite=False)
        steps = recipe.steps(IMAGES)
        (run.folder / "encoder.json").write_text(json.dumps({"steps": steps}))
        (run.folder / "metrics.jsonl").write_text(json.dumps({"step": steps, "seconds": 60.0}) + "\n")
        if method in shares:
            append_result(run.folder / "results.jsonl", row(right(shares[method], run.seed), trained_steps=steps))
        if run.measures_baselines:
            for name, share in {"untrained encoder": untrained, **(others or {})}.items():
                append_result(run.folder / "results.jsonl", row(right(share, 9), name))
    return work.result()


@pytest.mark.parametrize(
    ("text", "epochs", "budget"),
    [
        (None, None, Budget(seconds=600)),
        ("90s", None, Budget(seconds=90)),
        ("1.5h", None, Budget(seconds=5400)),
        ("30 min", None, Budget(seconds=1800)),
        ("1epoch", None, Budget(epochs=1)),
        ("20epochs", None, Budget(epochs=20)),
        (None, 7, Budget(epochs=7)),
    ],
)
def test_a_budget_is_a_time_or_a_number_of_epochs(text, epochs, budget):
    assert parse_budget(text, epochs) == budget


@pytest.mark.parametrize("text", ["", "30", "0m", "-5m", "1.5epochs", "0epochs", "m", "30 days", "nan h"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ValueError, match="--budget must be a time, as 90s, 30m or 2h, or whole epochs"):
        parse_budget(text)


def test_a_budget_is_given_once():
    with pytest.raises(ValueError, match="--epochs 3 and --budget 1h say both"):
        parse_budget("1h", 3)
    with pytest.raises(ValueError, match="--epochs must be a whole number of at least 1"):
        parse_budget(None, 0)


def test_methods_are_chosen_by_name_and_by_group_with_the_papers_first():
    papers = registry.methods_with_papers()
    assert choose_methods(["papers"]) == choose_methods([",".join(reversed(papers))]) == tuple(papers)
    assert choose_methods(["all"]) == tuple(registry.METHODS)
    assert choose_methods(["simclr, mira", "mira"]) == ("mira", "simclr")
    default = choose_methods([])
    assert default[: len(papers)] == tuple(papers)
    assert "simclr" in default


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simclrr,mira"], "--methods must be one of .*simclr.*did you mean simclr"),
        (["baseline"], "did you mean baselines"),
        (["mveb"], "--methods mveb leaves nothing to compare"),
        (["mveb,MVEB"], "did you mean mveb"),
    ],
)
def test_mistakes_in_methods_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        choose_methods(words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "--data is missing"),
        ({"seeds": 0}, "--seeds must be a whole number of at least 1"),
        ({"overrides": ["seed=3"]}, "--set seed and --set epochs would undo"),
        ({"overrides": ["epochs=3"]}, "--set seed and --set epochs would undo"),
        ({"recipe": "mveb/digits"}, "--recipe mveb/digits is of one method; name one that all have"),
        ({"recipe": "smal"}, "did you mean small"),
        ({"evaluate": "lineal"}, "did you mean linear"),
        ({"learning_rate": -1.0}, "learning_rate|learning-rate"),
        ({"log": "wanddb"}, "did you mean wandb"),
    ],
)
def test_what_is_impossible_is_refused_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        open_contest(options(tmp_path / "o", **changes))
    assert not list(tmp_path.iterdir())


def test_all_runs_have_one_encoder_one_size_and_the_same_seeds(tmp_path):
    contest = open_contest(options(tmp_path, methods="all", recipe="small"))
    recipes = [entrant.recipe for entrant in contest.entrants]
    assert len({recipe.encoder for recipe in recipes}) == 1
    assert {recipe.views.global_crops[0].size for recipe in recipes} == {32}
    runs = contest.sweep(dict.fromkeys(registry.METHODS, 2)).runs
    assert [run.seed for run in runs] == [0] * len(recipes) + [1] * len(recipes)
    assert {run.specification.recipe.epochs for run in runs} == {2}
    assert sum(run.measures_baselines for run in runs) == len({repr(recipe.preprocessing) for recipe in recipes})


def test_another_encoder_and_size_of_a_recipe_gives_way(tmp_path):
    contest = open_contest(options(tmp_path, recipe="cifar10", methods="mveb,simclr,mira"))
    assert len({entrant.recipe.encoder for entrant in contest.entrants}) == 1
    padding = {name: registry.get_recipe(name, "cifar10").encoder.stem_padding for name in ("mveb", "simclr")}
    assert padding["mveb"] != padding["simclr"]  # or this would say nothing
    (simclr,) = (run for run in contest.sweep({"simclr": 1}).runs if run.seed == 0)
    assert f"--set encoder.stem_padding={padding['mveb']}" in " ".join(simclr.training_argv)
    resized = open_contest(options(tmp_path, image_size=16, backbone="resnet18"))
    assert {e.recipe.views.global_crops[0].size for e in resized.entrants} == {16}
    assert {e.recipe.encoder.backbone for e in resized.entrants} == {"resnet18"}


def test_epochs_follow_from_the_measured_speed(tmp_path):
    contest = open_contest(options(tmp_path, budget="60s"))
    mveb = contest.entrants[1]
    assert mveb.method == "mveb"
    images = IMAGES // mveb.recipe.batch_size * mveb.recipe.batch_size
    assert contest.epochs(mveb, images / 6.0) == 10
    assert contest.epochs(mveb, 1.0) == 1
    assert contest.seconds(mveb, images / 6.0, 10) == pytest.approx(60)
    slow = describe_plan(contest, {"mveb": 10.0})
    assert any("one epoch of some methods takes longer than the budget, up to 2.3 times" in line for line in slow)
    lines = describe_plan(contest, {"mveb": images / 6.0})
    assert f"mveb: recipe mveb/digits, batches of {mveb.recipe.batch_size}" in lines[1]
    assert lines[1].endswith("10 epochs in 60 s") or lines[1].endswith("10 epochs in 1 min")
    assert lines[2].startswith("1 method x 2 seeds x 1 min of training: about 2 min in all")
    last = describe_plan(contest, {"mveb": images / 6.0}, start_seconds=30)[2]
    assert contest.options.seeds * (1 + len(contest.evaluations)) == 4
    words = "about 2 min of training, and 30 s for each run and each evaluation to start: about 4 min in all; Ctrl-C"
    assert words in last


def test_what_all_takes_is_said_before_the_first_speed_is_measured(tmp_path, monkeypatch, capsys):
    """A reader of --budget 30m expects half an hour, and was told after minutes of measuring that it is many hours."""

    def measured(contest, entrant):
        assert "3 methods x 2 seeds x 30 min of training: about 3 h in all, beside" in capsys.readouterr().err
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_runner, "measure_speed", measured)
    with pytest.raises(KeyboardInterrupt):
        CompareWork(options(tmp_path, budget="30m")).carry_out()


def test_without_labels_the_first_line_is_that_no_method_can_be_recommended(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", images=pixels)
    changes = {"data": str(tmp_path / "few.npz"), "evaluate": (), "recipe": "small"}
    lines = describe_start(open_contest(options(tmp_path / "o", **changes)))
    assert len(lines) == 1
    of_time = open_contest(options(tmp_path / "o", **changes, budget="30m"))
    assert [line[:11] for line in describe_start(of_time)] == ["no labels (", "3 methods x"]
    assert [line[:11] for line in describe_start(of_time, measured=True)] == ["no labels ("]
    assert lines[0].startswith(
        "no labels (the data has no array of labels; found no other): no method can be recommended;"
    )
    assert lines[0].endswith("; --methods and --seeds make it shorter")
    assert describe_start(open_contest(options(tmp_path / "o"))) == []


def test_few_images_make_small_batches(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", images=pixels)
    contest = open_contest(options(tmp_path / "o", data=str(tmp_path / "few.npz"), evaluate=(), recipe="small"))
    assert {entrant.recipe.batch_size for entrant in contest.entrants} == {16}
    assert contest.why_no_labels == "the data has no array of labels; found no other"
    assert contest.evaluations == ()
    with pytest.raises(
        ValueError, match="--evaluate: .*few.npz cannot be evaluated on: the data has no array of labels"
    ):
        open_contest(options(tmp_path / "o", data=str(tmp_path / "few.npz")))


def test_the_same_command_goes_on_and_another_one_is_refused(tmp_path):
    begin(tmp_path)
    assert CompareWork(options(tmp_path)).speeds["mveb"] == 719.0
    assert CompareWork(options(tmp_path, seeds=5, methods="all")).speeds  # seeds and methods may be added
    for changes, message in (
        ({"budget": "4epochs"}, "has a comparison with another --budget: 3 epochs there, 4 epochs asked for; choose"),
        ({"image_size": 16}, "another --image-size: none there, 16 asked for"),
        ({"overrides": ["optimizer.momentum=0.5"]}, "another --set: none there, optimizer.momentum=0.5 asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            CompareWork(options(tmp_path, **changes))
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(ValueError, match=r"compare.json: plan must be"):
        CompareWork(options(tmp_path))


def test_a_clear_winner_is_recommended_alone_with_its_command(tmp_path):
    result = finish(begin(tmp_path, image_size=16), {"mveb": 0.9, "carl": 0.8, "simclr": 0.5})
    assert [method.method for method in result.methods] == ["mveb", "carl", "simclr"]
    recommended = result.recommendation
    assert recommended.methods == ("mveb",)
    assert recommended.text.startswith("mveb: ")
    assert "% by knn, top-1, clearly better than the others with 2 seeds; carl is next, -" in recommended.text
    assert recommended.command == (
        "infomax pretrain --data digits --recipe mveb/digits --image-size 16 --out runs/mveb"
    )
    lines = {line[0].text: [cell.text for cell in line] for line in result.table().rows}
    assert lines["mveb"][2] == "the best"
    assert lines["carl"][2].endswith(": clearly worse")
    assert lines["untrained encoder"][2].endswith(": clearly worse")
    assert lines["mveb"][3:] == ["3", "1.0", "2", "no sign of trouble"]
    assert SEEDED_IMAGES in "".join(result.table().notes)
    assert recommended.command in str(result)


def test_methods_that_are_near_each_other_are_named_together(tmp_path):
    result = finish(begin(tmp_path), {"mveb": 0.9, "carl": 0.89, "simclr": 0.6})
    recommended = result.recommendation
    assert recommended.methods == ("mveb", "carl")
    best, second = (method.score for method in result.methods[:2])
    words = f"mveb or carl: {best:.1f} and {second:.1f} % by knn, top-1, not distinguishable with 2 seeds"
    assert recommended.text == f"{words}; clearly worse: simclr"


def test_one_seed_is_compared_over_images_and_the_recommendation_says_so(tmp_path):
    result = finish(begin(tmp_path, seeds=1), {"mveb": 0.9, "carl": 0.8, "simclr": 0.5})
    assert "another seed may give another order, which --seeds 3 would show" in result.recommendation.text
    assert result.difference(result.methods[1].cells[0]) == compare_shares(right(0.8, 0), right(0.9, 0))


def test_a_method_that_failed_or_collapsed_is_not_recommended_and_is_named(tmp_path):
    work = begin(tmp_path)
    work.failures["mveb-digits-seed1"] = "training ended with exit code 1: the loss is NaN"
    result = finish(work, {"mveb": 0.9, "carl": 0.8, "simclr": 0.5}, untrained=0.2)
    assert result.recommendation.methods == ("carl",)
    assert result.recommendation.text.endswith("; not considered, as trainings failed: mveb")
    lines = {line[0].text: line[-1].text for line in result.table().rows}
    assert lines["mveb"] == "failed: seed 1: training ended with exit code 1: the loss is NaN"
    metrics = tmp_path / "carl-digits-seed0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + json.dumps({"step": 33, "collapsed": True}) + "\n")
    collapsed = work.result()
    lines = {line[0].text: line[-1].text for line in collapsed.table().rows}
    assert lines["carl"] == "collapse (failed) in 1 of 2"
    assert collapsed.recommendation.methods == ("simclr",)


def test_no_method_is_recommended_that_is_not_better_than_the_untrained_encoder(tmp_path):
    result = finish(begin(tmp_path), {"mveb": 0.7, "carl": 0.69, "simclr": 0.6}, untrained=0.7)
    assert not result.recommendation.methods
    assert "mveb, the best, is not clearly better than the untrained encoder (" in result.recommendation.text


def test_the_verdict_names_the_best_baseline_that_is_not_beaten(tmp_path):
    """It named the untrained encoder alone, although raw pixels were better than all methods."""
    shares = {"mveb": 0.7, "carl": 0.6, "simclr": 0.6}
    text = finish(begin(tmp_path / "a"), shares, untrained=0.7, others={"raw pixels": 0.9}).recommendation.text
    start = "no method is recommended: mveb, the best, is clearly worse than the raw pixels ("
    assert text.startswith(start)
    assert " %), and not clearly better than the untrained encoder (" in text
    result = finish(begin(tmp_path / "b"), shares, untrained=0.3, others={"raw pixels": 0.71})
    assert result.recommendation.methods[0] == "mveb"
    assert "; mveb is not clearly better than the raw pixels (" in result.recommendation.text
    result = finish(begin(tmp_path / "c"), shares, untrained=0.3, others={"raw pixels": 0.4, "initial encoder": 0.72})
    assert "mveb, the best, is not clearly better than the initial encoder (" in result.recommendation.text
    assert "pixels" not in result.recommendation.text
    lines = {line[0].text: [cell.text for cell in line] for line in result.table().rows}
    assert lines["initial encoder"][2].endswith(": not clearly better")


def test_of_many_methods_the_recommendation_names_the_first(tmp_path):
    names = ["mveb", "carl", "mira", "simclr", "byol", "vicreg", "moco", "barlow"]
    shares = {name: 0.9 - 0.001 * place for place, name in enumerate(names)}
    result = finish(begin(tmp_path, methods=",".join(names)), shares)
    ranked = [method.method for method in result.methods]
    assert set(result.recommendation.methods) == set(names)
    scores = f"{result.methods[0].score:.1f} to {result.methods[-1].score:.1f} % by knn, top-1"
    assert result.recommendation.text.startswith(f"{', '.join(ranked[:5])} or 3 others: {scores}, not distinguishable")


def test_of_an_unfinished_comparison_the_recommendation_is_of_so_far(tmp_path):
    work = begin(tmp_path)
    finish(work, {"mveb": 0.9, "carl": 0.7, "simclr": 0.5})
    for name in ("encoder.json", "results.jsonl"):
        (tmp_path / "carl-digits-seed1" / name).unlink(missing_ok=True)
    result = work.result()
    assert result.recommendation.text.startswith("so far, with 5 of 6 runs, mveb: ")
    assert result.recommendation.text.endswith("; the same command goes on")
    assert result.recommendation.command == ""
    lines = {line[0].text: [cell.text for cell in line] for line in result.table().rows}
    assert lines["carl"][-2:] == ["1 of 2", "1 of 2 trained"]
    (tmp_path / "mveb-digits-seed1" / "results.jsonl").unlink()
    assert work.result().recommendation.text.startswith("so far, with 5 of 6 runs trained and 4 evaluated, mveb: ")
    nothing = CompareWork(options(tmp_path / "new")).result()
    words = "no method is recommended so far, with 0 of 6 runs: none is evaluated yet; the same command goes on"
    assert nothing.recommendation.text == words


def test_a_comparison_that_was_interrupted_names_what_is_left_and_not_options_that_were_given(tmp_path):
    work = begin(tmp_path)
    finish(work, {"mveb": 0.9, "carl": 0.8})
    for folder in [*tmp_path.glob("*-seed1"), tmp_path / "simclr-digits-seed0"]:
        for name in ("encoder.json", "results.jsonl"):
            (folder / name).unlink(missing_ok=True)
    text = work.result().recommendation.text
    assert text.startswith("so far, with 2 of 6 runs, mveb: ")
    assert text.endswith("; not evaluated yet: simclr; the same command goes on")
    assert "--seeds" not in text
    work.failures |= {"simclr": "training ended with exit code 1"}
    text = work.result().recommendation.text
    assert text.endswith("; not considered, as trainings failed: simclr; the same command goes on")
    bad = CompareWork(options(tmp_path / "new"))
    bad.failures |= dict.fromkeys(("mveb", "carl", "simclr"), "ended")
    words = "no method is recommended: none was trained and evaluated without a failure"
    assert bad.result().recommendation.text == words


def test_the_advice_to_train_longer_names_the_option_that_was_given(tmp_path):
    for name, changes, longer in (
        ("a", {}, "a larger --budget trains longer"),
        ("b", {"budget": None, "epochs": 3}, "more --epochs train longer"),
    ):
        result = finish(begin(tmp_path / name, **changes), {"mveb": 0.7, "carl": 0.69, "simclr": 0.6}, untrained=0.7)
        assert result.recommendation.text.endswith(f"; {longer}")


def test_without_labels_no_method_is_recommended_and_the_study_is_quoted(tmp_path):
    np.savez(tmp_path / "few.npz", images=np.zeros((64, 32, 32, 3), np.uint8))
    work = begin(tmp_path / "o", data=str(tmp_path / "few.npz"), evaluate=(), recipe="small")
    work.measures = {f"{name}-small-seed{i}": x + i for name, x in (("mveb", 5.0), ("carl", 3.0)) for i in (0, 1)}
    result = work.result()
    assert result.recommendation.text.startswith("no method is recommended: without labels no measure is known to rank")
    table = result.table()
    assert table.columns[1].startswith("not by labels: ")
    assert [line[0].text for line in table.rows] == ["carl", "mveb", "simclr"]
    assert [line[1].text for line in table.rows] == ["3.5", "5.5", ""]
    note = next(note for note in table.notes if "study" in note)
    assert "its order (largest first) agreed with that of k-NN by a Spearman correlation of 0." in note
    assert note.endswith("so few methods say nothing of how it ranks methods")


def test_times_that_miss_the_budget_are_said(tmp_path):
    result = finish(begin(tmp_path, budget="30s"), {"mveb": 0.9, "carl": 0.8, "simclr": 0.5})
    notes = list(result.time_notes())
    assert notes[0] == "mveb: its trainings took 100% more time than the budget"
    assert len(notes) == 3


def test_the_page_and_the_file_have_the_recommendation_and_the_table(tmp_path):
    work = begin(tmp_path)
    result = finish(work, {"mveb": 0.9, "carl": 0.8, "simclr": 0.5})
    work.write(work.sweep())
    page = CheckedPage((tmp_path / "compare.html").read_text())
    assert any(result.recommendation.text in text for text in page.text)
    assert any("clearly worse" in text for text in page.text)
    kept = json.loads((tmp_path / "compare.json").read_text())
    assert kept["recommendation"]["methods"] == ["mveb"]
    assert kept["plan"]["images_per_second"]["mveb"] == 719.0
    second = kept["methods"][1]
    difference = result.difference(result.methods[1].cells[0])
    assert second["over_best"]["knn, top-1"]["value"] == difference.value
    assert len(kept["runs"]) == 6
    assert CompareWork(options(tmp_path)).speeds == work.speeds
    comparison_page(CompareWork(options(tmp_path / "new")).result()).html()  # nothing is there yet


def test_differences_over_seeds_are_those_of_the_hits():
    first, second = ([right(share, seed) for seed in range(3)] for share in (0.8, 0.7))
    pairs = [(row(a), row(b)) for a, b in zip(first, second, strict=True)]
    gains = np.stack(first).astype(float) - np.stack(second)
    assert compare_over_seeds(pairs) == compare_seeds_and_images(gains)
    assert compare_over_seeds(pairs[:1]) == compare_shares(first[0], second[0])
    moved = (row(first[0], hits=pack_hits(first[0], images="other")), pairs[0][1])
    assert isinstance(compare_over_seeds([moved, pairs[1]]), str)
    damaged = (row(first[0], hits={"right": "x", "images": "same"}), pairs[0][1])
    assert isinstance(compare_over_seeds([damaged, pairs[1]]), str)


def entrant_of(contest: Contest, method: str):
    return next(entrant for entrant in contest.entrants if entrant.method == method)


@pytest.mark.parametrize(
    ("rows", "speed"),
    [
        ([(20, 2.0), (40, 3.0), (220, 12.0)], 20.0),  # the first row has what it took to begin
        ([(20, 70.0)], 20 / 70),
        ([(20, 2.0), (40, 3.0)], 20.0),  # it ended by itself
        ([], 0.0),
    ],
)
def test_the_speed_is_that_of_a_short_training_which_leaves_nothing(tmp_path, monkeypatch, rows, speed):
    contest = open_contest(options(tmp_path))
    mveb, stopped = entrant_of(contest, "mveb"), []

    def train(argv, *, until):
        folder = Path(argv[argv.index("--out") + 1])
        folder.mkdir()
        for step, seconds in rows:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "seconds": seconds}) + "\n")
            stopped.append(until())
        return EndedCommand(0, 0, "")

    monkeypatch.setattr(compare_runner, "run_command", train)
    measured, failure = measure_speed(contest, mveb)
    assert (measured, failure) == (pytest.approx(speed * mveb.recipe.batch_size), "")
    assert not list(tmp_path.iterdir())
    assert stopped == [number == len(rows) - 1 and len(rows) != 2 for number in range(len(rows))]


def test_a_method_that_fails_is_noted_and_the_others_go_on(tmp_path, monkeypatch):
    done = []

    def run(argv, *, until=None):
        done.append(argv)
        if "carl/digits" in argv:
            return EndedCommand(1, 0, "the loss is NaN")
        if until is not None:
            folder = Path(argv[argv.index("--out") + 1])
            folder.mkdir()
            (folder / "metrics.jsonl").write_text('{"step": 20, "seconds": 2.0}\n')
            return EndedCommand(0, 0, "")
        return EndedCommand(2, 0, "a batch is too large")

    monkeypatch.setattr(compare_runner, "run_command", run)
    monkeypatch.setattr("infomax.experiments.sweep_runner.run_command", run)
    work = CompareWork(options(tmp_path / "o", methods="mveb,carl"))
    work.carry_out()
    assert work.failures == {
        "carl": "training ended with exit code 1: the loss is NaN",
        "mveb-digits-seed0": "training ended with exit code 2: a batch is too large",
        "mveb-digits-seed1": "training ended with exit code 2: a batch is too large",
    }
    lines = {line[0].text: line[-1].text for line in work.result().table().rows}
    assert lines["carl"] == "failed: training ended with exit code 1: the loss is NaN"
    assert set(json.loads((tmp_path / "o" / "compare.json").read_text())["plan"]["images_per_second"]) == {"mveb"}
    assert sum("pretrain" in argv for argv in done) == 4  # two to measure the speed, and two runs


def test_interruptions_while_speeds_are_measured_end_it(tmp_path, monkeypatch):
    contest = open_contest(options(tmp_path))
    for received, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
        ended = EndedCommand(0, received, "")
        monkeypatch.setattr(compare_runner, "run_command", lambda argv, until, ended=ended: ended)
        with pytest.raises(error):
            measure_speed(contest, contest.entrants[0])


def test_the_command_prints_the_table_and_mistakes_in_one_line(tmp_path, monkeypatch, capsys):
    words = ["compare", "--data", "digits", "--methods", "mveb,carl,simclr", "--budget", "3epochs", "--seeds", "2"]
    words += ["--evaluate", "knn", "--out", str(tmp_path)]
    result = finish(begin(tmp_path), {"mveb": 0.9, "carl": 0.8, "simclr": 0.5})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    code, out, err = run_command(monkeypatch, capsys, *words)
    assert code == 0, err
    assert out == f"{result}\n{tmp_path} has compare.json with all runs, and the page compare.html\n"
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    for changes, message in (
        (["--budget", "4epochs"], "another --budget: 3 epochs there, 4 epochs asked for; choose another folder"),
        (["--budget", "4"], "--budget must be a time"),
        (["--methods", "mvebb,carl"], "did you mean mveb"),
        (["--budgett", "4"], "did you mean --budget"),
    ):
        code, out, err = run_command(monkeypatch, capsys, *words, *changes)
        assert (code, out) == (2, "")
        assert message in err
        assert err.strip().count("\n") <= 2


@pytest.mark.process
def test_how_a_command_ended_has_its_own_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = sweep_runner.run_command(["pretrain", "--data", "digits", "--batch-size", "0", "--out", "o"])
    assert (ended.exit_code, ended.received_signal) == (2, 0)
    assert ended.words == f"ended with exit code 2: {ended.error}"
    assert ended.error.startswith("--batch-size")
    looks = []
    ended = sweep_runner.run_command(["pretrain", "--data", "digits", "--out", "o"], until=lambda: not looks.append(0))
    assert ended.exit_code == -signal.SIGTERM
    assert len(looks) == 1


@pytest.mark.process
def test_methods_are_trained_measured_and_nothing_is_done_twice(tmp_path):
    out = tmp_path / "out"
    words = ["compare", "--data", "digits", "--methods", "mveb,simclr", "--budget", "1epochs", "--seeds", "1"]
    words += ["--evaluate", "knn", "--log", "none", "--out", str(out)]
    asked = {"methods": "mveb,simclr", "budget": "1epochs", "seeds": 1, "log": "none"}
    plan = {"options": open_contest(options(out, **asked)).identity, "images_per_second": {"simclr": 99.0}}
    out.mkdir()
    (out / "compare.json").write_text(json.dumps({"plan": plan}))  # the speed of one method is known
    process = start_command(tmp_path, *words)
    printed, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert err.count("measuring the speed of") == err.count("measuring the speed of mveb, 1 of 1") == 1
    assert "2 methods x 1 seed x 1 epoch: about" in err
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["mveb-digits-seed0", "simclr-digits-seed0"]
    kept = json.loads((out / "compare.json").read_text())
    assert kept["plan"]["images_per_second"]["mveb"] > 0
    assert {method["method"] for method in kept["methods"]} == {"mveb", "simclr"}
    assert all(len(method["scores"]["knn, top-1"]) == 1 for method in kept["methods"])
    rows = (out / "mveb-digits-seed0" / "results.jsonl").read_text()
    assert "untrained encoder" in rows
    assert kept["recommendation"]["text"] in printed
    again = start_command(tmp_path, *words)
    assert again.communicate(timeout=PATIENCE)[0] == printed
    assert (out / "mveb-digits-seed0" / "results.jsonl").read_text() == rows
    report_of = start_command(tmp_path, "report", *map(str, sorted(out.iterdir())))
    tables, err = report_of.communicate(timeout=PATIENCE)
    assert report_of.returncode == 0, err
    assert "simclr-digits-seed0" in tables


@pytest.mark.process
def test_an_interrupted_comparison_says_how_to_go_on_and_goes_on(tmp_path):
    out = tmp_path / "out"
    asked: dict[str, Any] = {"methods": "mveb,simclr", "budget": "9epochs", "seeds": 1, "log": "none"}
    begin(out, **asked)
    words = ["compare", "--data", "digits", "--methods", "mveb,simclr", "--budget", "9epochs", "--seeds", "1"]
    words += ["--evaluate", "knn", "--log", "none", "--out", str(out)]
    process = start_command(tmp_path, *words)
    wait_for(lambda: any('"loss"' in x.read_text() for x in out.glob("mveb-digits-seed0/metrics.jsonl")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.endswith("infomax: interrupted; the same command goes on\n")
    assert "Traceback" not in err
    assert list(out.glob("mveb-digits-seed0/checkpoints/*"))
    assert not (out / "simclr-digits-seed0").exists()
    again = start_command(tmp_path, *words)
    printed, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert "going on from step" in err
    assert "measuring the speed" not in err
    assert "simclr" in printed
