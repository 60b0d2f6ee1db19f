"""The linear classifier that learns beside a run: what it learns from, what it leaves alone, and what is kept of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import infomax
from infomax.data.augmentation.views import ViewSet, dino
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import Batch
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source
from infomax.data.streams import Stream
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.results import read_results
from infomax.features.extraction import extract_features
from infomax.methods.base import Progress, Views
from infomax.papers import published
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe, methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.options import pick
from infomax.training import loop as training
from infomax.training import online_evaluation as evaluation
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.online_evaluation import OnlineEvaluation, OnlineProbe, online_evaluation
from infomax.training.options import PretrainOptions
from infomax.training.prepare import prepare_run
from infomax.training.pretrain import pretrain
from interrupted_runs import differing, train_until
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
CPU = torch.device("cpu")
LENGTH, CLASSES = 60, 3
TOY = {
    "mira": ("method.hidden=16", "method.prototypes=10", "method.momentum=0.9"),
    "corinfomax": ("method.hidden=16", "method.dimension=4"),
    "carl": ("method.hidden=16", "method.prototypes=10"),
    "mveb": ("method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
}
VARIANTS = {
    **{method: {"method": method} for method in methods_with_papers()},
    "no-teacher": {"method": "mira", "overrides": ["method.momentum=none"]},
    "joint": {"method": "mira", "overrides": ["joint_forward=true"]},
    "microbatches": {"method": "mveb", "micro_batch_size": 4},
    "joint-microbatches": {"method": "carl", "micro_batch_size": 4, "overrides": ["joint_forward=true"]},
    "crops": {"method": "mveb", "local": 2},
    "joint-crops": {"method": "carl", "local": 2, "overrides": ["joint_forward=true"]},
    "joint-crops-of-one-size": {"method": "carl", "local": 2, "size": 8, "overrides": ["joint_forward=true"]},
    "teacher-crops-microbatches": {"method": "mira", "local": 2, "micro_batch_size": 6},
}


def recipe(method, *, local=0, size=None, overrides=(), **changes):
    plan = customise(
        get_recipe(method, "small"),
        **{"image_size": 8, "batch_size": 12, "epochs": 2, "precision": "64", **changes},
        overrides=[*TOY[method], *overrides],
    )
    if not local:
        return plan
    full, crops = dino(8, global_scale=(0.4, 1), local_scale=(0.1, 0.4))
    return replace(
        plan, views=ViewSet(global_crops=full, local_crops=[replace(v, size=size or v.size) for v in crops[:local]])
    )


def images(seed=0) -> ArrayImages:
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=LENGTH)
    pixels = rng.integers(0, 120, (LENGTH, 10, 10, 3)) + 60 * labels[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), labels, list("abc"))


def build_engine(plan) -> Engine:
    return Engine(plan, steps_per_epoch=LENGTH // plan.batch_size, device=CPU)


def with_probe(plan, known=None) -> tuple[Engine, OnlineEvaluation]:
    """An engine, and a probe that may see the labels of the ``known`` images; scores are of no matter here."""
    engine, data = build_engine(plan), images()
    known = np.arange(LENGTH) if known is None else known
    labelled = LabelledImages(data, known, data.labels[known])
    width = engine.method.eval_encoder.width
    online = OnlineEvaluation(labelled, labelled, plan, width=width, device=CPU, probe=True, workers=0)
    return engine, online


def evaluation_of(source, engine):
    width = engine.method.eval_encoder.width
    return online_evaluation(source, engine.recipe, width=width, device=CPU, workers=0)


def microbatches_of(plan, step):
    where = {"rank": rank(), "world_size": world_size(), "micro_batch_size": plan.micro_batch_size}
    steps = range(step, step + 1)
    return list(
        training_batches(images(), plan.views, batch_size=plan.batch_size, seed=plan.seed, steps=steps, **where)
    )


def features_of_global_crops(engine, microbatches):
    """Yields the expected features: each microbatch's views through a copy of the encoder, in the groups that share
    statistics."""
    encoder = copy.deepcopy(engine.method.eval_encoder)
    for batch in microbatches:
        views = engine.views(batch)
        if not engine.method.joint_forward:
            features = [encoder(view) for view in views.global_crops]
        else:
            alike = [view for view in views.local_crops if view.shape == views.global_crops[0].shape]
            features = encoder(torch.cat([*views.global_crops, *alike])).chunk(len(views.global_crops) + len(alike))[
                : len(views.global_crops)
            ]
        yield batch.index, [x.detach() for x in features]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_head_is_a_linear_layer_that_sgd_trains_on_each_full_view(variant):
    plan = recipe(**VARIANTS[variant])
    known = np.flatnonzero(np.arange(LENGTH) % 7)  # the others are to be tested on
    engine, online = with_probe(plan, known)
    probe = online.probe
    layer = nn.Linear(engine.method.eval_encoder.width, CLASSES)
    layer.load_state_dict({"weight": probe.heads.weight.clone(), "bias": probe.heads.bias.clone()})
    sgd, total = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9), engine.total_steps
    for step in range(7):
        microbatches = microbatches_of(plan, step)
        x, y = [], []
        for index, views in features_of_global_crops(engine, microbatches):
            learnt = np.isin(index, known)
            for view in views:
                x.append(view[torch.from_numpy(learnt)].float())
                y.append(torch.from_numpy(images().labels[index[learnt]]))
        train_step(engine, microbatches, online=online)
        assert len(torch.cat(x)) < 2 * plan.batch_size  # some were left out
        sgd.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * step / total)) / 2
        sgd.zero_grad()
        nn.functional.cross_entropy(layer(torch.cat(x)), torch.cat(y)).backward()
        sgd.step()
        torch.testing.assert_close(probe.heads.weight, layer.weight.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(probe.heads.bias, layer.bias.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["64", "32", "bf16", "16"])
@pytest.mark.parametrize("variant", ["mira", "carl", "microbatches"])
def test_features_are_float32_without_a_graph(variant, precision):
    plan = recipe(**VARIANTS[variant], precision=precision)
    engine = build_engine(plan)
    with engine.step(microbatches_of(plan, 0)) as step:
        assert step.features == []
    with engine.step(microbatches_of(plan, 1), keep_features=True) as step:
        assert len(step.features) == len(microbatches_of(plan, 1))
    for x in step.features:
        assert x.dtype == torch.float32
        assert not x.requires_grad
        assert len(x) == 2 * (plan.micro_batch_size or 12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_training_has_the_same_bits_with_a_head_and_without(variant):
    """Weights, statistics, optimiser, loss, and the random numbers that come after."""
    plan = recipe(**VARIANTS[variant], precision="32")
    ends = []
    for engine, online in ((build_engine(plan), None), with_probe(plan)):
        losses = [
            train_step(engine, microbatches_of(plan, step), online=online).loss.total.detach() for step in range(4)
        ]
        ends.append({"losses": losses, "random": torch.get_rng_state(), **engine.state()})
    assert not differing(*ends)


def test_a_head_draws_its_weights_from_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (with_probe(recipe("carl", seed=seed))[1].probe.heads.weight for seed in (2**40, 2**40, 3))
    build_engine(recipe("carl"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_nothing_is_learnt_from_a_step_that_fails(micro_batch_size):
    plan = recipe("mveb", micro_batch_size=micro_batch_size)
    engine, online = with_probe(plan)
    probe = online.probe
    train_step(engine, microbatches_of(plan, 0), online=online)
    before, views = copy.deepcopy(probe.heads.state()), engine.views
    engine.views = lambda batch: Views([x * torch.nan for x in views(batch).global_crops], [])
    with pytest.raises(FloatingPointError):
        train_step(engine, microbatches_of(plan, 1), online=online)
    engine.skip()
    assert not differing(before, probe.heads.state())
    engine.views = views
    step = train_step(engine, microbatches_of(plan, 2), online=online)
    assert [len(x) for x in step.features] == [2 * len(batch.index) for batch in microbatches_of(plan, 2)]
    assert step.progress.step == 2
    assert differing(before, probe.heads.state())
    assert probe.heads.weight.isfinite().all()


def test_a_head_that_cannot_learn_leaves_the_step_undone(monkeypatch):
    """Another rank is gone: the weights and the head that are then saved are of the same step."""
    plan = recipe("corinfomax")
    engine, online = with_probe(plan)
    train_step(engine, microbatches_of(plan, 0), online=online)
    before = copy.deepcopy(engine.state())

    def fail(*_):
        raise RuntimeError("another rank is gone")

    monkeypatch.setattr(online.probe, "learn", fail)
    with pytest.raises(RuntimeError, match="gone"):
        train_step(engine, microbatches_of(plan, 1), online=online)
    assert engine.weights_consistent
    assert {name.rpartition(".")[2] for name in differing(before, engine.state())} <= {"lr"}  # set anew at each step


def test_stand_ins_and_images_to_test_on_are_not_learnt_from():
    plan, data, rng = recipe("carl"), images(), torch.Generator().manual_seed(0)
    known = np.arange(5, LENGTH)
    heads = []
    for index, unreadable in ((np.array([7, 2, 9, 11]), {9: "torn", 40: "torn"}), (np.array([7, 11]), {})):
        probe = OnlineProbe(LabelledImages(data, known, data.labels[known]), plan, width=4, device=CPU)
        x = torch.randn(LENGTH, 2, 4, generator=rng.manual_seed(1))[index]
        batch = Batch(torch.empty(0), 0, index, unreadable)
        features = torch.cat([x[:, 0], x[:, 1]])
        for step in range(3):
            probe.learn([batch], [features], Progress(step, 10, 0))
        heads.append(probe.heads.weight)
    torch.testing.assert_close(*heads)
    assert heads[0].abs().max() > 0.05


def on_each_rank(plan):
    engine, online = with_probe(plan)
    for step in range(4):
        train_step(engine, microbatches_of(plan, step), online=online)
    return {name: x.tolist() for name, x in online.probe.heads.state().items()}


@pytest.mark.parametrize("variant", ["mira", "uneven", "microbatches"])
def test_two_ranks_learn_what_one_does(variant):
    changes = {"mira": {}, "uneven": {"batch_size": 13}, "microbatches": {"micro_batch_size": 3}}
    plan = recipe("mira", **changes[variant])
    alone, ranks = on_each_rank(plan), on_ranks(2, on_each_rank, plan)
    assert ranks[0] == ranks[1]
    for name, values in alone.items():
        torch.testing.assert_close(torch.tensor(ranks[0][name]), torch.tensor(values), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """50 images of 12 pixels in two classes to train on and 30 to test; the same without labels; and without a test
    split."""
    rng, folder, content = np.random.default_rng(0), tmp_path_factory.mktemp("arrays"), {}
    for split, count in (("train", 50), ("test", 30)):
        content[f"{split}_labels"] = labels = np.arange(count) % 2
        noise = rng.integers(0, 120, (count, 12, 12, 3))
        content[f"{split}_images"] = (noise + 50 * labels[:, None, None, None]).astype(np.uint8)
    content["test_labels"][::5] ^= 1  # so that no classifier is right about all
    np.savez(folder / "toy.npz", **content)
    np.savez(folder / "unlabelled.npz", **{name: x for name, x in content.items() if "images" in name})
    np.savez(folder / "one.npz", images=content["train_images"], labels=content["train_labels"])
    return folder


def go(out, data, method="carl", *, overrides=(), **options) -> Run:
    settings = {"image_size": 8, "epochs": 4, "batch_size": 16, "quiet": True, "workers": 0, **options}
    return pretrain(data=str(data), method=method, out=out, overrides=(*TOY[method], *overrides), **settings)


def last(run) -> dict:
    return checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints"))


def scores(run) -> list[dict]:
    return [row for row in run.read_rows("metrics.jsonl") if "knn_top1" in row]


def test_both_accuracies_are_those_of_a_ranking():
    rng = torch.Generator().manual_seed(0)
    data = ArrayImages(np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 10, list("abcdefghij"))
    probe = OnlineProbe(LabelledImages(data, np.arange(20), data.labels), recipe("carl"), width=4, device=CPU)
    x, labels = torch.randn(200, 4, generator=rng), np.arange(200) % 10
    ranked = (x @ probe.heads.weight.T).argsort(1, descending=True).numpy()
    first, fifth = (float((ranked[:, :k] == labels[:, None]).any(1).mean()) for k in (1, 5))
    assert probe.accuracies(x, labels) == pytest.approx((first, fifth))
    assert first < fifth < 1


def test_a_finished_run_has_a_row_of_its_online_classifier(arrays, tmp_path):
    run = go(tmp_path / "run", arrays / "toy.npz", "mira")
    (row,) = infomax.evaluate("online-linear", run)
    last_scores = scores(run)[-1]
    assert (row.top1, row.top5) == (last_scores["linear_top1"], last_scores["linear_top5"])
    assert (row.labelled_images, row.test_images, row.classes, row.steps) == (50, 30, 2, 12)
    (kept,) = read_results(run.path / "results.jsonl")
    assert kept == row
    assert row.trained_steps == 12
    assert row.recipe.startswith("mira/small with")
    (linear,) = infomax.evaluate("linear", run, no_baselines=True)
    columns = published.table("mira-7").columns
    on_cifar = {**vars(row), "data": "cifar10"}, {**vars(linear), "data": "cifar10"}
    fitting = [[c.name for c in columns if type(r)(**f).fits(c)] for r, f in zip((row, linear), on_cifar, strict=True)]
    assert fitting == [["CIFAR-10 Top-1", "CIFAR-10 Top-5"], []]  # an offline result stands in no online column


def test_without_labels_or_an_end_there_is_no_row(arrays, tmp_path):
    unlabelled = go(tmp_path / "unlabelled", arrays / "unlabelled.npz")
    stopped = prepared(tmp_path / "stopped", arrays / "toy.npz")
    train_until(stopped, 5)
    for encoder, data, message in (
        (unlabelled, None, "no scores of an online classifier at its last step"),
        (stopped, None, "is not finished"),
        (unlabelled, "digits", "are not those that"),
        ("timm:resnet18", arrays / "one.npz", "no run folder"),
    ):
        with pytest.raises(ValueError, match=message):
            infomax.evaluate("online-linear", encoder, data=data)
    assert not list(tmp_path.rglob("results.jsonl"))


@pytest.mark.parametrize("method", methods_with_papers())
def test_every_method_gets_a_score_on_the_digits(tmp_path, method):
    run = pretrain(
        data="digits", out=tmp_path / "run", method=method, epochs=2, batch_size=64, image_size=8, quiet=True
    )
    first, second = (row["linear_top1"] for row in scores(run))
    assert second > max(0.4, first)  # of ten classes; the learning rate has only begun
    assert list((run.path / "tensorboard").iterdir())


def test_a_run_is_the_same_with_labels_and_without(arrays, tmp_path):
    labelled, unlabelled = (go(tmp_path / name, arrays / f"{name}.npz", "mira") for name in ("toy", "unlabelled"))
    with_head, without = last(labelled), last(unlabelled)
    assert with_head.pop("probe")["weight"].shape == (2, 128)
    assert not differing(with_head, without)
    assert not scores(unlabelled)
    encoders = [(run.path / "encoder.safetensors").read_bytes() for run in (labelled, unlabelled)]
    assert encoders[0] == encoders[1]


def prepared(out, data, method="mira", **changes) -> Run:
    changes = {"image_size": 8, "epochs": 4, "batch_size": 16, "overrides": TOY[method], **changes}
    machine = {"device": "cpu", "workers": 0, "quiet": True}
    return prepare_run(pick(PretrainOptions, {"data": data, "method": method, "out": out, **machine, **changes})).run


def test_a_resumed_run_has_the_same_head_to_the_bit(arrays, tmp_path):
    straight, stopped = (prepared(tmp_path / name, arrays / "toy.npz") for name in "ab")
    train_until(straight)
    train_until(stopped, 5)
    assert last(stopped)["step"] == 5
    assert last(stopped)["probe"]["weight_momentum"].any()
    train_until(stopped)
    assert not differing(last(straight), last(stopped))
    assert scores(straight) == scores(stopped)
    assert len(scores(straight)) == 4


@pytest.mark.process
def test_a_run_goes_on_with_other_numbers_of_ranks(arrays, tmp_path):
    straight, moved = (prepared(tmp_path / name, arrays / "toy.npz", precision="64") for name in "ab")
    train_until(straight)
    on_ranks(2, train_until, moved, 5)
    train_until(moved, 8)
    on_ranks(2, train_until, moved)
    assert last(moved)["step"] == 12
    for name, tensor in last(straight)["probe"].items():
        torch.testing.assert_close(last(moved)["probe"][name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert [row["linear_top1"] for row in scores(moved)] == [row["linear_top1"] for row in scores(straight)]


@pytest.mark.parametrize("checkpoint", ["nothing", "other classes"])
def test_a_checkpoint_without_this_head_goes_on_with_a_new_one(arrays, tmp_path, capsys, checkpoint):
    straight, old = (prepared(tmp_path / name, arrays / "toy.npz") for name in "ab")
    train_until(straight)
    train_until(old, 5)
    state = last(old)
    head = {name: torch.cat([x, x]) for name, x in state["probe"].items()} if checkpoint == "other classes" else None
    put_back(old, state, head)
    capsys.readouterr()
    train_until(old, 7)
    assert capsys.readouterr().err.count("linear_top1 starts anew: the checkpoint has no classifier") == 1
    train_until(old)
    assert "starts anew" not in capsys.readouterr().err
    assert not differing({**last(old), "probe": 0}, {**last(straight), "probe": 0})
    assert differing(last(old), last(straight))
    assert [row["step"] for row in scores(old) if "linear_top1" in row] == [3, 6, 9, 12]
    with pytest.raises(ValueError, match="started anew at step 5, when the run was resumed"):
        infomax.evaluate("online-linear", old)
    put_back(old, last(old), head)  # finished: nothing learns any more
    train_until(old)
    assert "starts anew" not in capsys.readouterr().err


def put_back(run, state, head):
    """The only checkpoint of the run gets another head, or none."""
    for file in checkpoints.list_checkpoints(run.path / "checkpoints"):
        file.unlink()
    kept = {name: x for name, x in state.items() if name != "probe"}
    checkpoints.save(run.path / "checkpoints", kept if head is None else {**kept, "probe": head})


def test_at_the_end_all_test_images_are_classified_and_before_a_share(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_QUERIES", 7)
    run = go(tmp_path / "run", arrays / "toy.npz")
    of_seven = [row["linear_top1"] for row in scores(run)[:-1]] + [row["knn_top1"] for row in scores(run)]
    assert [7 * score for score in of_seven] == pytest.approx([round(7 * score) for score in of_seven])
    head, source, encoder = last(run)["probe"], open_source(str(arrays / "toy.npz")), infomax.load(run)
    train, test, preprocessing = source.train, source.test, encoder.preprocessing
    features = extract_features(encoder, test, np.arange(30), preprocessing)
    correct = (features @ head["weight"].T + head["bias"]).argmax(1).numpy() == test.labels
    assert scores(run)[-1]["linear_top1"] == pytest.approx(correct.mean())
    assert 0.5 < correct.mean() < 1
    seven, bank = [0, 4, 9, 14, 19, 24, 29], extract_features(encoder, train, np.arange(50), preprocessing)
    votes = knn_scores(bank, torch.from_numpy(train.labels), features[seven], classes=2).argmax(1).numpy()
    assert scores(run)[-1]["knn_top1"] == pytest.approx((votes == test.labels[seven]).mean())


def test_without_a_test_split_no_image_is_both_learnt_from_and_classified(arrays):
    plan = recipe("carl")
    engine = build_engine(plan)
    online = evaluation_of(open_source(str(arrays / "one.npz")), engine)
    tested = online.test.index
    assert len(tested) == 10
    assert (online.probe.labels[tested] == -1).all()
    assert (np.delete(online.probe.labels, tested) >= 0).all()


class _Stream(Stream):
    """A stream without images."""

    def __len__(self):
        return 10

    def fingerprint(self):
        return ""

    def _read(self, seed, epoch, rank, world_size):
        return iter(())


@pytest.mark.parametrize("kind", ["stream", "no labels", "several labels", "images apart"])
def test_there_is_no_head_without_one_label_for_each_image(kind):
    data, engine = images(), build_engine(recipe("carl"))
    source = {
        "stream": lambda: Source("x", _Stream(), data),
        "no labels": lambda: Source("x", replace(data, labels=None), data),
        "several labels": lambda: Source("x", replace(data, labels=np.eye(3, dtype=int)[data.labels]), data),
        "images apart": lambda: Source("x", data, data, unlabelled=replace(data, labels=None)),
    }[kind]()
    online = evaluation_of(source, engine)
    assert (online is None) == (kind != "images apart")
    if online is not None:  # k-NN remains
        assert online.probe is None
        assert online.score(engine.method.eval_encoder.float(), 2).keys() == {"knn_top1"}
        assert online.state() == {}
        assert online.load({}, step=0)


def test_a_damaged_image_is_classified_by_none_and_learnt_by_none(tmp_path, monkeypatch):
    """End to end, by workers that put another image in its place."""
    rng, learnt = np.random.default_rng(0), set()
    for i in range(40):
        pixels = rng.integers(0, 120, (12, 12, 3)) + 120 * (i % 2)
        (tmp_path / "images" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / str(i % 2) / f"{i:02d}.png")
    (tmp_path / "images" / "1" / "03.png").write_bytes(b"torn")
    (torn,) = (i for i, x in enumerate(open_source(str(tmp_path / "images")).train.files) if x.endswith("03.png"))
    step = evaluation.LinearProbes.step

    def recorded(self, x, labels, counts, share):
        assert len(x) == len(labels) == len(counts) == 2 * 16
        learnt.add(int(counts.sum()))
        step(self, x, labels, counts, share)

    monkeypatch.setattr(evaluation.LinearProbes, "step", recorded)
    batches = []
    note = training.TrainingLoop.note_unreadable
    monkeypatch.setattr(
        training.TrainingLoop, "note_unreadable", lambda self, batch: (batches.append(batch), note(self, batch))[1]
    )
    run = go(tmp_path / "run", tmp_path / "images", skip_unreadable=0.1, epochs=2)
    assert scores(run)[-1]["linear_top1"] >= 0
    source = open_source(str(tmp_path / "images"))
    held = evaluation.labelled_splits(source)[1].index
    expected_counts = {2 * int((~np.isin(batch.index, [*held, torn])).sum()) for batch in batches}
    assert learnt == expected_counts
    assert any(torn in batch.index for batch in batches)
