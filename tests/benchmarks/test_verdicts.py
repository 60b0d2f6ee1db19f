"""The study of verdicts has each run once, seed by seed, and judges the metrics that are kept of a run."""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from infomax.analysis.verdict_rules.rule import Name

FILE = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"
specification = importlib.util.spec_from_file_location("benchmarks_verdicts", FILE)
verdicts = importlib.util.module_from_spec(specification)
sys.modules["benchmarks_verdicts"] = verdicts
specification.loader.exec_module(verdicts)


def test_each_run_is_there_once_and_healthy_ones_are_forty_and_variants():
    jobs = verdicts.jobs()
    assert len({job.key for job in jobs}) == len(set(jobs)) == len(jobs)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert sum(job.kind == "healthy" and not job.variant for job in jobs) == 40
    provoked = 3 * sum(len(provocation.methods) for provocation in verdicts.PROVOCATIONS.values())
    assert verdicts.planned() == {"healthy": 40 + 4 * len(verdicts.VARIANTS), "provoked": provoked}


def test_provocations_name_verdicts_that_exist_and_all_but_dead_prototypes():
    names = {name for provocation in verdicts.PROVOCATIONS.values() for name in provocation.named}
    assert names == {*get_args(Name)} - {"dead prototypes"}
    assert {provocation.patch for provocation in verdicts.PROVOCATIONS.values()} == {"", *verdicts.PATCHES}


def test_kept_metrics_are_judged_and_a_run_is_known_by_its_line(tmp_path):
    job = verdicts.jobs(healthy=False)[0]
    kept = tmp_path / "runs" / job.key
    kept.mkdir(parents=True)
    recipe = {"method": {"name": job.method}, "batch_size": 10, "epochs": 20}
    (kept / "config.json").write_text(json.dumps({"recipe": recipe, "images": 100}))
    row = {"epoch": 0, "health_rows": 10, "embedding_mean_cosine": 0.97, "embedding_collapse_level": 0.9}
    (kept / "metrics.jsonl").write_text("".join(json.dumps({"step": s, **row}) + "\n" for s in (10, 20, 30)))
    line = verdicts.judge(job, tmp_path)
    assert [(said["name"], said["step"]) for said in line["verdicts"]] == [("total collapse", 30)]
    assert (line["steps"], line["epochs"], line["health_rows"]) == (200, 20, 3)
    assert verdicts.is_done(job, [line])
    assert not verdicts.is_done(job, [{**line, "seed": 7}])
    assert asdict(job).keys() <= line.keys()
