"""Sweeps: which runs there are, that done ones are not done again, and their table and figure."""

import json
import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import pytest
from PIL import Image

import infomax as library
from command import PATIENCE, run_command, start_command, wait_for
from dataset_layouts import LAYOUTS
from html_pages import CheckedPage
from infomax.data.sources.location import DataLocation
from infomax.evaluation.probes import PROBES
from infomax.evaluation.protocols.knn import KnnOptions, KnnRow
from infomax.evaluation.protocols.linear import LinearOptions
from infomax.evaluation.protocols.transfer import TRANSFER_SETS
from infomax.evaluation.results import append_result
from infomax.evaluation.run import evaluation_hash
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import Sweep, SweepRun, define_sweep
from infomax.experiments.sweep_results import SweepCell, SweepResult, collect_results
from infomax.experiments.sweep_runner import run_sweep
from infomax.papers import published
from infomax.recipes import registry
from infomax.recipes.cpu import IMAGES_SEEN
from infomax.reporting.recipe_list import describe_recipe
from infomax.runs.run_folder import Run, create_run_folder
from infomax.runtime.options import pick, to_argv
from infomax.training.options import PretrainOptions

VALUES = ("--vary", "batch_size=256")
SHORT = ["sweep", "carl/digits", "--epochs", "1", "--seeds", "2"]


def infomax(*words, **options):
    return subprocess.run([sys.executable, "-m", "infomax", *words], capture_output=True, text=True, **options)


def sweep(what, out, **options) -> Sweep:
    return define_sweep(pick(SweepOptions, {"what": what, "out": out, **options}))


def knn_row(top1: float, **fields) -> KnnRow:
    """A result of a trained encoder."""
    counts = {"classes": 10, "labelled_images": 1438, "test_images": 359, "seconds": 0.1}
    names = {"data": "digits", "representation": "trained encoder", "encoder": "abc", "metric": "top1"}
    return KnnRow(**names, **counts, k=20, temperature=0.07, top1=top1, top5=1.0, **fields)


def test_runs_go_to_the_tools_of_the_sweep(tmp_path):
    for run in sweep(["carl/digits"], tmp_path, epochs=1, seeds=2, log="none").runs:
        assert run.options.log == ("none",)
        assert " ".join(run.training_argv).endswith("--log none --out " + str(run.folder) + " --resume")
    with pytest.raises(ValueError, match="--log must be one of .*did you mean wandb"):
        sweep(["carl/digits"], tmp_path, log="wanddb")


def test_a_table_stands_for_the_recipes_with_a_number_in_it(tmp_path):
    planned = sweep(["mira-14"], tmp_path, seeds=2)
    prototypes = sorted(variant.experiment.recipe().method.prototypes for variant in planned.variants)
    assert prototypes == [300, 1000, 3000, 10000, 30000]
    assert len({run.folder for run in planned.runs}) == len({run.specification.hash for run in planned.runs}) == 10
    assert [evaluation.words for evaluation in planned.evaluations] == [
        "linear --probe mira-lars",
        "knn",
        "knn --subset 10percent",
        "knn --subset 1percent",
    ]
    assert [run.seed for run in planned.runs] == [0] * 5 + [1] * 5


def test_patterns_after_a_table_choose_among_its_recipes(tmp_path):
    methods = {variant.experiment.method for variant in sweep(["mira-5"], tmp_path).variants}
    assert methods == {"mira", "byol", "deepcluster", "moco", "swav"}
    planned = sweep(["mira-5", "mira/*", "byol/imagenet"], tmp_path)
    assert [v.experiment.name for v in planned.variants] == ["mira/imagenet_multicrop_400", "byol/imagenet"]
    assert planned.table is published.table("mira-5")
    with pytest.raises(ValueError, match=r"no recipe of mira-5 is vicreg/\*; its recipes are mira/image.*, byol/"):
        sweep(["mira-5", "mira/*", "vicreg/*"], tmp_path)


def test_names_patterns_and_values_are_combined(tmp_path):
    planned = sweep(
        ["carl/stl10*", "mira/small"],
        tmp_path,
        vary=["epochs=1,2", "batch_size=64,128,256"],
        data="images",
        views="byol",
    )
    assert len(planned.variants) == 4 * 6
    run = planned.runs[-1]
    assert run.folder.name == "mira-small-epochs=2-batch_size=256-seed0"
    assert " ".join(run.training_argv) == (
        "pretrain --data images --recipe mira/small --seed 0 --views byol --set epochs=2 --set batch_size=256 "
        f"--out {run.folder} --resume"
    )
    assert " --data images" in planned.commands()[0]
    folders = [run.folder for run in planned.runs]
    assert planned.commands()[0].endswith(f" && infomax evaluate knn {folders[0]}")  # and its baselines
    assert planned.commands()[1].endswith(f" && infomax evaluate knn {folders[1]} --no-baselines")
    data = [run.options.data for run in sweep(["carl/[!s]*", "carl/stl10*"], tmp_path).runs]
    assert data == ["digits", "cifar10", "cifar100", "cifar10", "cifar100", *["stl10"] * 3]


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        (
            ["mira-144"],
            {},
            "no published table .*--table list names them.*infomax recipes lists them.*did you mean mira-14",
        ),
        (["mveb-text-6.2"], {}, "mveb-text-6.2: Top-1 .linear. cannot be measured: no recipe is trained for it"),
        (["mira/digits"], {"evaluation_seeds": 0}, "--evaluation-seeds must be a whole number of at least 1"),
        (["mira/imagenet_1000"], {}, "did you mean imagenet_100"),
        (["mira/digits"], {"vary": ["method.prototypes"]}, "want KEY=VALUE,VALUE"),
        (["mira/digits"], {"vary": ["method.prototypes=1,,2"]}, "want KEY=VALUE,VALUE"),
        (["mira/digits"], {"vary": ["method.prototips=1"]}, "did you mean prototypes"),
        (["mira/digits"], {"vary": ["name=1"]}, "--set name: the setting must be one of method, encoder"),
        (["mira/digits"], {"epochs": 0}, "epochs must be at least 1"),
        (["mira/digits"], {"seeds": 0}, "--seeds must be a whole number of at least 1"),
        (["mira/digits"], {"evaluate": ["lineal"]}, "did you mean linear"),
        (["mira/digits"], {"evaluate": ["linear --probe mirra"]}, "did you mean mira"),
        (["mira/digits"], {"evaluate": ["linear 'x"]}, "--evaluate linear 'x: No closing quotation"),
        (["mira/digits"], {"evaluate": ["linear --prob mira"]}, "there is no option --prob; did you mean --probe"),
        (["mira/digits"], {"evaluate": ["knn --k five"]}, "--evaluate knn --k five: --k must be a whole number"),
        (["mira/digits"], {"evaluate": ["transfer"]}, "--evaluate must be one of knn, linear"),
        (["mira/digits"], {"overrides": ["seed=3"]}, "--seeds N has the seeds from 0 up"),
        (["mira/digits"], {"vary": ["seed=1,2"]}, "--seeds N has the seeds from 0 up"),
        (["mira/digits"], {"vary": ["epochs=1,1"]}, "--vary gives a value twice"),
        (["mira-14"], {"vary": ["epochs=1,2"]}, "mira-14 says itself what varies"),
        (["mira-14", "mira-15"], {}, "a sweep is of one table, or of recipes with their methods"),
        (["mirra/small"], {}, "the method of the recipe mirra/small must be one of"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_runs(tmp_path, what, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep(what, tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_sweep_trains_judges_tells_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    done = infomax(*SHORT, *VALUES, "--out", str(out))
    assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert runs[0] == "carl-digits-batch_size=256-seed0"
    assert len(runs) == 2
    rows = {name: Run(out / name).read_rows("results.jsonl") for name in runs}
    assert [[row["representation"] for row in rows[name]] for name in runs] == [
        ["trained encoder", "untrained encoder", "raw pixels"],
        ["trained encoder"],
    ]
    scores = {name: 100 * rows[name][0]["top1"] for name in runs}
    assert len(set(scores.values())) > 1
    ours = [scores[f"carl-digits-batch_size=256-seed{seed}"] for seed in (0, 1)]
    line = next(line for line in done.stdout.splitlines() if line.startswith("carl/digits, batch_size=256"))
    assert line.endswith(f"ours, 2 seeds  {mean(ours):.2f} ± {stdev(ours):.2f}")
    assert "ours: with --epochs 1" in done.stdout
    below = {line.split("  ")[0]: line.split("  ")[-1] for line in done.stdout.splitlines()}
    pixels = 100 * rows[runs[0]][2]["top1"]
    assert below["raw pixels"].strip() == f"{pixels:.2f}"
    assert "over untrained encoder: points, mean over the seeds" in done.stdout
    kept = json.loads((out / "sweep.json").read_text())
    assert len(kept["runs"]) == 2
    first = kept["runs"][0]
    assert (first["recipe"], first["seed"]) == ("carl/digits", 0)
    assert {"epochs=1", "batch_size=256"} <= set(first["changes"])
    assert 100 * first["results"]["knn"]["top1"] == scores[runs[0]]
    assert first["results"]["knn"]["recipe"].startswith("carl/digits with batch_size=256, epochs=1")
    assert Image.open(BytesIO((out / "sweep.png").read_bytes())).width > 500
    references = [(x["line"], x["over"]) for x in kept["differences"]]
    assert references == [("carl/digits, batch_size=256", over) for over in ("untrained encoder", "raw pixels")]
    assert kept["differences"][1]["value"] == pytest.approx(mean(ours) / 100 - pixels / 100)
    assert first["baselines"]["raw pixels"]["knn"]["top1"] == pixels / 100
    page = CheckedPage((out / "sweep.html").read_text())
    assert any(f"{mean(ours):.2f} ± {stdev(ours):.2f}" in text for text in page.text)

    before = {path: path.stat().st_mtime_ns for name in runs for path in (out / name).rglob("*")}
    other = infomax(*SHORT, "--vary", "batch_size=256", "--out", str(out), "--set", "optimizer.momentum=0.5")
    assert other.returncode == 2
    assert "is of another sweep: optimizer.momentum: 0.9 there, 0.5 asked for" in other.stderr
    by_hand = infomax("evaluate", "knn", str(out / runs[0]), "--k", "1", "--no-baselines")  # is not the sweep's
    assert by_hand.returncode == 0
    before = {path: path.stat().st_mtime_ns for name in runs for path in (out / name).rglob("*")}
    again = infomax(*SHORT, *VALUES, "--out", str(out))
    assert again.stdout == done.stdout
    assert "training" not in again.stderr
    assert {path: path.stat().st_mtime_ns for name in runs for path in (out / name).rglob("*")} == before
    left = infomax(*SHORT, *VALUES, "--out", str(out), "--commands")
    assert left.stdout.strip() == ""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("infomax.experiments.sweep_runner.run_sweep", interrupted)
    late = run_command(monkeypatch, capsys, *SHORT, *VALUES, "--out", str(out))
    shown = "the sweep was finished, and the same command shows its table again"
    assert late[:2] == (130, done.stdout)
    assert late[2].endswith(f"infomax: interrupted; {shown}\n")

    os.remove(out / runs[0] / "results.jsonl")  # judged again, not trained again
    left = infomax(*SHORT, *VALUES, "--out", str(out), "--commands")
    assert left.stdout.strip() == f"infomax evaluate knn {out / runs[0]}"


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)]
)
def test_an_interrupted_sweep_goes_on(tmp_path, kind, code):
    out = tmp_path / "out"
    words = [*SHORT[:-2], "--out", str(out)]
    words[words.index("--epochs") + 1] = "15"
    process = start_command(tmp_path, *words)
    wait_for(lambda: any('"loss"' in x.read_text() for x in out.glob("carl-digits-seed0/metrics.jsonl")), process)
    process.send_signal(kind)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert list(out.glob("carl-digits-seed0/checkpoints/*"))  # the run was told, and saved itself
    assert "evaluate" not in err
    words[words.index("--epochs") + 1] = "4"
    refused = infomax(*words)
    assert refused.returncode == 2
    assert "epochs: 15 there, 4 asked for" in refused.stderr
    words[words.index("--epochs") + 1] = "15"
    done = infomax(*words)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr


@pytest.mark.process
def test_a_run_that_fails_does_not_stop_the_others_and_a_refused_one_does(tmp_path):
    out = tmp_path / "out"
    hot = ["--set", "optimizer.learning_rate=1e30", "--set", "optimizer.momentum=0"]
    failed = infomax("sweep", "carl/digits", "corinfomax/digits", "--epochs", "1", *hot, "--out", str(out))
    assert failed.returncode == 1
    assert "carl-digits-seed0: training ended with exit code 1" in failed.stderr
    assert "corinfomax-digits-seed0: training ended" in failed.stderr
    refused = infomax("sweep", "carl/digits", "mira/digits", "--batch-size", "9999", "--out", str(tmp_path / "b"))
    assert refused.returncode == 2
    assert "more than the 1438 images" in refused.stderr
    assert "mira" not in refused.stderr


def test_a_run_on_other_images_is_not_taken(tmp_path):
    (run,) = sweep(["carl/digits"], tmp_path).runs
    recipe = run.specification.recipe
    create_run_folder(
        run.folder, recipe, data={"data": "digits", "images": 1438, "fingerprint": "0"}, launch={}, overwrite=False
    )
    assert sweep(["carl/digits"], tmp_path).runs == (run,)
    (tmp_path / "some.txt").write_text("0\n")
    for options, message in (
        ({"data": "cifar10"}, "data: digits there, cifar10 asked for"),
        ({"subset": tmp_path / "some.txt"}, "subset: none there, .*some.txt asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(["carl/digits"], tmp_path, **options)


@pytest.mark.process
def test_what_no_method_can_do_is_refused_before_the_first_run(tmp_path):
    done = infomax("sweep", "mira/digits", "--vary", "method.beta=0.5,1.5", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "beta must be a number in [0, 1), but is 1.5" in done.stderr
    done = infomax("sweep", "mira/digits", "--evaluate", "linear --prob mira", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_half_trained_encoder_is_no_result(tmp_path):
    (run,) = sweep(["carl/digits"], tmp_path).runs
    recipe, (evaluation,) = run.specification.recipe, run.evaluations
    create_run_folder(
        run.folder, recipe, data={"data": "digits", "images": 1438, "fingerprint": "0"}, launch={}, overwrite=False
    )
    known_by = evaluation_hash(KnnOptions(), DataLocation("digits"), "32")
    for steps, whole in ((5, False), (880, True)):
        (run.folder / "encoder.json").write_text(json.dumps({"steps": steps}))
        append_result(run.folder / "results.jsonl", knn_row(0.4, evaluation=known_by, trained_steps=5))
        assert run.result(evaluation) is None
        assert run.trained == whole
    append_result(run.folder / "results.jsonl", knn_row(0.5, evaluation=known_by, trained_steps=880))
    assert run.result(evaluation).top1 == 0.5
    assert not run.remaining


def test_results_are_known_by_what_was_evaluated_and_not_by_the_words_of_a_command(tmp_path):
    first, second = (sweep(["carl/digits"], tmp_path, evaluate=[words]) for words in ("knn --k 20", "knn --device cpu"))
    (run,), (other,) = first.runs, second.runs
    recipe = run.specification.recipe
    create_run_folder(
        run.folder, recipe, data={"data": "digits", "images": 1438, "fingerprint": "0"}, launch={}, overwrite=False
    )
    (run.folder / "encoder.json").write_text(json.dumps({"steps": 880}))
    known_by = evaluation_hash(KnnOptions(k=(20,)), DataLocation("digits"), "32")
    append_result(run.folder / "results.jsonl", knn_row(0.5, evaluation=known_by, trained_steps=880, command="python"))
    assert run.result(run.evaluations[0]).top1 == other.result(other.evaluations[0]).top1 == 0.5
    for words in ("knn --k 5", "knn --feature-precision 16", "knn --classes some.txt", "linear"):
        (run,) = sweep(["carl/digits"], tmp_path, evaluate=[words]).runs
        assert run.result(run.evaluations[0]) is None
    same = sweep(["carl/digits"], tmp_path, evaluate=["knn", "knn --k 20", "knn --temperature 0.07"])
    assert [evaluation.words for evaluation in same.evaluations] == ["knn"]


def test_each_protocol_and_option_reaches_its_command(tmp_path):
    words = ["knn --k 5", "knn --k 200", "finetune --setting mira-1", "linear --probe carl"]
    planned = sweep(["carl/small"], tmp_path, data="a b", epochs=1, device="cpu", workers=0, evaluate=words)
    (line,) = planned.commands()
    folder = tmp_path / "carl-small-seed0"
    assert line.split(" && ")[1:] == [
        f"infomax evaluate knn {folder} --device cpu --workers 0 --k 5",
        f"infomax evaluate knn {folder} --device cpu --workers 0 --k 200",
        f"infomax evaluate finetune {folder} --device cpu --workers 0 --setting mira-1",
        f"infomax evaluate linear {folder} --device cpu --workers 0 --probe carl",
    ]
    for table, recipe, names in (
        ("corinfomax-1", "corinfomax/imagenet", ["linear --probe corinfomax-imagenet"]),
        ("corinfomax-1", "corinfomax/cifar10", ["linear --probe corinfomax"]),
        (
            "carl-1",
            "carl/cifar100",
            [*(f"linear --probe carl, epoch {epoch}" for epoch in (50, 100, 150)), "linear --probe carl"],
        ),
    ):
        runs = sweep([table, f"{recipe.partition('/')[0]}/*"], tmp_path).runs
        (words,) = ([e.words for e in run.evaluations] for run in runs if run.variant.experiment.name == recipe)
        assert words == names
    assert [run.options.data for run in runs] == ["cifar10", "cifar100", "stl10"]  # though one number can be read


def positions(experiment, table):
    return [*experiment.positions(table), *experiment.positions_on_the_way(table)]


@pytest.mark.parametrize("table", published.tables(), ids=lambda table: table.id)
def test_each_column_of_each_table_is_measured_by_a_command_or_has_a_reason(tmp_path, table):
    options = pick(SweepOptions, {"what": [table.id], "out": tmp_path})
    try:
        planned = define_sweep(options)
    except ValueError as error:
        lines, commands = str(error).split("; "), []
    else:
        lines, commands = list(planned.not_measured), planned.commands()
        assert planned.runs
        assert all(run.evaluations for run in planned.runs if run.variant.experiment.positions(table.id))
    for column in table.columns:
        named = [line for line in lines if f" {column.name}" in line.partition(" (")[0].replace(":", "")]
        measured = [
            evaluation.words
            for run in (planned.runs if commands else ())
            for evaluation in run.evaluations
            if evaluation.measures(column)
            and column in [c for _, c in positions(run.variant.experiment, table.id)]
            and any(str(run.folder) in line for line in commands)
        ]
        if column.data == "average":
            assert not named
            continue
        assert bool(measured) != bool(named), (table.id, column.name, measured, named)


@pytest.mark.parametrize(
    ("table", "recipe", "words"),
    [
        (
            "mira-4",
            "imagenet_multicrop_400",
            ["finetune --subset 1percent --setting mira-1", "finetune --subset 10percent"],
        ),
        ("corinfomax-2", "imagenet", [f"finetune --subset {n}percent --setting corinfomax-{n}" for n in (1, 10)]),
        ("mveb-3", "imagenet", [f"finetune --subset {n}percent --setting mveb-{n}" for n in (1, 10)]),
        ("mira-5", "imagenet_multicrop_400", [f"transfer --data {name}" for name in TRANSFER_SETS]),
        ("mveb-4-linear", "imagenet", [f"transfer --data {name}" for name in TRANSFER_SETS]),
        ("mveb-4-finetune", "imagenet", [f"finetune --data {name} --setting transfer" for name in TRANSFER_SETS]),
        ("mira-3", "imagenet_multicrop_400", ["knn", "knn --subset 10percent", "knn --subset 1percent"]),
        ("mira-7", "cifar10", ["online-linear"]),
        ("mira-2", "imagenet_multicrop_400", ["linear --probe mira --learning-rate 0.2 0.3 0.4 0.8 1.2 1.6"]),
    ],
)
def test_a_table_is_measured_as_its_paper_does(tmp_path, table, recipe, words):
    run = next(r for r in sweep([table], tmp_path).runs if r.variant.experiment.name.split("/")[1] == recipe)
    assert [evaluation.words for evaluation in run.evaluations] == words
    for evaluation in run.evaluations:  # the words are those of infomax evaluate
        assert evaluation.argv(run.folder)[:2] == ["evaluate", evaluation.words.split()[0]]


def test_evaluations_are_repeated_with_the_seeds_that_the_paper_had(tmp_path):
    (run,) = sweep(["mira-11"], tmp_path, data_dir="sets", download=True).runs
    assert len(run.evaluations) == 4 * len(TRANSFER_SETS)
    assert [e.words for e in run.evaluations[:2]] == ["transfer --data aircraft", "transfer --data aircraft --seed 1"]
    assert " --data aircraft --data-dir sets --download --seed 1" in " ".join(run.evaluations[1].argv(run.folder))
    (run,) = sweep(["mira-11"], tmp_path, evaluation_seeds=1).runs
    assert len(run.evaluations) == len(TRANSFER_SETS)
    words = ["knn", "linear", "linear --probe carl --seed 3"]
    (run,) = sweep(["carl/small"], tmp_path, data="x", epochs=1, evaluate=words, evaluation_seeds=2).runs
    assert [e.words for e in run.evaluations] == [*words, "linear --probe carl --seed 4"]  # the others have no seed


def by_words(scores, averaged=knn_row):
    """A stand-in for the results of runs: the score that an evaluation has, by its words."""

    def result(run, evaluation):
        score = scores.get(evaluation.words)
        return None if score is None else averaged(score + run.seed)

    return result


def transfer_row(score):
    """A result that has a score by each metric."""
    return SimpleNamespace(top1=score / 100, mean_per_class=score / 100, map11=score / 100)


def test_means_are_over_the_seeds_of_one_run_or_over_runs(tmp_path, monkeypatch):
    scores = {
        f"transfer --data aircraft{words}": 50 + i for i, words in enumerate(("", *(f" --seed {i}" for i in (1, 2, 3))))
    }
    monkeypatch.setattr(SweepRun, "result", by_words(scores, transfer_row))
    (cell,) = (c for c in collect_results(sweep(["mira-11"], tmp_path)).cells if c.column == "Aircraft")
    assert cell.scores == pytest.approx((50, 51, 52, 53))
    assert (cell.paper, cell.deviation, cell.ours.text) == (58.93, 0.16, "51.50 ± 1.29")
    result = collect_results(sweep(["mira-11"], tmp_path))
    assert "MIRA, 400 epochs, 4 runs: ours, 4 seeds of the evaluation" in result.table().text()
    result = collect_results(sweep(["mira-11"], tmp_path, seeds=2))
    (cell,) = (c for c in result.cells if c.column == "Aircraft")
    assert cell.scores == pytest.approx((51.5, 52.5))  # of each run the mean of four
    assert "ours, 2 seeds of 4 evaluations" in result.table().text()


def test_an_average_is_that_of_all_its_parts_or_empty(tmp_path, monkeypatch):
    scores = {f"transfer --data {name}": 50 + i for i, name in enumerate(TRANSFER_SETS)}
    monkeypatch.setattr(SweepRun, "result", by_words(scores, transfer_row))
    for left_out, expected in ((None, (55,)), ("sun397", ())):
        scores.pop(f"transfer --data {left_out}", None)
        (cell,) = (c for c in collect_results(sweep(["mira-5", "mira/*"], tmp_path)).cells if c.column == "avg.")
        assert cell.scores == pytest.approx(expected)
        assert cell.paper == 79.86


def test_a_cell_whose_number_nobody_can_read_is_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(SweepRun, "result", lambda self, evaluation: knn_row(0.5))
    cells = collect_results(sweep(["carl-1", "carl/*"], tmp_path)).cells
    last = [(cell.column, cell.paper, cell.scores) for cell in cells if cell.column.endswith(" 200")]
    assert last == [("CIFAR-10 200", None, (50,)), ("CIFAR-100 200", 46.23, (50,)), ("STL-10 200", None, (50,))]


def test_a_table_with_columns_by_epoch_is_filled_by_encoders_that_are_kept_on_the_way(tmp_path, monkeypatch):
    planned = sweep(["carl-1", "carl/*"], tmp_path)
    assert not planned.not_measured
    assert [run.options.keep_epochs for run in planned.runs] == [("50,100,150",)] * 3
    command = planned.commands()[0]
    assert " --keep-epochs 50,100,150 --out " in command
    assert f" && infomax evaluate linear {planned.runs[0].folder}/epochs/50 --no-baselines --probe carl" in command
    monkeypatch.setattr(SweepRun, "result", lambda self, evaluation: knn_row((evaluation.epoch or 200) / 1000))
    cells = {cell.column: cell for cell in collect_results(planned).cells}
    assert list(cells) == [column.name for column in published.table("carl-1").columns]
    for name, cell in cells.items():
        assert cell.scores == (pytest.approx(float(name.rpartition(" ")[2]) / 10),)
    assert {cell.curve for cell in cells.values()} == {"CARL, cifar10", "CARL, cifar100", "CARL, stl10"}
    shorter = sweep(["carl-1", "carl/*"], tmp_path, epochs=20)
    assert {run.options.keep_epochs for run in shorter.runs} == {()}
    assert shorter.not_measured[0].endswith("it is of the encoder after 50 of 200 epochs, and these runs have 20")
    with pytest.raises(ValueError, match="--keep-epochs 30: carl/cifar10 has 20 epochs"):
        sweep(["carl-1", "carl/*"], tmp_path, epochs=20, keep_epochs=[30])


@pytest.mark.process
def test_a_sweep_evaluates_the_encoders_that_are_kept(tmp_path):
    options = {"epochs": 2, "vary": ["batch_size=512"], "keep_epochs": [1]}
    planned = sweep(["carl/digits"], tmp_path, **options)
    assert not run_sweep(planned)
    assert not planned.commands()
    (folder,) = (run.folder for run in planned.runs)
    rows = [row for row in Run(folder).read_rows("results.jsonl") if row["representation"] == "trained encoder"]
    columns = {cell.column: cell.scores for cell in collect_results(planned).cells}
    assert columns == {
        "knn, epoch 1, top-1": (100 * rows[0]["top1"],),
        "knn, top-1": (100 * rows[1]["top1"],),
    }
    again = sweep(["carl/digits"], tmp_path, **{**options, "keep_epochs": [1, 2]})
    assert [e.epoch for e in again.runs[0].evaluations] == [1, 2, None]  # the last step is the end of epoch 2
    Run(folder).kept_encoder(1).rename(folder / "epochs" / "aside")
    missed = sweep(["carl/digits"], tmp_path, **options)
    assert not missed.commands()
    assert missed.not_measured == (f"{folder} did not keep its encoder after epoch 1, and can no longer",)


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("carl/cifar10_150", {"vary": ["method.prototypes=10,100"]}, "linear --probe carl"),
        ("mveb/imagenet_batch_1024", {"vary": ["method.entropy_weight=0.01,0.1"]}, "linear --probe mveb"),
        ("corinfomax/cifar10_dimension_128", {}, "linear --probe corinfomax"),
        ("mira/cifar10", {}, "online-linear"),
        ("carl/cifar10_150", {"data": "images"}, "knn"),
        ("carl/small", {"data": "digits"}, "knn"),
    ],
)
def test_a_recipe_is_measured_as_its_paper_does(tmp_path, what, options, words):
    """Figures have no number that can be read, but are of the same measure as the paper's tables."""
    planned = sweep([what], tmp_path, **options)
    assert [evaluation.words for evaluation in planned.evaluations] == [words]


def test_the_number_of_images_decides_the_epochs_of_our_own_recipes(tmp_path):
    (run,) = sweep(["mira/small"], tmp_path, data="digits").runs
    assert run.specification.recipe.epochs == round(IMAGES_SEEN / 1438)
    (run,) = sweep(["mira/small"], tmp_path, data="digits", overrides=("epochs=3",)).runs
    assert run.specification.recipe.epochs == 3
    gone = str(tmp_path / "gone")
    with pytest.raises(ValueError, match="no such folder"):
        sweep(["mira/small"], tmp_path, data=gone)
    folder = tmp_path / "mira-small-seed0"
    folder.mkdir()
    recipe = registry.get_experiment("mira/small").recipe(images=1000)
    create_run_folder(
        folder, recipe, data={"data": gone, "images": 1000, "fingerprint": "0"}, launch={}, overwrite=False
    )
    (run,) = sweep(["mira/small"], tmp_path, data=gone).runs  # what is done can still be drawn
    assert run.specification.recipe == recipe


def test_a_list_that_an_evaluation_wants_is_missed_before_the_training(tmp_path):
    planned = sweep(["mira-3"], tmp_path / "out", data_dir=tmp_path)
    with pytest.raises(ValueError, match="wanted as .*imagenet_subsets/1.*; --evaluate names evaluations that do"):
        run_sweep(planned)
    assert not (tmp_path / "out").exists()


def test_a_recipe_names_the_command_that_its_sweep_carries_out(tmp_path):
    for name, experiment in registry.experiments().items():
        if experiment.data is None or experiment.main_column is None:  # no paper says how it is measured
            continue
        (run,) = sweep([name], tmp_path).runs
        protocol, *options = run.evaluations[0].words.split()
        folder = f"runs/{name.replace('/', '-')}"
        assert " ".join(["  infomax evaluate", protocol, folder, *options]) in describe_recipe(experiment, []), name


@pytest.mark.process
@pytest.mark.slow
def test_a_table_of_transfer_is_measured_where_its_data_sets_are(tmp_path):
    for name in ("imagenet", "dtd", "voc2007"):
        LAYOUTS[name](tmp_path / "data")
    tiny = ["--backbone", "small", "--image-size", "16", "--views", "byol", "--epochs", "1", "--batch-size", "4"]
    tiny += ["--precision", "32", "--set", "method.prototypes=10", "--set", "method.hidden=16", "--device", "cpu"]
    words = [
        "sweep",
        "mira-5",
        "mira/*",
        *tiny,
        "--workers",
        "0",
        "--data-dir",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "o"),
    ]
    done = infomax(*words)
    assert done.returncode == 1, done.stderr
    assert "could not be evaluated on aircraft, caltech101, cars, cifar10, cifar100, flowers, food101" in done.stderr
    rows = Run(tmp_path / "o" / "mira-imagenet_multicrop_400-seed0").read_rows("results.jsonl")
    assert [(row["data"], row["metric"]) for row in rows] == [("dtd", "top1"), ("voc2007", "map11")]
    line = next(line for line in done.stdout.splitlines() if ": ours" in line)
    assert [float(x) for x in line.split("1 seed")[1].split() if x != "-"] == [
        round(100 * rows[0]["top1"], 2),
        round(100 * rows[1]["map11"], 2),
    ]
    left = infomax(*words, "--commands").stdout
    assert "transfer" in left
    assert "--data dtd" not in left


def test_every_probe_of_a_table_can_be_trained_and_is_a_word_of_linear():
    names = {column.probe for table in published.tables() for column in table.columns if column.probe}
    assert names == set(PROBES)
    assert all(LinearOptions(probe=name).probe == name for name in names)


def test_options_are_words_again():
    options = PretrainOptions(
        out=Path("x"), workers=0, skip_unreadable=0.0, device="auto", download=True, overrides=("a=1", "b=2")
    )
    words = ["--download", "--set", "a=1", "--set", "b=2", "--workers", "0", "--skip-unreadable", "0.0", "--out", "x"]
    assert to_argv(options) == words


def test_values_of_ones_own_have_no_number_in_the_paper(tmp_path, monkeypatch):
    monkeypatch.setattr(SweepRun, "result", lambda self, evaluation: knn_row(0.5))
    words = ["linear --probe corinfomax", "linear"]
    cells = collect_results(sweep(["corinfomax/cifar100"], tmp_path, evaluate=words)).cells
    assert [cell.paper for cell in cells] == [71.61, None]
    vary = ["method.attraction=125,2000"]
    cells = collect_results(sweep(["corinfomax/cifar100"], tmp_path, evaluate=words, vary=vary)).cells
    assert {cell.paper for cell in cells} == {None}
    assert {cell.position for cell in cells} == {125, 2000}


def test_numbers_stand_beside_the_papers(tmp_path, monkeypatch):
    planned = sweep(["mira-15"], tmp_path, seeds=2)
    scores = {run.folder.name: 0.5 + 0.01 * i for i, run in enumerate(planned.runs)}
    monkeypatch.setattr(SweepRun, "result", lambda self, evaluation: knn_row(scores[self.folder.name]))
    result = collect_results(planned)
    (cell,) = (cell for cell in result.cells if (cell.line, cell.column) == ("MIRA, 400 epochs", "3it"))
    ours = [100 * scores[f"mira-imagenet_400_iterations_3-seed{seed}"] for seed in (0, 1)]
    assert cell.scores == pytest.approx(ours)
    assert (cell.paper, cell.ours.text) == (72.6, f"{mean(ours):.2f} ± {stdev(ours):.2f}")
    lines = [line.split() for line in result.table().text().splitlines()]
    assert ["MIRA,", "400", "epochs:", "paper", "72.7", "72.6", "72.9"] in lines


@pytest.mark.parametrize(
    ("table", "varied", "positions"),
    [
        ("mira-14", "prototypes", {300, 1000, 3000, 10000, 30000}),
        ("corinfomax-6", "learning_rate", {0.25, 0.5, 1.0}),
        ("mira-6", "", {None}),
        ("corinfomax-1", "", {None}),
    ],
)
def test_a_figure_follows_the_number_that_its_table_varies(tmp_path, monkeypatch, table, varied, positions):
    planned = sweep([table], tmp_path, epochs=3)
    monkeypatch.setattr(SweepRun, "result", lambda self, evaluation: knn_row(0.5))
    result = collect_results(planned)
    assert {cell.position for cell in result.cells} == positions
    assert {cell.varied for cell in result.cells} == {varied}
    assert Image.open(BytesIO(result.figure())).width > 500


def test_the_function_returns_runs_and_cells(tmp_path):
    result = library.sweep(["carl/digits"], out=tmp_path / "out", seeds=2, epochs=1, commands=True)
    assert not list(tmp_path.iterdir())
    assert [run.folder.name for run in result.runs] == ["carl-digits-seed0", "carl-digits-seed1"]
    assert [(cell.line, cell.column, cell.scores) for cell in result.cells] == [("carl/digits", "knn, top-1", ())]
    assert len(result.commands) == 2
    assert result.table().text().endswith("ours: with --epochs 1")
    assert not result.has_scores


def test_a_line_says_how_many_seeds_its_columns_have():
    def line(*counts):
        cells = [SweepCell("mira", f"column {i}", (50.0,) * count) for i, count in enumerate(counts)]
        result = SweepResult(
            runs=(), evaluations=(), cells=tuple(cells), title="", changes=(), failures=(), commands=()
        )
        return result.table().rows[0][0].text

    assert line(0, 0) == "mira: ours, no run yet"
    assert line(0, 1) == "mira: ours, 1 seed"
    assert line(4, 4).startswith("mira: ours, 4 seeds")
    assert line(1, 4).startswith("mira: ours, 1 to 4 seeds")
