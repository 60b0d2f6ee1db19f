"""What is said of a run before it starts: against counts by hand, real steps, real ranks, and what papers report."""

import re
import warnings
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from infomax import cli
from infomax.data.loading.workers import Batch
from infomax.data.sources.location import open_source
from infomax.data.sources.named import NOMINAL_SIZES
from infomax.papers.published import find_numbers
from infomax.planning import step_time as timing
from infomax.planning.gpus import GPUS, Gpu
from infomax.planning.options import PlanOptions
from infomax.planning.plan import plan
from infomax.planning.step_cost import count
from infomax.planning.step_time import time_steps
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, experiments, get_recipe
from infomax.recipes.schema import Recipe
from infomax.reporting.plan_text import misfit_text, plan_text
from infomax.runtime.collectives import TrafficCounter, simulated_ranks, world_size
from infomax.runtime.options import option_names
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.options import PretrainOptions
from ranks import on_ranks

CPU = torch.device("cpu")


def small(method: str, batch: int, part: int | None = None, precision: str = "32") -> Recipe:
    return customise(get_recipe(method, "small"), batch_size=batch, micro_batch_size=part, precision=precision)


def given(recipe: Recipe, share: int) -> list[Batch]:
    """Images of one step of a rank, as workers hand them over."""
    size, part = recipe.views.global_crops[0].size, recipe.micro_batch_size or share
    crops = [torch.randint(256, (share, size, size, 3), dtype=torch.uint8) for _ in recipe.views.global_crops]
    each = zip(*(x.split(part) for x in crops), np.arange(share).reshape(-1, part), strict=True)
    return [Batch(list(made), 0, index, {}) for *made, index in each]


@pytest.fixture(autouse=True)
def no_matter():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")
        yield


@pytest.fixture
def quick(monkeypatch):
    """As few real steps as there can be."""
    monkeypatch.setattr(timing, "SECONDS", 0.05)


# FLOPs


def test_flops_are_those_that_a_hand_counts():
    """CARL's small network at 16 pixels: products of each layer, an image and a view; two FLOPs each."""
    recipe = get_recipe("carl", "digits")
    cost, how = count(recipe), recipe.method
    stem = 8 * 8 * 27 * 32  # the image shrinks to 8 pixels at once
    blocks = 8 * 8 * 9 * (32 * 32 * 2)
    blocks += 4 * 4 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    blocks += 2 * 2 * (9 * (64 * 128 + 128 * 128) + 64 * 128)
    head = 128 * how.hidden + how.hidden * how.dimension + how.dimension * how.prototypes
    views = len(recipe.views.global_crops)
    assert cost.online == 2 * views * (stem + blocks + head)
    assert cost.target == 0
    assert cost.backward == 2 * views * (stem + 2 * (blocks + head))  # images have no gradient
    assert cost.encode == 2 * (stem + blocks)
    assert cost.flops == cost.images * (cost.online + cost.backward) + cost.loss


def test_a_resnet50_takes_4_1_billion_products():
    cost = count(customise(get_recipe("carl", "cifar10"), backbone="resnet50", image_size=224, batch_size=2))
    assert cost.encode / 2 == pytest.approx(4.1e9, rel=0.01)


def test_a_teacher_sees_the_full_views_and_parts_pass_twice():
    whole, parts = (count(small("mira", 64, part)) for part in (None, 16))
    assert whole.target == pytest.approx(whole.online, rel=1e-6)
    assert parts.networks(64, 16) == whole.networks(64, 64) + 48 * whole.online
    crops = count(customise(small("mira", 64), views="dino:2+4"))
    assert crops.target == whole.target
    assert crops.online > whole.online


def test_factorisations_are_counted():
    """MVEB: a kernel matrix and its Cholesky factor; torch counts products alone."""
    few, many = (count(small("mveb", batch)).loss for batch in (64, 128))
    assert many > 128**3 / 3
    assert many / few > 4


# Memory


def most_bytes(recipe: Recipe) -> int:
    """Of all tensors at once during a real step, by what torch asks its allocator for."""
    engine, parts = Engine(recipe, steps_per_epoch=10, device=CPU), given(recipe, recipe.batch_size)
    train_step(engine, parts)
    engine.optimizer.zero_grad()
    momentum = [x for state in engine.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    there = [*engine.method.parameters(), *engine.method.buffers(), *momentum, *(x for p in parts for x in p.images)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train_step(engine, parts)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(x.nbytes for x in there) + int(np.cumsum(changes).max())


@pytest.mark.parametrize(
    ("batch", "part", "precision"),
    [(64, None, "32"), (128, 32, "32"), (64, None, "bf16"), (64, None, "16"), (64, None, "64")],
)
@pytest.mark.parametrize("method", METHODS)
def test_memory_is_that_of_a_real_step(method, batch, part, precision):
    recipe = small(method, batch, part, precision)
    assert count(recipe).memory.peak == pytest.approx(most_bytes(recipe), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_activations_are_what_autograd_keeps(method):
    recipe = small(method, 64)
    engine, kept = Engine(recipe, steps_per_epoch=10, device=CPU), {}

    def note(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        outputs = engine.method.online(engine.views(given(recipe, 64)[0]))
    for parameter in engine.method.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert outputs
    assert count(recipe).memory.activations == pytest.approx(sum(kept.values()), rel=0.1)


@pytest.mark.parametrize(("name", "share"), [("sgd", 1), ("lars", 1), ("adam", 2)])
def test_the_optimisers_memory(name, share):
    memory = count(customise(small("carl", 16), overrides=[f"optimizer.name={name}"])).memory
    assert memory.optimizer == pytest.approx(share * memory.gradients, rel=1e-3)


def test_memory_is_most_of_what_the_paper_reports():
    """MIRA's Table 8: 504 GB on 16 GPUs; theirs is with a driver, workspaces and what the allocator keeps."""
    tensors = count(customise(get_recipe("mira", "imagenet_100"), precision="16"), ranks=16, device="cuda")
    (reported,) = (
        number.value
        for number in find_numbers(method="MIRA", metric="gigabytes")
        if number.conditions.hardware == "16 A100" and number.conditions.moving_average
    )
    assert 0.7 < tensors.memory.peak * 16 / (reported * 1e9) < 1


# What ranks send


def communicating(method: str, part: int | None) -> Recipe:
    return customise(get_recipe(method, "digits"), batch_size=64, micro_batch_size=part)


def sent(method: str, part: int | None) -> dict[str, int]:
    """Bytes that a real step leaves on a rank by each collective."""
    warnings.simplefilter("ignore")
    engine, bytes_of = Engine(communicating(method, part), steps_per_epoch=10, device=CPU), dict.fromkeys("gra", 0)

    def gradients(_, bucket):
        bytes_of["g"] += bucket.buffer().nbytes
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    def reduce(x, *rest, whole=dist.all_reduce, **how):
        bytes_of["r"] += x.nbytes
        return whole(x, *rest, **how)

    def gather(parts, x, whole=dist.all_gather):
        bytes_of["a"] += sum(part.nbytes for part in parts)
        return whole(parts, x)

    engine.online.register_comm_hook(None, gradients)
    with patch.multiple(dist, all_reduce=reduce, all_gather=gather):
        train_step(engine, given(engine.recipe, 32))
    return bytes_of


@pytest.mark.parametrize("part", [None, 8])
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_send_what_is_counted(method, part):
    real, _ = on_ranks(2, sent, method, part)
    counted = count(communicating(method, part), ranks=2).sent
    assert counted.gradients == real["g"]  # a ring of two: each half goes once to be added, and once to be known
    assert counted.norms + counted.loss == real["r"] + real["a"] // 2
    assert counted.total > counted.gradients


def test_one_rank_sends_nothing():
    assert count(small("mveb", 64)).sent.total == 0


def test_batch_norm_over_gpus_gathers_its_statistics():
    """torch's SyncBatchNorm: mean, deviation and count of each channel from each rank; two sums back."""
    recipe = small("carl", 64)
    channels, norms = 32 + 2 * (32 + 64 + 128) + recipe.method.hidden, 1 + 2 * 3 + 1
    views, ranks, numbers = 2, 4, 4  # bytes of a number
    received = views * (ranks - 1) * numbers * (2 * channels + norms)
    summed = views * 2 * (ranks - 1) * numbers * 2 * channels // ranks
    assert count(recipe, ranks=4, device="cuda").sent.norms == received + summed


def test_simulated_ranks_end_with_their_block():
    def fail() -> None:
        with simulated_ranks(TrafficCounter(4)):
            raise ValueError(f"{world_size()} ranks")

    with pytest.raises(ValueError, match="4 ranks"):
        fail()
    assert world_size() == 1


# The plan


def test_steps_and_images():
    planned = plan(images=1000, recipe="small", epochs=3, gpu=["A100"])
    assert (planned.steps_per_epoch, planned.steps, planned.here) == (3, 9, None)
    assert planned.flops == 9 * count(planned.recipe, device="cuda").flops
    assert "9: 3 epochs of 3; 2,304 images" in plan_text(planned)


def test_a_data_set_of_the_papers_need_not_be_here(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOMAX_DATA", str(tmp_path))
    planned = plan(data="cifar10", method="carl", epochs=2, gpu=["T4"])
    assert (planned.images, planned.steps, planned.recipe.name) == (50_000, 390, "cifar10")
    assert not planned.opened
    assert plan(data="imagenet", method="mveb", batch_size=4096, micro_batch_size=2, gpu=["H200"]).images == 1_281_167
    with pytest.raises(ValueError, match="found no"):
        plan(data="dtd")


@pytest.mark.parametrize(
    ("recipe", "metric", "seconds"),
    [
        ("corinfomax/cifar10", "seconds_per_epoch", 1),  # Table 8, the narrowest projector, one T4
        ("mira/imagenet_100", "minutes_per_epoch", 60),  # Table 8, with a moving average, 16 A100
        ("mira/imagenet_100_batch_512", "minutes_per_epoch", 60),  # Table 8, 8 TITAN V
        ("mveb/imagenet_two_crops", "hours", 3600 / 1000),  # Sec. 7.5, for 1000 epochs, 32 V100
    ],
)
def test_an_epoch_of_a_papers_run_takes_the_papers_time(recipe, metric, seconds):
    one = experiments()[recipe]
    number = next(
        n for n in (*one.numbers(), *find_numbers(method="MVEB", metric="hours")) if n.column.metric == metric
    )
    images, how = NOMINAL_SIZES[one.data][0], number.conditions
    *devices, kind = re.fullmatch(r"(?:(\d+) )?(.+)", how.hardware).groups()
    ranks, kind = int(devices[0] or 1), kind.replace(" ", "-")
    precision = "32" if one.recipe().precision == "32" else "16"
    planned = plan(data=one.data, recipe=recipe, gpu=[kind], devices=ranks, epochs=1, precision=precision)
    full_rate = planned.steps * planned.cost.flops / GPUS[kind].peak(precision)
    took = number.value * seconds * planned.steps * planned.recipe.batch_size / images  # the last, short step left out
    assert any(took == pytest.approx(full_rate / run.share, rel=0.01) for run in planned.reached)
    low, high = planned.gpus[0].seconds or (took, took)  # a TITAN V has too little memory, by our count
    assert 0.99 * low <= took <= 1.01 * high


FEW = ("mira/cifar10", "mira/imagenet100", "corinfomax/imagenet100", "carl/cifar100", "carl/stl10", "mveb/cifar10")
COSTS = [
    pytest.param(e.name, marks=[] if e.name in FEW else pytest.mark.slow) for e in experiments().values() if e.cells
]


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_that_a_recipe_states_is_what_is_counted(name):
    one = experiments()[name]
    recipe = one.recipe()
    steps = NOMINAL_SIZES[one.data][0] // recipe.batch_size * recipe.epochs
    assert f"{count(recipe).flops * steps / 1e18:.3g}" == f"{one.exaflops:g}"


def test_devices_share_the_run():
    one, four = (plan(images=9999, method="carl", recipe="cifar10", gpu=["A100"], devices=n) for n in (1, 4))
    assert four.gpus[0].seconds == pytest.approx([x / 4 for x in one.gpus[0].seconds], rel=1e-3)
    assert four.cost.images == 64
    assert four.cost.memory.peak < one.cost.memory.peak
    assert "by each of 4 devices" in plan_text(four)


def test_a_run_that_does_not_fit_is_told_what_does(monkeypatch):
    monkeypatch.setitem(GPUS, "T4", Gpu(1, 8.1, 65))
    planned = plan(images=9999, recipe="small", batch_size=4096, gpu=["T4"])
    (machine,) = planned.misfits
    assert planned.cost.memory.peak > machine.usable
    part = machine.micro_batch_size
    peaks = [count(replace(planned.recipe, micro_batch_size=n), device="cuda").memory.peak for n in (part, 2 * part)]
    assert peaks[0] <= machine.usable < peaks[1]
    assert f"--micro-batch-size {part}, the largest that fits" in misfit_text(planned)
    assert "does not fit" in plan_text(planned)
    fitting = plan(images=9999, recipe="small", batch_size=4096, micro_batch_size=part, gpu=["T4"])
    assert not misfit_text(fitting)


def test_a_run_that_fits_in_no_parts(monkeypatch):
    monkeypatch.setitem(GPUS, "T4", Gpu(0, 8.1, 65))
    assert "no --micro-batch-size helps" in misfit_text(plan(images=999, recipe="small", gpu=["T4"]))


def test_this_machine_may_be_too_small(monkeypatch):
    monkeypatch.setattr("infomax.planning.plan._memory", lambda: 50_000_000)
    planned = plan(images=999, recipe="small", device="cpu")
    assert planned.here.seconds is None
    assert "this CPU is too small" in misfit_text(planned)


def test_bfloat16_is_not_for_every_gpu():
    planned = plan(images=999, method="carl", recipe="cifar10", precision="bf16", gpu=["T4", "A100"])
    assert [machine.seconds is None for machine in planned.gpus] == [True, False]
    assert "has no bf16" in plan_text(planned)
    assert misfit_text(planned) == "T4 has no bf16; --precision 16 or 32 may do"


# This machine


def test_a_plan_for_this_machine(quick):
    planned = plan(data="digits", method="carl", batch_size=32, epochs=2, device="cpu")
    assert planned.opened
    timed = planned.here.timing
    assert timed.images == 32
    assert timed.reading == 0
    assert timed.scoring > 0
    assert planned.here.seconds[0] == planned.steps * timed.each + timed.scoring
    assert "measured on 3 of them" in plan_text(planned) or timed.steps > 3


def test_a_long_step_is_put_together_from_short_ones(quick, monkeypatch):
    """With the loss at its own size, by its growth where that takes too long."""
    recipe = small("mveb", 64, 16)
    whole = time_steps(recipe, count(recipe), device=CPU)
    monkeypatch.setattr(timing, "LONGEST", 0.0)
    few = time_steps(recipe, count(recipe), device=CPU)
    assert (whole.images, few.images) == (64, 8)
    assert 0.2 < few.step / whole.step < 5


def test_files_are_read_to_know_how_long_it_takes(quick, tmp_path):
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
    recipe = small("carl", 8)
    timed = time_steps(recipe, count(recipe), device=CPU, source=open_source(str(tmp_path)), workers=0)
    assert timed.reading > 0
    assert timed.each == timed.step + timed.reading
    assert replace(timed, device="cuda").each == max(timed.step, timed.reading)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("part", [None, 256])
@pytest.mark.parametrize("method", METHODS)
def test_a_plan_for_a_gpu_that_is_here(quick, method, part):
    """By the allocator's own count, which has workspaces too; the next batch is not there."""
    planned = plan(images=9999, method=method, recipe="small", batch_size=1024, micro_batch_size=part, device="cuda")
    assert planned.here.seconds[0] > 0
    engine = Engine(planned.recipe, steps_per_epoch=10, device=torch.device("cuda"))
    parts = given(planned.recipe, 1024)
    train_step(engine, parts)
    torch.cuda.reset_peak_memory_stats()
    train_step(engine, parts)
    assert torch.cuda.max_memory_allocated() == pytest.approx(planned.cost.memory.peak, rel=0.2)


# The command


def test_the_commands_words_are_those_of_pretrain():
    words, known = (set(option_names(kind)) for kind in (PlanOptions, PretrainOptions))
    assert words - known == {"images", "gpu"}
    assert known - words == {
        *("out", "deterministic", "compile", "skip_nonfinite", "skip_unreadable", "resume", "overwrite", "quiet")
    }


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--gpu", "A1000"], 2, "did you mean A100?"),
        (["--images", "1"], 2, "--images must be a whole number of at least 2"),
        (["--data", "nowhere"], 2, "no such folder or file"),
        (["--images", "100"], 2, "a step takes 256 images, which is more than the 100 images"),
        (
            ["--images", "999", "--recipe", "small", "--devices", "3", "--micro-batch-size", "64"],
            2,
            "64 times 3 devices",
        ),
        (["--images", "999", "--recipe", "small", "--gpu", "T4"], 0, ""),
        (["--images", "9999", "--recipe", "small", "--batch-size", "8192", "--gpu", "T4"], 1, "T4 is too small"),
    ],
)
def test_the_exit_code_says_whether_it_can_be_done(monkeypatch, capsys, words, code, message):
    monkeypatch.setitem(GPUS, "T4", Gpu(4, 8.1, 65))
    monkeypatch.setattr("sys.argv", ["infomax", "plan", *words])
    stopped = 0
    try:
        cli.main()
    except SystemExit as stop:
        stopped = stop.code
    out, err = capsys.readouterr()
    assert stopped == code
    assert message in err
    assert ("memory" in out) == (code < 2)
