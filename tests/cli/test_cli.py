"""The command as a user types it: help, mistakes, and the whole way from images to a score."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import PATIENCE, run_command, start_command, wait_for
from infomax import cli
from infomax.evaluation.protocols import PROTOCOLS
from infomax.experiments.demo import choose_folder, demo, is_begun
from infomax.recipes.registry import METHODS, baselines, methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime.locks import FolderLock
from infomax.runtime.options import option_fields
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.training import loop

ANY = "timm:resnet18"
DIGITS = ("pretrain", "--data", "digits", "--method", "mira")


@pytest.fixture
def infomax(monkeypatch, capsys):
    return lambda *words: run_command(monkeypatch, capsys, *words)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("evaluate",),
        ("classify",),
    ]
    + [tuple(name.split()) for name in cli.COMMANDS]
    + [("evaluate", name) for name in PROTOCOLS],
)
def test_help_is_there_for_every_command(infomax, words):
    code, out, _ = infomax(*words, "--help")
    assert code == 0
    assert "usage: infomax" in out


def test_help_explains_every_option(infomax):
    for command in cli.COMMANDS.values():
        _, out, _ = infomax(*command.name.split(), "--help")
        for field in option_fields(command.options):
            assert field.shown.positional or f"{field.word} " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pretrain",), "--out"),
        (("pretrian", "--out", "x"), "pretrain"),
        (("pretrain", "--out", "x", "--epoch", "3"), "--epochs"),
        (("pretrain", "--out", "x", "--epochs", "three"), "three"),
        (("pretrain", "--out", "x", "--method", "mirra"), "did you mean mira"),
        (("recipes", "mirra"), "did you mean mira?"),
        (("pretrain", "--out", "x", "--data", "nowhere"), "no such folder or file"),
        (("pretrain", "--out", "x", "--data", "nowhere", "--epochs", "0"), "--epochs must be at least 1, but is 0"),
        (("pretrain", "--out", "x", "--data", "nowhere", "--backbone", "resnet19"), "did you mean resnet18?"),
        ((*DIGITS, "--out", "x", "--batch-size", "9999"), "more than the 1438 images"),
        ((*DIGITS, "--out", "x", "--precision", "8"), "--precision must be one of 64, 32, bf16, 16"),
        (
            (*DIGITS, "--out", "x", "--micro-batch-size", "100"),
            "batch_size must be a multiple of micro_batch_size, 100",
        ),
        ((*DIGITS, "--out", "x", "--devices", "0"), "--devices must be a whole number of at least 1"),
        (
            (*DIGITS, "--out", "x", "--devices", "3", "--micro-batch-size", "128"),
            "--micro-batch-size 128 times 3 devices",
        ),
        ((*DIGITS, "--out", "x", "--workers", "-1"), "--workers must be a whole number of at least 0"),
        ((*DIGITS, "--out", "x", "--skip-unreadable", "1.5"), "--skip-unreadable must be a number in [0, 1]"),
        (
            ("pretrain", "--out", "x", "--accumulate-grad-batches", "4"),
            "--micro-batch-size N takes --batch-size images",
        ),
        (("pretrain", "--method", "mira", "--out", "x"), "--data is missing: a folder of images, or several"),
        (("pretrain", "--recipe", "small", "--out", "x"), "--data digits is the embedded one"),
        (("views",), "--data is missing"),
        (("views", "--method", "carl"), "--data is missing"),
        (("plan",), "--data is missing"),
        (("sweep", "carl/small", "--out", "x"), "--data is missing for carl/small: "),
        (("replay", "x"), "x is not a folder that a failed step was kept in: no such folder or file"),
        (
            ("replay", "."),
            "a failed step was kept in: it has no report.json; a run that met NaN",
        ),
        ((*DIGITS, "--out", "x", "--set", "method.prototypes=0"), "prototypes must be a whole number"),
        ((*DIGITS, "--out", "x", "--set", "method.hidden=-3"), "hidden must be a whole number"),
        ((*DIGITS, "--out", "x", "--set", "method.momentum=2"), "momentum must be a number in [0, 1]"),
        ((*DIGITS, "--out", "x", "--set", "method.bta=1"), "did you mean beta"),
        ((*DIGITS, "--out", "x", "--method", "carl", "--views", "dino:1+2"), "at least 2 global crops"),
        (("pretrain", "--out", "x", "--data", "cifar10", "--data-dir", "."), "--download fetches it"),
        (("pretrain", "--out", "x", "--data", "wds:none.tar"), "no such shard"),
        ((*DIGITS, "--out", "x", "--subset", "none.txt"), "--subset none.txt: cannot be read"),
        (("views", "--data", "none"), "--data none: no such folder or file"),
        (("views", "--data", "digits", "--views", "dyno"), "did you mean dino"),
        ((*DIGITS, "--out", "x", "--set", "method.beta=1.0"), "beta must be a number in"),
        ((*DIGITS, "--out", "x", "--device", "tpu"), "--device must be one of auto, cpu, cuda"),
        (("pretrain", "--out", "x", "--resume"), "x is not a run folder: no such folder or file"),
        (
            ("evaluate", "knn", "nowhere", "--data", "digits"),
            "nowhere is no encoder: no such folder or file",
        ),
        (("evaluate", "knn", "nowhere"), "nowhere is no encoder: no such folder or file"),
        (("evaluate", "knn"), "one encoder is wanted: a run folder, timm:NAME"),
        (("evaluate", "knn", "a", "--encoder", "b"), "one encoder is wanted"),
        (("evaluate", "knnn", "x"), "knn"),
        (("evaluate", "knn", "timm:resnet51", "--data", "digits"), "resnet51"),
        (
            ("evaluate", "knn", ANY, "--data", "digits", "--k", "0"),
            "--k must be a whole number of at least 1",
        ),
        (
            ("evaluate", "knn", ANY, "--data", "digits", "--out", "no/file"),
            "--out no/file must be a file that",
        ),
        (
            ("evaluate", "linear", ANY, "--data", "digits", "--epochs", "3"),
            "--epochs is for a trained classifier",
        ),
        (("evaluate", "linear", ANY, "--data", "digits", "--probe", "mirra"), "did you mean mira"),
        (("evaluate", "finetune", ANY, "--data", "digits", "--setting", "mira1"), "did you mean mira-1"),
        (
            ("evaluate", "finetune", ANY, "--data", "digits", "--budget", "3"),
            "--budget 3 is for --setting transfer",
        ),
        (("evaluate", "transfer", ANY, "--data-dir", "."), "none of the 11 data sets is there"),
        (("evaluate", "transfer", ANY, "--data", "dtd,cifar10", "--data-dir", "."), "found no dtd"),
        (("recipes", "mira/cifar1"), "did you mean cifar10"),
        (("recipes", "mirra"), "there is no recipe 'mirra'; infomax recipes lists them"),
        (("pretrain", "--recipe", "mira", "--out", "x"), "there is no recipe 'mira'; infomax recipes mira lists them"),
        (("recipes", "--paper", "mae"), "--paper must be one of mira, corinfomax, carl, mveb"),
        (("recipes", "--paper", "simclr"), "simclr is a baseline: infomax recipes simclr lists its recipes"),
        (("recipes", "--method", "simclrr"), "--method must be one of mira, corinfomax, carl, mveb, "),
        (("recipes", "--data", "stl"), "did you mean stl10"),
        (("recipes", "--paper", "mira", "--data", "stl10"), "no recipe is all of that"),
        (("recipes", "--hours", "0"), "--hours must be a number in (0, inf)"),
        (("recipes", "--hours", "9", "--gpu", "A1000"), "did you mean A100"),
        (("recipes", "--set", "epochs=3"), "--set is for one recipe"),
        (("recipes", "mira/cifar10", "--set", "epoch=3"), "did you mean epochs"),
        (("sweep", "--out", "x"), "a sweep is of a published table, as mira-14, or of recipes"),
        (("sweep", "mira/digits", "--out", "x", "--vary", "batch_size=1"), "batch_size must be at least 2"),
        (("pretrain", "--out", "x", "--recipe", "mira/cifar10", "--method", "carl"), "is not of --method carl"),
        (("pretrain", "--out", "x", "--recipe", "mira/cifar10", "--data-dir", "."), "--data cifar10: found no"),
        (("report",), "a run folder or a file of results is wanted"),
        (("report", "x"), "x: no such folder or file"),
        (("report", "x", "--table", "mira-77"), "did you mean mira-7"),
    ],
)
def test_mistakes_exit_with_2_name_what_is_wrong_and_write_nothing(infomax, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = infomax(*words)
    assert code == 2
    assert message in re.sub(r"\s*│\n│\s*", " ", err)
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed_and_printed_in_full(infomax):
    code, out, _ = infomax("recipes")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("mira/imagenet_100_prototypes_300 "))
    words = ["imagenet", "resnet50", "100", "4096", "8.32", "110", "to", "320", "67.7", "MIRA", "Table", "14"]
    assert line.split()[1:] == words
    fast = [line.split()[0] for line in infomax("recipes", "--hours", "40", "--gpu", "H100")[1].splitlines()[2:-5]]
    assert {"mira/imagenet100", "mveb/cifar10", "carl/cifar10"} <= set(fast)
    assert not {"mira/imagenet_100", "corinfomax/imagenet", "mira/small"} & set(fast)
    _, out, _ = infomax("recipes", "--paper", "CARL", "--data", "stl10")
    assert [line.split()[0] for line in out.splitlines()[2:-5]] == [
        "carl/stl10",
        "carl/stl10_constant_1",
        "carl/stl10_constant_2",
    ]
    _, out, _ = infomax("recipes", "cifar10")
    of_this_name = [method for method, spec in METHODS.items() if "cifar10" in spec.recipes]
    assert len(out.splitlines()) == len(of_this_name) + 8  # a line is above the baselines
    names = [line.split()[0] for line in out.splitlines()[2:-5]]
    split = names.index("baselines:")
    assert [name.partition("/")[0] for name in names[:split]] == methods_with_papers()
    assert {name.partition("/")[0] for name in names[split + 1 :]} <= {*baselines()}
    for words in (("simclr",), ("--method", "simclr"), ("SimCLR",)):
        names = [line.split()[0] for line in infomax("recipes", *words)[1].splitlines()[2:-5]]
        assert names == [f"simclr/{name}" for name in METHODS["simclr"].recipes]
    for words in (("baselines",), ("--method", "baselines")):
        names = [line.split()[0] for line in infomax("recipes", *words)[1].splitlines()[2:-5]]
        assert {name.partition("/")[0] for name in names} == {*baselines()}
    _, out, _ = infomax("recipes", "mira/cifar10", "--set", "method.prototypes=500")
    assert re.search(r"method\.prototypes +500   \(changed from 3000\)", out)
    assert "MIRA, Table 7: CIFAR-10 Top-1 93.02" in out
    assert "infomax pretrain --recipe mira/cifar10 --data cifar10 --set method.prototypes=500 --out" in out
    assert out.count("changed from") == 1


def test_from_images_to_scores(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--epochs", "1", "--image-size", "8", "--set", "method.hidden=16", "--set", "method.prototypes=10")
    code, out, err = infomax(*DIGITS, "--out", "runs/a", *small)
    assert code == 0
    assert "mira, recipe digits: small encoder at 8 pixels, 1438 images, 1 epoch (" in err
    assert "so few steps train almost nothing; the recipe itself has 880" in err
    assert "infomax evaluate knn runs/a" in out
    for protocol in ("knn", "linear"):
        code, out, _ = infomax("evaluate", protocol, "runs/a")
        assert code == 0
        for name in ("trained encoder", "untrained encoder", "raw pixels"):
            assert re.search(rf"^{name} +\d+\.\d +\d+\.\d to \d+\.\d +\d+\.\d(  .+)?$", out, re.M)
    rows = Run(tmp_path / "runs/a").read_rows("results.jsonl")
    assert [row["protocol"] for row in rows] == ["knn"] * 3 + ["linear"] * 3
    np.savez("others.npz", images=np.zeros((40, 8, 8, 3), np.uint8), labels=np.arange(40) % 2)
    out = infomax("evaluate", "knn", "runs/a", "--data", "others.npz")[1]
    longer = "infomax pretrain --out runs/a --resume --epochs N trains it longer, with N above 1"
    another = "it was trained on digits, and infomax pretrain --data others.npz trains one on these"
    assert f"no better than the untrained encoder and the raw pixels after 11 steps; {longer}; {another}\n" in out
    code, _, err = infomax(*DIGITS, "--out", "runs/a", *small)
    assert code == 2
    assert "--overwrite" in err
    assert infomax("pretrain", "--out", "runs/a", "--resume")[0] == 0


def test_some_of_a_runs_own_images_can_be_judged_by(infomax, tmp_path, monkeypatch):
    """Without --data, --subset and --classes choose among those that the run was trained on."""
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", "1", "--set", "method.hidden=16", "--set", "method.prototypes=10")
    assert infomax(*DIGITS, "--out", "run", *options)[0] == 0
    (tmp_path / "some.txt").write_text("".join(f"{i}\n" for i in range(100)))
    (tmp_path / "few.txt").write_text("3\n7\n")
    code, out, _ = infomax("evaluate", "knn", "run", "--subset", "some.txt", "--classes", "few.txt", "--k", "3")
    assert code == 0
    row = json.loads((tmp_path / "run" / "results.jsonl").read_text().splitlines()[0])
    assert (row["classes"], row["subset_file"], row["classes_file"]) == (2, "some.txt", "few.txt")
    assert 10 < row["labelled_images"] < 30
    assert f"{row['labelled_images']} labelled" in out
    assert "of digits in 2 classes, those of few.txt, those of some.txt" in out
    assert infomax("evaluate", "knn", "run", "--subset", "none.txt")[0] == 2


def test_views_are_drawn_to_a_file(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = infomax(
        "views", "--data", "digits", "--views", "dino:2+1", "--image-size", "16", "--out", "new/views.png"
    )
    assert code == 0
    assert out.endswith("new/views.png shows images of digits and their views\n")
    assert (tmp_path / "new" / "views.png").read_bytes().startswith(b"\x89PNG")
    refused = {".": "must be a file to write", "new/views.png/x.png": "must be a file to write", "x.jpg": "end in .png"}
    for out, message in refused.items():
        code, _, err = infomax("views", "--data", "digits", "--out", out)
        assert code == 2
        assert message in err


def test_a_damaged_file_met_by_a_worker_is_one_line(infomax, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for i in range(9):
        Image.new("RGB", (16, 16), (i, 2 * i, 3 * i)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "4.png").write_bytes(b"torn")  # not among the four that the picture of the views shows
    code, _, err = infomax(
        "pretrain", "--data", "images", "--out", "run", "--batch-size", "9", "--epochs", "1", "--workers", "1",
        "--method", "carl",
    )  # fmt: skip
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert re.match(
        r"infomax: 1 of 9 images cannot be read so far, and --skip-unreadable, by default 0\.01, or 3 images if", last
    )
    assert "infomax pretrain --out run --resume --skip-unreadable 0.23 goes on without them" in last
    assert "images/4.png cannot be read as an image" in last


def test_epochs_that_follow_from_the_number_of_images_are_printed_so(infomax):
    assert re.search(r"^  epochs +600,000/n, of n images$", infomax("recipes", "mira/small")[1], re.MULTILINE)
    assert re.search(r"^  epochs +9   ", infomax("recipes", "mira/small", "--set", "epochs=9")[1], re.MULTILINE)
    assert re.search(r"^  epochs +[0-9]+$", infomax("recipes", "mira/cifar10")[1], re.MULTILINE)


def test_ctrl_c_before_there_is_a_run_folder_promises_none(infomax, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("infomax.training.prepare.picture_of_views", interrupted)
    code, _, err = infomax(*DIGITS, "--out", str(tmp_path / "run"))
    assert code == 130
    assert err.endswith("infomax: interrupted; nothing was trained yet, and the same command begins again\n")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_a_run_is_replaced_does_not_advise_to_resume_the_old_one(infomax, tmp_path, monkeypatch):
    assert infomax(*DIGITS, "--out", str(tmp_path / "run"), "--epochs", "1", "--image-size", "8")[0] == 0
    config = (tmp_path / "run" / "config.json").read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("infomax.training.prepare.picture_of_views", interrupted)
    code, _, err = infomax(*DIGITS, "--out", str(tmp_path / "run"), "--overwrite")
    assert (code, (tmp_path / "run" / "config.json").read_bytes()) == (130, config)
    assert err.endswith("infomax: interrupted; nothing was trained yet, and the same command begins again\n")


def test_ctrl_c_before_the_first_step_counts_at_once_and_resume_begins(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_kernels, prepared = loop.load_kernels, []

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)
        prepared.append(load_kernels(*args, **options))

    with monkeypatch.context() as patched:
        patched.setattr(loop, "load_kernels", interrupted)
        code, _, err = infomax(*DIGITS, "--out", "a run", "--epochs", "1", "--image-size", "8")
    assert (code, prepared) == (130, [])
    begins = "infomax pretrain --out 'a run' --resume begins"
    assert err.splitlines()[-1] == f"infomax: interrupted; nothing was trained yet, and {begins}"
    code, _, err = infomax("pretrain", "--out", "a run", "--resume")
    assert code == 0, err
    assert Run(Path("a run")).finished


def test_a_folder_of_runs_is_told_from_a_run(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "dcba":
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    code, _, err = infomax("report", "runs")
    held = "it holds runs/a, runs/b, runs/c, ..."
    assert (code, err) == (2, f"infomax: runs is not a run folder: it has no config.json; {held}\n")


def test_views_replaces_its_own_picture_and_says_so_but_no_other_file(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("views", "--data", "digits", "--image-size", "8")
    for replaced in (0, 1):
        code, out, _ = infomax(*words)
        assert (code, out.count("(it has replaced the picture that was there)")) == (0, replaced)
    Image.new("RGB", (8, 8)).save("cat.png")
    Path("notes.png").write_bytes(b"mine")
    for name in ("cat.png", "notes.png"):
        before = Path(name).read_bytes()
        code, _, err = infomax(*words, "--out", name)
        assert (code, err) == (2, f"infomax: --out {name} exists and is no picture of views; name another file\n")
        assert Path(name).read_bytes() == before


@pytest.mark.process
def test_ctrl_c_says_how_to_go_on_and_exits_with_130(tmp_path):
    words = (
        *DIGITS,
        "--out",
        "run",
        "--epochs",
        "500",
        "--set",
        "method.hidden=16",
        "--set",
        "method.prototypes=10",
    )
    process = start_command(tmp_path, *words)
    metrics = tmp_path / "run/metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    goes_on = "infomax pretrain --out run --resume goes on from there"
    assert re.fullmatch(rf"infomax: interrupted at step \d+ of \d+; {goes_on}", err.strip().splitlines()[-1])
    assert err.count("goes on") == 1
    assert "Traceback" not in err


@pytest.mark.process
def test_demo_at_toy_size(tmp_path):
    rows = list(demo(tmp_path / "demo", epochs=1, quiet=True))
    assert [row["name"] for row in rows] == ["raw pixels", "untrained encoder", "mira", "corinfomax", "carl", "mveb"]
    scores = [f"{protocol}_{count}" for count in ("1", "5", "all") for protocol in ("knn", "linear")]
    assert all(0 <= row[score] <= 1 for row in rows for score in scores)
    assert all(row["knn_1"] < row["knn_5"] < row["knn_all"] for row in rows)
    for row in rows[2:]:
        assert row["seconds"] > 0
        assert Run(tmp_path / "demo" / row["name"]).read_rows("demo.jsonl")[-1]["knn_1"] == row["knn_1"]


def interrupt_after(monkeypatch, number):
    """Sends Ctrl-C to the training within its step of this number, once."""
    step_done, sent = ResumableLoop.step_done, []

    def interrupted_step_done(loop):
        if loop.done + 1 == number and not sent:
            sent.append(number)
            os.kill(os.getpid(), signal.SIGINT)
        step_done(loop)

    monkeypatch.setattr(ResumableLoop, "step_done", interrupted_step_done)


@pytest.mark.process
def test_an_interrupted_demo_goes_on_and_ends_with_the_same_numbers(tmp_path, monkeypatch, capsys):
    out = tmp_path / "demo"
    straight = list(demo(tmp_path / "straight", epochs=2, quiet=True))
    rows = demo(out, epochs=2, quiet=True)
    assert [next(rows)["name"] for _ in range(3)] == ["raw pixels", "untrained encoder", "mira"]
    interrupt_after(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        next(rows)
    assert f"stopped at step 7 of 22; infomax demo --out {out} goes on from there" in capsys.readouterr().err
    assert is_begun(out)
    mira = (out / "mira" / "metrics.jsonl").read_bytes()
    resumed = list(demo(out, epochs=2, quiet=True))
    assert (out / "mira" / "metrics.jsonl").read_bytes() == mira
    assert without(resumed, "seconds", "run") == without(straight, "seconds", "run")
    assert list(demo(out, epochs=2, quiet=True)) == resumed  # nothing is left to do
    with pytest.raises(ValueError, match="has a demo that was trained otherwise: epochs: 2 there, 1 asked for"):
        next(demo(out, epochs=1))


def without(rows, *keys):
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def test_a_demo_that_is_interrupted_says_how_to_go_on(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    interrupt_after(monkeypatch, 2)
    code, _, err = infomax("demo", "--out", "d")
    assert code == 130
    assert err.splitlines()[-1] == "infomax: interrupted at step 2 of 880; infomax demo --out d goes on from there"
    assert "--resume" not in err
    interrupt_after(monkeypatch, 3)
    code, _, err = infomax("demo", "--out", "d")
    assert "infomax: the demo in d goes on; methods that are done are not trained again" in err
    assert "infomax: mira, method 1 of 4; the time left is that of this method" in err
    assert "going on from step 2 of" in err
    assert err.splitlines()[-1] == "infomax: interrupted at step 3 of 880; infomax demo --out d goes on from there"
    assert choose_folder(Path("d")) == Path("d")
    with FolderLock(Path("d")):
        assert choose_folder(Path("d")) == Path("d-2")


def test_demo_does_not_touch_a_folder_of_something_else(infomax, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        code, _, err = infomax("demo", "--out", str(out))
        assert code == 2
        assert "choose another" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_every_setting_of_a_repeated_option_counts(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--set", "method.beta=0.5", "--set", "method.bta=1")
    assert "did you mean beta" in infomax(*DIGITS, "--out", "x", *words)[2]
    words = ("--set", "method.bta=1", "--set", "method.beta=0.5")
    assert "did you mean beta" in infomax(*DIGITS, "--out", "x", *words)[2]


def test_demo_takes_the_first_free_folder(tmp_path):
    assert choose_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert choose_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_help_lists_the_commands_in_the_order_of_a_newcomer(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["infomax", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    after = "report,choose,figure,embed,search,duplicates,clusters,classify,export,replay,options,doctor"
    assert f"{{demo,pretrain,watch,recipes,sweep,compare,plan,views,evaluate,{after}}}" in capsys.readouterr().out


@pytest.mark.process
@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["--version"]])
def test_help_that_nobody_reads_to_its_end_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "infomax", *words]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert not done.stderr, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["ValueError", "infomax.data.pixel_format.OtherKindError"])
def test_the_error_of_a_worker_is_its_last_line_without_the_name_of_the_error(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli._fail(f"Caught {name} in DataLoader worker process 0.\nTraceback:\n{name}: a.tif: 3 channels", code=2)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "infomax: a.tif: 3 channels\n"
