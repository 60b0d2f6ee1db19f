"""Training on a pretended Apple GPU comes to what the CPU computes, and asks the GPU for nothing that it lacks."""

import io
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from feature_files import save_small_encoder
from infomax import embed, evaluate, figure, plan, pretrain
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.diagnosis.machine import describe_devices
from infomax.evaluation.detection.coco_folder import CocoSource
from infomax.evaluation.detection.detect import detect
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.run import launched_ranks
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.runtime.devices import place_network
from infomax.training import engine as engine_module
from infomax.training.engine import Engine
from infomax.training.health import Health
from mask_folders import write_masked
from pretended_mps import LackedByMpsError, PretendedTensor, lacked_operations, pretended_mps
from tiny import IMAGES, TINY
from toy_data import TOY, write_toy

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
STEPS = 3  # each of them an epoch: the queues are full before the last one
FOUR = ("mira", "corinfomax", "carl", "mveb")
MICROBATCHES = (*FOUR, "densecl", "pcl", "swav-queue", "self_classifier-queue")
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


@pytest.fixture
def mps_is_there(monkeypatch):
    """Lets torch say that it sees Apple's GPU, and asks it nothing more."""
    for name, function in {
        "backends.mps.is_available": cache(lambda: True),  # torch's own is cached, which its compiler relies on
        "mps.get_rng_state": lambda device="mps": torch.zeros(8, dtype=torch.uint8),
        "mps.set_rng_state": lambda state, device="mps": None,
        "mps.recommended_max_memory": lambda: 8 * 10**9,
        "mps.synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(f"torch.{name}", function)


@pytest.mark.process
def test_a_run_is_trained_evaluated_and_resumed_on_the_cpu(tmp_path, mps_is_there, capsys):
    data, out = write_toy(tmp_path, train=32, test=16, side=16), tmp_path / "a"
    settings = {"method": "mira", "overrides": TOY["mira"], "batch_size": 16, "image_size": 16}
    with pretended_mps():
        run = pretrain(data=data, out=out, device="mps", epochs=1, **settings)
        assert run.launch["device"] == "mps"
        assert "on Apple's GPU, which was never tried on the hardware" in capsys.readouterr().err
        features, names = embed(out, data=data, device="mps")
        rows = {name: evaluate(name, out, device="mps", no_cache=True) for name in ("knn", "linear")}
        tuned = evaluate("finetune", out, device="mps", no_cache=True, no_baselines=True, epochs=1)
    torch.testing.assert_close(features, embed(out, data=data, device="cpu")[0], rtol=1e-4, atol=1e-5)
    assert len(names) == 48
    assert len(tuned) == 1
    for name, got in rows.items():
        assert [row.top1 for row in got] == [row.top1 for row in evaluate(name, out, device="cpu", no_cache=True)]
    assert pretrain(out=out, resume=True, epochs=2, device="auto").trained_steps == 4
    assert "Apple's GPU is not taken by itself" in capsys.readouterr().err


@pytest.mark.process
def test_feature_maps_are_computed_on_the_gpu_and_classified_on_the_cpu(tmp_path, mps_is_there):
    evaluation = {"data": str(write_masked(tmp_path / "data", train=2, val=1)), "no_cache": True, "no_baselines": True}
    save_small_encoder(tmp_path / "a")
    with pretended_mps():
        rows = evaluate("dense", tmp_path / "a", device="mps", **evaluation)
    assert [row.mean_iou for row in rows] == [row.mean_iou for row in evaluate("dense", tmp_path / "a", **evaluation)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "64"}, "precision=64 on Apple's GPU: there is no float64; take precision=32, or device=cpu"),
        ({"precision": "bf16"}, "precision=bf16 on Apple's GPU: how it rounds in half precision was never tried"),
        ({"precision": "16"}, "precision=16 on Apple's GPU: how it rounds in half precision was never tried"),
        ({"devices": 2}, "devices=2: a Mac has one GPU; leave it out with device=mps"),
        ({"compile": True}, "compile=True with device=mps: torch's compiler is experimental there"),
        ({"deterministic": True}, "deterministic=True with device=mps: torch does not promise the same bits there"),
    ],
)
def test_what_the_gpu_cannot_do_is_refused_before_anything_is_written(tmp_path, mps_is_there, options, message):
    out = tmp_path / "a"
    with pytest.raises(ValueError, match=message):
        pretrain(data="digits", device="mps", out=out, quiet=True, **options)
    assert not out.exists()


def test_a_plan_a_figure_and_a_detector_refuse_it_too(tmp_path, mps_is_there):
    with pytest.raises(ValueError, match="precision=64 on Apple's GPU"):
        plan(data="digits", device="mps", precision="64")
    with pytest.raises(ValueError, match="figures compute in float64"):
        figure("mira-convergence", device="mps", out=tmp_path / "a.png")
    with pytest.raises(ValueError, match="its operations were never tried on Apple's GPU"):
        detect("runs/a", CocoSource, DetectorSetting, evaluation=EvaluationOptions(device="mps"))


def test_ranks_that_torchrun_started_are_refused(tmp_path, mps_is_there, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ValueError, match="2 ranks cannot share Apple's GPU"),
        launched_ranks(EvaluationOptions(device="mps")),
    ):
        pass
    with pytest.raises(ValueError, match="2 ranks cannot share Apple's GPU"):
        pretrain(data="digits", device="mps", out=tmp_path / "a", quiet=True)


def test_a_network_in_float64_is_refused():
    with pytest.raises(ValueError, match="--device mps: this encoder's weights are float64"):
        place_network(torch.nn.Linear(2, 2).double(), "mps")


def test_doctor_says_that_the_gpu_has_to_be_named(mps_is_there):
    with pretended_mps():
        (entry,) = (entry for entry in describe_devices().entries if entry.name == "mps")
    assert entry.text == "Apple's GPU may take 8.0 GB; auto leaves it out, --device mps takes it"
    assert entry.problem is None
    (entry,) = (entry for entry in describe_devices().entries if entry.name == "mps")
    assert "Apple's GPU cannot compute" in entry.problem
