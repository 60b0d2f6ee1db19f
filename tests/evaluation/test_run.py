"""The commands that judge an encoder, as a user types them, and what they keep."""

import json
import re
import socket
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch

from command import PATIENCE, run_command, start_command
from dataset_layouts import LAYOUTS
from infomax.data.images.arrays import ArrayImages
from infomax.data.sources.location import open_source
from infomax.data.splits import Source
from infomax.evaluation import transfer
from infomax.evaluation.clusters import compare
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols import PROTOCOLS
from infomax.evaluation.protocols.knn import KnnOptions, KnnRow
from infomax.evaluation.prototypes import prototype_row
from infomax.evaluation.representations import represent
from infomax.evaluation.results import append_result, read_results
from infomax.evaluation.rows import LinearRow
from infomax.evaluation.run import evaluate
from infomax.features import extraction as features
from infomax.features.extraction import extract_features
from infomax.models.encoders import build_encoder, load_encoder
from infomax.papers import published
from infomax.recipes.building import build_method
from infomax.reporting.comparison import report
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.training.pretrain import pretrain


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind: with prototypes, and without."""
    place = tmp_path_factory.mktemp("runs")
    small = ["method.hidden=16", "method.prototypes=12"]
    pretrain(data="digits", method="mira", out=place / "a", epochs=1, overrides=small, quiet=True)
    pretrain(data="digits", method="mveb", out=place / "b", epochs=1, overrides=["method.hidden=16"], quiet=True)
    return place


@pytest.fixture
def infomax(monkeypatch, capsys, trained):
    monkeypatch.chdir(trained)
    return lambda *words: run_command(monkeypatch, capsys, *words)


def last(folder, count=1):
    return Run(folder).read_rows("results.jsonl")[-count:]


def test_few_shot_and_cluster(infomax, trained):
    code, out, _ = infomax("evaluate", "few-shot", "a", "--labels", "1", "--draws", "3", "--no-baselines")
    assert code == 0
    assert "few-shot, labels a class 1: 10 labelled and 359 test images of digits in 10 classes; scores in %" in out
    assert [row["classifier"] for row in last(trained / "a", 2)] == ["knn", "linear"]
    code, out, _ = infomax("evaluate", "cluster", "a")
    assert code == 0
    rows = last(trained / "a", 4)
    assert [row["representation"] for row in rows][-1] == "its prototypes"
    assert rows[-1]["clusters"] == 12
    assert 0 <= rows[-1]["nmi"] <= 1
    assert infomax("evaluate", "cluster", "b", "--no-baselines")[0] == 0
    assert last(trained / "b")[0]["representation"] == "trained encoder"  # no prototypes


def test_cluster_of_images_without_labels_prints_and_keeps_lists(infomax, trained, monkeypatch):
    monkeypatch.setattr("infomax.runtime.stages.BEGIN_AFTER", 0.0)  # seconds
    np.save(trained / "unlabelled.npy", np.random.default_rng(0).integers(0, 255, (30, 8, 8), np.uint8))
    code, out, err = infomax("evaluate", "cluster", "a", "--data", "unlabelled.npy")
    assert code == 0
    assert "clusters: 30 unlabelled images of unlabelled.npy\n" in out
    assert re.search(r"^ +silhouette \(-1 to 1\)\n-+\ntrained encoder +-?0\.\d{3}$", out, re.M)
    assert "4 clusters of trained encoder, the largest first" in out
    assert re.search(r"^cluster: the images nearest to its centre +images +distance\n-+\n1: ", out, re.M)
    assert "an .npy file holds images alone" in err
    assert "listed in a/results.clusters.csv" in err
    lines = (trained / "a" / "results.clusters.csv").read_text().splitlines()
    assert len(lines) == 31
    (row,) = last(trained / "a")
    assert (row["protocol"], row["clusters"], row["test_images"]) == ("cluster-lists", 4, 30)
    code, out, err = infomax("evaluate", "cluster", "a", "--no-labels", "--clusters", "5")
    assert (code, "tests on" in err) == (0, False)
    assert "k-means: 10 starts with 5 clusters of 1,797 images ... " in err
    assert "clusters: 1797 unlabelled images of digits" in out
    code, _, err = infomax("evaluate", "cluster", "a", "--data", "unlabelled.npy", "--clusters", "31")
    assert (code, "--clusters must be at most the number of images, 30, but is 31" in err) == (2, True)
    assert "cluster-lists, unlabelled.npy: ours\n" in infomax("report", "a")[1]


def test_a_run_on_images_without_labels_ends_with_the_command_that_shows_them(infomax, trained):
    np.save(trained / "flat.npy", np.random.default_rng(0).integers(0, 255, (16, 8, 8), np.uint8))
    words = ("--data", "flat.npy", "--method", "mveb", "--epochs", "1", "--batch-size", "8", "--out", "flat")
    code, out, _ = infomax("pretrain", *words, "--set", "method.hidden=16")
    assert code == 0
    (command,) = re.findall(r"flat is done; infomax (.*) shows its groups of images", out)
    code, out, err = infomax(*command.split())
    assert code == 0, err
    assert "written to report.html" in out
    assert "Groups of images" in (trained / "report.html").read_text()


def test_the_clusters_of_a_method_are_its_own(trained):
    """The method assigns the images to them, with the weights that it was trained to."""
    source = open_source("digits")
    method = build_method(Run(trained / "a").recipe)
    method.load_state_dict(checkpoints.load(checkpoints.newest_readable(trained / "a" / "checkpoints"))["method"])
    method.eval()
    encoder = load_encoder(trained / "a")
    x = extract_features(encoder, source.test, np.arange(len(source.test)), encoder.preprocessing)
    with torch.no_grad():
        teacher = method.teacher.module
        found = method.prototypes(teacher[1](x)).argmax(1)
    expected = compare(found.numpy(), source.test.labels)
    row = prototype_row(trained / "a", source)
    assert {key: getattr(row, key) for key in expected} == expected


def test_a_checkpoint_file_needs_data_and_keeps_its_results_here(infomax, trained):
    weights = {f"module.backbone.{name}": value for name, value in resnet().items()}
    torch.save({"state_dict": weights}, trained / "weights.pth")
    code, _, err = infomax("evaluate", "knn", "weights.pth")
    assert (code, "--data is wanted" in err) == (2, True)
    np.savez(trained / "few.npz", images=np.zeros((12, 8, 8), np.uint8), labels=np.arange(12) % 2)
    code, out, _ = infomax("evaluate", "knn", "--encoder", "weights.pth", "--data", "few.npz", "--out", "mine.jsonl")
    assert code == 0
    assert "added to mine.jsonl" in out
    rows = [json.loads(line) for line in (trained / "mine.jsonl").read_text().splitlines()]
    assert [row["representation"] for row in rows] == ["weights.pth", "raw pixels"]
    del weights["module.backbone.layer3.1.conv2.weight"]
    torch.save({"state_dict": weights}, trained / "torn.pth")
    code, _, err = infomax("evaluate", "knn", "torn.pth", "--data", "digits")
    assert code == 2
    assert "layer3.1.conv2.weight" in err
    assert err.strip().splitlines()[-1].startswith("infomax: torn.pth below ")
    assert "Traceback" not in err


def resnet():
    return build_encoder("resnet18", stem="imagenet", seed=0).backbone.state_dict()


def test_transfer_to_what_is_there_of_the_eleven(infomax, trained, tmp_path, monkeypatch):
    """The encoder is opened once for all of them."""
    for name in ("dtd", "voc2007"):
        LAYOUTS[name](tmp_path)
    opened = []
    monkeypatch.setattr(transfer, "represent", lambda *words, **more: opened.append(1) or represent(*words, **more))
    code, out, _ = infomax("evaluate", "transfer", "b", "--data-dir", str(tmp_path))
    assert code == 0
    assert len(opened) == 1
    assert "left out: aircraft, caltech101, cars, cifar10" in out
    assert [(row["data"], row["metric"]) for row in last(trained / "b", 2)] == [("dtd", "top1"), ("voc2007", "map11")]
    code, _, err = infomax("evaluate", "transfer", "b", "--data-dir", str(tmp_path), "--data", "dtd,cars")
    assert code == 2
    assert "--data cars: found no" in err


@pytest.mark.parametrize("words", [{"subset": "x.txt"}, {"classes": "x.txt"}, {"data_dir": "x"}, {"download": True}])
def test_images_given_themselves_are_not_chosen_by_name(trained, words):
    with pytest.raises(ValueError, match=f"{next(iter(words))} cannot be given with data"):
        evaluate("knn", trained / "b", data=open_source("digits"), **words)


def test_finetune_by_a_setting_and_by_a_search(infomax, trained):
    (trained / "some.txt").write_text("".join(f"{i}\n" for i in range(60)))
    words = ("--setting", "mveb-1", "--subset", "some.txt", "--epochs", "1", "--batch-size", "20")
    code, out, _ = infomax("evaluate", "finetune", "b", *words)
    assert code == 0
    assert "fine-tuning, setting mveb-1: 60 labelled and 359 test images of digits in 10 classes" in out
    (row,) = last(trained / "b")
    assert (row["protocol"], row["epochs"], row["steps"], row["subset_file"]) == ("finetune", 1, 3, "some.txt")
    words = ("--setting", "transfer", "--data", "digits", "--steps", "2", "--budget", "2", "--batch-size", "8")
    code, out, _ = infomax("evaluate", "finetune", "b", *words)
    assert code == 0
    (row,) = last(trained / "b")
    assert (row["protocol"], len(row["tried"])) == ("transfer-finetune", 2)


@pytest.mark.process
def test_ranks_share_an_evaluation_and_one_of_them_tells(trained, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["evaluate", "linear", str(trained / "b"), "--probe", "corinfomax", "--epochs", "1", "--out", "ours.jsonl"]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [start_command(tmp_path, *words, RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(2)]
    told = [rank.communicate(timeout=PATIENCE) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    assert "linear classifier, probe corinfomax" in told[0][0]
    assert not told[1][0]
    (line,) = (tmp_path / "ours.jsonl").read_text().splitlines()
    assert json.loads(line)["test_images"] == 359


COMMON = {
    "representation": "trained encoder",
    "metric": "top1",
    "interval": (0.9, 0.94),
    "encoder": "0",
    "top5": 1.0,
    "classes": 10,
    "test_images": 100,
    "seconds": 1.0,
}


def copy_run(trained, folder, **changes):
    """Makes a run folder with the settings of a run, and no results."""
    folder.mkdir()
    config = json.loads((trained / "a" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def result(folder, row_class, **fields):
    run = Run(folder)
    origin = {"recipe": run.recipe_title, "trained_steps": run.recipe.steps(run.config["images"])}
    append_result(folder / "results.jsonl", row_class(**{**COMMON, **origin, **fields}))


def test_a_report_has_the_papers_tables_with_our_line(infomax, trained, tmp_path):
    folder = tmp_path / "mine"
    copy_run(trained, folder, data="cifar10")
    result(folder, LinearRow, data="cifar10", top1=0.9123)
    result(folder, LinearRow, data="cifar10", top1=0.9234)  # measured again: the last counts
    result(folder, KnnRow, data="digits", top1=0.5, k=20, temperature=0.07)
    code, out, _ = infomax("report", str(folder))
    assert code == 0
    table = out[out.index("CorInfoMax, Table 10") :]
    line = next(line for line in table.splitlines() if line.startswith("ours: mine"))
    words = "ours: mine, mira/digits, small, method.hidden=16, method.prototypes=12, epochs=1, logistic regression"
    assert re.split(r"  +", line) == [words, "92.3", "100.0"]
    place = table.splitlines()[2].index("CIFAR-10 Top-1") + len("CIFAR-10 Top-1")
    assert line[:place].endswith("92.3")
    assert "93.18" in table
    assert "90.0 to 94.0" in out  # the interval, in our own table

    assert "mine   91.2" not in out
    assert "MIRA, Table 3" not in out  # k-NN on ImageNet
    code, out, _ = infomax("report", str(folder), "--table", "mira-3")
    assert "MIRA, Table 3" in out
    assert "ours:" not in out[out.index("MIRA, Table 3") :]


def test_a_report_prefers_the_papers_own_way_and_names_others(trained, tmp_path):
    folder = tmp_path / "mine"
    copy_run(trained, folder, data="cifar10")
    result(folder, LinearRow, data="cifar10", top1=0.7, probe="corinfomax")
    result(folder, LinearRow, data="cifar10", top1=0.2)
    result(folder, KnnRow, data="imagenet", top1=0.6, k=20, temperature=0.07)
    result(folder, KnnRow, data="imagenet", top1=0.4, k=200, temperature=0.1)

    def ours(table):
        return [line for line in str(report(folder, table=table)).splitlines() if line.startswith("ours:")]

    (line,) = ours("corinfomax-10")
    assert line.split()[-2:] == ["70.0", "100.0"]
    assert "probe" not in line
    assert "logistic" not in line
    (line,) = ours("mveb-text-7.6")
    assert ", corinfomax " in line
    (line,) = ours("mira-3")
    assert "60.0" in line
    assert "40.0" not in line


def test_what_a_run_was_trained_on_is_what_it_is_judged_by(infomax, trained):
    """A run on some classes is not recorded as one on all."""
    (trained / "three.txt").write_text("1\n4\n8\n")
    small = ["method.hidden=16", "method.prototypes=12"]
    where = {"classes": str(trained / "three.txt")}
    pretrain(data="digits", **where, method="mira", out=trained / "c", epochs=1, overrides=small, quiet=True)
    code, out, _ = infomax("evaluate", "knn", "c", "--no-baselines")
    assert code == 0
    assert "in 3 classes" in out
    (row,) = last(trained / "c")
    assert (row["classes"], row["classes_file"]) == (3, str(trained / "three.txt"))


def test_a_worker_that_is_killed_is_one_line(infomax, trained, monkeypatch):
    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(features, "evaluation_batches", killed)
    code, _, err = infomax("evaluate", "knn", "a", "--no-cache")
    assert code == 1
    assert "lower --workers" in err
    assert "Traceback" not in err


def test_a_folder_of_something_else_is_no_run(infomax, trained):
    (trained / "other").mkdir(exist_ok=True)
    (trained / "other" / "config.json").write_text('{"model_type": "dinov2"}')
    for words in (("evaluate", "knn", "other"), ("report", "other")):
        code, _, err = infomax(*words)
        assert code == 2
        assert "other is not a run folder: its config.json is of something else" in err


def test_a_column_of_k_nn_takes_the_published_k_and_temperature_alone():
    column = published.table("mira-3").columns[0]
    row = KnnRow(
        **{**COMMON, "data": column.data, "subset_file": column.subset or None, "top1": 0.7}, k=20, temperature=0.07
    )
    assert row.fits(column)
    assert not replace(row, k=200).fits(column)
    assert not replace(row, temperature=0.1).fits(column)
    assert not replace(row, leave_one_out=True).fits(column)


def test_the_report_refuses_what_has_no_results(trained, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="none.jsonl has no results yet; infomax evaluate adds them"):
        report(tmp_path / "none.jsonl")


def test_the_report_of_several_runs_says_which_has_no_results(trained, tmp_path, capsys):
    capsys.readouterr()
    none, some = tmp_path / "none.jsonl", tmp_path / "some.jsonl"
    none.write_text("")
    append_result(some, LinearRow(**{**COMMON, "data": "here", "top1": 0.5}))
    assert "here" in str(report(none, some))
    assert capsys.readouterr().err == f"infomax: {none} has no results yet; infomax evaluate adds them\n"


def test_a_result_is_kept_before_the_next_is_computed(trained, tmp_path, monkeypatch):
    """An interruption in the second data set loses nothing of the first."""

    def interrupted(encoder, source, options, evaluation):
        yield LinearRow(**{**COMMON, "data": "first", "top1": 0.5})
        raise KeyboardInterrupt

    monkeypatch.setitem(PROTOCOLS, "linear", replace(PROTOCOLS["linear"], run=interrupted))
    with pytest.raises(KeyboardInterrupt):
        evaluate("linear", trained / "a", out=tmp_path / "kept.jsonl")
    (row,) = read_results(tmp_path / "kept.jsonl")
    assert row.data == "first"
    assert row.trained_steps == 11


def test_python_gives_the_rows_that_the_command_keeps(infomax, trained, tmp_path):
    """A name and options give equal rows; a run keeps its rows in results.jsonl; the hash tells evaluations apart."""
    assert infomax("evaluate", "knn", "a", "--k", "1", "5", "--no-baselines")[0] == 0
    kept = read_results(trained / "a" / "results.jsonl")[-2:]
    named = evaluate("knn", trained / "a", k=[1, 5], no_baselines=True)
    by_options = evaluate(KnnOptions(k=(1, 5)), trained / "a", no_baselines=True, out=tmp_path / "mine.jsonl")
    assert read_results(trained / "a" / "results.jsonl")[-2:] == named
    assert read_results(tmp_path / "mine.jsonl") == by_options
    assert [row.k for row in named] == [1, 5]
    for rows in (named, by_options):
        assert [replace(row, seconds=0, command=None) for row in kept] == [replace(row, seconds=0) for row in rows]
    assert kept[0].command == "infomax evaluate knn a --k 1 5 --no-baselines"
    (other,) = evaluate("knn", trained / "a", k=(1,), no_baselines=True, out=tmp_path / "mine.jsonl")
    assert other.evaluation != named[0].evaluation
    frame = pandas.DataFrame(named)
    assert list(frame["top1"]) == [row.top1 for row in named]


def test_python_keeps_rows_of_another_encoder_if_it_is_told_where(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {f"module.backbone.{name}": value for name, value in resnet().items()}}, "weights.pth")
    images = ArrayImages(np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 2, ["0", "1"])
    rows = evaluate("knn", "weights.pth", data=Source("blank", images), k=(1,))
    assert [row.representation for row in rows] == ["weights.pth", "raw pixels"]
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"protocol": "knnn"}, "the protocol must be one of knn, .*, but is 'knnn'; did you mean knn?"),
        ({"protocol": EvaluationOptions()}, "must be a name or one of KnnOptions, LinearOptions, .*, but is Eval"),
        ({"kk": 3}, "the option of knn must be one of k, temperature, leave_one_out, but is 'kk'; did you mean k"),
        ({"k": 20}, "k must be several values, as .20,., but is 20"),
        ({"k": (0,)}, "--k must be a whole number of at least 1"),
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda"),
        ({"out": "no/file"}, "--out no/file must be a file that can be written"),
    ],
)
def test_mistakes_in_python_are_one_line(trained, words, message):
    words = {"protocol": "knn", "encoder": trained / "a", **words}
    with pytest.raises(ValueError, match=message) as error:
        evaluate(words.pop("protocol"), words.pop("encoder"), **words)
    assert "\n" not in str(error.value)


def test_an_evaluation_says_and_keeps_where_its_test_images_come_from(infomax, trained):
    code, _, err = infomax("evaluate", "knn", "a", "--no-baselines")
    assert code == 0
    assert "digits: has labels of train: 1438 images in 10 classes: 0, 1, 2, 3, 4 and 5 more" in err
    assert "digits: tests on test: 359 images" in err
    assert last(trained / "a")[0]["tested_on"] == "test"
    assert infomax("evaluate", "knn", "a", "--no-baselines", "--leave-one-out")[0] == 0
    assert last(trained / "a")[0]["tested_on"] == "the images to classify by, each by the others"
    pixels = np.random.default_rng(0).integers(0, 255, (10, 8, 8)).astype(np.uint8)
    np.savez(trained / "held.npz", images=pixels, labels=np.arange(10) % 2)
    code, _, err = infomax("evaluate", "knn", "a", "--data", "held.npz", "--k", "1", "--no-baselines")
    assert code == 0
    split = (
        "tests on every fifth image of each class: 2 images; there is no labelled test split. Photos of another kind"
    )
    assert f"{split} may score lower" in err
    assert last(trained / "a")[0]["tested_on"] == "every fifth image of each class"
    np.savez(trained / "held.npz", images=pixels, labels=np.zeros(10, int))
    code, _, err = infomax("evaluate", "knn", "a", "--data", "held.npz")
    assert code == 2
    assert (
        "held.npz has no labels to evaluate by: the data has one class only, 0; --data names images with labels, as a "
        "folder with a sub-folder for each class; infomax evaluate cluster needs none" in err.strip().splitlines()[-1]
    )


def test_more_neighbours_than_labelled_images_are_refused_and_the_default_takes_all(tmp_path):
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (15, 8, 8, 3), np.uint8), np.arange(15) % 3
    np.savez(tmp_path / "few.npz", images=pixels, labels=labels)
    options = {"data": tmp_path / "few.npz", "no_cache": True, "no_baselines": True, "workers": 0}
    run = pretrain(data="digits", recipe="digits", epochs=1, batch_size=512, out=tmp_path / "a", workers=0)
    with pytest.raises(ValueError, match="k.*50.*: there are 12 labelled images to choose neighbours from"):
        evaluate("knn", run.path, k=[5, 50], **options)
    (row,) = evaluate("knn", run.path, **options)
    assert row.k == 12
