"""Each figure is made of runs, its CSV has the columns that it promises, and an interruption loses no part."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

import infomax
from infomax.analysis import convergence
from infomax.analysis.convergence import mira_convergence
from infomax.figures import make
from infomax.figures.about import about_figure, list_figures
from infomax.figures.catalogue import FIGURES
from infomax.figures.figure import Part, parse_settings
from made_runs import made_run

MADE_OF = {
    "mira-convergence": (["mira", "swav"], ("batches=2", "batch_size=64", "iterations=5", "truth=20")),
    "spectrum": (["corinfomax", "simclr"], ()),
    "mveb-beta": (["beta"], ()),
}
"""The runs and settings that each figure is made of here."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for method in ("mira", "swav", "corinfomax", "simclr"):
        made_run(folder / method, method)
    for beta, top1 in (("0.001", 0.3), ("0.01", 0.9), ("0.1", 0.8)):
        for seed in (0, 1):
            weight = f"method.entropy_weight={beta}"
            made_run(
                folder / "beta" / f"{beta}-{seed}",
                "mveb",
                weight,
                seed=seed,
                top1=top1 + seed / 100,
                ill=beta == "0.001",
            )
    return folder


def make_one(name, runs, out, **options):
    made_of, settings = MADE_OF[name]
    options = {"overrides": settings, "device": "cpu", "workers": 0, **options}
    return infomax.figure(name, [runs / folder for folder in made_of], out=out, **options)


def read_csv(file: Path) -> tuple[str, list[dict[str, str]]]:
    head, *lines = file.read_text().splitlines()
    return head, list(csv.DictReader(lines))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_picture_and_a_csv_with_its_columns(name, runs, tmp_path):
    made = make_one(name, runs, tmp_path / "a.png")
    with Image.open(made.picture) as picture:
        assert picture.size == tuple(int(make.DPI * side) for side in FIGURES[name].size)
    head, rows = read_csv(made.data)
    assert re.match(rf"# figure: {name}; of: .*; seeds: [\d ]+; n: .*\d.*; commit: \S+; settings: ", head)
    assert list(rows[0]) == list(FIGURES[name].columns)
    assert len(rows) == len(made.rows) > 2
    for column in FIGURES[name].columns:
        assert {row[column] for row in rows} != {""}, f"no row has a {column}"


def test_the_convergence_is_that_of_cosines_of_the_runs_own_views(runs, tmp_path, monkeypatch):
    seen = []

    def note_logits(logits, **settings):
        seen.append(logits)
        return mira_convergence(logits, **settings)

    monkeypatch.setattr(convergence, "mira_convergence", note_logits)
    made = make_one("mira-convergence", runs, tmp_path / "a.svg")
    assert [logits.shape for logits in seen] == [(64, 100)] * 4
    assert all(0.1 < logits.abs().max() <= 1 for logits in seen)  # cosines with prototypes
    assert len({float(logits.sum()) for logits in seen}) == 4  # of other networks and other images each
    assert list(dict.fromkeys((row["model"], row["method"], row["batch"]) for row in made.rows)) == [
        (model, method, batch)
        for model in ("mira", "swav")
        for batch in (0, 1)
        for method in ("MIRA", "Sinkhorn-Knopp")
    ]
    expected = mira_convergence(seen[0], iterations=5, truth=20).tolist()
    assert [row["sse"] for row in made.rows[:5]] == pytest.approx(expected)


def test_the_spectrum_is_that_of_r1_and_its_shares_reach_1(runs, tmp_path):
    made = make_one("spectrum", runs, tmp_path / "a.png")
    own = [row["eigenvalue"] for row in made.rows if row["of"] == "R1 of the training"]
    assert own == pytest.approx([1.0] * 64)  # of a module that no step has changed
    for run in ("corinfomax", "simclr"):
        of_test = [row for row in made.rows if row["run"] == run and row["of"].startswith("test images")]
        assert of_test[-1]["cumulative"] == pytest.approx(1)
        assert of_test[0]["images"] == 359
        assert np.all(np.diff([row["eigenvalue"] for row in of_test]) <= 0)


def test_points_of_a_sweep_are_its_results_and_collapsed_ones_are_marked(runs, tmp_path):
    made = make_one("mveb-beta", runs, tmp_path / "a.png")
    assert [(row["value"], row["seed"]) for row in made.rows] == [(b, s) for b in (0.001, 0.01, 0.1) for s in (0, 1)]
    assert mean(row["accuracy"] for row in made.rows if row["value"] == 0.01) == pytest.approx(90.5)
    assert [row["collapse"] for row in made.rows] == ["total collapse"] * 2 + [None] * 4
    assert made.rows[0]["cosine"] == 0.999
    assert {row["curve"] for row in made.rows} == {"mveb"}


def test_runs_that_differ_in_more_than_the_setting_are_other_curves(runs, tmp_path, capsys):
    made_run(tmp_path / "longer", "mveb", "method.entropy_weight=0.01", "method.dimension=32", top1=0.5)
    made_run(tmp_path / "without", "mveb", "method.entropy_weight=0.1")
    made = infomax.figure("mveb-beta", [runs / "beta", tmp_path], out=tmp_path / "a.png")
    assert {row["curve"] for row in made.rows} == {"mveb, dimension=64", "mveb, dimension=32"}
    assert len(made.rows) == 7
    assert "without is left out: it has no result of evaluate linear as the others have" in capsys.readouterr().err


def test_what_an_interrupted_figure_computed_is_not_computed_again(runs, tmp_path, monkeypatch):
    figure, computed = FIGURES["mira-convergence"], []

    def parts(request):
        def compute(part):
            if len(computed) == 2:
                computed.append("interrupted")
                raise KeyboardInterrupt
            computed.append(part.name)
            return part.compute()

        return [Part(part.name, lambda part=part: compute(part)) for part in figure.parts(request)]

    monkeypatch.setitem(FIGURES, "mira-convergence", replace(figure, parts=parts))
    with pytest.raises(KeyboardInterrupt, match="2 of 4 parts are kept, and the same command goes on"):
        make_one("mira-convergence", runs, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    made = make_one("mira-convergence", runs, tmp_path / "a.png")
    assert computed == ["mira, batch 1", "mira, batch 2", "interrupted", "swav, batch 1", "swav, batch 2"]
    assert make_one("mira-convergence", runs, tmp_path / "b.png").rows == made.rows
    assert len(computed) == 9  # what was finished is computed anew


@pytest.mark.parametrize(
    ("name", "folders", "options", "message"),
    [
        ("spectrm", [], {}, "the figure must be one of .*did you mean spectrum"),
        ("spectrum", [], {}, "needs a run of CorInfoMax, .*infomax pretrain --recipe corinfomax/digits --data digits"),
        ("spectrum", ["nowhere"], {}, "nowhere is not a run folder"),
        ("mira-convergence", ["simclr"], {}, "the method of .*simclr, for mira-convergence, must be one of mira, swav"),
        (
            "mira-convergence",
            ["mira"],
            {"overrides": ["batch=1"]},
            r"overrides=\['batch=1'\]: the settings of mira-convergence are b",
        ),
        ("mira-convergence", ["mira"], {"overrides": ["beta=1"]}, r"overrides=\['beta'\] must be a number in"),
        (
            "mira-convergence",
            ["mira"],
            {"overrides": ["batches=x"]},
            r"overrides=\['batches'\] must be a whole number, but is 'x'",
        ),
        ("mira-convergence", ["mira"], {"overrides": ["batch_size=2000"]}, "mira has 1438 images to train on"),
        ("mveb-beta", ["mira"], {}, "mira has no setting method.entropy_weight, along which mveb-beta is drawn"),
        ("mveb-beta", ["beta/0.1-0"], {}, "but all runs have method.entropy_weight=0.1"),
        ("spectrum", ["simclr"], {"out": "a.gif"}, "spectrum does not move"),
        ("spectrum", ["simclr"], {"out": "a.pdf"}, "the suffix of out= must be one of .png, .svg"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(name, folders, options, message, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        infomax.figure(name, [runs / folder for folder in folders], **{"device": "cpu", **options})
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unasked(runs, tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"a.csv, which would be written beside it, exists"):
        make_one("mveb-beta", runs, tmp_path / "a.png")
    assert (tmp_path / "a.csv").read_text() == "mine"
    make_one("mveb-beta", runs, tmp_path / "a.png", overwrite=True)
    with pytest.raises(ValueError, match="exists; name another file, or give overwrite"):
        make_one("mveb-beta", runs, tmp_path / "a.png")


def test_all_figures_say_what_they_take_and_what_makes_it():
    listed = list_figures()
    for name, figure in FIGURES.items():
        assert name in listed
        about = about_figure(name)
        assert figure.text in about
        assert all(command in about for command in figure.needs.commands)
        assert bool(figure.needs.runs) == bool(figure.needs.commands)
        parse_settings(figure, [])
