"""The recipes for a CPU have the optimisers that the search found, where they are better in long trainings too."""

import json
from pathlib import Path
from statistics import mean

import pytest
from tuning import LEAST_GAIN

from infomax.recipes.registry import get_recipe

ROWS = Path(__file__).parents[2] / "docs" / "results" / "tuning_full.json"


def trials():
    """Returns for each data set and method the trial that was tried, and its gain over the recipe as it was."""
    scores: dict = {}
    for row in map(json.loads, ROWS.read_text().splitlines()):
        if "method" in row:
            of_method = scores.setdefault((row["data"], row["method"]), {})
            of_method.setdefault((row["optimizer"], row["rate"], row["own"]), []).append(row["knn_top1"])
    for (data, method), of_method in scores.items():
        before = of_method.pop(("recipe", 0.0, 1.0))
        ((settings, after),) = of_method.items()
        if len(before) == len(after):
            yield pytest.param(data, method, *settings[:2], mean(after) - mean(before), id=f"{data} {method}")


@pytest.mark.parametrize(("data", "method", "optimizer", "rate", "gain"), list(trials()))
def test_a_recipe_has_the_optimiser_that_is_a_point_better(data, method, optimizer, rate, gain):
    recipe = get_recipe(method, "digits" if data == "digits" else "small")
    if optimizer != "recipe":
        has_it = (recipe.optimizer.name, recipe.optimizer.learning_rate) == (optimizer, rate)
        assert has_it == (gain >= LEAST_GAIN)
