"""The study of the papers' claims has each run once, of settings that their recipes have."""

import numpy as np
import pytest
import trends
from claims import BATCHES, CLAIMS, MIRA, PROTOTYPES

from infomax.recipes.customise import customise_experiment
from infomax.recipes.registry import get_experiment


def test_each_run_is_there_once():
    runs = trends.jobs("x", 3)
    keys = [tuple(run.key.values()) for run in runs]
    assert len(set(keys)) == len(runs) == 3 * len({setting for claim in CLAIMS for setting in claim.settings})
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("scale", [trends.CPU, trends.GPU], ids=lambda scale: scale.recipe)
def test_all_settings_differ_and_are_of_their_method(scale):
    names: dict = {}
    for run in trends.jobs("x", 1):
        experiment = get_experiment(scale.recipe, run.setting.method)
        recipe = customise_experiment(experiment, images=10_000, **trends.changes_of(run.setting, scale))
        assert recipe.method.name == run.setting.method
        names.setdefault(repr(recipe), []).append(run.setting.name)
    twice = [same for same in names.values() if len(same) > 1]
    assert twice == ([["mira iterations=30", "mira"]] if scale is trends.GPU else [])  # its recipe has 30 itself


@pytest.mark.parametrize("scale", [trends.CPU, trends.GPU], ids=lambda scale: scale.recipe)
def test_a_setting_changes_what_the_claims_take_for_granted(scale):
    def prototypes(setting):
        experiment = get_experiment(scale.recipe, "mira")
        return customise_experiment(experiment, images=10_000, **trends.changes_of(setting, scale)).method.prototypes

    assert [prototypes(setting) for setting in (MIRA, *PROTOTYPES)] == [300, 10, 30, 100, 1000, 3000]


def test_the_rate_of_another_batch_goes_with_the_root_of_its_size():
    changes = [trends.changes_of(setting, trends.CPU) for setting in BATCHES]
    assert [change["batch_size"] for change in changes] == [32, 64, 256, 512]
    assert [change["learning_rate"] for change in changes] == pytest.approx([0.001, 0.001414, 0.002828, 0.004])


def test_a_gpu_trains_on_all_images_and_is_scored_on_the_test_images(tmp_path):
    x, labels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), np.arange(6)
    file = tmp_path / "few.npz"
    np.savez(file, train_x=x[:4], train_label=labels[:4], test_x=x[4:], test_label=labels[4:])
    work = tmp_path / "work"
    work.mkdir()
    assert trends.write_images(file, work, whole=True) == ("few", 4)
    with np.load(work / "few.npz") as kept:
        assert (kept["train_y"].tolist(), kept["test_y"].tolist()) == ([0, 1, 2, 3], [4, 5])
        assert (kept["train_x"].ravel().tolist(), kept["test_x"].ravel().tolist()) == ([0, 1, 2, 3], [4, 5])
