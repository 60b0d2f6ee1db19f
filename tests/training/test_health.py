"""Health is measured from what a step computes anyway: it changes no bit, and does not depend on ranks."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import infomax
from command import run_command, start_command
from infomax.analysis import measures
from infomax.analysis.verdicts import VerdictTracker, verdicts_of
from infomax.data.augmentation.views import Preprocessing, ViewSet, dino
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.methods import mveb
from infomax.methods.carl import Carl
from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe, methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.failures import CollapseError
from infomax.runtime.options import pick
from infomax.training import health as module
from infomax.training.engine import Engine
from infomax.training.health import Health, next_measurement
from infomax.training.image_check import chosen_images, measure_images
from infomax.training.loop import train_step
from infomax.training.metrics_log import MetricsLog, shown_values
from infomax.training.options import PretrainOptions
from infomax.training.output_observer import OutputObserver, PrototypeCounter, positions
from infomax.training.prepare import prepare_run
from interrupted_runs import differing, train_until
from ranks import on_ranks
from tiny import TINY, tiny_encoder, tiny_method, tiny_views
from toy_data import TOY, write_toy

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
CPU, LENGTH = torch.device("cpu"), 60
VARIANTS = {
    **{method: {"method": method} for method in methods_with_papers()},
    "no-teacher": {"method": "mira", "overrides": ["method.momentum=none"]},
    "joint": {"method": "mira", "overrides": ["joint_forward=true"]},
    "microbatches": {"method": "mveb", "micro_batch_size": 4},
    "joint-microbatches": {"method": "carl", "micro_batch_size": 4, "overrides": ["joint_forward=true"]},
    "joint-crops-of-one-size": {"method": "carl", "local": 2, "size": 8, "overrides": ["joint_forward=true"]},
    "teacher-crops-microbatches": {"method": "mira", "local": 2, "micro_batch_size": 6},
    "crops-of-corinfomax": {"method": "corinfomax", "local": 2},
}


def recipe(method, *, local=0, size=None, overrides=(), **changes):
    settings = {"image_size": 8, "batch_size": 12, "epochs": 2, "precision": "64", **changes}
    plan = customise(get_recipe(method, "small"), **settings, overrides=[*TOY[method], *overrides])
    if not local:
        return plan
    full, crops = dino(8, global_scale=(0.4, 1), local_scale=(0.1, 0.4))
    return replace(
        plan, views=ViewSet(global_crops=full, local_crops=[replace(v, size=size or v.size) for v in crops[:local]])
    )


def images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 120, (LENGTH, 10, 10, 3)) + 2 * np.arange(LENGTH)[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), None, [])


def build_engine(plan) -> Engine:
    return Engine(plan, steps_per_epoch=LENGTH // plan.batch_size, device=CPU)


def health_of(engine, **changes) -> Health:
    settings = {"batch_size": engine.recipe.batch_size, "steps_per_epoch": engine.steps_per_epoch, "done": 0}
    return Health(engine.method, **{**settings, "total_steps": engine.total_steps, **changes})


def microbatches_of(plan, step):
    where = {"rank": rank(), "world_size": world_size(), "micro_batch_size": plan.micro_batch_size}
    return list(
        training_batches(
            images(), plan.views, batch_size=plan.batch_size, seed=plan.seed, steps=range(step, step + 1), **where
        )
    )


def train_measured(plan, steps=4, engine=None):
    """Returns the engine after some steps, all of which are measured, and the rows of health."""
    engine = engine or build_engine(plan)
    health, rows = health_of(engine), []
    for step in range(steps):
        health.next_step = step
        observer = health.observer(step)
        train_step(engine, microbatches_of(plan, step), observer=observer)
        health.end_step(1.0)
        rows.append(health.measure(observer, step))
    return engine, rows


# ------------------------------------------------------------------------------------------------ bits and values


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_has_the_same_bits_with_measurements_and_without(variant):
    """Weights, statistics, optimiser, loss, and the random numbers that come after."""
    plan, ends = recipe(**VARIANTS[variant], precision="32"), []
    for measuring in (False, True):
        engine = build_engine(plan)
        if measuring:
            train_measured(plan, engine=engine)
        else:
            for step in range(4):
                train_step(engine, microbatches_of(plan, step))
        ends.append({"random": torch.get_rng_state(), **engine.state()})
    assert not differing(*ends)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_is_of_the_first_global_crops_of_the_step(variant):
    """The oracle passes the views through copies of the networks, before the step."""
    plan = recipe(**VARIANTS[variant])
    engine = build_engine(plan)
    train_step(engine, microbatches_of(plan, 0))
    method, microbatches = copy.deepcopy(engine.method), microbatches_of(plan, 1)
    embeddings, features = ([], []), []
    for batch in microbatches:
        views = engine.views(batch)
        alike = [x for x in views.local_crops if x.shape == views.global_crops[0].shape]
        crops = [*views.global_crops, *alike] if plan.joint_forward else views.global_crops
        together = [torch.cat(crops)] if plan.joint_forward else crops
        of_views = torch.cat([method.encoder(x) for x in together]).split(len(batch.index))
        projected = torch.cat([method.projector(x) for x in torch.cat(of_views).split(len(together[0]))])
        features.append(of_views[0])
        for kept, x in zip(embeddings, projected.split(len(batch.index)), strict=False):
            kept.append(x)
    z1, z2 = (torch.cat(x).detach() for x in embeddings)
    health = health_of(engine)
    observer = health.observer(1)
    train_step(engine, microbatches, observer=observer)
    row, f = health.measure(observer, 1), torch.cat(features).detach()
    expected = {
        "health_rows": 12,
        "embedding_mean_cosine": measures.mean_cosine(z1),
        "embedding_effective_rank": measures.effective_rank(z1),
        "embedding_norm": float(z1.norm(dim=1).mean()),
        "embedding_alignment": measures.alignment(z1, z2),
        "embedding_uniformity": measures.uniformity(z1),
        "feature_rankme": measures.rankme(f),
        "feature_participation_ratio": measures.participation_ratio(f),
        "feature_collapse_level": measures.collapse_level(f),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["mira", "carl"])
def test_assignments_are_the_softmax_that_the_loss_takes(name):
    method, views = tiny_method(name), tiny_views()
    online = method.online(views)
    temperature = TINY[name].student_temperature if name == "mira" else 1.0
    for logits, p in zip(online, method.assignment_probabilities(online), strict=True):
        torch.testing.assert_close(p, (logits / temperature).softmax(1))
    assert tiny_method("mveb").assignment_probabilities(online) is None


def test_a_row_tells_of_assignments():
    _, (row, *_) = train_measured(recipe("carl"), steps=1)
    assert row["prototypes"] == 10
    assert 0 <= row["assignment_mutual_information"] <= row["assignment_marginal_entropy"] <= math.log(10) + 1e-9
    assert "prototypes_in_use" not in row  # 12 images say nothing of 10 prototypes
    assert not [key for key in train_measured(recipe("mveb"), steps=1)[1][0] if key.startswith("assignment")]


CASES = {
    "mira": ("mira", {}),
    "corinfomax-uneven": ("corinfomax", {"batch_size": 13}),
    "carl": ("carl", {}),
    "mveb-microbatches": ("mveb", {"micro_batch_size": 3}),
}
FEW_ROWS = 7  # of a batch of 12, at equal distances


def measured_case(case) -> list:
    method, changes = CASES[case]
    return train_measured(recipe(method, **changes), steps=2)[1]


def end_state(method, measuring) -> dict[str, list]:
    plan = recipe(method, precision="32")
    engine = build_engine(plan)
    if measuring:
        train_measured(plan, 2, engine)
    else:
        for step in range(2):
            train_step(engine, microbatches_of(plan, step))
    return {name: x.tolist() for name, x in engine.state()["method"].items()}


def work_of_a_rank() -> dict:
    """All that is compared between ranks, so that ranks are started once."""
    return {
        "rows": {case: measured_case(case) for case in CASES},
        "states": {method: [end_state(method, measuring) for measuring in (True, False)] for method in BIT_METHODS},
        "usage": prototype_usage(recipe("carl", overrides=["method.prototypes=4"])),
    }


BIT_METHODS = ("mira", "corinfomax")


@pytest.fixture(scope="module")
def ranks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_ROWS", FEW_ROWS)
        return on_ranks(2, work_of_a_rank)


@pytest.mark.process
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_measure_what_one_does(case, ranks, monkeypatch):
    """The first one records; the others send their rows."""
    monkeypatch.setattr(module, "MOST_ROWS", FEW_ROWS)
    first, second = (result["rows"][case] for result in ranks)
    assert second == [None] * 2
    for got, want in zip(first, measured_case(case), strict=True):
        assert got == pytest.approx(want, rel=1e-6)
        assert want["health_rows"] == FEW_ROWS


@pytest.mark.process
@pytest.mark.parametrize("method", BIT_METHODS)
def test_two_ranks_have_the_same_bits_with_measurements_and_without(method, ranks):
    for result in ranks:
        measured, plain = result["states"][method]
        assert measured == plain


def test_microbatches_are_measured_as_the_whole_batch_is():
    """With fixed statistics of BatchNorm, which would otherwise be those of a microbatch."""
    rows = []
    for size in (None, 2, 4):
        engine = build_engine(recipe("carl", micro_batch_size=size))
        engine.method.eval()
        rows.append(train_measured(engine.recipe, 1, engine)[1][0])
    assert rows[1] == pytest.approx(rows[0], rel=1e-9)
    assert rows[2] == pytest.approx(rows[0], rel=1e-9)


def test_wide_outputs_are_measured_on_fewer_images(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 8)
    monkeypatch.setattr(module, "MOST_ROWS_IF_WIDE", 4)
    assert train_measured(recipe("mveb"), 1)[1][0]["health_rows"] == 8
    monkeypatch.setattr(module, "WIDE", 7)  # the embeddings have 8
    assert train_measured(recipe("mveb"), 1)[1][0]["health_rows"] == 4
    assert set(positions(1000, 256)) <= set(positions(1000, 512))


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_half_precision_is_measured_too(precision):
    _, rows = train_measured(recipe("mira", precision=precision))
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_a_method_without_a_projector_is_measured_by_its_features():
    method, observer, views = nn.Module(), OutputObserver(np.arange(12)), tiny_views(dtype=torch.float32)
    method.encoder = tiny_encoder()
    with observer.watch(method, views):
        features = [method.encoder(x) for x in views.global_crops]
    assert torch.equal(observer.embeddings[1][0], features[1])


# ------------------------------------------------------------------------------------------------ when


def test_the_first_steps_each_per_cent_and_the_last_step_are_measured():
    steps = [0]
    while steps[-1] < 10_000:
        steps.append(next_measurement(steps[-1], 10_000, interval=1))
    assert steps == [0, 1, 2, 5, 10, 20, 40, *range(100, 10_000, 100), 9_999, 10_000]


@pytest.mark.parametrize(
    ("step", "total", "interval", "later"),
    [
        (5, 10_000, 500, 10),  # the first ones whatever they cost
        (40, 10_000, 500, 600),
        (40, 10_000, 560, 600),
        (40, 10_000, 561, 700),
        (9_000, 10_000, 5_000, 9_999),  # the last one in any case
        (40, 284, 1, 43),  # per cents of 2.84 steps
        (43, 284, 1, 46),
        (2, 4, 1, 3),
        (3, 4, 1, 4),
        (0, 1, 1, 1),
    ],
)
def test_measurements_that_are_dear_are_rarer(step, total, interval, later):
    assert next_measurement(step, total, interval) == later


def test_a_measurement_waits_for_200_times_its_cost(monkeypatch):
    """One that takes 2 steps comes after 400 steps, at a whole per cent of the run."""
    clock, engine = [0.0], build_engine(recipe("carl"))
    monkeypatch.setattr(module, "perf_counter", lambda: clock[0])
    describe = module.describe

    def slow(*arguments):
        clock[0] += 2.0
        return describe(*arguments)

    monkeypatch.setattr(module, "describe", slow)
    health = health_of(engine, total_steps=10_000)
    measured = []
    for step in (0, 1, 2, 5, 10, 20, 40, 500):
        measured.append(health.next_step)
        observer = health.observer(step)
        train_step(engine, microbatches_of(engine.recipe, step % 10), observer=observer)
        health.end_step(1.0)
        assert health.measure(observer, step) is not None
    assert [*measured, health.next_step] == [0, 1, 2, 5, 10, 20, 40, 500, 900]


def test_only_measured_steps_are_observed_and_prototypes_in_all():
    engine = build_engine(recipe("mveb"))
    health = health_of(engine, total_steps=1000)
    for step in range(4):
        observer = health.observer(step)
        assert (observer is None) == (step == 3)
        train_step(engine, microbatches_of(engine.recipe, step), observer=observer)
        health.end_step(1.0)
        if observer is not None:
            assert observer.kept is not None
            health.measure(observer, step)
    engine = build_engine(recipe("carl", overrides=["method.prototypes=6"]))
    health = health_of(engine, total_steps=1000)
    health.next_step = 100
    observer = health.observer(3)
    assert observer.kept is None
    train_step(engine, microbatches_of(engine.recipe, 3), observer=observer)
    assert not observer.features
    assert health.counter.counts.sum() == 12  # 60 images in 5 steps, as many as 6 prototypes need


# ------------------------------------------------------------------------------------------------ prototypes


def prototype_usage(plan):
    engine = build_engine(plan)
    health = health_of(engine, steps_per_epoch=4)
    shares = []
    for step in range(8):
        health.next_step = step if step % 2 else 100
        observer = health.observer(step)
        train_step(engine, microbatches_of(plan, step), observer=observer)
        health.end_step(1.0)
        if observer.kept is not None:
            row = health.measure(observer, step)
            shares.append(None if row is None else row.get("prototypes_in_use"))
    return shares


@pytest.mark.process
def test_prototypes_are_counted_over_an_epoch_of_all_ranks(ranks, monkeypatch):
    """Four steps of 12 images are 10 for each of 4 prototypes; two steps are not."""
    plan = recipe("carl", overrides=["method.prototypes=4"])
    seen = []
    count = PrototypeCounter.add
    monkeypatch.setattr(PrototypeCounter, "add", lambda self, p: (seen.append(p), count(self, p)))
    shares = prototype_usage(plan)
    assert [share is None for share in shares] == [True, False, True, False]
    assert [len(p) for p in seen] == [10] * 8
    epochs = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert [shares[1], shares[3]] == pytest.approx([measures.prototypes_in_use(p) for p in epochs])
    assert ranks[0]["usage"] == pytest.approx(shares)


def test_prototypes_of_which_an_epoch_has_too_few_images_are_not_counted():
    engine = build_engine(recipe("carl", overrides=["method.prototypes=7"]))
    health = health_of(engine)
    train_step(engine, microbatches_of(engine.recipe, 0), observer=health.observer(0))
    assert health.counter.counts is None
    assert not health.counter.is_needed


# ------------------------------------------------------------------------------------------------ what methods add


def test_the_entropy_of_embeddings_is_that_of_their_density():
    """On a circle the density is known; a uniform one has 0, and a von Mises density -k A(k) + log I0(k)."""
    random = torch.Generator().manual_seed(0)
    angles = torch.rand(512, generator=random) * 2 * torch.pi
    on_circle = torch.stack([angles.cos(), angles.sin()], 1)
    assert mveb.estimate_entropy(on_circle) == pytest.approx(0, abs=0.02)
    k, grid = 20.0, np.linspace(-np.pi, np.pi, 20_001)
    density = np.exp(k * np.cos(grid))
    density /= density.mean()
    want = -float((density * np.log(density)).mean())
    cumulated = np.cumsum(density) / density.sum()
    drawn = np.interp((np.arange(512) + 0.5) / 512, cumulated, grid)
    z = torch.tensor(np.stack([np.cos(drawn), np.sin(drawn)], 1))
    assert mveb.estimate_entropy(z) == pytest.approx(want, abs=0.1)
    turned = z @ torch.linalg.qr(torch.randn(2, 2, generator=random, dtype=torch.float64))[0]
    assert mveb.estimate_entropy(5 * turned) == pytest.approx(mveb.estimate_entropy(z), abs=1e-9)


def test_the_entropy_falls_as_embeddings_come_together():
    noise = torch.randn(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    point = torch.eye(64, dtype=torch.float64)[0]
    entropies = [mveb.estimate_entropy(point + spread * noise) for spread in (100, 0.3, 0.1, 0.01, 1e-6)]
    assert entropies == sorted(entropies, reverse=True)
    assert -1 < entropies[0] <= 0
    assert entropies[-1] < -200
    with pytest.raises(ValueError, match="2 rows or more"):
        mveb.estimate_entropy(noise[:1])


def test_mveb_logs_its_entropy_and_corinfomax_its_information():
    _, rows = train_measured(recipe("mveb"))
    assert all(row["entropy"] <= 0 for row in rows)
    engine, rows = train_measured(recipe("corinfomax"))
    assert rows[-1]["ldmi"] == float(engine.method.criterion.mutual_information()) > 0


def test_ldmi_is_that_of_the_recursion_over_all_steps():
    random = torch.Generator().manual_seed(0)
    z1 = torch.randn(5, 16, 3, generator=random, dtype=torch.float64)
    z2 = z1 + 0.5 * torch.randn(5, 16, 3, generator=random, dtype=torch.float64) + 1
    criterion = CorInfoMaxLoss(dim=3, forgetting=0.3)
    got = []
    for first, second in zip(z1, z2, strict=True):
        criterion(first, second)
        got.append(float(criterion.mutual_information()))
    expected = measures.recursive_ldmi(z1, z2, forgetting=0.3)
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected)
    criterion.eval()
    criterion(z1[0], z2[0])
    assert float(criterion.mutual_information()) == got[-1]


def test_statistics_without_the_cross_covariance_are_loaded():
    old = CorInfoMaxLoss(dim=3)
    z = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    old(z, z + 1)
    state = {name: x.clone() for name, x in old.state_dict().items() if name != "R12"}
    new = CorInfoMaxLoss(dim=3)
    new.load_state_dict(state)
    assert torch.equal(new.R1, old.R1)
    assert not new.R12.any()
    assert "R12" not in state


# ------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"), train=24, test=10, side=12)


def go(out, data, method="carl", **options) -> Run:
    settings = {"image_size": 8, "epochs": 2, "batch_size": 8, "quiet": True, "workers": 0, "log": "none"}
    return infomax.pretrain(data=data, method=method, out=out, overrides=TOY[method], **{**settings, **options})


def health_rows(run) -> list[dict]:
    return [row for row in run.read_rows("metrics.jsonl") if "health_rows" in row]


@pytest.mark.parametrize("method", methods_with_papers())
def test_a_run_measures_its_health_by_default(toy, tmp_path, method):
    run = go(tmp_path / "run", toy, method)
    rows = run.read_rows("metrics.jsonl")
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    measured = health_rows(run)
    assert [(row["step"], row["epoch"]) for row in measured] == [(0, 0), (1, 0), (2, 0), (5, 1)]
    assert all(row["health_rows"] == 8 for row in measured)
    assert ["pixel_std" in row and "near_duplicate_share" in row for row in measured] == [True, False, False, False]
    own = {"mveb": {"entropy"}, "corinfomax": {"ldmi"}}.get(method, set())
    assert own <= measured[-1].keys()


def test_a_resumed_run_has_each_row_once(toy, tmp_path):
    straight = go(tmp_path / "straight", toy)
    for stop in (1, 2, 3, 5):
        words = {"data": toy, "method": "carl", "out": tmp_path / f"run-{stop}", "overrides": TOY["carl"]}
        options = {"image_size": 8, "epochs": 2, "batch_size": 8, "quiet": True, "log": ("none",)}
        prepared = prepare_run(pick(PretrainOptions, {**words, **options}))
        prepared.lock.release()
        run = prepared.run
        train_until(run, stop)
        assert run.trained_steps == stop
        infomax.pretrain(out=run.path, resume=True, workers=0, quiet=True)
        assert health_rows(run) == health_rows(straight)
        references = [row for row in run.read_rows("metrics.jsonl") if "untrained_knn_top1" in row]
        assert len(references) == 1


def test_what_is_measured_again_is_cut_with_its_verdicts(tmp_path):
    run = Run(tmp_path)
    rows = [
        {"step": 0, "health_rows": 8},
        {"step": 3, "loss": 1.0},
        {"step": 3, "verdict": "divergence"},
        {"step": 3, "knn_top1": 0.5},
        {"step": 3, "health_rows": 8},
        {"step": 3, "verdict": "total collapse"},
        {"step": 5, "health_rows": 8},
    ]
    for row in rows:
        run.append_row("metrics.jsonl", row)
    assert run.cut_metrics(3) == rows[:4]
    assert run.read_rows("metrics.jsonl") == rows[:4]


def test_a_checkpoint_from_before_a_buffer_goes_on_with_one_line(toy, tmp_path, capsys):
    run = go(tmp_path / "run", toy, "corinfomax", epochs=1)
    newest = checkpoints.newest_readable(run.path / "checkpoints")
    state = checkpoints.load(newest)
    del state["method"]["criterion.R12"]
    newest.unlink()
    checkpoints.save(run.path / "checkpoints", state)
    capsys.readouterr()
    infomax.pretrain(out=run.path, resume=True, epochs=2, workers=0, quiet=True)
    assert capsys.readouterr().err.count("criterion.R12: starts anew") == 1


# ------------------------------------------------------------------------------------------------ images


def noise(count) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def look_at(pixels) -> dict[str, float]:
    torch.manual_seed(0)
    preprocessing = Preprocessing(resize=16, size=16)
    return measure_images(tiny_encoder(), ArrayImages(pixels, None, []), preprocessing, seed=0, device=CPU)


def test_equal_images_have_no_deviation_and_noise_has_its_own():
    grey = np.full((20, 16, 16, 3), 90, np.uint8)
    assert look_at(grey) == {"pixel_std": pytest.approx(0, abs=1e-6), "near_duplicate_share": 0}
    uniform = look_at(noise(500))
    assert uniform == {"pixel_std": pytest.approx(math.sqrt(1 / 12), rel=0.02), "near_duplicate_share": 0}
    assert look_at(noise(1)) == {}


@pytest.mark.parametrize("copies", ["beside each other", "far from each other"])
@pytest.mark.parametrize("count", [20, 600])
def test_copies_are_near_duplicates(copies, count):
    single = noise(count)
    pixels = np.repeat(single, 5, 0) if copies == "beside each other" else np.tile(single, (5, 1, 1, 1))
    slightly_other = np.clip(pixels.astype(int) + np.arange(len(pixels))[:, None, None, None] % 5, 0, 255)
    assert look_at(slightly_other.astype(np.uint8))["near_duplicate_share"] > 0.3


def test_images_are_chosen_in_runs_and_alone():
    chosen = chosen_images(10_000, 512, seed=0)
    assert len(set(chosen)) == 512
    assert (np.diff(chosen) == 1).sum() > 200
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen_images(512, 512, seed=0), np.arange(512))


# ------------------------------------------------------------------------------------------------ verdicts


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    file = tmp_path_factory.mktemp("black") / "black.npz"
    np.savez(file, images=np.zeros((24, 12, 12, 3), np.uint8))
    return str(file)


def verdict_rows(run) -> list[dict]:
    return [row for row in run.read_rows("metrics.jsonl") if "verdict" in row]


def test_a_verdict_is_said_and_recorded_once(black, tmp_path, capsys):
    run = go(tmp_path / "run", black)
    (row,) = verdict_rows(run)
    assert (row["verdict"], row["state"], row["step"], row["epoch"]) == ("equal images", "failed", 0, 0)
    line = f"infomax: health: equal images, failed: {row['evidence']}; "
    assert capsys.readouterr().err.count(line) == 1
    assert [verdict.name for verdict in verdicts_of(run)] == ["equal images"]
    infomax.pretrain(out=run.path, resume=True, epochs=3, workers=0, quiet=True)
    assert verdict_rows(run) == [row]
    assert "health:" not in capsys.readouterr().err


def test_a_failed_run_ends_saved_if_asked_to(black, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = ("--data", black, "--out", str(out), "--method", "carl", "--batch-size", "8", "--epochs", "2")
    code, _, err = run_command(monkeypatch, capsys, "pretrain", *words, "--stop-on-collapse", "--image-size", "8")
    assert code == 1
    assert "stopped at step 1 of 6, which is saved, as --stop-on-collapse asks: equal images, " in err
    assert f"infomax pretrain --out {out} --resume goes on from there without --stop-on-collapse" in err
    assert Run(out).trained_steps == 1
    infomax.pretrain(out=out, resume=True, workers=0, quiet=True)
    assert Run(out).finished
    with pytest.raises(CollapseError, match="stop_on_collapse"):
        go(tmp_path / "python", black, stop_on_collapse=True)


def test_a_healthy_run_is_not_stopped(toy, tmp_path):
    run = go(tmp_path / "run", toy, stop_on_collapse=True)
    assert run.finished
    assert not verdict_rows(run)


@pytest.mark.process
def test_all_ranks_of_a_failed_run_end_together(black, tmp_path):
    words = ("--data", black, "--out", "run", "--method", "carl", "--batch-size", "8", "--epochs", "2")
    process = start_command(
        tmp_path, "pretrain", *words, "--stop-on-collapse", "--devices", "2", "--image-size", "8", "--device", "cpu"
    )
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert err.count("as --stop-on-collapse asks: equal images, ") == 1
    assert Run(tmp_path / "run").trained_steps == 1


def test_a_step_that_is_no_number_is_a_verdict(toy, tmp_path, monkeypatch, capsys):
    values = Carl.schedule_values

    def nan_at_step_3(self, progress):
        return (math.nan,) if progress.step == 3 else values(self, progress)

    monkeypatch.setattr(Carl, "schedule_values", nan_at_step_3)
    run = go(tmp_path / "run", toy, skip_nonfinite=1)
    (row,) = verdict_rows(run)
    assert (row["verdict"], row["state"], row["step"]) == ("divergence", "failed", 4)
    assert "health: divergence, failed" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the bar


def test_the_bar_shows_the_untrained_encoder_beside_the_accuracy():
    row = {"loss": 1.0, "knn_top1": 0.49, "linear_top1": 0.5, "untrained_knn_top1": 0.471}
    assert shown_values(row) == ["loss 1", "k-NN 49.0% (untrained 47.1%)", "linear 50.0%"]
    row["initial_knn_top1"] = 0.6
    assert shown_values(row)[1] == "k-NN 49.0% (initial encoder 60.0%, untrained 47.1%)"


def test_references_are_scored_once_with_the_first_accuracies(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=3)
    rows = [row for row in run.read_rows("metrics.jsonl") if "knn_top1" in row]
    assert ["untrained_knn_top1" in row for row in rows] == [True, False, False]
    scored = list(infomax.evaluate("knn", run, quiet=True, no_cache=True))
    untrained = next(row for row in scored if row.representation == "untrained encoder")
    assert rows[0]["untrained_knn_top1"] == pytest.approx(untrained.top1)


def test_health_is_not_in_the_bar(toy, tmp_path, monkeypatch):
    record, shown = MetricsLog.record, []
    monkeypatch.setattr(MetricsLog, "record", lambda self, row: (record(self, row), shown.append({*self.row})))
    go(tmp_path / "run", toy)
    assert "loss" in shown[-1]
    assert not [key for keys in shown for key in keys if key.startswith(("embedding", "feature", "health"))]


def test_the_tracker_is_fed_all_rows(toy, tmp_path, monkeypatch):
    fed = []
    update = VerdictTracker.update
    monkeypatch.setattr(VerdictTracker, "update", lambda self, row: (fed.append(row), update(self, row))[1])
    run = go(tmp_path / "run", toy)
    assert fed == [row for row in run.read_rows("metrics.jsonl") if "verdict" not in row]
