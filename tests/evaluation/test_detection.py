"""Mask R-CNN around an encoder: its weights, torchvision's model as the oracle, known AP, interrupted trainings."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN

import infomax
from coco_folders import toy_content, write_coco
from infomax.data.augmentation.views import Preprocessing
from infomax.data.pixel_format import PixelFormat
from infomax.data.sources.location import DataLocation
from infomax.evaluation.detection import detect_row, masks
from infomax.evaluation.detection.coco_folder import open_coco
from infomax.evaluation.detection.detect import detect
from infomax.evaluation.detection.detect_row import read_pictures
from infomax.evaluation.detection.loading import load_to_train
from infomax.evaluation.detection.masks import encode_masks
from infomax.evaluation.detection.model import Detector
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.detection.scoring import Detection, average_precision, true_objects
from infomax.evaluation.detection.training import DetectorTraining
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols.detect import DetectOptions, options_for
from infomax.evaluation.representations import Representation
from infomax.evaluation.results import append_result, read_results
from infomax.models.encoders import build_encoder, fingerprint, save_encoder
from infomax.papers import published
from ranks import on_ranks

CPU = torch.device("cpu")
HOW = EvaluationOptions(device="cpu", workers=1)
TINY = DetectorSetting(
    arch="c4",
    budget=4,
    batch_size=2,
    boxes_per_image=8,
    train_sides=(48, 64),
    test_side=64,
    precise_batches=2,
    evaluate_every=2,
)


def an_encoder(name="timm:test_resnet"):
    """An untrained encoder whose BatchNorm has statistics of its own."""
    encoder = build_encoder(name, seed=0)
    random = torch.Generator().manual_seed(0)
    for key, value in encoder.state_dict().items():
        drawn = torch.rand(value.shape, generator=random)
        if key.endswith("running_mean"):
            value.copy_(0.2 * drawn - 0.1)
        elif value.ndim == 1 and key.endswith(("running_var", "weight")):  # else branches of a ResNet begin at 0
            value.copy_(drawn + 0.5)
    encoder.preprocessing = Preprocessing(resize=64, size=64)
    return encoder.eval()


@pytest.fixture(scope="module")
def encoder():
    return an_encoder()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_coco(DataLocation(str(write_coco(tmp_path_factory.mktemp("coco")))))


def a_batch(source, count=2):
    """Images and objects as the network takes them."""
    loaded = [load_to_train(*source.to_train, i, flip=False).to(CPU) for i in range(count)]
    return [image for image, _ in loaded], [target for _, target in loaded]


@pytest.mark.parametrize(
    ("arch", "name"), [("c4", "timm:test_resnet"), ("fpn", "torchvision:resnet18"), ("fpn", "small"), ("c4", "small")]
)
def test_the_weights_that_go_in_are_the_encoders_to_the_bit(arch, name):
    encoder = an_encoder(name)
    setting = replace(TINY, arch=arch)
    detector = Detector(encoder, 2, setting, title="it", device=CPU).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        if arch == "fpn":
            last = list(detector.network.backbone.body(image).values())[-1]
        else:
            last = detector.network.roi_heads.box_head.stage(detector.network.backbone(image)["0"])
        features = encoder(image)
    assert features.std() > 0.01
    assert torch.equal(torch.nn.functional.adaptive_avg_pool2d(last, 1).flatten(1), features)
    own = {id(p): p for p in detector.parameters()}
    values = sorted(p.double().sum().item() for p in encoder.parameters())
    held = sorted(p.double().sum().item() for p in own.values())
    assert all(value in held for value in values)
    assert len(detector.state_dict()) == len(own) + len(list(detector.buffers()))  # nothing is there twice


def test_an_encoder_that_is_no_resnet_is_refused():
    encoder = build_encoder("timm:test_vit", seed=0)
    encoder.preprocessing = Preprocessing(resize=64, size=64)
    with pytest.raises(ValueError, match=r"--arch takes ResNets, and runs/a has \d+ stages: "):
        Detector(encoder, 2, TINY, title="runs/a", device=CPU)
    with pytest.raises(ValueError, match="runs/a has 5 stages: .*; --freeze takes 0 to 5, but is 6"):
        Detector(an_encoder(), 2, replace(TINY, freeze=6), title="runs/a", device=CPU)


@pytest.mark.parametrize(
    ("channels", "words"), [(1, "1 channel, 8-bit"), (3, "3 channels, 16-bit")], ids=["gray", "16-bit"]
)
def test_an_encoder_of_other_pixels_is_refused(channels, words):
    """Images are read as bytes of RGB, which would be another range for it."""
    encoder, deep = an_encoder(), {"low": (0.0,) * 3, "high": (900.0,) * 3} if channels == 3 else {}
    pixel_format = PixelFormat(channels=channels, **deep)
    encoder.preprocessing = replace(
        encoder.preprocessing, mean=(0.5,) * channels, std=(0.2,) * channels, pixel_format=pixel_format
    )
    with pytest.raises(ValueError, match=f"takes encoders of 8-bit RGB images; runs/a takes {words}"):
        Detector(encoder, 2, TINY, title="runs/a", device=CPU)


def test_fpn_equals_torchvisions_mask_rcnn(source):
    """With two layers as the box head, no norms in new layers, and torchvision's state."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d, trainable_layers=5
    )
    theirs = MaskRCNN(backbone, 3, min_size=64, max_size=107, rpn_post_nms_top_n_train=1000, box_batch_size_per_image=8)
    setting = replace(TINY, arch="fpn", norm="frozen", train_sides=(64,))
    ours = Detector(an_encoder("resnet18"), 2, setting, title="it", device=CPU).network
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    with torch.no_grad():
        theirs.roi_heads.box_predictor.cls_score.bias[1:] += 3  # else nothing is found
    ours.load_state_dict(theirs.state_dict())
    images, targets = a_batch(source)
    torch.manual_seed(3)
    expected = theirs.train()(images, copy.deepcopy(targets))
    torch.manual_seed(3)
    losses = ours.train()(images, copy.deepcopy(targets))
    assert losses.keys() == expected.keys()
    for name in expected:
        assert torch.equal(losses[name], expected[name]), name
    for network in (ours, theirs):
        network.rpn._post_nms_top_n["testing"] = 20  # as it takes seconds for each image otherwise
    with torch.no_grad():
        for found, wanted in zip(ours.eval()(images), theirs.eval()(images), strict=True):
            assert len(wanted["boxes"])
            for name in wanted:
                assert torch.equal(found[name], wanted[name]), name


def test_boxes_and_masks_of_c4_pass_the_last_stage_once(encoder, source):
    detector = Detector(encoder, 2, TINY, title="it", device=CPU).train()
    norm = detector.network.roi_heads.box_head.norm
    losses = detector(*a_batch(source))
    assert norm.num_batches_tracked == 1
    assert {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"} == set(losses)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in detector.parameters())
    frozen = Detector(encoder, 2, replace(TINY, norm="frozen"), title="it", device=CPU)
    assert not hasattr(frozen.network.roi_heads.box_head, "norm")


@pytest.mark.parametrize(("norm", "freeze"), [("sync", 2), ("frozen", 0), ("frozen", 2)])
def test_what_is_frozen_stays(encoder, source, norm, freeze):
    detector = Detector(encoder, 2, replace(TINY, norm=norm, freeze=freeze), title="it", device=CPU).train()
    before = copy.deepcopy(detector.state_dict())
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    sum(detector(*a_batch(source)).values()).backward()
    optimizer.step()
    changed = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    stem = [name for name in before if name.startswith(("network.backbone.conv1", "network.backbone.layer1"))]
    assert bool(changed & set(stem)) == (freeze == 0)
    norms = [name for name in before if "running" in name or ".bn" in name]
    moved = {name for name in norms if name in changed}
    assert bool(moved) == (norm == "sync")
    assert "network.backbone.layer3.0.conv1.weight" in changed


def found(image, category, score, box, side=64):
    """A detection whose mask is its box."""
    pixels = np.zeros((1, side, side), bool)
    left, top, width, height = (round(x) for x in box)
    pixels[0, top : top + height, left : left + width] = True
    return Detection(image, category, score, tuple(map(float, box)), encode_masks(pixels)[0])


def all_true(objects):
    file = objects.file
    return [
        found(image, int(file.object_categories[p]), 0.9, file.boxes[p].tolist())
        for image in range(len(objects.image_index))
        for p in objects.of_image(image)
    ]


def test_hand_made_detections_have_their_known_ap(source):
    objects = source.to_test[1]
    truth, right = true_objects(objects), all_true(objects)
    names = [f"{kind}_{metric}" for kind in ("box", "mask") for metric in ("ap", "ap50", "ap75")]
    assert average_precision(truth, right) == dict.fromkeys(names, 1.0)
    assert average_precision(truth, []) == dict.fromkeys(names, 0.0)
    # Half of the objects of each category: precision is 1 at the 51 recalls from 0 to 0.5, and 0 at the 50 above.
    half = [x for x in right if x.image < 2]
    assert average_precision(truth, half)["box_ap"] == pytest.approx(51 / 101, abs=1e-12)
    # A wrong detection before each right one: the precision is 1/2 at best.
    wrong = [found(x.image, x.category, 0.95, (44, 0, 4, 4)) for x in right]
    assert average_precision(truth, [*right, *wrong])["mask_ap50"] == pytest.approx(0.5, abs=1e-12)
    # Boxes of 3/5 of the area have an IoU of 0.6: right at 0.5, 0.55 and 0.6 of the ten thresholds.
    smaller = [found(0, i, 0.9, (4, 4, 20, 12)) for i in range(2)]
    boxes = {
        **truth,
        "annotations": [{**x, "bbox": [4, 4, 20, 20]} for x in truth["annotations"] if x["image_id"] == 1],
    }
    scores = average_precision(boxes, smaller)
    assert scores["box_ap"] == pytest.approx(0.3, abs=1e-12)
    assert (scores["box_ap50"], scores["box_ap75"]) == (pytest.approx(1.0), 0.0)


def test_a_crowd_is_neither_missed_nor_wrong(tmp_path):
    content = toy_content()
    content["annotations"][0]["iscrowd"] = 1
    objects = open_coco(DataLocation(str(write_coco(tmp_path, toy_content(), content)))).to_test[1]
    truth, right = true_objects(objects), all_true(objects)
    assert average_precision(truth, right)["box_ap"] == 1.0
    assert average_precision(truth, right[1:])["box_ap"] == 1.0
    assert sum(x["iscrowd"] for x in truth["annotations"]) == 1


def test_both_scorers_agree(source):
    objects = source.to_test[1]
    truth, random = true_objects(objects), np.random.default_rng(0)
    noisy = [
        found(x.image, x.category if random.random() < 0.8 else 1 - x.category, score, np.maximum(box, 1))
        for x in all_true(objects) * 5
        for score, box in [(float(random.random()), np.array(x.box) + random.normal(0, 2, 4))]
    ]
    exact, fast = (average_precision(truth, noisy, fast=fast) for fast in (False, True))
    assert 0.05 < exact["box_ap"] < 0.95
    assert exact == pytest.approx(fast, abs=1e-9)


def test_schedules_are_those_of_the_papers():
    one, two = DetectorSetting(), DetectorSetting(arch="c4", schedule="2x")
    assert (one.iterations, one.drops, one.warmup, one.peak_rate) == (90_000, (60_000, 80_000), 1000, 0.02)
    assert (two.iterations, two.drops) == (180_000, (120_000, 160_000))
    assert [one.rate(i) for i in (0, 500, 1000, 59_999, 60_000, 80_000)] == pytest.approx(
        [2e-5, 0.5 * (2e-5 + 0.02), 0.02, 0.02, 0.002, 0.0002]
    )
    assert (one.head, two.head, DetectorSetting(norm="frozen").head) == ("conv", "res5", "fc")
    small = DetectorSetting(batch_size=4)  # the same images, at a rate in proportion
    assert (small.iterations, small.drops, small.warmup) == (360_000, (240_000, 320_000), 4000)
    assert small.peak_rate == 0.005
    short = DetectorSetting(budget=900)
    assert (short.iterations, short.drops, short.warmup) == (900, (600, 800), 90)
    assert "budget" not in one.describe()
    assert short.departures == ("iterations 900 (90,000)",)
    assert replace(one, train_sides=(64,), learning_rate=0.1).departures == (
        "peak_rate 0.1 (0.02)",
        "train_sides 64 (640 672 704 736 768 800)",
    )
    assert "for 900 iterations of 16 images (--budget; 1x has 90,000 of 16)" in short.describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "c5"}, "--arch must be one of fpn, c4, but is 'c5'"),
        ({"schedule": "3x"}, "--schedule must be one of 1x, 2x"),
        ({"arch": "c4", "box_head": "fc"}, "--box-head fc is for --arch fpn"),
        ({"budget": 0}, "--budget must be"),
        ({"train_sides": ()}, "--train-sides wants one side"),
        ({"train_sides": (8,)}, "--train-sides must be"),
        ({"learning_rate": 0.0}, "--learning-rate must be"),
        ({"precision": "16"}, "--precision must be one of 32, bf16"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DetectOptions(**changes)


@dataclass(frozen=True)
class Alone:
    """Specifies nothing."""


def a_representation(encoder):
    return Representation("it", fingerprint(encoder), lambda *_: torch.empty(0), encoder)


def row_of(source, encoder, folder, **changes):
    return detect(a_representation(encoder), source, replace(TINY, **changes), work=folder, evaluation=HOW)


@pytest.mark.process
def test_an_interrupted_training_goes_on_to_the_same_bits(source, encoder, tmp_path, monkeypatch):
    states = []
    true_save = DetectorTraining._test

    def testing(self):
        found = true_save(self)
        if self.done == TINY.budget:
            states.append(copy.deepcopy(self.detector.state_dict()))
        return found

    monkeypatch.setattr(DetectorTraining, "_test", testing)
    straight = row_of(source, encoder, tmp_path / "a")
    true_step = DetectorTraining._step

    def stopping(self, batch):
        true_step(self, batch)
        if self.done == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(DetectorTraining, "_step", stopping)
    with pytest.raises(SystemExit):
        row_of(source, encoder, tmp_path / "b")
    monkeypatch.setattr(DetectorTraining, "_step", true_step)
    resumed = row_of(source, encoder, tmp_path / "b")
    assert replace(resumed, seconds=straight.seconds) == straight
    assert [point["iteration"] for point in resumed.points] == [2, 4]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    monkeypatch.setattr(DetectorTraining, "run", None)
    assert row_of(source, encoder, tmp_path / "b") == resumed  # which is kept
    with pytest.raises(ValueError, match="^work: .* was begun with other settings: setting.budget was 4, is 5"):
        row_of(source, encoder, tmp_path / "b", budget=5)


def test_microbatches_average_the_gradient(source, encoder, tmp_path):
    row = row_of(source, encoder, tmp_path / "a", micro_batch_size=1, budget=1, norm="frozen")
    assert row.micro_batch_size == 1
    assert np.isfinite(row.points[0]["loss"])


def test_too_large_a_batch_is_refused(source, encoder, tmp_path):
    with pytest.raises(ValueError, match="--batch-size 5: there are 4 images to train on"):
        row_of(source, encoder, tmp_path, batch_size=5)


def test_a_row_keeps_its_pictures_in_a_file_of_their_own(source, encoder, tmp_path):
    row = row_of(source, encoder, tmp_path / "work", budget=1)
    results = tmp_path / "results.jsonl"
    assert row.write_beside(results) == tmp_path / "results.pictures.jsonl"
    append_result(results, row)
    (read,) = read_results(results)
    assert read == row
    assert read.pictures is None
    assert len(row.pictures) == 4
    assert read_pictures(results, read.pictures_hash) == row.pictures
    assert read_pictures(results, "other") == ()
    assert detect_row.pictures_file(results).stat().st_size < 200_000


def test_a_result_stands_in_a_papers_column_if_nothing_differs(source, encoder, tmp_path):
    row = row_of(source, encoder, tmp_path / "work", budget=1)
    published_row = replace(
        row,
        data="coco",
        budget=None,
        schedule="2x",
        **{name: getattr(DetectorSetting(), name) for name in ("batch_size", "boxes_per_image", "train_sides")},
        **{name: getattr(DetectorSetting(), name) for name in ("test_side", "precise_batches")},
        learning_rate=0.02,
    )
    columns = [c for t in published.tables() for c in t.columns if c.protocol in ("detection", "segmentation")]
    by_detector = {name: [c for c in columns if c.detector == name] for name in ("c4-2x", "fpn-1x")}
    assert (len(by_detector["c4-2x"]), len(by_detector["fpn-1x"])) == (12, 6)
    for column in columns:
        assert published_row.fits(column) == (column.detector == "c4-2x")
        assert options_for(column).departures == ()
    for changes in (
        {"budget": 5},
        {"data": "mine"},
        {"batch_size": 8},
        {"micro_batch_size": 2},
        {"learning_rate": 0.01},
        {"norm": "frozen"},
        {"freeze": 1},
        {"boxes_per_image": 64},
        {"train_sides": (800,)},
        {"test_side": 600},
        {"precise_batches": 0},
        {"schedule": "1x"},
    ):
        assert not any(replace(published_row, **changes).fits(column) for column in by_detector["c4-2x"]), changes


@pytest.mark.process
def test_the_command_says_what_it_does_and_keeps_the_row(encoder, tmp_path):
    folder = write_coco(tmp_path / "coco")
    (folder / "train2017" / "3.png").unlink()
    save_encoder(encoder, asdict(encoder.settings), encoder.preprocessing, tmp_path)
    words = "--data coco --arch c4 --budget 2 --batch-size 2 --boxes-per-image 8 --train-sides 64 --test-side 64"
    command = [sys.executable, "-m", "infomax", "evaluate", "detect", ".", *words.split(), "--out", "rows.jsonl"]
    path = str(Path(infomax.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "coco: 1 of 4 train images left out, as their files are not there: 3.png" in done.stderr
    assert "for 2 iterations of 2 images (--budget; 1x has 90,000 of 16)" in done.stderr
    assert "iteration 1 of 2: box AP " in done.stderr
    assert "box AP50" in done.stdout
    (row,) = read_results(tmp_path / "rows.jsonl")
    assert (row.budget, row.labelled_images, row.test_images, row.tested_on) == (2, 3, 4, "val2017")
    wrong = subprocess.run([*command, "--freeze", "9"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "--freeze takes 0 to 5, but is 9" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_missing_package_is_named_with_the_cure(source, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"infomax evaluate detect needs pycocotools: .*detection"):
        row_of(source, encoder, tmp_path)


def trained_on_a_rank(folder, work):
    """Trains on this rank, and returns the weights' sums and the scores."""
    source = open_coco(DataLocation(str(folder)))
    states = []
    true_test = DetectorTraining._test

    def testing(self):
        found = true_test(self)
        states.append({name: value.double().sum().item() for name, value in self.detector.state_dict().items()})
        return found

    DetectorTraining._test = testing
    row = row_of(source, an_encoder(), work, budget=2)
    return states[-1], row.points[-1]["loss"], row.ranks


@pytest.mark.process
def test_ranks_hold_the_same_weights(tmp_path):
    folder = write_coco(tmp_path / "coco")
    (state, loss, ranks), (other, other_loss, _) = on_ranks(2, trained_on_a_rank, folder, tmp_path / "work")
    assert state == other
    assert (loss, ranks) == (other_loss, 2)
