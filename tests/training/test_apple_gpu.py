"""Training on a pretended Apple GPU comes to what the CPU computes, and asks the GPU for nothing that it lacks."""

import io
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from infomax.data.images import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.training import engine as engine_module
from infomax.training.engine import Engine
from infomax.training.health import Health
from pretended_mps import LackedByMpsError, PretendedTensor, lacked_operations, pretended_mps
from tiny import IMAGES, TINY

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
STEPS = 3  # each of them an epoch: the queues are full before the last one
FOUR = ("mira", "corinfomax", "carl", "mveb")
MICROBATCHES = (*FOUR, "pcl", "swav-queue", "self_classifier-queue")
RECIPES = {
    **{name: (name, {}) for name in TINY},
    **{f"{name}-microbatches": (name, {"micro_batch_size": IMAGES // 2}) for name in MICROBATCHES},
    **{
        f"carl-{optimizer}": ("carl", {"overrides": [f"optimizer.name={optimizer}"]})
        for optimizer in ("lars", "larc", "adam", "adamw")
    },
    "carl-clipped": ("carl", {"overrides": ["optimizer.clip_norm=0.1"]}),
    "mira-multi-crop": ("mira", {"views": "dino:2+2"}),
}


def recipe(name):
    method, changes = RECIPES[name]
    plain = {"image_size": 8, "batch_size": IMAGES, "epochs": STEPS, "precision": "32"}
    overrides = ["optimizer.name=sgd", "optimizer.learning_rate=0.1", *changes.get("overrides", [])]
    small = customise(get_recipe("carl", "small"), **{**plain, **changes, "overrides": overrides})
    return replace(small, method=TINY[method])


def build_engine(name, device):
    return Engine(recipe(name), steps_per_epoch=1, device=torch.device(device), images=IMAGES)


def microbatches(engine):
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 10, 10, 3)).astype(np.uint8)
    plan, step = engine.recipe, engine.steps_done
    settings = {"batch_size": plan.batch_size, "seed": plan.seed, "micro_batch_size": plan.micro_batch_size}
    images = ArrayImages(pixels, None, [])
    return list(training_batches(images, plan.views, steps=range(step, step + 1), device=engine.device, **settings))


def train(engine, stop=STEPS):
    """Returns the numbers of each step, and the features that an online probe would learn from."""
    health = Health(engine.method, batch_size=IMAGES, steps_per_epoch=1, total_steps=STEPS, done=engine.steps_done)
    numbers, features = [], []
    while engine.steps_done < stop:
        batches = microbatches(engine)
        engine.begin_epoch(lambda batches=batches: nullcontext(iter(batches)))
        observer = health.observer(engine.steps_done)
        with engine.step(batches, keep_features=True, observer=observer) as step:
            step.check_finite()
        numbers.append([float(step.loss.total.detach()), step.gradient_norm, *map(float, step.loss.terms.values())])
        numbers[-1] += list(health.measure(observer, engine.steps_done - 1).values())
        features += step.features
    return numbers, features


def through_a_file(engine):
    """Returns the state of an engine as a checkpoint brings it back."""
    file = io.BytesIO()
    torch.save(engine.state(), file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def assert_same(got, want):
    """Checks that two values are of the same numbers, as those of one layout are, up to sums in another order."""
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.fixture
def layout_of_mps(monkeypatch):
    """Makes networks and views on the CPU contiguous, as they are on Apple's GPU, so that rounding is the same."""
    monkeypatch.setattr(engine_module, "network_layout", lambda device: torch.contiguous_format)
    monkeypatch.setattr(engine_module, "to_network", lambda view, device: view.contiguous().to(device))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FOUR else pytest.mark.process) for name in RECIPES]
)
def test_steps_on_the_pretended_gpu_are_those_of_the_cpu(name, layout_of_mps):
    want = build_engine(name, "cpu")
    want_numbers, want_features = train(want)
    with pretended_mps():
        got = build_engine(name, "mps")
        got_numbers, got_features = train(got)
        assert all(isinstance(p, PretendedTensor) for p in got.method.parameters())
        assert {x.device.type for x in got_features} == {"cpu"}
        state = through_a_file(got)
    assert_same(got_numbers, want_numbers)
    assert_same(got_features, want_features)
    assert_same(state["method"], want.state()["method"])


@pytest.mark.parametrize("name", ["corinfomax", pytest.param("pcl", marks=pytest.mark.process), "carl-adamw"])
def test_a_run_goes_on_on_the_other_device(name, layout_of_mps):
    whole, on_cpu = build_engine(name, "cpu"), build_engine(name, "cpu")
    train(whole)
    train(on_cpu, stop=1)
    with pretended_mps():
        on_mps = build_engine(name, "mps")
        on_mps.load(through_a_file(on_cpu))
        train(on_mps, stop=2)
        state = through_a_file(on_mps)
    again = build_engine(name, "cpu")
    again.load(state)
    train(again)
    assert_same(again.state()["method"], whole.state()["method"])


def test_views_and_weights_have_the_layout_that_is_right_there():
    """The CPU's has the channels last; with it BatchNorm's gradients are wrong on Apple's GPU, without an error."""
    with pretended_mps():
        engine = build_engine("carl", "mps")
        views = engine.make_views(microbatches(engine)[0])
        assert all(isinstance(view, PretendedTensor) and view.is_contiguous() for view in views)
        assert all(p.is_contiguous() for p in engine.method.parameters())
        on_cpu = build_engine("carl", "cpu")
        assert not on_cpu.make_views(microbatches(on_cpu)[0])[0].is_contiguous()
        train(on_cpu, stop=1)
        engine.load(through_a_file(on_cpu))
        for state in engine.optimizer.state.values():
            assert state["momentum_buffer"].is_contiguous()


def test_the_pretended_gpu_refuses_what_the_real_one_lacks():
    assert {"special_ndtri", "linalg_eig"} <= lacked_operations()
    assert not {"mm", "convolution", "_foreach_lerp_.Scalar"} & lacked_operations()
    with pretended_mps():
        x = torch.ones(2, 3, 4, 4, device="mps")
        assert x.device.type == (x + 1).device.type == "mps"
        assert x.cpu().device.type == x.to("cpu").device.type == "cpu"
        for forbidden in (
            lambda: x.double(),
            lambda: x + torch.ones(2, 3, 4, 4),
            lambda: torch.special.ndtri(x),
            lambda: torch.nn.BatchNorm2d(3).to("mps")(x.to(memory_format=torch.channels_last)),
            lambda: x.numpy(),
        ):
            with pytest.raises(LackedByMpsError):
                forbidden()
