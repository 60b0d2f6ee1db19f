"""Lines of a sweep are compared over the test images with one seed, and seed by seed with several."""

from typing import Any

import numpy as np
import pytest

from infomax.evaluation.intervals import SEEDED, compare_repeated, compare_shares
from infomax.evaluation.paired import OTHER_IMAGES, pack_hits
from infomax.evaluation.protocols.knn import KnnRow
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import SweepRun, define_sweep
from infomax.experiments.sweep_differences import ANY_SEED, Measured, compare_measured
from infomax.experiments.sweep_results import collect_results
from infomax.runtime.options import pick

RNG = np.random.default_rng(0)
RIGHT = {(line, seed): RNG.random(200) < share for line, share in (("a", 0.6), ("b", 0.75)) for seed in range(3)}


def row(line: str, seed: int, *, images: str = "same", **changes: Any) -> KnnRow:
    right = RIGHT[line, seed]
    values: dict[str, Any] = {"data": "toy", "encoder": f"{line}{seed}", "metric": "top1", "classes": 10, "k": 20}
    values |= {"labelled_images": 9, "test_images": 200, "temperature": 0.07, "top5": 1.0, "seconds": 1.0}
    values |= {"representation": "trained encoder", "top1": float(right.mean())}
    return KnnRow(**{**values, "hits": pack_hits(right, images=images), **changes})


def measured(line: str, seeds: range, **changes: Any) -> Measured:
    return Measured("top1", tuple((seed, (row(line, seed, **changes),)) for seed in seeds))


def test_one_seed_is_compared_over_the_test_images():
    found = compare_measured(measured("b", range(1)), measured("a", range(1)))
    assert found == compare_shares(RIGHT["b", 0], RIGHT["a", 0])


def test_several_seeds_are_compared_seed_by_seed():
    found = compare_measured(measured("b", range(3)), measured("a", range(3)))
    scores = [[float(RIGHT[line, seed].mean()) for seed in range(3)] for line in "ba"]
    assert found == compare_repeated(*scores, SEEDED)
    fewer = compare_measured(measured("b", range(3)), measured("a", range(2)))  # the third seed has no partner yet
    assert fewer == compare_repeated(scores[0][:2], scores[1][:2], SEEDED)
    reversed_seeds = Measured("top1", measured("a", range(3)).by_seed[::-1])
    assert compare_measured(measured("b", range(3)), reversed_seeds) == found


def test_the_initial_encoder_is_the_partner_of_every_seed():
    initial = Measured("top1", ((ANY_SEED, (row("a", 0),)),))
    found = compare_measured(measured("b", range(3)), initial)
    scores = [float(RIGHT["b", seed].mean()) for seed in range(3)]
    assert found == compare_repeated(scores, [float(RIGHT["a", 0].mean())] * 3, SEEDED)


def test_what_does_not_belong_together_is_not_compared():
    assert compare_measured(measured("b", range(3)), measured("a", range(3), images="others")) == OTHER_IMAGES
    assert compare_measured(measured("b", range(1)), measured("a", range(1, 2))) == ""
    assert compare_measured(Measured("top5", measured("b", range(1)).by_seed), measured("a", range(1))) == ""
    assert compare_measured(measured("b", range(2)), measured("a", range(2), k=5)) == "measured with another k"


@pytest.mark.parametrize(("seeds", "words"), [(1, "matched pairs"), (2, "over the seeds")])
def test_a_sweep_of_two_recipes_has_a_table_of_differences(tmp_path, monkeypatch, seeds, words):
    lines = {"carl/digits": "a", "mira/digits": "b"}
    monkeypatch.setattr(
        SweepRun, "result", lambda self, evaluation: row(lines[self.variant.experiment.name], self.seed)
    )
    options = pick(SweepOptions, {"what": list(lines), "out": tmp_path, "epochs": 1, "seeds": seeds})
    table = collect_results(define_sweep(options)).differences()
    assert table is not None
    assert table.title.startswith("over carl/digits: points")
    assert words in table.title
    assert table.columns[1:] == ("knn, top-1",)
    (line,) = table.rows
    assert line[0].text == "mira/digits"
    expected = compare_measured(measured("b", range(seeds)), measured("a", range(seeds)))
    assert line[1].text == str(expected)
    options = pick(SweepOptions, {"what": ["carl/digits"], "out": tmp_path, "epochs": 1, "seeds": seeds})
    assert collect_results(define_sweep(options)).differences() is None
