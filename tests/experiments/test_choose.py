"""Runs are ranked without labels: by exact measures, within a method, without collapsed ones, and with a doubt."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import infomax
from command import run_command
from html_pages import PADDED_EXPLOITS, PLAIN, CheckedPage
from infomax.analysis import measures
from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import ViewSet, byol
from infomax.data.images.arrays import ArrayImages
from infomax.experiments import choose as choose_module
from infomax.experiments.choose import Candidate, Choice, choose, study_of
from infomax.experiments.choose_page import choice_page
from infomax.experiments.label_free import MEASURES, measure_metrics
from infomax.experiments.options import MEASURE_NAMES
from infomax.features import view_features
from infomax.features.extraction import extract_features
from infomax.features.view_features import extract_view_features
from infomax.models.encoders import save_encoder
from infomax.runs.run_folder import Run
from toy_data import TOY, write_toy


def train(folder, images, method="carl", **options) -> Run:
    settings = {"image_size": 8, "batch_size": 16, "workers": 0, "quiet": True, "log": "none", "device": "cpu"}
    return infomax.pretrain(
        data=images, out=folder, method=method, **{"epochs": 2, "overrides": TOY[method], **settings, **options}
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return write_toy(tmp_path_factory.mktemp("images"), train=48, test=16, side=12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, images) -> list[Run]:
    """Two runs of CARL, the first of which kept an encoder, and one of MVEB."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        train(folder / "a", images, keep_epochs=[1, 2]),
        train(folder / "b", images, seed=1),
        train(folder / "c", images, method="mveb"),
    ]


def study(method="carl", *, beats_last=False, runs=11, **spearman):
    """The content of a study that found these correlations and intervals."""
    found = {
        name: {"spearman": value, "spearman_interval": [low, high], "beats_last": beats_last}
        for name, (value, low, high) in spearman.items()
    }
    group = {"data": "digits", "method": method, "with_collapsed": False, "runs": runs, "measures": found}
    return {"groups": [{**group, "with_collapsed": True, "runs": 12, "measures": {}}, group]}


def knows(monkeypatch, content):
    monkeypatch.setattr(choose_module, "read_study", lambda: content)


def features_of(run) -> torch.Tensor:
    """The features of the images that a run was trained on."""
    encoder = infomax.load(run)
    return extract_features(encoder, run.location.open().train, np.arange(48), encoder.preprocessing, workers=0)


def test_measures_are_those_of_the_features_of_the_same_images(runs):
    choice = choose(*runs, no_cache=True, workers=0)
    assert [c.method for c in choice.candidates] == ["carl", "carl", "mveb"]
    for candidate in choice.candidates:
        run = Run(Path(candidate.encoder))
        features = features_of(run)
        assert candidate.measures["rankme"] == pytest.approx(measures.rankme(features), rel=1e-6)
        assert candidate.measures["spectrum_auc"] == pytest.approx(measures.spectrum_auc(features), rel=1e-6)
        assert (
            candidate.measures["loss"] == [row["loss"] for row in run.read_rows("metrics.jsonl") if "loss" in row][-1]
        )
        assert 1 <= candidate.measures["lidar"] <= 47
    assert choice.images == 48


def test_fewer_images_lie_at_equal_distances(runs):
    choice = choose(*runs, images=16, no_cache=True, workers=0)
    chosen = features_of(runs[0])[np.linspace(0, 47, 16).astype(int)]
    found = {c.encoder: c.measures["rankme"] for c in choice.candidates}
    assert found[str(runs[0].path)] == pytest.approx(measures.rankme(chosen), rel=1e-6)


def test_features_of_views_are_of_the_same_images_in_all_draws_and_batches(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), np.uint8)
    source = ArrayImages(pixels, None, [])
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    views = ViewSet(global_crops=byol(8), mean=(0.5,) * 3, std=(0.5,) * 3)
    found = extract_view_features(encoder, source, views, draws=3, workers=0)
    monkeypatch.setattr(view_features, "BATCH_SIZE", 3)
    torch.testing.assert_close(found, extract_view_features(encoder, source, views, draws=3, workers=0))
    expected = []
    with torch.no_grad():
        for draw in range(3):
            crops = make_views(torch.from_numpy(pixels), views, seed=0, epoch=draw, index=np.arange(7))
            expected += [encoder(crop) for crop in crops]
    torch.testing.assert_close(found, torch.stack(expected, 1))


def candidate(name, method="carl", epoch=None, progress="", left_out="", **values) -> Candidate:
    return Candidate(name, method, epoch, 10, values, None, False, progress, left_out)


def rank(*candidates, by=None) -> Choice:
    return choose_module._rank(candidates, by, images=100, data="photos")


def test_ranks_are_within_a_method_and_follow_the_measure_that_the_study_found_best(monkeypatch):
    found = study(rankme=(0.7, 0.1, 0.9), spectrum_auc=(0.6, 0.3, 0.8), lidar=(0.9, 0.8, 1.0))
    knows(monkeypatch, found)
    values = {"rankme": 3.0, "spectrum_auc": 0.5}
    choice = rank(
        candidate("a", **values, lidar=9.0),
        candidate("b", **{**values, "spectrum_auc": 0.4}),  # without LiDAR
        candidate("c", method="mira", progress="5 of 10 steps", **values, lidar=1.0),
        candidate("d", left_out="total collapse since step 40"),
    )
    assert [(c.encoder, c.rank, c.chosen) for c in choice.candidates] == [
        ("b", 1, True),
        ("a", 2, False),
        ("c", 1, True),
        ("d", None, False),
    ]
    assert choice.ranked_by == {"carl": "spectrum_auc", "mira": "rankme"}
    text = str(choice)
    assert (
        "carl: by spectrum AUC, smallest first; in the study its order agreed with that of k-NN by a Spearman" in text
    )
    assert "correlation of 0.60 (0.30 to 0.80) over 11 runs on digits: a hint, no proof" in text
    assert "mira: c is the only one of this method; there is nothing to rank" in text
    assert "ranks are within a method: across methods no measure means the same" in text
    assert "left out: d: total collapse since step 40" in text
    assert "not finished: c: 5 of 10 steps; measures change while a run trains" in text
    assert [c.encoder for c in choice.chosen] == ["b", "c"]
    assert [c.encoder for c in rank(candidate("a", rankme=2.0), candidate("b", rankme=3.0), by="rankme").chosen] == [
        "b"
    ]
    with pytest.raises(ValueError, match="^--by lidar: b has no such measure; all of carl have rankme$"):
        rank(candidate("a", rankme=2.0, lidar=1.0), candidate("b", rankme=3.0), by="lidar")


def test_an_order_that_the_study_cannot_tell_from_none_is_not_to_be_trusted(monkeypatch):
    knows(monkeypatch, study(rankme=(0.4, -0.2, 0.8)))
    assert "0.40 (-0.20 to 0.80) over 11 runs on digits: do not trust this order" in str(
        rank(candidate("a", rankme=1.0), candidate("b", rankme=2.0))
    )
    knows(monkeypatch, study(rankme=(0.4, 0.2, 0.8), runs=7, beats_last=True))
    few = rank(candidate("a", rankme=1.0), candidate("b", rankme=2.0), candidate("b/1", epoch=1, rankme=3.0))
    assert "(0.20 to 0.80) over 7 runs on digits: too few runs for an interval, do not trust this order" in str(few)
    assert [c.encoder for c in few.chosen] == ["b"]
    two = (candidate("a", method="mveb", alpha_req=0.2), candidate("b", method="mveb", alpha_req=1.5))
    choice = rank(*two)
    assert choice.chosen[0].encoder == "b"
    assert "mveb: by alpha-ReQ, nearest to 1 first; the study says nothing of that: do not trust" in str(choice)


def test_a_measure_is_trusted_as_far_as_on_the_data_set_where_it_agrees_least(monkeypatch):
    groups = []
    for data, rankme, lidar in (
        ("digits", (0.9, 0.8, 1.0), (0.5, 0.3, 0.7)),
        ("cifar10", (0.4, 0.1, 0.6), (0.6, 0.2, 0.8)),
    ):
        of_data = study(rankme=rankme, lidar=lidar, **({"loss": (0.9, 0.9, 1.0)} if data == "digits" else {}))["groups"]
        groups += [{**group, "data": data} for group in of_data]
    knows(monkeypatch, {"groups": groups})
    two = (candidate("a", rankme=2.0, lidar=1.0, loss=1.0), candidate("b", rankme=1.0, lidar=2.0, loss=2.0))
    choice = rank(*two)
    assert choice.ranked_by == {"carl": "lidar"}
    words = (
        "0.50 (0.30 to 0.70) over 11 runs on digits and 0.60 (0.20 to 0.80) over 11 runs on cifar10: a hint, no proof"
    )
    assert words in str(choice)
    assert "loss" not in study_of("carl")
    groups[-1]["measures"]["rankme"]["spearman_interval"] = [-0.1, 0.6]
    assert "-0.10 to 0.60) over 11 runs on cifar10: do not trust this order" in str(rank(*two, by="rankme"))


@pytest.mark.parametrize(("beats_last", "low", "chosen"), [(False, 0.3, "a"), (True, -0.1, "a"), (True, 0.3, "a/1")])
def test_the_last_encoder_is_taken_unless_the_study_says_that_the_measure_loses_less(
    monkeypatch, beats_last, low, chosen
):
    knows(monkeypatch, study(rankme=(0.5, low, 0.9), beats_last=beats_last))
    choice = rank(candidate("a", rankme=2.0), candidate("a/1", epoch=1, rankme=3.0), candidate("b", rankme=1.0))
    assert [c.encoder for c in choice.candidates] == ["a/1", "a", "b"]
    assert [c.encoder for c in choice.chosen] == [chosen]
    assert ("within a run the last encoder is taken" in str(choice)) == (chosen == "a")


def test_kept_encoders_are_ranked_once_each(runs):
    choice = choose(runs[0], epochs=True, no_cache=True, workers=0)
    assert sorted((c.encoder, c.epoch, c.steps) for c in choice.candidates) == [
        (str(runs[0].path), None, 6),
        (str(runs[0].kept_encoder(1)), 1, 3),
    ]
    assert measure_metrics(runs[0], 3)["loss"] != measure_metrics(runs[0], 6)["loss"]


def test_collapsed_encoders_are_left_out_with_the_verdict(tmp_path, images):
    run = train(tmp_path / "a", images, epochs=20, keep_epochs=[5])
    ill = {"health_rows": 48, "embedding_mean_cosine": 0.9999, "embedding_collapse_level": 0.99}
    run.cut_metrics(30)
    for step in (40, 45, 50, 55, 60):
        run.append_row("metrics.jsonl", {"step": step, "epoch": (step - 1) // 3, **ill})
    seen = train(tmp_path / "b", images)
    seen.append_row("metrics.jsonl", {"step": 6, "epoch": 1, "collapsed": 1})
    choice = choose(run, seen, epochs=True, no_cache=True, workers=0)
    assert [(c.encoder, c.rank) for c in choice.candidates] == [
        (str(run.kept_encoder(5)), 1),
        (str(run.path), None),
        (str(seen.path), None),
    ]
    assert choice.candidates[1].left_out.startswith("total collapse since step ")
    assert choice.candidates[2].left_out == "all images have the same representation"
    assert not choice.candidates[1].measures


def test_the_command_prints_the_table_and_writes_files(runs, tmp_path, monkeypatch, capsys):
    words = [*(str(run.path) for run in runs), "--workers", "0", "--no-cache"]
    for name in ("c.html", "c.csv", "c.jsonl"):
        code, out, err = run_command(monkeypatch, capsys, "choose", *words, "--out", str(tmp_path / name))
        assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == f"3 encoders, without labels, by 48 images of {runs[0].location.data}"
    assert lines[1].split()[:4] == ["method", "steps", "rank", "RankMe"]
    assert {line.split()[0] for line in lines[3:6]} == {str(run.path) for run in runs}
    assert lines[-1] == f"written to {tmp_path / 'c.jsonl'}"
    text = " ".join(CheckedPage((tmp_path / "c.html").read_text()).text)
    assert all(str(run.path) in text for run in runs)
    assert f"{lines[0]}." in text
    records = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["encoder"] for row in rows] == [record["encoder"] for record in records]
    assert [float(row["lidar"]) for row in rows] == [record["lidar"] for record in records]
    code, _, err = run_command(monkeypatch, capsys, "choose", *words, "--out", str(tmp_path / "c.csv"))
    assert (code, "c.csv exists; name another file, or give --overwrite" in err) == (2, True)


def test_a_page_says_how_far_to_trust_the_order(monkeypatch):
    knows(monkeypatch, study(rankme=(0.7, 0.3, 0.9)))
    choice = rank(
        candidate("a", rankme=2.0),
        candidate("a/epochs/1", epoch=1, rankme=3.0),
        candidate("b", rankme=1.0, progress="5 of 10 steps"),
        candidate("c", method="mira", rankme=1.0),
        candidate("d", left_out="total collapse since step 40"),
    )
    page = choice_page(choice)
    notices = {block.heading: block for block in page.sections[0].blocks}
    order = notices["carl: by RankMe, largest first"]
    assert (order.kind, order.evidence[:12]) == ("info", "In the study")
    assert order.advice.startswith("within a run the last encoder is taken")
    assert notices["mira: nothing to rank"].kind == "info"
    assert (notices["Left out: d"].kind, notices["Left out: d"].evidence) == ("failed", "total collapse since step 40")
    assert notices["Not finished: b"].evidence.startswith("5 of 10 steps")
    bars, curves = page.sections[2].blocks
    assert bars.bars == (("a/epochs/1", 3.0), ("a", 2.0), ("b", 1.0))
    assert [(curve.name, curve.y) for curve in curves.curves] == [("a", (3.0, 2.0)), ("b", (1.0,))]
    CheckedPage(page.html())
    knows(monkeypatch, study(rankme=(0.4, -0.2, 0.8)))
    page = choice_page(rank(candidate("a", rankme=1.0), candidate("b", rankme=2.0)))
    assert page.sections[0].blocks[0].kind == "warning"
    assert "do not trust this order" in page.sections[0].blocks[0].evidence


def test_names_of_encoders_do_nothing_on_the_page(monkeypatch):
    knows(monkeypatch, study(rankme=(0.7, 0.3, 0.9)))

    def shape(name):
        x = [candidate(f"{name}{i}", rankme=float(i), progress=name if i == 2 else "") for i in range(3)]
        choice = rank(*x, candidate(f"{name}ill", left_out=name))
        return CheckedPage(choice_page(replace(choice, data=name)).html()).shape()

    plain = shape(PLAIN)
    for exploit in PADDED_EXPLOITS:
        assert shape(exploit) == plain, exploit


def test_what_cannot_be_ranked_is_refused_in_one_line(runs, tmp_path, images, monkeypatch, capsys):
    first, second = str(runs[0].path), str(runs[1].path)
    other = train(tmp_path / "other", write_toy(tmp_path, train=32, test=8, side=10))
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_bytes((runs[0].path / "config.json").read_bytes())
    broken = train(tmp_path / "broken", images)
    weights = infomax.load(broken)
    with torch.no_grad():
        next(weights.parameters()).fill_(float("nan"))
    save_encoder(weights, vars(weights.settings), weights.preprocessing, broken.path, steps=6)
    for words, message in (
        ([], "run folders are wanted, as in infomax choose runs/*"),
        ([first], f"{first} alone leaves nothing to choose from: name several runs; --epochs ranks the encoders that"),
        ([second, second, "--epochs"], f"{second} alone leaves nothing to choose from: name several runs"),
        ([first, str(tmp_path / "none")], "none is not a run folder: "),
        ([first, str(tmp_path)], "is not a run folder: it has no config.json"),
        ([first, str(begun)], f"{begun} has no encoder yet; leave it out"),
        ([first, str(other.path)], f"{other.path} was trained on other images than {first}: measures compare only"),
        ([first, str(broken.path)], f"{broken.path}: the encoder's features of image 0 are infinite or NaN"),
        ([first, second, "--by", "rankmy"], "did you mean rankme"),
        ([first, second, "--images", "8"], "--images must be a whole number of at least 16"),
    ):
        code, out, err = run_command(monkeypatch, capsys, "choose", *words, *([] if not words else ["--no-cache"]))
        assert (code, out) == (2, ""), (words, err)
        assert message in err.splitlines()[-1], err
        assert err.splitlines()[-1].startswith("infomax: ")


def test_images_that_are_gone_are_said_unless_another_run_finds_them(runs, tmp_path):
    moved = write_toy(tmp_path, train=48, test=16, side=12)
    gone = [train(tmp_path / name, moved, seed=seed) for seed, name in enumerate("xy")]
    Path(moved).unlink()
    with pytest.raises(ValueError, match="the images that the runs were trained on cannot be opened: "):
        choose(*gone, no_cache=True, workers=0)
    assert len(choose(gone[0], runs[1], no_cache=True, workers=0).candidates) == 2


def test_the_packaged_study_knows_the_measures():
    for method in ("mira", "corinfomax", "carl", "mveb"):
        assert {*study_of(method)} <= {*MEASURES}
    assert replace(next(iter(MEASURES.values())), sign=-1).score(2.0) == -2.0


def test_the_names_that_options_accept_without_torch_are_those_of_the_measures():
    assert tuple(MEASURES) == MEASURE_NAMES
