"""The study of choosing covers its runs, computes what it says, and its summary is that of the kept rows."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from infomax.experiments.label_free import MEASURES

FILE = Path(__file__).parents[2] / "benchmarks" / "choosing.py"
specification = importlib.util.spec_from_file_location("choosing", FILE)
choosing = importlib.util.module_from_spec(specification)
specification.loader.exec_module(choosing)


def test_each_method_has_each_setting_once_and_three_seeds_of_its_own():
    jobs = choosing.jobs("digits", 40)
    assert len(set(jobs)) == len(jobs) == 44
    assert Counter(job.method for job in jobs) == dict.fromkeys(choosing.METHODS, 11)
    assert {(job.rate, job.weight) for job in jobs} == {(r, w) for r in (0.3, 1.0, 3.0) for w in (0.3, 1.0, 3.0)}
    assert [job.method for job in jobs[:4]] == [*choosing.METHODS]
    assert {(job.rate, job.weight, job.seed) for job in jobs[:4]} == {(1.0, 1.0, 0)}


@pytest.mark.parametrize("levels", [3, 1000])  # with ties, and without
def test_correlations_are_those_of_scipy_also_of_resamples(levels):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, levels, (2, 20)).astype(float)
    y += 0.5 * x
    weights = np.stack([np.ones(20, int), rng.multinomial(20, np.full(20, 1 / 20))])
    for number, own in enumerate(weights):
        a, b = np.repeat(x, own), np.repeat(y, own)
        assert choosing.spearman(x, y, weights)[number] == pytest.approx(stats.spearmanr(a, b).statistic)
        assert choosing.kendall(x, y, weights)[number] == pytest.approx(stats.kendalltau(a, b).statistic)


def run(knn, rankme, *, loss=(4.0, 3.0, 2.0, 1.0), rate=1.0, collapse="", method="carl", seed=0):
    """The rows of a run by its scores and its RankMe, from the first encoder to the last."""
    return [
        {
            "data": "digits",
            "method": method,
            "rate": rate,
            "weight": 1.0,
            "seed": seed,
            "epochs": 4,
            "epoch": epoch,
            "knn_top1": score,
            "collapse": collapse if epoch == 4 else "",
            "measures": {"rankme": value, "loss": last_loss},
        }
        for epoch, (score, value, last_loss) in enumerate(zip(knn, rankme, loss, strict=True), start=1)
    ]


def test_regrets_are_what_the_choices_lose(monkeypatch):
    monkeypatch.setattr(choosing, "RESAMPLES", 50)
    rows = [
        *run((0.5, 0.8, 0.7, 0.6), (1, 2, 1, 1)),
        *run((0.1, 0.2, 0.3, 0.9), (9, 3, 3, 3), rate=3.0),
        *run((0.2, 0.2, 0.2, 0.4), (1, 1, 1, 9), rate=0.3),
        *run((0.0, 0.0, 0.0, 0.1), (0, 0, 0, 0), seed=7, collapse="total collapse"),
        *run((0.5, 0.5), (1, 1), loss=(1, 1), seed=9),  # whose last encoders are not measured yet
    ]
    found = {(g["method"], g["with_collapsed"]): g for g in choosing.groups(rows)}
    assert {key: g["runs"] for key, g in found.items()} == {
        ("carl", False): 3,
        ("carl", True): 4,
        ("all", False): 3,
        ("all", True): 4,
    }
    group = found["carl", False]
    rules, rankme = group["rules"], group["measures"]["rankme"]
    assert rules["last"]["regret_within"] == pytest.approx(100 * (0.2 + 0 + 0) / 3, abs=1e-3)
    assert rules["lowest loss"]["regret_within"] == rules["last"]["regret_within"]
    assert rules["random"]["regret_within"] == pytest.approx(100 * (0.15 + 0.525 + 0.15) / 3, abs=1e-3)
    assert rankme["regret_within"] == pytest.approx(100 * (0 + 0.8 + 0) / 3, abs=1e-3)
    assert rankme["regret_within_above_last"] == pytest.approx(100 * (-0.2 + 0.8) / 3, abs=1e-3)
    assert not rankme["beats_last"]
    assert rankme["regret_among"] == pytest.approx(50)  # the third has the largest RankMe, the second is the best
    assert rules["random"]["regret_among"] == pytest.approx(100 * (0.9 - (0.6 + 0.9 + 0.4) / 3), abs=1e-3)
    assert rules["last"]["regret_among"] == pytest.approx(30)  # that with the recipe's own settings
    low, high = rules["last"]["regret_within_interval"]
    assert 0 <= low <= rules["last"]["regret_within"] <= high <= 20
    better = [row for seed in range(4) for row in run((0.5, 0.8, 0.7, 0.6), (1, 2, 1, 1), seed=seed)]
    (first, *_) = choosing.groups(better)
    assert first["measures"]["rankme"]["beats_last"]


def test_rows_of_a_run_that_was_ended_early_are_computed_again(tmp_path):
    job = choosing.jobs("digits", 4)[0]
    results = choosing.Results(tmp_path / "r.json")
    results.add({**vars(job), "epoch": 2})
    assert not choosing.Results(tmp_path / "r.json").has(job)
    results.add({**vars(job), "epoch": 4})
    assert choosing.Results(tmp_path / "r.json").has(job)


def test_the_packaged_summary_is_that_of_the_kept_rows(monkeypatch):
    monkeypatch.setattr(choosing, "RESAMPLES", 5)  # the intervals need more, and the rest none
    kept = json.loads(choosing.SUMMARY.read_text())
    rows = choosing.Results(choosing.OUT).rows
    if not rows:
        assert kept["groups"] == []
        return
    again = choosing.groups(rows[1:])

    def estimates(groups):
        return [
            {
                **{key: group[key] for key in ("data", "method", "with_collapsed", "runs", "encoders", "best_knn")},
                "measures": {
                    name: (values["spearman"], values["kendall"], values["regret_within"], values["regret_among"])
                    for name, values in group["measures"].items()
                },
                "rules": {name: values["regret_within"] for name, values in group["rules"].items()},
            }
            for group in groups
        ]

    assert estimates(again) == estimates(kept["groups"]), "run: python benchmarks/choosing.py --summary"


@pytest.mark.slow
@pytest.mark.parametrize("method", choosing.METHODS)
def test_a_run_is_trained_measured_and_scored(tmp_path, method):
    job = choosing.Job("digits", method, 1.0, 3.0, 0, 4)
    rows = choosing.train_and_measure(job, tmp_path, 1438)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert all(0.3 < row["knn_top1"] <= 1 for row in rows)
    assert all({"rankme", "lidar", "loss"} <= row["measures"].keys() <= MEASURES.keys() for row in rows)
    assert len({row["measures"]["rankme"] for row in rows}) == 4
