"""Real trainings that are made to fail are named by what was done to them, and by nothing else.

benchmarks/verdicts.py has all provocations, on three seeds.
"""

import numpy as np
import pytest

import infomax
from infomax.analysis.verdicts import tracker_of
from infomax.data.sources.arrays import open_digits
from infomax.runtime.json_lines import read_json_lines

NO_AUGMENTATION = [
    f"views.global_crops.{crop}.{key}"
    for crop in (0, 1)
    for key in ("scale=1,1", "ratio=1,1", "flip=0", "jitter=0", "grayscale=0", "blur=0")
]


def names_said(folder, **options):
    """Trains with the recipe of the digits, and returns the names of all verdicts on the run."""
    run = infomax.pretrain(recipe="digits", out=folder / "run", quiet=True, workers=0, log=["none"], **options)
    tracker = tracker_of(run)
    rows = read_json_lines(run.path / "metrics.jsonl")
    names = {verdict.name for row in rows for verdict in tracker.update(row)}
    assert {row["verdict"] for row in rows if "verdict" in row} == names
    return names


def write(folder, pixels):
    np.savez(folder / "images.npz", x=pixels)
    return folder / "images.npz"


def test_images_of_one_colour_are_equal_images(tmp_path):
    grey = np.full((40, 8, 8, 3), 127, np.uint8)
    assert names_said(tmp_path, data=write(tmp_path, grey), method="mveb", batch_size=20, epochs=2) == {"equal images"}


def test_views_without_augmentation_are_equal_views(tmp_path):
    digits = write(tmp_path, open_digits().pretraining.pixels[:40])
    options = {"data": digits, "method": "carl", "batch_size": 20, "epochs": 2, "overrides": NO_AUGMENTATION}
    assert names_said(tmp_path, **options) == {"equal views"}


def test_images_that_are_there_five_times_are_near_duplicates(tmp_path):
    copies = np.repeat(open_digits().pretraining.pixels[:40], 5, axis=0)
    options = {"data": write(tmp_path, copies), "method": "mira", "batch_size": 20, "epochs": 1}
    assert names_said(tmp_path, **options, overrides=["method.prototypes=10"]) == {"near-duplicates"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "names"),
    [
        ("mveb", {"overrides": ["method.entropy_weight=0"]}, {"total collapse"}),
        ("corinfomax", {"overrides": ["method.attraction=1e5"]}, {"total collapse"}),
        ("carl", {"overrides": ["method.kl_start=0", "method.kl_end=0"]}, {"cluster collapse"}),
        ("mira", {"overrides": ["method.beta=0", "method.beta_start=0"], "epochs": 8}, {"uniform assignment"}),
        ("mveb", {"learning_rate": 1e4}, {"divergence", "rate too high"}),
        ("mveb", {}, set()),
    ],
)
def test_settings_that_collapse_or_diverge_are_named(tmp_path, method, options, names):
    assert names_said(tmp_path, data="digits", method=method, **{"epochs": 6, **options}) == names
