"""Tests that a method of another package, which is two files and an entry point, is known to every command."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import infomax as library
from infomax.recipes.cpu import digits_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.registry import ENTRY_POINTS, METHODS, baselines, methods_with_papers
from infomax.recipes.schema import MethodSettings, OptimizerSettings
from infomax.runtime.plugins import installed, registry

SETTINGS = '''
"""Settings and recipes of the toy method."""

from dataclasses import dataclass

from infomax.recipes.cpu import digits_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import MethodSettings, OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class ToySettings(MethodSettings):
    name = "toy"

    width: int = 8
    """Width of the projector's output."""

    def build(self, encoder):
        from toy_method import Toy

        return Toy(encoder, self.width)


RECIPES = Experiments("toy")


@RECIPES.add("digits", None)
def tiny():
    """A toy for the tests."""
    return digits_recipe(ToySettings(), OptimizerSettings(name="sgd", learning_rate=0.1))


METHOD = MethodSpec(settings=ToySettings, recipes=RECIPES, default_for_large_images="tiny")
'''
EQUATIONS = '''
"""The toy method: both views of an image alike, all images together of large variance."""

from torch import nn

from infomax.methods.base import Loss, Method
from infomax.runtime.collectives import global_mean


class Toy(Method):
    def __init__(self, encoder, width):
        super().__init__()
        self.encoder, self.projector = encoder, nn.Linear(encoder.width, width)

    def online(self, views):
        return [self.projector(self.encoder(view)).tanh() for view in (*views.global_crops, *views.local_crops)]

    def compute_loss(self, online, target, schedule_values):
        first, second, *_ = online
        distance = global_mean((first - second).square()).sum()
        variance = (global_mean(first.square()) - global_mean(first).square()).sum()
        return Loss(distance - variance, {"distance": distance.detach(), "variance": variance.detach()})

    @property
    def eval_encoder(self):
        return self.encoder
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with an installed package, as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_settings.py").write_text(SETTINGS)
    (folder / "toy_method.py").write_text(EQUATIONS)
    information = folder / "toy-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntoy = toy_settings:METHOD\n")
    return folder


@pytest.fixture
def infomax(package, tmp_path):
    """Runs a command beside that package, and returns what it prints."""
    path = os.pathsep.join([str(Path(library.__file__).parents[1]), str(package)])

    def run(*arguments: str) -> str:
        completed = subprocess.run(
            [sys.executable, "-P", "-m", "infomax", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


@pytest.mark.process
def test_the_commands_name_the_method(infomax):
    written = re.sub(r"[│\s]+", "", infomax("pretrain", "--help"))  # it is broken into lines within a frame
    assert f"--method{'|'.join(methods_with_papers())},orabaseline:{','.join([*baselines(), 'toy'])}" in written
    assert re.search(r"^toy/tiny +digits +small +80 +128", infomax("recipes"), re.M)
    assert re.search(
        r"method\.width +16   \(changed from 8\)", infomax("recipes", "toy/tiny", "--set", "method.width=16")
    )
    planned = infomax("plan", "--method", "toy", "--images", "1000", "--epochs", "2", "--gpu", "A100")
    assert "toy, tiny: small, 2 views of 12 pixels" in planned
    assert "14: 2 epochs of 7" in planned


@pytest.mark.process
def test_the_method_is_trained_evaluated_and_swept(infomax, tmp_path):
    small = ("--epochs", "1", "--image-size", "8", "--set", "method.width=4", "--device", "cpu")
    infomax("pretrain", "--data", "digits", "--method", "toy", "--out", "run", *small)
    out = infomax("evaluate", "knn", "run", "--device", "cpu")
    assert re.search(r"^trained encoder +\d+\.\d", out, re.M)
    assert "trained by toy/tiny with" in out
    out = infomax("sweep", "toy/tiny", *small, "--vary", "batch_size=512", "--out", "sweep")
    assert re.search(r"^toy/tiny, batch_size=512: ours, 1 seed +\d+\.\d+$", out, re.M)
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["toy-tiny-batch_size=512-seed0"]


@dataclass(frozen=True, kw_only=True)
class OwnSettings(MethodSettings):
    name = "own"

    def build(self, encoder):
        raise NotImplementedError


def own_recipes(method: str = "own") -> Experiments:
    recipes = Experiments(method)

    def tiny():
        return digits_recipe(OwnSettings(), OptimizerSettings(name="sgd", learning_rate=0.1))

    recipes.add(None, None)(tiny)
    return recipes


def test_a_method_with_one_recipe_has_it_as_default_everywhere():
    spec = MethodSpec(settings=OwnSettings, recipes=own_recipes(), default_for_large_images="tiny")
    cases = [("digits", 8, False), ("x", 32, False), ("x", 32, True), ("x", 300, True)]
    assert {spec.default_recipe(data=data, side=side, gpu=gpu) for data, side, gpu in cases} == {"tiny"}


def test_a_specification_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="the method own has recipes of the method other"):
        MethodSpec(settings=OwnSettings, recipes=own_recipes("other"), default_for_large_images="tiny")
    with pytest.raises(ValueError, match="the method own has no recipe 'large', its default"):
        MethodSpec(settings=OwnSettings, recipes=own_recipes(), default_for_large_images="large")


@pytest.mark.parametrize(
    ("value", "message"),
    [("nowhere:METHOD", "No module named 'nowhere'"), ("math:pi", "it is a float, not a MethodSpec")],
)
def test_a_package_that_cannot_be_loaded_is_left_out_with_a_warning(value, message):
    entry = EntryPoint(name="broken", value=value, group=ENTRY_POINTS)
    with pytest.warns(UserWarning, match=rf"the method broken \({value}\) is left out: {message}"):
        assert list(installed(MethodSpec, "method", [entry])) == []


def test_two_methods_of_one_name_are_refused():
    spec = MethodSpec(settings=OwnSettings, recipes=own_recipes(), default_for_large_images="tiny")
    with pytest.raises(ValueError, match="two methods are named own"):
        registry(MethodSpec, "method", [spec, spec], ENTRY_POINTS)


def test_no_other_file_lists_the_methods():
    """Names in examples of documentation are fine; a list of two or more of them in code is not."""
    source = Path(library.__file__).parent
    allowed = {"recipes/registry.py", "papers/published.py", "evaluation/probes.py", "evaluation/finetune.py"}
    allowed.add("experiments/compare.py")  # the baselines that a comparison takes if none are named
    # the papers' figures and tables of cost, which are of methods by name
    allowed |= {f"figures/catalogue/{name}.py" for name in ("logdet_cost", "mira_convergence", "step_cost")}
    names = "|".join(METHODS)
    views = (
        r"Set of views: .*|from infomax\.data\.augmentation\.views import (\([^)]*\)|.*)"  # which have names of methods
    )
    for file in source.rglob("*.py"):
        if file.relative_to(source).as_posix() not in allowed:
            lists = re.search(rf"\b({names})\b\W{{1,6}}\b(?!\1\b)({names})\b", re.sub(views, "", file.read_text()))
            assert lists is None, f"{file}: {lists}"
