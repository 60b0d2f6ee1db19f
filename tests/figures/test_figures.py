"""Each figure is made of runs, its CSV has the columns that it promises, and an interruption loses no part."""

import csv
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from PIL import Image

import infomax
from infomax.analysis import convergence
from infomax.analysis.convergence import mira_convergence
from infomax.figures import make
from infomax.figures.about import about_figure, list_figures
from infomax.figures.catalogue import FIGURES
from infomax.figures.catalogue.forces import expansion
from infomax.figures.figure import Part, parse_settings
from infomax.functional import log_det
from infomax.methods.corinfomax import recursive_statistics
from infomax.planning import measured_step
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from made_runs import made_run
from watched_runs import add_rows, health_row

MADE_OF = {
    "mira-convergence": (["mira", "swav"], ("batches=2", "batch_size=64", "iterations=5", "truth=20")),
    "mira-sweeps": (["prototypes"], ()),
    "spectrum": (["corinfomax", "simclr"], ()),
    "ldmi": (["corinfomax"], ()),
    "tsne": (["simclr"], ("images=40", "perplexity=5", "iterations=250")),
    "forces": ([], ("images=20", "frames=4")),
    "logdet-cost": ([], ("recipe=corinfomax/digits", "dimensions=4,8", "batches=16", "steps=2", "warm_up=0")),
    "carl-schedule": (["schedule"], ()),
    "carl-prototypes": (["clusters"], ()),
    "mveb-beta": (["beta"], ()),
    "mveb-batch": (["batch"], ()),
    "plane": (["corinfomax", "simclr", "mira"], ("batch_size=64",)),
    "step-cost": ([], ("recipe=digits", "batch_size=8", "hidden=8", "dimension=4", "steps=2", "warm_up=0")),
}
"""The runs and settings that each figure is made of here."""
STAYS_EMPTY = {"mira-sweeps": ("collapse",), "mveb-batch": ("collapse",)}
"""Columns that are empty, as no run of these has collapsed."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for method in ("mira", "swav", "corinfomax", "simclr"):
        made_run(folder / method, method)
    add_rows(folder / "corinfomax", [{**health_row(219), "ldmi": 30.0}, {**health_row(219), "ldmi": 34.0}])
    for seed in (0, 1):
        for beta, top1 in (("0.001", 0.3), ("0.01", 0.9), ("0.1", 0.8)):
            made_point(folder / "beta", "mveb", f"method.entropy_weight={beta}", seed, top1, ill=beta == "0.001")
        for size in (16, 128):
            made_point(folder / "batch", "mveb", f"batch_size={size}", seed, 0.8 + size / 1000)
        for clusters in (10, 100):
            made_point(folder / "clusters", "carl", f"method.prototypes={clusters}", seed, 0.9, ill=clusters == 10)
            made_point(folder / "prototypes", "mira", f"method.prototypes={clusters}", seed, 0.9, knn=0.7)
        for start in (1.5, 4.0):
            made_point(folder / "schedule", "carl", f"method.kl_start={start}", seed, 0.9, ill=start == 1.5)
    return folder


@pytest.fixture(autouse=True)
def steps_in_this_process(monkeypatch):
    """Steps are measured in this process, for speed; a test of its own measures them in another."""
    monkeypatch.setattr(measured_step, "measure_in_process", measured_step.measure_steps)


def made_point(folder: Path, method: str, change: str, seed: int, top1: float, *, knn=None, ill=False) -> None:
    made_run(folder / f"{change}-{seed}", method, change, seed=seed, top1=top1 + seed / 100, knn=knn, ill=ill)


def make_one(name, runs, out, **options):
    made_of, settings = MADE_OF[name]
    options = {"overrides": settings, "device": "cpu", "workers": 0, **options}
    return infomax.figure(name, [runs / folder for folder in made_of], out=out, **options)


def read_csv(file: Path) -> tuple[str, list[dict[str, str]]]:
    head, *lines = file.read_text().splitlines()
    return head, list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def made_once(runs, tmp_path_factory):
    """A function that makes a figure by its name, once for all tests that look at it."""
    return cache(lambda name: make_one(name, runs, tmp_path_factory.mktemp("figure") / "a.png"))


MEASURES_STEPS = ("logdet-cost", "step-cost")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.process if name in MEASURES_STEPS else ()) for name in FIGURES]
)
def test_a_figure_is_a_picture_and_a_csv_with_its_columns(name, made_once):
    made = made_once(name)
    with Image.open(made.picture) as picture:
        assert picture.size == tuple(int(make.DPI * side) for side in FIGURES[name].size)
    head, rows = read_csv(made.data)
    assert re.match(rf"# figure: {name}; of: .*; seeds: [\d ]+; n: .*\d.*; commit: \S+; settings: ", head)
    assert list(rows[0]) == list(FIGURES[name].columns)
    assert len(rows) == len(made.rows) > 1
    for column in FIGURES[name].columns:
        assert column in STAYS_EMPTY.get(name, ()) or {row[column] for row in rows} != {""}, f"no row has a {column}"


def test_the_minutes_of_each_figure_are_measured():
    seconds = json.loads((Path(__file__).parents[2] / "docs" / "results" / "figures.json").read_text())["seconds"]
    assert {name: figure.minutes for name, figure in FIGURES.items()} == {
        name: max(0.1, round(seconds[name] / 60, 1)) for name in FIGURES
    }


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


def test_the_spectrum_is_that_of_r1_and_its_shares_reach_1(made_once):
    made = made_once("spectrum")
    own = [row["eigenvalue"] for row in made.rows if row["of"] == "R1 of the training"]
    assert own == pytest.approx([1.0] * 64)  # of a module that no step has changed
    for run in ("corinfomax", "simclr"):
        of_test = [row for row in made.rows if row["run"] == run and row["of"].startswith("test images")]
        assert of_test[-1]["cumulative"] == pytest.approx(1)
        assert of_test[0]["images"] == 359
        assert np.all(np.diff([row["eigenvalue"] for row in of_test]) <= 0)


def test_points_of_a_sweep_are_its_results_and_collapsed_ones_are_marked(made_once):
    made = made_once("mveb-beta")
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
        ("spectrum", [], {}, "one of SimCLR .*; such runs are made by: .*corinfomax/digits .*; infomax pretrain"),
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
        ("mveb-beta", ["beta/method.entropy_weight=0.1-0"], {}, "but all runs have method.entropy_weight=0.1"),
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


def test_the_expansion_is_the_gradient_of_the_log_determinant_and_points_away_from_the_mean():
    """CorInfoMax Eqs. A.6 and A.9: the angle with the vector to the mean is obtuse, on the mean over a batch."""
    z = torch.randn(30, 5, dtype=torch.float64, requires_grad=True)
    mean_before, covariance_before = torch.randn(5).double() / 9, 2 * torch.eye(5).double()
    mean, covariance = recursive_statistics(z, mean_before, covariance_before, 0.1)
    log_det(covariance + 1e-3 * torch.eye(5)).backward()
    state = (covariance.detach(), mean.detach(), mean_before, 0.1, 1e-3)
    force = expansion(z.detach(), *state)
    torch.testing.assert_close(force, z.grad)
    to_the_mean = mean.detach() - z.detach()
    assert (force * to_the_mean).sum(1).mean() < 0
    # Without the path through the mean, as the paper has it, each single angle is obtuse.
    without_path = expansion(z.detach(), covariance.detach(), mean.detach(), z.detach().mean(0), 0.1, 1e-3)
    assert ((without_path * to_the_mean).sum(1) < 0).all()


def test_arrows_of_a_run_are_those_of_all_its_dimensions_seen_in_three(runs, tmp_path):
    rows = infomax.figure(
        "forces", [runs / "corinfomax"], out=tmp_path / "a.png", device="cpu", overrides=["images=9", "batch_size=128"]
    ).rows
    arrows = {kind: np.array([[r["dx"], r["dy"], r["dz"]] for r in rows if r["arrow"] == kind]) for kind in ARROWS}
    places = np.array([[r["x"], r["y"], r["z"]] for r in rows if r["arrow"] == "expansion"])
    assert arrows["expansion"].shape == arrows["attraction"].shape == (9, 3)
    (centre, *_) = [[r["x"], r["y"], r["z"]] for r in rows if r["arrow"] == "half-axis"]
    assert (arrows["expansion"] * (places - centre)).sum(1).mean() > 0
    assert np.all(np.linalg.norm(places + arrows["attraction"], axis=1) <= 1)  # embeddings of length 1, in three axes
    assert (runs / "corinfomax" / "config.json").is_file()  # whatever parts are called, the run stays


ARROWS = ("expansion", "attraction", "half-axis")


def test_the_toys_points_spread_and_pairs_meet(runs, tmp_path):
    made = make_one("forces", runs, tmp_path / "a.gif", overrides=["frames=9", "rate=0.1"])
    with Image.open(made.picture) as picture:
        assert picture.n_frames == 9
    distances, spreads = [], []
    for frame in (0, 8):
        rows = [row for row in made.rows if row["frame"] == frame]
        distances.append(mean(r["dx"] ** 2 + r["dy"] ** 2 + r["dz"] ** 2 for r in rows if r["arrow"] == "attraction"))
        spreads.append(min(r["dx"] ** 2 + r["dy"] ** 2 + r["dz"] ** 2 for r in rows if r["arrow"] == "half-axis"))
    assert distances[1] < distances[0] / 4
    assert spreads[1] > 4 * spreads[0]


def test_both_accuracies_of_a_sweep_stand_in_one_row_beside_the_papers(made_once):
    rows = made_once("mira-sweeps").rows
    ours, paper = ([row for row in rows if row["origin"] == origin] for origin in ("ours", "paper"))
    assert [(row["value"], row["seed"], row["linear"], row["knn"]) for row in ours] == [
        (value, seed, pytest.approx(90 + seed), pytest.approx(70)) for value in (10, 100) for seed in (0, 1)
    ]
    assert {row["value"]: (row["linear"], row["knn"]) for row in paper}[300] == (67.7, 58.9)  # Table 14
    assert len(paper) == 5


def test_the_mutual_information_is_the_mean_of_an_epoch(made_once):
    (last,) = (row for row in made_once("ldmi").rows if row["measurements"])
    assert (last["epoch"], last["ldmi"], last["ldmi_official"]) == (20, 32, 32 * 4 / 64)


def test_the_plane_has_the_course_and_the_end_of_each_run(made_once):
    rows = made_once("plane").rows
    for run in ("corinfomax", "simclr", "mira"):
        (end,) = (row for row in rows if (row["run"], row["measured"]) == (run, "after it"))
        assert 1 / 64 <= end["correlation"] <= 1
        assert -1 <= end["alignment"] <= 1
        assert end["uniformity"] <= 0


def test_schedules_have_their_words(made_once):
    rows = made_once("carl-schedule").rows
    assert {row["schedule"] for row in rows} == {"1.5", "4 to 1.5 in 20 epochs, linear"}
    assert {row["collapse"] for row in rows if row["schedule"] == "1.5"} == {"total collapse"}
    assert len([row for row in rows if row.get("epoch") is None]) == 4


@pytest.mark.process
def test_a_step_costs_time_and_memory(made_once):
    rows = made_once("step-cost").rows
    assert [(row["method"], row["round"]) for row in rows].count(("MIRA", 2)) == 1
    assert len(rows) == 16
    for row in rows:
        assert 0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        assert row["planned_gb"] > 0
    with_teacher, without = (next(r for r in rows if r["method"] == m) for m in ("MIRA", "MIRA without EMA"))
    assert with_teacher["planned_gb"] > without["planned_gb"]


@pytest.mark.slow
def test_steps_are_measured_in_a_process_of_their_own(monkeypatch):
    monkeypatch.undo()
    recipe = customise(get_recipe("mira", "digits"), batch_size=64)
    measured = measured_step.measure_in_process(recipe, torch.device("cpu"), warm_up=1, steps=3)
    assert len(measured.seconds) == 3
    assert measured.peak_bytes is None or measured.peak_bytes > measured.planned_bytes / 2
