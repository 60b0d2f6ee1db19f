"""The papers' linear probes against plain PyTorch loops, one learning rate at a time."""

from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.sources.location import open_source
from infomax.evaluation import probing
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.probes import PROBES, TRUST, LinearProbes, Probe, held_out, train_probes
from infomax.evaluation.probing import probe
from infomax.evaluation.representations import labelled, represent
from infomax.features.extraction import recalibrate_batch_norm
from infomax.models.encoders import build_encoder, load_encoder, save_encoder
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.files import cache_folder
from ranks import on_ranks

SETTINGS = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
CPU = torch.device("cpu")


def batches(n=96, d=6, classes=4, steps=12, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = torch.randn(classes, d, generator=generator)[labels] + 0.5 * torch.randn(n, d, generator=generator)
    rows = [np.random.default_rng(step).permutation(n)[:size] for step in range(steps)]
    return x, labels, [(step // 4, x[torch.from_numpy(r)], r) for step, r in enumerate(rows)]


def plain(x, labels, plan, rate, settings, weight, skip=()):
    """One linear layer trained by autograd and torch's SGD, with LARS or LARC put between gradient and step."""
    layer = nn.Linear(x.shape[1], 4)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    for epoch, features, rows in plan:
        keep = ~np.isin(rows, skip)
        optimizer.param_groups[0]["lr"] = rate * settings.rate(epoch)
        optimizer.zero_grad()
        F.cross_entropy(layer(features[keep]), labels[rows[keep]]).backward()
        for p in layer.parameters():
            scaled = settings.optimizer == "larc" or (settings.optimizer == "lars" and p.ndim > 1)
            if scaled and p.norm() > 0 and p.grad.norm() > 0:
                p.grad.mul_(TRUST * p.norm() / p.grad.norm())
        optimizer.step()
    return layer


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "larc"])
def test_heads_side_by_side_are_layers_trained_one_by_one(optimizer):
    x, labels, plan = batches()
    settings = Probe(epochs=3, batch_size=16, learning_rate=1.0, optimizer=optimizer)
    rates = [0.1, 3.0] if optimizer == "sgd" else [5.0, 80.0]
    heads = LinearProbes(6, 4, rates * 2, settings, seed=0, device=CPU)
    first = heads.weight[:4].clone()
    held = torch.zeros(96)
    held[::5] = 1
    assert list(train_probes(heads, settings, iter(plan), labels, held)) == [epoch for epoch, *_ in plan]
    scores = heads.scores(x)
    for number, rate in enumerate(rates * 2):
        skip = np.arange(0, 96, 5) if number >= 2 else ()
        layer = plain(x, labels, plan, rate, settings, first, skip)
        torch.testing.assert_close(scores[:, number], layer(x), rtol=1e-4, atol=1e-4)


def test_the_papers_schedules():
    assert PROBES["carl"].rate(59) == 1
    assert PROBES["carl"].rate(60) == pytest.approx(0.1)
    assert PROBES["carl"].rate(80) == pytest.approx(0.01)
    assert [PROBES["corinfomax-imagenet"].rate(e) for e in (19, 20, 99)] == pytest.approx([1, 0.1, 1e-4])
    small = PROBES["corinfomax"]
    assert small.learning_rate * small.rate(0) == 0.2
    expected = 0.002 + (0.2 - 0.002) * (1 + cos(pi * 0.5)) / 2
    assert small.learning_rate * small.rate(50) == pytest.approx(expected)
    assert PROBES["mveb"].learning_rate == pytest.approx(0.1 * 4096 / 256)
    assert PROBES["mira"].learning_rate == pytest.approx(0.075 * 1024 / 256)
    assert PROBES["mira-lars"].learning_rate == pytest.approx(0.1 * 1024 / 256)


def test_a_tenth_of_each_class_is_held_out():
    labels = np.array([0] * 100 + [1] * 25 + [2] * 4 + [3])
    out = held_out(labels)
    assert [int(out[labels == label].sum()) for label in range(4)] == [10, 2, 2, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder whose features say something: with the statistics of the images."""
    encoder_folder, preprocessing = tmp_path_factory.mktemp("encoder"), Preprocessing(resize=16, size=16)
    _, train, _ = labelled("digits")
    save_encoder(
        recalibrate_batch_norm(build_encoder(**SETTINGS), train, preprocessing), SETTINGS, preprocessing, encoder_folder
    )
    return encoder_folder


def test_a_probe_learns_with_and_without_augmentation(folder):
    for no_augmentation in (True, False):
        row = probe(
            folder, "digits", name="corinfomax", learning_rates=[0.5], no_augmentation=no_augmentation, epochs=3
        )
        assert row.top1 > 0.35  # of ten classes
        assert (row.labelled_images, row.test_images, row.epochs) == (1438, 359, 3)
        assert row.interval[0] < row.top1 < row.interval[1]
        assert row.held_out_top1 is None


def test_a_probe_interpolates_as_its_paper_does_the_images_that_it_classifies_too(folder, monkeypatch):
    """MIRA's, MoCo's and SimSiam's code resizes all images linearly, that of CorInfoMax cubically."""
    seen = []
    job = probing.ProbeJob
    monkeypatch.setattr(
        probing,
        "ProbeJob",
        lambda r, *words, **more: seen.append(r.encoder.preprocessing.bicubic) or job(r, *words, **more),
    )
    rows = [probe(folder, "digits", name=name, no_augmentation=True, epochs=1) for name in ("mira", "corinfomax")]
    assert seen == [False, True]
    assert load_encoder(folder).preprocessing.bicubic
    assert rows[0].top1 != rows[1].top1
    assert [name for name, settings in PROBES.items() if settings.bicubic] == ["corinfomax", "corinfomax-imagenet"]


def test_the_probe_of_mvebs_cifar_run_learns_from_whole_images(folder):
    row = probe(folder, "digits", name="mveb-cifar", epochs=1)
    assert (row.augmentation, row.batch_size, row.learning_rate) == (False, 128, 0.01)
    assert [name for name, settings in PROBES.items() if not settings.augmentation] == ["mveb-cifar"]


def test_the_learning_rate_is_chosen_without_the_test_images(folder, monkeypatch):
    source = open_source("digits")
    rates = [1e-5, 0.5, 1e4]
    row = probe(folder, source, name="corinfomax", learning_rates=rates, no_augmentation=True, epochs=3)
    assert row.learning_rate == 0.5
    assert row.learning_rates == tuple(rates)
    shuffled = replace(source.test, labels=np.random.default_rng(0).permutation(source.test.labels))
    other = replace(source, test=shuffled)
    again = probe(folder, other, name="corinfomax", learning_rates=rates, no_augmentation=True, epochs=3)
    assert again.learning_rate == 0.5
    assert again.held_out_top1 == row.held_out_top1
    assert again.top1 < 0.3
    single = probe(folder, source, name="corinfomax", learning_rates=[0.5], no_augmentation=True, epochs=3)
    assert row.top1 == single.top1  # the head that is reported has seen all training images


@pytest.mark.parametrize("no_augmentation", [True, False])
def test_an_interrupted_probe_goes_on(folder, tmp_path, monkeypatch, no_augmentation):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = {
        "name": "carl",
        "learning_rates": [0.1, 1.0],
        "no_augmentation": no_augmentation,
        "epochs": 3,
        "batch_size": 100,
    }
    uninterrupted = probe(folder, "digits", **options)
    monkeypatch.setattr(probing, "SAVE_EVERY", 0.0)
    step, count = LinearProbes.step, []

    def failing(self, *args):
        count.append(1)
        if len(count) == 20:
            raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(LinearProbes, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        probe(folder, "digits", **options)
    monkeypatch.setattr(LinearProbes, "step", lambda self, *args: (count.append(1), step(self, *args))[1])
    resumed = probe(folder, "digits", **options)
    assert len(count) == 20 + 3 * 14 - 19
    for key in ("top1", "held_out_top1", "learning_rate", "interval"):
        assert getattr(resumed, key) == getattr(uninterrupted, key)
    assert not list(cache_folder().glob("unfinished/*"))


def ranks_step():
    _, labels, plan = batches(size=17)
    settings = Probe(epochs=3, batch_size=17, learning_rate=1.0, optimizer="lars")
    heads = LinearProbes(6, 4, [1.0, 2.0], settings, seed=0, device=CPU)
    share = [(epoch, f[rank() :: world_size()], r[rank() :: world_size()]) for epoch, f, r in plan]
    list(train_probes(heads, settings, iter(share), labels, None))
    return heads.weight.tolist()


def test_two_ranks_are_one():
    on_one_rank = torch.tensor(ranks_step())
    for weight in on_ranks(2, ranks_step):
        torch.testing.assert_close(torch.tensor(weight), on_one_rank, rtol=1e-5, atol=1e-6)


def test_what_a_probe_refuses(folder):
    with pytest.raises(ValueError, match="--probe must be one of mira, .* did you mean mveb"):
        probe(folder, "digits", name="mvbe")
    with pytest.raises(ValueError, match="--learning-rate must be a number in"):
        probe(folder, "digits", learning_rates=[0.1, -1])
    with pytest.raises(ValueError, match="--epochs must be a whole number"):
        probe(folder, "digits", epochs=0)


def test_what_was_left_unfinished_is_found_by_all_that_decides_it(folder):
    source = open_source("digits")
    _, train, _ = labelled(source)
    representation = represent(folder, EvaluationOptions())

    def folder_of(seed=0, probe=PROBES["carl"], rates=(1.0,), augmentation=False, **options):
        evaluation = EvaluationOptions(**options)
        return probing.ProbeJob(
            representation, probe, rates, train, seed=seed, augmentation=augmentation, evaluation=evaluation
        ).work.folder

    first = folder_of()
    assert first == folder_of(workers=0) != folder_of(seed=1)
    assert first != folder_of(feature_precision="16")
    assert first != folder_of(probe=replace(PROBES["carl"], end=0.5))
    assert first != folder_of(rates=(2.0,))
    assert first != folder_of(augmentation=True)
    assert folder_of(no_cache=True) is None
    other = replace(train.images, pixels=train.images.pixels.copy())
    other.pixels[0, 0, 0] ^= 1
    train = replace(train, images=other)
    assert folder_of() != first  # one pixel


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("no_augmentation", [True, False])
def test_a_gpu_trains_the_same_probe(folder, no_augmentation):
    options = {"name": "corinfomax", "learning_rates": [0.1, 0.5], "no_augmentation": no_augmentation, "epochs": 2}
    on_cpu, on_gpu = (
        probe(folder, "digits", **options, evaluation=EvaluationOptions(device=device, no_cache=True))
        for device in ("cpu", "cuda")
    )
    assert on_gpu.top1 == pytest.approx(on_cpu.top1, abs=0.02)
    assert on_gpu.held_out_top1 == pytest.approx(on_cpu.held_out_top1, abs=0.02)
