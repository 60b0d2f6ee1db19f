"""Fine-tuning against a plain loop; interrupted runs; the search for learning rate and weight decay; several ranks."""

import copy
import os
import re
import signal
import time
from dataclasses import dataclass, replace
from math import cos, pi

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch.nn import functional as F

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import Preprocessing, supervised_crops
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.loading.evaluation import unreadable_error
from infomax.data.loading.training import training_batches
from infomax.data.pixel_format import OtherKindError, PixelFormat
from infomax.data.sources.joined import JoinedImages
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation import search, tuning
from infomax.evaluation.finetune import SETTINGS, finetune
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols.finetune import SETTING_NAMES, FinetuneOptions
from infomax.evaluation.representations import Representation
from infomax.evaluation.resumable_work import ResumableWork
from infomax.evaluation.scores import mean_average_precision, top_k
from infomax.evaluation.search import GRID, ORDER, TRANSFER, choose_best, of_pair, together, transfer_finetune
from infomax.evaluation.tuning import Compute, FineTuner, FineTuning, class_scores
from infomax.evaluation.tuning_plan import describe_setting
from infomax.models.encoders import build_encoder, fingerprint, save_encoder
from infomax.runtime import checkpoints
from ranks import on_ranks
from tiny import tiny_encoder

HOW = EvaluationOptions(device="cpu", no_cache=True)


@dataclass(frozen=True)
class Alone:
    """Specifies nothing: one fine-tuning, in a folder of its own."""


NOWHERE = ResumableWork(Alone(), None)
STAIRS = FineTuning(
    name="stairs", epochs=6, batch_size=40, backbone_rate=0.05, head_rate=0.5, schedule="staircase", head_std=0.01
)
COSINE = FineTuning(name="cosine", epochs=3, batch_size=40, backbone_rate=0.02, head_rate=0.3)
BY_STEP = FineTuning(
    name="by-step",
    steps=7,
    batch_size=32,
    backbone_rate=0.1,
    head_rate=0.1,
    schedule="cosine-by-step",
    weight_decay=0.02,
    nesterov=True,
)


def an_encoder(norm=True, dtype=torch.float32):
    torch.manual_seed(5)
    encoder = tiny_encoder(norm).to(dtype)
    encoder.preprocessing = Preprocessing(resize=8, size=8)
    return encoder


@pytest.fixture(scope="module")
def pretrained():
    encoder = build_encoder("small", stem="imagenet", seed=0).eval()
    encoder.preprocessing = Preprocessing(resize=8, size=8)
    return Representation("an encoder", fingerprint(encoder), lambda images, _: torch.empty(0), encoder)


@pytest.fixture(scope="module")
def digits() -> Source:
    """200 digits to train by, 60 to validate by and 90 to test by."""
    source = open_source("digits")
    train = source.train

    def images_between(start, stop):
        return ArrayImages(train.pixels[start:stop], train.labels[start:stop], train.classes)

    return Source("digits", images_between(0, 200), images_between(300, 390), images_between(200, 260))


def all_of(images) -> LabelledImages:
    return LabelledImages(images, np.arange(len(images)), images.labels)


def several(images) -> ArrayImages:
    """The digits again, with two classes each: the digit, and whether it is even."""
    labels = np.eye(12, dtype=np.int64)[images.labels]
    labels[:, 10], labels[:, 11] = images.labels % 2 == 0, images.labels > 4
    return ArrayImages(images.pixels, labels, [*images.classes, "even", "large"])


def tune(encoder, labelled, setting, seed=0, work=NOWHERE, **compute):
    return FineTuner(encoder, labelled, setting, seed=seed, compute=Compute(**compute), work=work).run()


def rates_by_hand(setting, epoch, step) -> tuple[float, float]:
    if setting.schedule == "staircase":
        return setting.backbone_rate * 0.2 ** (epoch // 5), setting.head_rate * 0.1 ** (epoch // 5)
    done = step / setting.steps if setting.steps else epoch / setting.epochs
    return setting.backbone_rate * (1 + cos(pi * done)) / 2, setting.head_rate * (1 + cos(pi * done)) / 2


def by_hand(encoder, labelled, setting, seed):
    """A loop with momentum written out."""
    encoder = copy.deepcopy(encoder).train()
    torch.manual_seed(seed)
    head = torch.nn.Linear(encoder.width, len(labelled.images.classes), dtype=torch.float64)
    if setting.head_std:
        torch.nn.init.normal_(head.weight, 0.0, setting.head_std)
        torch.nn.init.zeros_(head.bias)
    images, views = labelled.selected_images, supervised_crops(encoder.preprocessing)
    steps = setting.steps or setting.epochs * (len(images) // setting.batch_size)
    momentum = {}
    batches = training_batches(images, views, batch_size=setting.batch_size, seed=seed, steps=range(steps))
    for step, batch in enumerate(batches):
        view_arguments = {"seed": seed, "epoch": batch.epoch, "index": batch.index, "dtype": torch.float64}
        scores = head(encoder(make_views(batch.images, views, **view_arguments)[0]))
        labels = torch.from_numpy(labelled.labels[batch.index])
        if labels.ndim > 1:
            y = labels.double()
            loss = -(y * F.logsigmoid(scores) + (1 - y) * F.logsigmoid(-scores)).mean()
        else:
            loss = -scores.log_softmax(1)[torch.arange(len(labels)), labels].mean()
        rates = rates_by_hand(setting, batch.epoch, step)
        for module, rate in zip((encoder, head), rates, strict=True):
            parameters = list(module.parameters())
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
                g = g + setting.weight_decay * p.detach()
                momentum[p] = g if p not in momentum else 0.9 * momentum[p] + g
                p.data -= rate * (g + 0.9 * momentum[p] if setting.nesterov else momentum[p])
    return {f"encoder.{k}": v for k, v in encoder.state_dict().items()} | {
        f"head.{k}": v for k, v in head.state_dict().items()
    }


@pytest.mark.parametrize("setting", [STAIRS, COSINE, BY_STEP], ids=lambda setting: setting.name)
@pytest.mark.parametrize("labels", ["one", "several"])
def test_a_fine_tuning_equals_a_plain_loop(digits, setting, labels):
    images = digits.train if labels == "one" else several(digits.train)
    labelled = LabelledImages(images, np.arange(3, 123), images.labels[3:123])
    encoder = an_encoder(dtype=torch.float64)
    trained, expected = tune(encoder, labelled, setting, seed=3).state_dict(), by_hand(encoder, labelled, setting, 3)
    assert trained.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_rates_fall_as_the_papers_say():
    stairs = SETTINGS["corinfomax-1"]
    at = [stairs.rates(0, epoch, 1000) for epoch in (0, 4, 5, 9, 10, 15, 19)]
    np.testing.assert_allclose(at[0], (0.005, 30), rtol=1e-12)
    assert at[0] == at[1]
    np.testing.assert_allclose(at[2], (0.001, 3), rtol=1e-12)
    assert at[2] == at[3]
    np.testing.assert_allclose(at[4:], [(2e-4, 0.3), (4e-5, 0.03), (4e-5, 0.03)], rtol=1e-12)
    cosine = SETTINGS["mveb-10"]
    by_epoch = [cosine.rates(step, epoch, 600) for step, epoch in ((0, 0), (9, 0), (300, 30), (590, 59))]
    half = (1 + cos(pi * 59 / 60)) / 2
    np.testing.assert_allclose(by_epoch, [(0.003, 0.4), (0.003, 0.4), (0.0015, 0.2), (0.003 * half, 0.4 * half)])
    np.testing.assert_allclose(
        [TRANSFER.rates(step, 0, 5000)[0] for step in (0, 2500, 5000)], (0.1, 0.05, 0), atol=1e-17
    )


def test_settings_are_those_of_the_papers():
    rates = {name: (s.backbone_rate, s.head_rate, s.epochs, s.schedule, s.head_std) for name, s in SETTINGS.items()}
    assert rates == {
        "mira-1": (0.0, 0.4, 20, "cosine", None),
        "mira-10": (0.02, 0.1, 20, "cosine", None),
        "corinfomax-1": (0.005, 30.0, 20, "staircase", 0.01),
        "corinfomax-10": (0.005, 20.0, 20, "staircase", 0.01),
        "mveb-1": (0.002, 0.8, 60, "cosine", None),
        "mveb-10": (0.003, 0.4, 60, "cosine", None),
    }
    assert all((s.batch_size, s.weight_decay, s.nesterov) == (256, 0.0, False) for s in SETTINGS.values())
    assert (TRANSFER.steps, TRANSFER.batch_size, TRANSFER.nesterov, TRANSFER.head_std) == (5000, 64, True, None)


def test_an_encoder_without_a_rate_stays_as_it_is(digits, pretrained):
    before = copy.deepcopy(pretrained.encoder.state_dict())
    model = tune(pretrained.encoder, all_of(digits.train), replace(SETTINGS["mira-1"], batch_size=100, epochs=1))
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    torch.manual_seed(0)
    assert not torch.equal(model.head.weight, torch.nn.Linear(128, 10).weight)


def test_the_caller_keeps_encoder_mode_and_random_numbers(digits, pretrained):
    encoder = pretrained.encoder
    encoder.eval()
    before = copy.deepcopy(encoder.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    tune(encoder, all_of(digits.train), replace(BY_STEP, steps=2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not encoder.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_row_says_what_was_done(digits, pretrained):
    row = finetune(pretrained, digits, setting="mveb-1", epochs=2, batch_size=500, evaluation=HOW)
    assert row.protocol == "finetune"
    assert (row.setting, row.epochs, row.steps, row.seed) == ("mveb-1", 2, 2, 0)
    assert (row.batch_size, row.batch_size_asked_for) == (200, 500)
    assert (row.labelled_images, row.test_images, row.classes) == (200, 90, 10)
    assert row.encoder == fingerprint(pretrained.encoder)
    test = all_of(digits.test)
    model = tune(pretrained.encoder, all_of(digits.train), replace(SETTINGS["mveb-1"], epochs=2))
    scores = class_scores(model, test, Compute())
    assert row.top1 == pytest.approx(top_k(scores, torch.from_numpy(test.labels)))
    assert row.top5 == pytest.approx(top_k(scores, torch.from_numpy(test.labels), 5))
    assert row.interval[0] <= row.top1 <= row.interval[1]


def test_what_will_be_done_is_said_before_it_starts(digits, pretrained, tmp_path, capsys):
    evaluation = EvaluationOptions(device="cpu", workers=0, quiet=False)
    before = fingerprint(pretrained.encoder)
    for _ in range(2):  # the second time there is nothing left to do
        finetune(pretrained, digits, epochs=2, work=tmp_path / "work", evaluation=evaluation)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "fine-tunes" in line]
    images = len(digits.train)
    assert line.startswith(
        f"infomax: fine-tunes on {images} images with labels of 10 classes by mira-10, MIRA's for 10 % of ImageNet's "
        f"labels (--setting names others): learning rate 0.02 for the encoder and 0.1 for the classifier; 2 epochs "
    )
    assert re.search(r"1 training, about [0-9.]+ (s|min) by the speed of the encoder and of its views$", line)
    assert fingerprint(pretrained.encoder) == before
    finetune(pretrained, digits, epochs=1, evaluation=replace(evaluation, quiet=True, no_cache=True))
    assert "fine-tunes" not in capsys.readouterr().err


def test_settings_in_words():
    frozen = describe_setting(SETTINGS["mira-1"], 40, 256, 1)
    assert frozen == (
        "mira-1, MIRA's for 1 % of ImageNet's labels (--setting names others): a frozen encoder, and learning rate 0.4 "
        "for the classifier; 20 epochs (--epochs changes that) of 2 steps of 256 images, 1 training"
    )
    search = describe_setting(TRANSFER, 5000, 64, 21)
    assert search.startswith("transfer, MVEB's setting for other data sets: pairs of learning rate and weight decay")
    assert search.endswith("(--budget tries fewer); 5,000 steps of 64 images each, 21 trainings")


def test_images_are_classified_as_they_are_and_by_running_statistics(digits, pretrained):
    model = tune(pretrained.encoder, all_of(digits.train), replace(BY_STEP, steps=2))
    labelled, preprocessing = (
        LabelledImages(digits.test, np.arange(5, 12), digits.test.labels[5:12]),
        Preprocessing(resize=8, size=8),
    )
    x = torch.from_numpy(digits.test.pixels[5:12]).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(preprocessing.mean).view(3, 1, 1)) / torch.tensor(preprocessing.std).view(3, 1, 1)
    with torch.no_grad():
        expected = model.head(model.encoder.eval()(x))
    torch.testing.assert_close(class_scores(model.train(), labelled, Compute()), expected, rtol=1e-4, atol=1e-5)


def test_few_digits_are_learned(digits, pretrained):
    row = finetune(pretrained, digits, setting=replace(BY_STEP, steps=60), evaluation=HOW)
    assert row.top1 > 0.5  # by chance a tenth
    assert row.batch_size_asked_for is None


def test_bf16_is_near(digits, pretrained):
    labelled = all_of(digits.train)
    models = [tune(pretrained.encoder, labelled, replace(BY_STEP, steps=2), precision=p) for p in ("32", "bf16")]
    first, second = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models)
    assert first.dtype == second.dtype == torch.float32
    assert 0 < float((first - second).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"setting": "mira-5"}, "--setting must be one of mira-1, .*, but is 'mira-5'; did you mean"),
        ({"epochs": 0}, "--epochs must be a whole number of at least 1, but is 0"),
        ({"batch_size": 1}, "batch_size 1 of 200 images: 1 ranks take 2 images a step at least"),
        ({"seed": -1}, "--seed must be"),
        ({"precision": "8"}, "--precision must be one of 32, bf16"),
    ],
)
def test_mistakes_are_named(digits, pretrained, words, message):
    with pytest.raises(ValueError, match=message):
        finetune(pretrained, digits, evaluation=HOW, **words)


def test_settings_that_make_no_sense_are_refused():
    for words in ({"epochs": None}, {"steps": 3}, {"epochs": None, "steps": 3}, {"schedule": "line"}, {"name": "../x"}):
        with pytest.raises(ValueError, match="epochs or steps|schedule|name"):
            replace(COSINE, **words)


def test_an_image_that_cannot_be_read_is_named(tmp_path, pretrained):
    images = files(tmp_path, 6)
    (tmp_path / images.files[4]).write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"{images.files[4]} cannot be read"):
        tune(pretrained.encoder, all_of(images), replace(COSINE, epochs=1), workers=0)


def test_an_image_of_other_channels_is_not_called_damaged(tmp_path, pretrained):
    """The cure of a damaged file, to mend it, would be none."""
    images, encoder = files(tmp_path, 4), copy.deepcopy(pretrained.encoder)
    deep = PixelFormat(low=(0.0,) * 3, high=(1.0,) * 3)
    encoder.preprocessing = replace(encoder.preprocessing, pixel_format=deep)
    with pytest.raises(OtherKindError, match=r"png: it has 3 channels of uint8, and the encoder takes 3") as error:
        tune(encoder, all_of(images), replace(COSINE, epochs=1), workers=0)
    assert unreadable_error(error.value) is error.value
    assert "mend the file" in str(unreadable_error(ValueError("0.png cannot be read")))


def files(folder, count, start=0) -> FileImages:
    rng = np.random.default_rng(start)
    names = [f"{start + i}.png" for i in range(count)]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 255, (10 + i % 2, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return FileImages(folder, names, np.arange(count) % 2, ["a", "b"])


def test_files_are_trained_on_as_arrays_of_their_pixels_are(tmp_path, pretrained):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (12, 9, 9, 3), dtype=np.uint8)
    names = [f"{i}.png" for i in range(12)]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    labels = np.arange(12) % 2
    splits = [all_of(ArrayImages(pixels, labels, ["a", "b"])), all_of(FileImages(tmp_path, names, labels, ["a", "b"]))]
    setting = replace(COSINE, batch_size=6, epochs=4, backbone_rate=0.0)
    first, second, untrained = (
        tune(pretrained.encoder, labelled, setting_of_part, workers=0).head.weight.detach()
        for labelled, setting_of_part in zip(
            (*splits, splits[0]), (setting, setting, replace(setting, head_rate=0.0)), strict=True
        )
    )
    assert (first - second).norm() < 0.05 * (first - untrained).norm()  # crops of files are rounded to bytes


# Interrupted runs


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


LONG = replace(COSINE, name="long", epochs=5)  # 25 steps


@pytest.mark.parametrize("step", [3, 12, 24])
def test_a_run_that_is_told_to_stop_goes_on_to_the_same_bits(digits, tmp_path, monkeypatch, capsys, step):
    encoder, labelled, taken = an_encoder(), all_of(digits.train), []
    straight = tune(encoder, labelled, LONG).state_dict()
    true_step = FineTuner._step

    def stopping(self, batch):
        true_step(self, batch)
        taken.append(self.done)
        if self.done == step and len(taken) == step + 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(FineTuner, "_step", stopping)
    work = ResumableWork(Alone(), tmp_path / "work")
    with pytest.raises(SystemExit):
        tune(encoder, labelled, LONG, work=work)
    assert f"long: stopped at step {step + 1} of 25; the same command goes on" in capsys.readouterr().err
    assert same(tune(encoder, labelled, LONG, work=work).state_dict(), straight)
    assert taken == list(range(25))  # no step was taken twice


def live(work, labelled):
    tuning.SAVE_EVERY = 0.0
    torch.set_num_threads(1)
    true_step = FineTuner._step

    def slow(self, batch):
        time.sleep(0.02 if self.done < 20 else 600)  # it is killed before it is done, however busy the machine is
        true_step(self, batch)

    FineTuner._step = slow
    tune(an_encoder(), labelled, LONG, work=ResumableWork(Alone(), work))


def test_a_run_that_is_killed_goes_on_to_the_same_bits(digits, tmp_path):
    labelled = all_of(digits.train)
    straight = tune(an_encoder(), labelled, LONG).state_dict()
    for least in (2, 9):
        process = mp.get_context("fork").Process(target=live, args=(tmp_path / "work", labelled))
        process.start()
        while not any(
            checkpoints.step_of(file) > least for file in checkpoints.list_checkpoints(tmp_path / "work/long")
        ):
            assert process.is_alive()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    resumed = FineTuner(
        an_encoder(), labelled, LONG, seed=0, compute=Compute(), work=ResumableWork(Alone(), tmp_path / "work")
    )
    assert 9 < resumed.done < 25
    assert same(resumed.run().state_dict(), straight)


def test_what_is_finished_is_kept_and_its_checkpoints_are_not(digits, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "SAVE_EVERY", 0.0)
    words = {"setting": replace(BY_STEP, steps=3), "work": tmp_path / "work", "evaluation": HOW}
    row = finetune(pretrained, digits, **words)
    assert {file.name for file in (tmp_path / "work").iterdir()} == {"specification.json", "finished.jsonl"}
    monkeypatch.setattr(FineTuner, "run", None)
    assert finetune(pretrained, digits, **words) == row


def test_a_torn_line_is_computed_again(digits, pretrained, tmp_path):
    words = {"setting": replace(BY_STEP, steps=2), "work": tmp_path / "work", "evaluation": HOW}
    row = finetune(pretrained, digits, **words)
    kept = tmp_path / "work/finished.jsonl"
    kept.write_text(kept.read_text()[:-9])
    again = finetune(pretrained, digits, **words)
    assert replace(again, seconds=0.0) == replace(row, seconds=0.0)
    assert finetune(pretrained, digits, **words) == again


def test_a_folder_of_other_work_is_refused(digits, pretrained, tmp_path):
    words = {"setting": replace(BY_STEP, steps=2), "work": tmp_path / "work", "evaluation": HOW}
    finetune(pretrained, digits, **words)
    with pytest.raises(ValueError, match="begun with other settings: seed was 0, is 1. Name another folder"):
        finetune(pretrained, digits, seed=1, **words)
    other = replace(pretrained, identity="other")
    with pytest.raises(ValueError, match="begun with other settings: encoder was .*, is other"):
        finetune(other, digits, **words)
    with pytest.raises(ValueError, match="test was"):
        finetune(pretrained, replace(digits, test=digits.val), **words)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    with pytest.raises(ValueError, match="^work: .*mine exists and is not a folder of unfinished work"):
        finetune(pretrained, digits, **{**words, "work": tmp_path / "mine"})


def test_without_a_folder_the_cache_is_used(digits, pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = {"setting": replace(BY_STEP, steps=2)}
    row = finetune(pretrained, digits, evaluation=replace(HOW, no_cache=False), **words)
    assert len(list((tmp_path / "infomax/unfinished").iterdir())) == 1
    other = finetune(pretrained, digits, seed=1, evaluation=replace(HOW, no_cache=False), **words)
    assert len(list((tmp_path / "infomax/unfinished").iterdir())) == 2
    assert row.seed != other.seed


# The search


def test_the_grid_is_that_of_the_papers():
    rates, decays = sorted({rate for rate, _ in GRID}), sorted({decay for _, decay in GRID})
    np.testing.assert_allclose(rates, np.logspace(-4, -1, 4))
    np.testing.assert_allclose(decays, [0, *np.logspace(-6, -3, 4)])
    assert len(GRID) == len(set(GRID)) == 20
    assert [rate for rate, _ in GRID] == sorted((rate for rate, _ in GRID), reverse=True)
    assert sorted(ORDER) == sorted(GRID)
    for budget in range(1, 5):
        assert len({rate for rate, _ in ORDER[:budget]}) == budget
    pair = of_pair(TRANSFER, "trial", 0.01, 1e-4)
    assert (pair.backbone_rate, pair.head_rate, pair.weight_decay) == (0.01, 0.01, pytest.approx(0.01))


def trial(rate, decay, score):
    return {"learning_rate": rate, "weight_decay": decay, "validation": score, "diverged": score is None}


def test_the_first_best_pair_of_the_grid_is_chosen():
    tried = [trial(0.01, 0.0, 0.5), trial(0.001, 0.0, 0.7), trial(0.1, 0.0, None), trial(0.01, 1e-4, 0.7)]
    assert choose_best(tried) == tried[3]
    assert choose_best([*tried, trial(0.01, 1e-6, 0.7)])["weight_decay"] == 1e-6
    assert choose_best([*tried, trial(0.0001, 1e-3, 0.71)])["learning_rate"] == 0.0001
    with pytest.raises(FloatingPointError, match="diverged with each of 1 pairs"):
        choose_best([tried[2]])


QUICK = {"steps": 12, "budget": 3, "evaluation": HOW}


def bare(row):
    """Without what a clock says."""
    values = row.to_json()
    tried = [{k: v for k, v in pair.items() if k != "seconds"} for pair in values["tried"]]
    return {**{k: v for k, v in values.items() if k != "seconds"}, "tried": tried}


def test_the_best_pair_is_trained_again_from_the_first_weights_on_both_splits(digits, pretrained):
    row = transfer_finetune(pretrained, digits, **QUICK)
    assert [(pair["learning_rate"], pair["weight_decay"]) for pair in row.tried] == list(ORDER[:3])
    best = max(row.tried, key=lambda pair: pair["validation"])
    assert row.learning_rate == best["learning_rate"]
    assert row.validation == best["validation"]
    assert (row.train_images, row.validation_images, row.test_images) == (200, 60, 90)
    assert (row.steps, row.batch_size, row.grid, row.metric) == (12, 64, 20, "top1")
    pair = of_pair(replace(TRANSFER, steps=12), "own", row.learning_rate, row.weight_decay)
    train, val, test = all_of(digits.train), all_of(digits.val), all_of(digits.test)

    def accuracy(train, test):
        scores = class_scores(tune(pretrained.encoder, train, pair), test, Compute())
        return top_k(scores, torch.from_numpy(test.labels))

    assert row.validation == pytest.approx(accuracy(train, val))
    both = ArrayImages(
        np.concatenate([digits.train.pixels, digits.val.pixels]),
        np.concatenate([digits.train.labels, digits.val.labels]),
        digits.train.classes,
    )
    assert row.top1 == pytest.approx(accuracy(all_of(both), test))


def test_the_test_images_do_not_choose(digits, pretrained):
    row = transfer_finetune(pretrained, digits, **QUICK)
    labels = np.random.default_rng(0).permutation(digits.test.labels)
    mixed = replace(digits, test=ArrayImages(digits.test.pixels, labels, digits.test.classes))
    other = transfer_finetune(pretrained, mixed, **QUICK)
    assert bare(other)["tried"] == bare(row)["tried"]
    assert (other.learning_rate, other.weight_decay) == (row.learning_rate, row.weight_decay)
    assert other.top1 < row.top1
    labels = np.random.default_rng(0).permutation(digits.val.labels)
    mixed = replace(digits, val=ArrayImages(digits.val.pixels, labels, digits.val.classes))
    assert bare(transfer_finetune(pretrained, mixed, **QUICK))["tried"] != bare(row)["tried"]


def test_finished_pairs_are_not_tried_again(digits, pretrained, tmp_path, monkeypatch):
    names, true_run = [], FineTuner.run

    def noting(self):
        names.append(self.setting.name)
        if len(names) == 2:
            raise KeyboardInterrupt
        return true_run(self)

    monkeypatch.setattr(FineTuner, "run", noting)
    words = {**QUICK, "steps": 6, "work": tmp_path / "work"}
    with pytest.raises(KeyboardInterrupt):
        transfer_finetune(pretrained, digits, **words)
    row = transfer_finetune(pretrained, digits, **words)
    assert [name.split("-")[0] for name in names] == ["trial", "trial", "trial", "trial", "best"]
    assert names[1] == names[2]
    assert transfer_finetune(pretrained, digits, **words) == row
    assert len(names) == 5
    larger = transfer_finetune(pretrained, digits, **{**words, "budget": 4})
    assert names[5] == f"trial-{ORDER[3][0]:g}-0"
    assert larger.tried[:3] == row.tried
    assert bare(row) == bare(transfer_finetune(pretrained, digits, **{**words, "work": None}))


def test_images_of_several_classes_are_judged_by_average_precision(digits, pretrained):
    source = Source("shown", several(digits.train), several(digits.test), several(digits.val))
    row = transfer_finetune(pretrained, source, steps=40, budget=1, evaluation=HOW)
    assert row.metric == "map11"
    pair = of_pair(replace(TRANSFER, steps=40), "own", row.learning_rate, 0.0)
    both = together(all_of(source.train), all_of(source.val))
    scores = class_scores(tune(pretrained.encoder, both, pair), all_of(source.test), Compute())
    assert scores.shape == (90, 12)
    expected = mean_average_precision(scores.double().numpy(), source.test.labels)
    assert row.map11 == pytest.approx(expected)
    chance = mean_average_precision(np.random.default_rng(0).random((90, 12)), source.test.labels)
    assert expected > chance + 0.1


def test_a_fifth_validates_where_there_is_no_split_for_it(digits, pretrained):
    row = transfer_finetune(pretrained, replace(digits, val=None), steps=2, budget=1, evaluation=HOW)
    assert (row.train_images, row.validation_images) == (160, 40)


def test_a_pair_that_diverges_is_worst_and_the_search_goes_on(digits, pretrained, tmp_path, monkeypatch):
    pairs = ((1e30, 0.0), (0.01, 0.0))
    monkeypatch.setattr(search, "GRID", pairs)
    monkeypatch.setattr(search, "ORDER", pairs)
    words = {**QUICK, "work": tmp_path / "work"}
    row = transfer_finetune(pretrained, digits, **words)
    assert [pair["diverged"] for pair in row.tried] == [True, False]
    assert row.tried[0]["validation"] is None
    assert row.learning_rate == 0.01
    assert transfer_finetune(pretrained, digits, **words) == row
    with pytest.raises(FloatingPointError, match="diverged with each of 1 pairs"):
        transfer_finetune(pretrained, digits, **{**words, "budget": 1})


def test_a_single_run_that_diverges_says_so(digits, pretrained):
    diverging = replace(COSINE, head_rate=1e30, backbone_rate=1e30)
    with pytest.raises(FloatingPointError, match="cosine: the loss became infinite or NaN by step 15 of 15; smaller"):
        finetune(pretrained, digits, setting=diverging, evaluation=HOW)
    with pytest.raises(FloatingPointError, match="class scores became infinite or NaN"):
        finetune(pretrained, digits, setting=replace(diverging, epochs=1, batch_size=200), evaluation=HOW)


def test_what_the_search_refuses(digits, pretrained):
    with pytest.raises(ValueError, match="--budget must be a whole number of at least 1, but is 0"):
        transfer_finetune(pretrained, digits, budget=0, evaluation=HOW)
    with pytest.raises(ValueError, match="--epochs 3 is not for --setting transfer"):
        FinetuneOptions(setting="transfer", epochs=3)
    with pytest.raises(ValueError, match=r"two splits must have labels of one kind, but have \[200, 12\] and \[60\]"):
        transfer_finetune(pretrained, replace(digits, train=several(digits.train)), budget=1, evaluation=HOW)
    both = {"train": several(digits.train), "val": several(digits.val)}
    with pytest.raises(ValueError, match="--metric map11 takes a 1 or 0 for each class"):
        transfer_finetune(pretrained, replace(digits, **both), budget=1, evaluation=HOW)


def test_two_splits_are_joined(tmp_path, digits):
    first, second = files(tmp_path, 5), files(tmp_path, 4, start=10)
    labelled = together(LabelledImages(first, np.array([1, 3]), first.labels[[1, 3]]), all_of(second))
    assert isinstance(labelled.images, JoinedImages)
    assert labelled.index.tolist() == [1, 3, 5, 6, 7, 8]
    assert labelled.labels.tolist() == [1, 1, 0, 1, 0, 1] == labelled.images.labels[labelled.index].tolist()
    assert [labelled.images.name(int(i)) for i in labelled.index] == [first.files[1], first.files[3], *second.files]
    assert np.array_equal(labelled.images.open(6), second.open(1))
    assert np.array_equal(labelled.selected_images.open(1), first.open(3))
    assert len(labelled.images) == 9
    other = together(all_of(second), all_of(first))
    assert labelled.images.fingerprint() != other.images.fingerprint()
    state = labelled.images.state(labelled.index)
    assert state == labelled.images.state(labelled.index) != labelled.images.state(labelled.index[1:])
    os.utime(tmp_path / second.files[2], ns=(1, 1))
    assert labelled.images.state(labelled.index) != state
    rows = together(
        LabelledImages(first, np.array([1, 4]), np.array([1, 0])), LabelledImages(first, np.array([2]), np.array([7]))
    )
    assert (rows.images, rows.index.tolist(), rows.labels.tolist()) == (first, [1, 2, 4], [1, 7, 0])
    arrays = together(all_of(digits.train), all_of(digits.val))
    assert isinstance(arrays.images, ArrayImages)
    assert np.array_equal(arrays.images.pixels[200:], digits.val.pixels)
    assert arrays.index.tolist() == list(range(260))
    with pytest.raises(ValueError, match="two splits must have the same classes"):
        together(all_of(digits.train), all_of(second))


# Several ranks


def tuned_on_a_rank(norm, batch_size):
    """Weights and buffers, class scores, and the mean loss of each step."""
    source, losses, true_mean = open_source("digits"), [], FineTuner._mean_loss
    labelled = LabelledImages(source.train, np.arange(90), source.train.labels[:90])
    tuning.CHECK = 1
    FineTuner._mean_loss = lambda self: losses.append(true_mean(self)) or losses[-1]
    try:
        setting = replace(BY_STEP, steps=60, batch_size=batch_size, weight_decay=0.0)
        model = tune(an_encoder(norm, torch.float64), labelled, setting)
    finally:
        tuning.CHECK, FineTuner._mean_loss = 50, true_mean
    test = LabelledImages(source.test, np.arange(7), source.test.labels[:7])
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    return state, class_scores(model, test, Compute()).numpy(), losses


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_without_batch_norm_equal_one_process(world):
    """The batch of 31 is divided unevenly."""
    state, scores, losses = tuned_on_a_rank(False, 31)
    for ranks_state, ranks_scores, ranks_losses in on_ranks(world, tuned_on_a_rank, False, 31):
        for name, value in state.items():
            np.testing.assert_allclose(ranks_state[name], value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ranks_scores, scores, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ranks_losses, losses, rtol=1e-6)


def test_ranks_hold_the_same_weights_and_statistics():
    (first, scores, losses), (second, other_scores, _) = on_ranks(2, tuned_on_a_rank, True, 32)
    assert all(np.array_equal(value, second[name]) for name, value in first.items())
    assert np.array_equal(scores, other_scores)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:3])


def interrupted_on_a_rank(folder):
    """Stop in the middle, go on; and whether the weights are those of a run that was not stopped."""
    source = open_source("digits")
    labelled = LabelledImages(source.train, np.arange(90), source.train.labels[:90])
    straight = tune(an_encoder(), labelled, BY_STEP).state_dict()
    true_step = FineTuner._step

    def stopping(self, batch):
        true_step(self, batch)
        if self.done == 3 and torch.distributed.get_rank() == 1:
            signal.raise_signal(signal.SIGTERM)

    FineTuner._step = stopping
    work = ResumableWork(Alone(), folder)
    try:
        tune(an_encoder(), labelled, BY_STEP, work=work)
        stopped = False
    except SystemExit:
        stopped = True
    FineTuner._step = true_step
    torch.distributed.barrier()  # ranks of a command end here, and others begin
    again = FineTuner(an_encoder(), labelled, BY_STEP, seed=0, compute=Compute(), work=work)
    done = again.done
    return stopped, done, same(again.run().state_dict(), straight)


def test_ranks_stop_together_and_go_on_to_the_same_bits(tmp_path):
    assert on_ranks(2, interrupted_on_a_rank, tmp_path / "work") == [(True, 4, True)] * 2


def test_few_labels_are_fine_tuned_on_linearly_interpolated_images(digits, tmp_path, monkeypatch):
    """As for the probes: MVEB's Sec. 6.3 says so, the code of CorInfoMax's fine-tuning has it. Transfer is cubic."""
    assert [setting.name for setting in SETTINGS.values() if setting.bicubic] == []
    assert TRANSFER.bicubic
    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    save_encoder(build_encoder(**settings), settings, Preprocessing(resize=10, size=8), tmp_path)
    seen = []

    def crops(preprocessing, *, bicubic):
        seen.append((preprocessing.bicubic, bicubic))
        return supervised_crops(preprocessing, bicubic=bicubic)

    monkeypatch.setattr(tuning, "supervised_crops", crops)
    for bicubic in (False, True):
        setting = replace(SETTINGS["mveb-1"], epochs=1, bicubic=bicubic)
        finetune(tmp_path, digits, setting=setting, evaluation=HOW)
    assert seen == [(False, False), (True, True)]


def test_the_names_that_options_accept_without_torch_are_those_of_the_settings():
    assert {*SETTING_NAMES} == {*SETTINGS, "transfer"}
