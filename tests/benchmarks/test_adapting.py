"""The study of adapting covers its grid seed by seed, and goes on where it was ended."""

import importlib.util
from dataclasses import asdict
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "adapting.py"
specification = importlib.util.spec_from_file_location("adapting", FILE)
adapting = importlib.util.module_from_spec(specification)
specification.loader.exec_module(adapting)


def test_each_setting_is_there_once_for_each_seed():
    jobs = adapting.jobs("supervised", ["photographs"], seeds=2)
    assert len(set(jobs)) == len(jobs) == 2 * 4 * (3 * 3 + 3 * 2)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert {(job.backbone_rate, job.freeze) for job in jobs} == {(r, f) for r in (0.01, 0.1, 1.0) for f in (0, 2, 3)}


def test_a_result_that_was_cut_short_is_computed_again(tmp_path):
    first, second = adapting.jobs("supervised", ["photographs"], seeds=1)[:2]
    results = adapting.Results(tmp_path / "results.json")
    results.add({**asdict(first), "knn_top1": 0.5})
    with results.file.open("a") as file:
        file.write('{"initial": "supervised", "targ')
    results = adapting.Results(results.file)
    assert results.has(asdict(first))
    assert not results.has(asdict(second))
    results.add({**asdict(second), "knn_top1": 0.5})
    assert [row["backbone_rate"] for row in adapting.Results(results.file).rows] == [0.01, 0.01]
    assert adapting.Results(results.file).has(asdict(second))
