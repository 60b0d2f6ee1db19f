"""Tests plans against counts by hand, real steps, real ranks and the papers' measurements."""

import os
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
from torch.utils.flop_counter import FlopCounterMode

from infomax import cli
from infomax.data.loading.workers import Batch
from infomax.data.sources.location import open_source
from infomax.data.sources.named import NOMINAL_SIZES
from infomax.papers.published import find_numbers
from infomax.planning import gpus, step_time
from infomax.planning.gpus import GPUS, Gpu
from infomax.planning.options import PlanOptions
from infomax.planning.plan import plan
from infomax.planning.step_cost import FACTORISATION_FLOPS, count_step_cost
from infomax.planning.step_time import Timing, time_steps
from infomax.recipes.customise import customise
from infomax.recipes.registry import experiments, get_recipe, methods_with_papers
from infomax.recipes.schema import Recipe
from infomax.reporting.plan_text import misfit_text, plan_text
from infomax.runtime.collectives import TrafficCounter, simulated_ranks, world_size
from infomax.runtime.durations import duration, duration_range
from infomax.runtime.options import option_names
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.options import PretrainOptions
from ranks import on_ranks

CPU = torch.device("cpu")


def small_recipe(method: str, batch: int, micro_batch: int | None = None, precision: str = "32") -> Recipe:
    recipe = get_recipe(method, "small")
    return customise(recipe, batch_size=batch, micro_batch_size=micro_batch, precision=precision)


def random_microbatches(recipe: Recipe, images: int) -> list[Batch]:
    """Returns the microbatches of one step of a rank, as workers hand them over."""
    size, micro_batch = recipe.views.global_crops[0].size, recipe.micro_batch_size or images
    crops = [torch.randint(256, (images, size, size, 3), dtype=torch.uint8) for _ in recipe.views.global_crops]
    index = np.arange(images).reshape(-1, micro_batch)
    split_crops = [x.split(micro_batch) for x in crops]
    return [Batch(list(crops), 0, rows, {}) for *crops, rows in zip(*split_crops, index, strict=True)]


@pytest.fixture(autouse=True)
def ignore_poor_covariance():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")
        yield


@pytest.fixture
def few_real_steps(monkeypatch):
    """Lets a plan measure as few steps as possible, and whole ones, however busy the machine is."""
    monkeypatch.setattr(step_time, "MEASURED_SECONDS", 0.05)
    monkeypatch.setattr(step_time, "LONGEST_STEP", 1e9)
    monkeypatch.setattr(step_time, "LONGEST_LOSS", 1e9)
    monkeypatch.setattr(step_time, "FIRST_STEP_IMAGES", 8)


# FLOPs


def test_flops_are_those_counted_by_hand():
    """CARL's small network at 12 pixels: multiplications of each layer, per image and view; two FLOPs each."""
    recipe = get_recipe("carl", "digits")
    cost, method = count_step_cost(recipe), recipe.method
    stem = 6 * 6 * 27 * 32  # the image shrinks to 6 pixels at once
    blocks = 6 * 6 * 9 * (32 * 32 * 2)
    blocks += 3 * 3 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    blocks += 2 * 2 * (9 * (64 * 128 + 128 * 128) + 64 * 128)
    head = 128 * method.hidden + method.hidden * method.dimension + method.dimension * method.prototypes
    views = len(recipe.views.global_crops)
    assert cost.online_flops == 2 * views * (stem + blocks + head)
    assert cost.target_flops == 0
    assert cost.backward_flops == 2 * views * (stem + 2 * (blocks + head))  # images have no gradient
    assert cost.encoder_flops == 2 * (stem + blocks)
    assert cost.flops == cost.images * (cost.online_flops + cost.backward_flops) + cost.loss_flops


def test_a_resnet50_takes_4_1_billion_multiplications():
    cost = count_step_cost(customise(get_recipe("carl", "cifar10"), backbone="resnet50", image_size=224, batch_size=2))
    assert cost.encoder_flops / 2 == pytest.approx(4.1e9, rel=0.01)


def test_a_teacher_sees_the_global_crops_and_microbatches_pass_twice():
    whole, split = (count_step_cost(small_recipe("mira", 64, micro_batch)) for micro_batch in (None, 16))
    assert whole.target_flops == pytest.approx(whole.online_flops, rel=1e-6)
    assert split.network_flops(64, 16) == whole.network_flops(64, 64) + 48 * whole.online_flops
    multi_crop = count_step_cost(customise(small_recipe("mira", 64), views="dino:2+4"))
    assert multi_crop.target_flops == whole.target_flops
    assert multi_crop.online_flops > whole.online_flops


def test_factorisations_are_counted():
    """MVEB: a kernel matrix and its Cholesky factor; torch itself counts only matrix products."""
    few, many = (count_step_cost(small_recipe("mveb", batch)).loss_flops for batch in (64, 128))
    assert many > 128**3 / 3
    assert many / few > 4


# Memory


def real_peak_bytes(recipe: Recipe) -> int:
    """Returns the most bytes of tensors at once during a real step, by what torch asks its allocator for."""
    engine, microbatches = (
        Engine(recipe, steps_per_epoch=10, device=CPU),
        random_microbatches(recipe, recipe.batch_size),
    )
    train_step(engine, microbatches)
    engine.optimizer.zero_grad()
    momentum = [x for state in engine.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    crops = [crop for batch in microbatches for crop in batch.images]
    before = [*engine.method.parameters(), *engine.method.buffers(), *momentum, *crops]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train_step(engine, microbatches)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(x.nbytes for x in before) + int(np.cumsum(changes).max())


STEPS = [(32, None, "32"), (64, 16, "32"), (32, None, "bf16"), (32, None, "16"), (32, None, "64")]
SLOW_ON_A_CPU = [(method, "16") for method in methods_with_papers() if method != "carl"]


@pytest.mark.parametrize(
    ("method", "batch", "micro_batch", "precision"),
    [
        pytest.param(method, *step, marks=pytest.mark.process if (method, step[2]) in SLOW_ON_A_CPU else ())
        for method in methods_with_papers()
        for step in STEPS
    ],
)
def test_memory_is_that_of_a_real_step(method, batch, micro_batch, precision):
    recipe = small_recipe(method, batch, micro_batch, precision)
    assert count_step_cost(recipe).memory.peak == pytest.approx(real_peak_bytes(recipe), rel=0.1)


@pytest.mark.parametrize("method", methods_with_papers())
def test_activations_are_what_autograd_keeps(method):
    recipe = small_recipe(method, 64)
    engine, saved_bytes = Engine(recipe, steps_per_epoch=10, device=CPU), {}

    def save(x: Tensor) -> Tensor:
        saved_bytes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        outputs = engine.method.online(engine.views(random_microbatches(recipe, 64)[0]))
    for parameter in engine.method.parameters():
        saved_bytes.pop(parameter.untyped_storage().data_ptr(), None)
    assert outputs
    assert count_step_cost(recipe).memory.activations == pytest.approx(sum(saved_bytes.values()), rel=0.1)


@pytest.mark.parametrize(("name", "tensors_per_weight"), [("sgd", 1), ("lars", 1), ("adam", 2)])
def test_the_optimisers_memory(name, tensors_per_weight):
    memory = count_step_cost(customise(small_recipe("carl", 16), overrides=[f"optimizer.name={name}"])).memory
    assert memory.optimizer == pytest.approx(tensors_per_weight * memory.gradients, rel=1e-3)


def test_memory_is_most_of_what_the_paper_reports():
    """MIRA's Table 8: 504 GB on 16 GPUs, with the driver, workspaces and the allocator's reserve."""
    tensors = count_step_cost(customise(get_recipe("mira", "imagenet_100"), precision="16"), ranks=16, device="cuda")
    (reported,) = (
        number.value
        for number in find_numbers(method="MIRA", metric="gigabytes")
        if number.conditions.hardware == "16 A100" and number.conditions.moving_average
    )
    assert 0.7 < tensors.memory.peak * 16 / (reported * 1e9) < 1


# Communication


def digits_recipe(method: str, micro_batch: int | None) -> Recipe:
    return customise(get_recipe(method, "digits"), batch_size=64, micro_batch_size=micro_batch)


def received_bytes(method: str, micro_batch: int | None) -> dict[str, int]:
    """Returns the bytes that each collective of a real step leaves on a rank."""
    warnings.simplefilter("ignore")
    engine = Engine(digits_recipe(method, micro_batch), steps_per_epoch=10, device=CPU)
    received = {"gradients": 0, "all_reduce": 0, "all_gather": 0}

    def count_gradients(_, bucket):
        received["gradients"] += bucket.buffer().nbytes
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    def count_all_reduce(x, *args, all_reduce=dist.all_reduce, **kwargs):
        received["all_reduce"] += x.nbytes
        return all_reduce(x, *args, **kwargs)

    def count_all_gather(outputs, x, all_gather=dist.all_gather):
        received["all_gather"] += sum(output.nbytes for output in outputs)
        return all_gather(outputs, x)

    engine.online.register_comm_hook(None, count_gradients)
    with patch.multiple(dist, all_reduce=count_all_reduce, all_gather=count_all_gather):
        train_step(engine, random_microbatches(engine.recipe, 32))
    return received


@pytest.mark.parametrize(
    ("method", "micro_batch"), [*((method, None) for method in methods_with_papers()), ("mira", 8), ("corinfomax", 8)]
)
def test_two_ranks_send_what_is_counted(method, micro_batch):
    real, _ = on_ranks(2, received_bytes, method, micro_batch)
    counted = count_step_cost(digits_recipe(method, micro_batch), ranks=2).communication
    # In a ring of two ranks each half of a tensor is sent twice: to be added, and to be distributed.
    assert counted.gradients == real["gradients"]
    assert counted.norms + counted.loss == real["all_reduce"] + real["all_gather"] // 2
    assert counted.total > counted.gradients


def test_one_rank_sends_nothing():
    assert count_step_cost(small_recipe("mveb", 64)).communication.total == 0


def test_batch_norm_over_gpus_gathers_its_statistics():
    """torch's SyncBatchNorm: mean, deviation and count of each channel from each rank; two sums back."""
    recipe = small_recipe("carl", 64)
    channels, norms = 32 + 2 * (32 + 64 + 128) + recipe.method.hidden, 1 + 2 * 3 + 1
    views, ranks, bytes_per_number = 2, 4, 4
    gathered = views * (ranks - 1) * bytes_per_number * (2 * channels + norms)
    summed = views * 2 * (ranks - 1) * bytes_per_number * 2 * channels // ranks
    assert count_step_cost(recipe, ranks=4, device="cuda").communication.norms == gathered + summed


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
    assert (planned.steps_per_epoch, planned.steps, planned.this_machine) == (7, 21, None)
    assert planned.flops == 21 * count_step_cost(planned.recipe, device="cuda").flops
    left_out = "each epoch leaves out 104 of the 1,000 images, others each time: a step takes 128"
    assert f"21: 3 epochs of 7; 2,688 images; {left_out}\n" in plan_text(planned)
    assert "leaves out" not in plan_text(plan(images=1024, recipe="small", epochs=3, gpu=["A100"]))


def test_a_data_set_of_the_papers_need_not_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOMAX_DATA", str(tmp_path))
    planned = plan(data="cifar10", method="carl", epochs=2, gpu=["T4"])
    assert (planned.images, planned.steps, planned.recipe.name) == (50_000, 390, "cifar10")
    assert not planned.opened
    assert plan(data="imagenet", method="mveb", batch_size=4096, micro_batch_size=2, gpu=["H200"]).images == 1_281_167
    with pytest.raises(ValueError, match="found no"):
        plan(data="dtd")


@pytest.mark.parametrize(
    ("recipe", "metric", "unit_seconds"),
    [
        ("corinfomax/cifar10", "seconds_per_epoch", 1),  # Table 8, the narrowest projector, one T4
        ("mira/imagenet_100", "minutes_per_epoch", 60),  # Table 8, with a moving average, 16 A100
        pytest.param(
            *("mira/imagenet_100_batch_512", "minutes_per_epoch", 60),  # Table 8, 8 TITAN V
            marks=pytest.mark.process,
        ),
        pytest.param(
            *("mveb/imagenet_two_crops", "hours", 3600 / 1000),  # Sec. 7.5, for 1000 epochs, 32 V100
            marks=pytest.mark.process,
        ),
    ],
)
def test_an_epoch_of_a_papers_run_takes_the_papers_time(recipe, metric, unit_seconds):
    experiment = experiments()[recipe]
    numbers = (*experiment.numbers(), *find_numbers(method="MVEB", metric="hours"))
    number = next(n for n in numbers if n.column.metric == metric)
    images = NOMINAL_SIZES[experiment.data][0]
    *devices, kind = re.fullmatch(r"(?:(\d+) )?(.+)", number.conditions.hardware).groups()
    ranks, kind = int(devices[0] or 1), kind.replace(" ", "-")
    precision = "32" if experiment.recipe().precision == "32" else "16"
    planned = plan(data=experiment.data, recipe=recipe, gpu=[kind], devices=ranks, epochs=1, precision=precision)
    cost = planned.cost
    seconds_at_peak_rate = planned.steps * GPUS[kind].seconds(
        precision,
        flops=cost.flops,
        full_precision_flops=cost.full_precision_flops,
        moved_bytes=cost.moved_bytes,
    )
    # An epoch of ours leaves out the last images, which fill no batch.
    paper_seconds = number.value * unit_seconds * planned.steps * planned.recipe.batch_size / images
    times = [seconds_at_peak_rate / run.share for run in planned.utilizations]
    assert any(paper_seconds == pytest.approx(seconds, rel=0.03) for seconds in times)
    # By our count a TITAN V has too little memory, and then there is no time.
    low, high = planned.gpus[0].seconds or (paper_seconds, paper_seconds)
    assert 0.97 * low <= paper_seconds <= 1.03 * high


def test_float32_convolutions_are_computed_in_tf32_and_other_products_are_not():
    """By hand: 99 of 100 TFLOPs in convolutions, 1 in other products, 2 TB moved."""
    work = {"flops": 100e12, "full_precision_flops": 1e12, "moved_bytes": 2e12}
    assert GPUS["A100"].seconds("32", **work) == pytest.approx(99 / 156 + 1 / 19.5 + 2 / 2.039)
    assert GPUS["V100"].seconds("32", **work) == pytest.approx(100 / 15.7 + 2 / 0.9)  # its tensor cores have no TF32
    assert GPUS["A100"].seconds("bf16", **work) == pytest.approx(99 / 312 + 1 / 19.5 + 2 / 2.039)
    assert GPUS["T4"].seconds("bf16", **work) is None
    assert GPUS["A100"].seconds("64", **work) is None
    assert torch.backends.cudnn.allow_tf32  # as torch sets them, and infomax leaves them
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("precision", ["32", "16", "bf16"])
@pytest.mark.parametrize(("faster", "slower"), [("A100", "L4"), ("A100", "A10"), ("H100", "A100"), ("H200", "H100")])
def test_a_larger_gpu_is_estimated_to_be_faster_for_every_encoder(faster, slower, precision):
    for (backbone, _), bytes_per_flop in gpus.BYTES_PER_FLOP.items():
        share = bytes_per_flop * (1 if precision == "32" else 0.5)
        products = 1.0 if backbone == "vit_small" and precision == "32" else 0.05  # a ViT has no convolutions
        work = {"flops": 1.0, "full_precision_flops": products, "moved_bytes": share}
        assert GPUS[faster].seconds(precision, **work) < GPUS[slower].seconds(precision, **work)


def test_an_a100_is_several_times_faster_than_an_l4_on_cifar10():
    a100, l4 = plan(images=50_000, recipe="mira/cifar10", gpu=["A100", "L4"]).gpus
    assert a100.seconds[1] < l4.seconds[0]


def test_an_estimate_is_no_more_certain_than_its_runs():
    runs = [gpus.Utilization("a paper", "1 T4", share) for share in (0.5, 0.2)]
    assert gpus.estimate_range(10, tuple(runs)) == pytest.approx((20, 50))
    assert gpus.estimate_range(10, tuple(runs[:1])) == pytest.approx((20 / 1.5, 20 * 1.5))
    assert gpus.estimate_range(10, tuple(runs), operations=4e6) == pytest.approx((40, 60))  # the GPU waits for them


def test_times_have_no_more_digits_than_are_known():
    times = {0.0123: "12 ms", 1.26: "1.3 s", 97: "1.6 min", 7300: "2 h", 1e6: "12 days", 1.9e7: "220 days"}
    assert {seconds: duration(seconds) for seconds in times} == times
    assert duration(3.4e9) == "110 years"
    ranges = {(8100, 18200): "2 to 5 h", (36500, 82000): "10 to 23 h", (2950, 7400): "50 min to 2 h"}
    assert {pair: duration_range(*pair) for pair in ranges} == ranges
    assert duration_range(3700, 3800) == "1 h"


FAST = ("mira/cifar10", "mira/imagenet100", "corinfomax/imagenet100", "carl/cifar100", "carl/stl10", "mveb/cifar10")
COSTS = [
    pytest.param(e.name, marks=[] if e.name in FAST else pytest.mark.slow) for e in experiments().values() if e.cells
]


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_that_a_recipe_states_is_what_is_counted(name):
    experiment = experiments()[name]
    recipe = experiment.recipe()
    steps = NOMINAL_SIZES[experiment.data][0] // recipe.batch_size * recipe.epochs
    cost = count_step_cost(recipe)
    assert f"{cost.flops * steps / 1e18:.3g}" == f"{experiment.exaflops:g}"
    in_float32 = gpus.BYTES_PER_FLOP[recipe.encoder.backbone, recipe.encoder.stem]
    bytes_per_flop = in_float32 * (1 if recipe.precision == "32" else 0.5)
    assert cost.moved_bytes / cost.flops == pytest.approx(bytes_per_flop, rel=0.2)
    assert cost.full_precision_flops < 0.1 * cost.flops
    assert cost.operations >= gpus.FEWEST_OPERATIONS


def test_devices_share_the_run():
    one, four = (plan(images=9999, method="mira", recipe="cifar10", gpu=["T4"], devices=n) for n in (1, 4))
    quarter = one.gpus[0].seconds[0] / 4  # each device reads all weights, whatever its share of the images
    assert quarter < four.gpus[0].seconds[0] < 1.5 * quarter
    assert four.cost.images == 64
    assert four.cost.memory.peak < one.cost.memory.peak
    assert "by each of 4 devices" in plan_text(four)


def test_a_plan_names_the_micro_batch_size_that_fits(monkeypatch):
    monkeypatch.setitem(GPUS, "T4", Gpu(1, 8.1, 65, 320))
    planned = plan(images=9999, recipe="small", batch_size=4096, gpu=["T4"])
    (machine,) = planned.misfits
    assert planned.cost.memory.peak > machine.usable
    largest = machine.micro_batch_size
    recipes = [replace(planned.recipe, micro_batch_size=size) for size in (largest, 2 * largest)]
    peaks = [count_step_cost(recipe, device="cuda").memory.peak for recipe in recipes]
    assert peaks[0] <= machine.usable < peaks[1]
    assert f"--micro-batch-size {largest}, the largest that fits" in misfit_text(planned)
    assert "does not fit" in plan_text(planned)
    fitting = plan(images=9999, recipe="small", batch_size=4096, micro_batch_size=largest, gpu=["T4"])
    assert not misfit_text(fitting)


def test_a_run_that_fits_with_no_micro_batch_size(monkeypatch):
    monkeypatch.setitem(GPUS, "T4", Gpu(0, 8.1, 65, 320))
    assert "no --micro-batch-size helps" in misfit_text(plan(images=999, recipe="small", gpu=["T4"]))


def test_this_machine_may_be_too_small(monkeypatch):
    monkeypatch.setattr("infomax.planning.plan.device_memory", lambda device: 50_000_000)
    planned = plan(images=999, recipe="small", device="cpu")
    assert planned.this_machine.seconds is None
    assert "this CPU is too small" in misfit_text(planned)


def test_bfloat16_is_not_for_every_gpu():
    planned = plan(images=999, method="carl", recipe="cifar10", precision="bf16", gpu=["T4", "A100"])
    assert [machine.seconds is None for machine in planned.gpus] == [True, False]
    assert "has no bf16" in plan_text(planned)
    assert misfit_text(planned) == "T4 has no bf16; --precision 16 or 32 may do"


# This machine


def test_a_plan_for_this_machine(few_real_steps):
    planned = plan(data="digits", method="carl", batch_size=32, epochs=2, device="cpu")
    assert planned.opened
    timing = planned.this_machine.timing
    assert timing.images == 32
    assert timing.reading_seconds == 0
    assert timing.scoring_seconds > 0
    assert planned.this_machine.seconds[0] == planned.steps * timing.seconds_per_step + timing.scoring_seconds
    assert f"measured on {timing.steps} of them; " in plan_text(planned)


def test_a_plan_says_that_other_processes_kept_the_cores_busy_when_it_was_measured(monkeypatch):
    timing = Timing(1.0, 0.0, 0.0, 0.0, images=128, steps=2, device="cpu", epochs=1)
    monkeypatch.setattr("infomax.planning.plan.time_steps", lambda *_, **options: timing)
    monkeypatch.setattr("infomax.planning.plan.cores_kept_by_others", lambda: 1.84)
    monkeypatch.setattr("infomax.reporting.plan_text.cores_to_run_on", lambda: 2)
    planned = plan(images=128, recipe="small", method="mveb", epochs=1, device="cpu")
    assert "1 s a step, measured on 2 of them while other processes kept 1.8 of 2 cores busy" in plan_text(planned)


@pytest.fixture
def clock_of_work(monkeypatch):
    """Replaces the clock by the work that is done, a billion FLOPs a second, which does not depend on the machine."""
    with FlopCounterMode(display=False, custom_mapping=FACTORISATION_FLOPS) as flops:
        monkeypatch.setattr(step_time._StepTimer, "now", lambda self: flops.get_total_flops() / 1e9)
        yield


def test_the_time_of_a_long_step_is_extrapolated_from_short_ones(few_real_steps, clock_of_work, monkeypatch):
    """The loss is measured at its own size, or extrapolated too if that takes too long."""
    recipe = small_recipe("mveb", 64, 16)
    cost = count_step_cost(recipe)
    whole = time_steps(recipe, cost, device=CPU)
    assert (whole.images, whole.step_seconds) == (64, pytest.approx(cost.flops / 1e9))
    for longest, tolerance in ((0.0, 1e-3), (1.0, 1e-9)):  # the loss is extrapolated from 8 images; measured for 64
        monkeypatch.setattr(step_time, "LONGEST_STEP", longest)
        monkeypatch.setattr(step_time, "LONGEST_LOSS", longest)
        extrapolated = time_steps(recipe, cost, device=CPU)
        assert (extrapolated.images, extrapolated.step_seconds) == (8, pytest.approx(cost.flops / 1e9, rel=tolerance))


def test_the_time_to_read_files_is_measured(few_real_steps, tmp_path):
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
    recipe = small_recipe("carl", 8)
    timing = time_steps(recipe, count_step_cost(recipe), device=CPU, source=open_source(str(tmp_path)), workers=0)
    assert timing.reading_seconds > 0
    timing = replace(timing, step_seconds=2.0, reading_seconds=5.0, later_reading_seconds=1.0, epochs=4)
    assert timing.seconds_per_step == (7 + 3 * 3) / 4
    assert replace(timing, device="cuda").seconds_per_step == (5 + 3 * 2) / 4
    assert replace(timing, device="cuda", epochs=1).seconds_per_step == 5


@pytest.mark.parametrize(("gigabytes", "is_kept"), [(1, True), (0, False)])
def test_files_that_fit_into_memory_are_decoded_in_the_first_epoch_alone(
    few_real_steps, tmp_path, monkeypatch, gigabytes, is_kept
):
    """The files are large, and crops of 8 pixels take no time."""
    monkeypatch.setattr(step_time, "memory_to_keep", lambda text, processes: gigabytes * 10**9)
    pixels = np.random.default_rng(0).integers(256, size=(1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    for number in range(1, 8):
        os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
    recipe, source = small_recipe("carl", 8), open_source(str(tmp_path))
    timing = time_steps(recipe, count_step_cost(recipe), device=CPU, source=source, workers=0)
    assert (timing.later_reading_seconds < timing.reading_seconds / 2) == is_kept
    assert timing.epochs == recipe.epochs > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("micro_batch", [None, 256])
@pytest.mark.parametrize("method", methods_with_papers())
def test_a_plan_for_the_gpu_of_this_machine(few_real_steps, method, micro_batch):
    """The memory is that of the allocator, with workspaces; here no next batch is prefetched."""
    options = {"images": 9999, "method": method, "recipe": "small", "batch_size": 1024, "device": "cuda"}
    planned = plan(**options, micro_batch_size=micro_batch)
    assert planned.this_machine.seconds[0] > 0
    engine = Engine(planned.recipe, steps_per_epoch=10, device=torch.device("cuda"))
    microbatches = random_microbatches(planned.recipe, 1024)
    train_step(engine, microbatches)
    torch.cuda.reset_peak_memory_stats()
    train_step(engine, microbatches)
    assert torch.cuda.max_memory_allocated() == pytest.approx(planned.cost.memory.peak, rel=0.2)


# The command


def test_the_commands_options_are_those_of_pretrain():
    planning, pretraining = (set(option_names(options)) for options in (PlanOptions, PretrainOptions))
    assert planning - pretraining == {"images", "gpu"}
    assert pretraining - planning == {
        *("out", "deterministic", "compile", "skip_nonfinite", "stop_on_collapse", "skip_unreadable", "keep_decoded"),
        *("resume", "overwrite", "quiet", "log", "keep_epochs"),
    }


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--images", "999", "--gpu", "A1000"], 2, "did you mean A100?"),
        (["--images", "1"], 2, "--images must be a whole number of at least 2"),
        (["--data", "nowhere"], 2, "no such folder or file"),
        (["--images", "100", "--recipe", "small"], 2, "a step takes 128 images, which is more than the 100 images"),
        (
            ["--images", "999", "--recipe", "small", "--devices", "3", "--micro-batch-size", "64"],
            2,
            "64 times 3 devices",
        ),
        (["--images", "999", "--recipe", "small", "--gpu", "T4"], 0, ""),
        (["--images", "9999", "--recipe", "small", "--batch-size", "8192", "--gpu", "T4"], 1, "T4 is too small"),
    ],
)
def test_the_exit_code_says_whether_the_run_fits(monkeypatch, capsys, arguments, exit_code, message):
    monkeypatch.setitem(GPUS, "T4", Gpu(4, 8.1, 65, 320))
    monkeypatch.setattr("sys.argv", ["infomax", "plan", *arguments])
    actual = 0
    try:
        cli.main()
    except SystemExit as stop:
        actual = stop.code
    out, err = capsys.readouterr()
    assert actual == exit_code
    assert message in err
    assert ("memory" in out) == (exit_code < 2)


def test_a_plan_without_data_is_of_the_channels_that_are_said(capsys):
    recipes = [plan(images=1000, recipe="small", channels=channels, gpu=["A100"]).recipe for channels in (5, None, 3)]
    assert [recipe.encoder.channels for recipe in recipes] == [5, 3, 3]
    assert capsys.readouterr().err.count("planned for 5 channels of 16 bits, as --channels says") == 1
