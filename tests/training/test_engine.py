"""A step on many ranks and in many microbatches equals that of one process with the whole batch, in float64."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import ViewSet, dino
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.methods.base import Progress, Views
from infomax.recipes.building import build_method, build_optimizer, learning_rate
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe, methods_with_papers
from infomax.runtime.collectives import rank, world_size
from infomax.training.engine import Engine
from infomax.training.health import Health
from infomax.training.loop import train_step
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
STEPS, LENGTH = 4, 97
VARIANTS = {
    "mira": ("mira", "method.hidden=16", "method.prototypes=10", "method.momentum=0.9"),
    "mira-no-teacher": ("mira", "method.hidden=16", "method.prototypes=10", "method.momentum=none"),
    "mira-multi-crop": ("mira", "method.hidden=16", "method.prototypes=10", "method.momentum=0.9"),
    "corinfomax": ("corinfomax", "method.hidden=16", "method.dimension=4"),
    "corinfomax-norm": ("corinfomax", "method.hidden=16", "method.dimension=4", "method.projector_norm=true"),
    "carl": ("carl", "method.hidden=16", "method.prototypes=10"),
    "deepcluster": ("deepcluster", "method.hidden=16", "method.dimension=8", "method.prototypes=10"),
    "deepcluster-multi-crop": ("deepcluster", "method.hidden=16", "method.dimension=8", "method.prototypes=10"),
    "densecl": ("densecl", "method.hidden=16", "method.dimension=8", "method.queue_size=40", "encoder.stem=cifar"),
    "mveb": ("mveb", "method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
    "pcl": ("pcl", "method.hidden=16", "method.dimension=8", "method.clusters=3,4,6", "method.warmup_epochs=0"),
    "mveb-shared": ("mveb", "method.hidden=16", "method.dimension=8", "method.momentum=none"),
    "mveb-chunk": ("mveb", "method.hidden=16", "method.dimension=8", "method.score_scope=chunk:4"),
    "mveb-multi-crop": ("mveb", "method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
    "simsiam": ("simsiam", "method.hidden=16", "method.dimension=8", "optimizer.constant_predictor=false"),
    "joint": ("carl", "method.hidden=16", "method.prototypes=10", "joint_forward=true"),
    "frozen": (
        *("mira", "method.hidden=16", "method.prototypes=10", "method.momentum=0.9", "encoder.freeze=2"),
        *("optimizer.backbone_rate=0.5", "optimizer.layer_decay=0.8"),
    ),
    "lars-clipped": ("carl", "method.hidden=16", "optimizer.name=lars", "optimizer.clip_norm=0.5"),
}


def recipe(variant, **changes):
    method, *overrides = VARIANTS[variant]
    overrides = ["optimizer.name=sgd", "optimizer.learning_rate=0.1", *overrides]  # Adam's divisions magnify rounding
    plan = customise(
        get_recipe(method, "small"),
        **{"image_size": 8, "batch_size": 12, "epochs": 2, "precision": "64", "overrides": overrides, **changes},
    )
    if not variant.endswith("multi-crop"):
        return plan
    full, local = dino(8, global_scale=(0.4, 1), local_scale=(0.1, 0.4))
    return replace(plan, views=ViewSet(global_crops=full, local_crops=local[:2]))


def images() -> ArrayImages:
    """Returns images that grow brighter along the data set, so that a wrong order or share shows."""
    pixels = np.random.default_rng(0).integers(0, 100, (LENGTH, 10, 10, 3)) + 3 * np.arange(LENGTH)[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), None, [])


def microbatches_of(engine, step, steps=1):
    plan = engine.recipe
    arguments = {"rank": rank(), "world_size": world_size(), "micro_batch_size": plan.micro_batch_size}
    steps = range(step, step + steps)
    return list(
        training_batches(images(), plan.views, batch_size=plan.batch_size, seed=plan.seed, steps=steps, **arguments)
    )


def build_engine(plan, *, compiled=False, device="cpu") -> Engine:
    steps_per_epoch = LENGTH // plan.batch_size
    settings = {"device": torch.device(device), "compiled": compiled, "images": LENGTH}
    return Engine(plan, steps_per_epoch=steps_per_epoch, **settings)


def begin_epoch_if_due(engine):
    first, steps = engine.steps_done, engine.steps_per_epoch
    if first % steps == 0:
        engine.begin_epoch(lambda: nullcontext(iter(microbatches_of(engine, first, steps))))


def run(plan, start=None, stop=STEPS, *, compiled=False):
    """Returns losses and gradient norms of each step, the last gradient, and the state after it."""
    engine = build_engine(plan, compiled=compiled)
    if start is not None:
        engine.load(start)
    history = []
    while engine.steps_done < stop:
        begin_epoch_if_due(engine)
        step = train_step(engine, microbatches_of(engine, engine.steps_done))
        terms = (float(term) for term in step.loss.terms.values())
        history.append((float(step.loss.total.detach()), step.gradient_norm, *terms))
    gradients = {n: p.grad for n, p in engine.method.named_parameters() if p.grad is not None}
    return history, gradients, copy.deepcopy(engine.state())


def run_variants(plans, file):
    """Runs each plan on one of several ranks, and writes the results into a file."""
    torch.save({name: run(plan) for name, plan in plans.items()}, f"{file}-{rank()}")


def assert_close(got, want):
    histories = [torch.tensor(x[0], dtype=torch.float64) for x in (got, want)]
    torch.testing.assert_close(*histories, rtol=1e-9, atol=1e-10)
    assert got[1].keys() == want[1].keys()
    scale = max(float(g.abs().max()) for g in want[1].values())
    for name, gradient in want[1].items():
        torch.testing.assert_close(got[1][name], gradient, rtol=1e-7, atol=1e-9 * scale, msg=name)
    for name, tensor in want[2]["method"].items():
        torch.testing.assert_close(got[2]["method"][name], tensor, rtol=1e-7, atol=1e-9, msg=name)


PLANS = {
    **{name: recipe(name) for name in VARIANTS},
    **{
        f"{name}-uneven": recipe(name, batch_size=13)
        for name in ("mira", "corinfomax", "carl", "deepcluster", "mveb", "mveb-chunk")
    },
    **{
        f"{name}-microbatches": recipe(name, batch_size=48, micro_batch_size=6)
        for name in ("mira", "corinfomax-norm", "carl", "deepcluster", "densecl", "mveb")
    },
}


@pytest.fixture(scope="module")
def alone():
    torch.set_num_threads(1)
    return {name: run(plan) for name, plan in PLANS.items()}


OTHER_TEACHERS = ("pcl", "densecl")  # the one's is its MoCo's, the other's has a projector more


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in OTHER_TEACHERS])
def test_a_step_is_that_of_a_plain_loop_in_the_order_of_the_official_code(variant):
    """In the official code, the teacher moves at the start of a step, before its own forward pass."""
    plan = recipe(variant, overrides=[x for x in VARIANTS[variant][1:] if "clip" not in x], seed=3)
    method = build_method(plan, images=LENGTH).to(memory_format=torch.channels_last)
    optimizer, total = build_optimizer(method, plan.optimizer), 2 * (LENGTH // plan.batch_size)

    def views_of(step):
        (batch,) = training_batches(images(), plan.views, batch_size=12, seed=3, steps=range(step, step + 1))
        arguments = {"seed": 3, "epoch": step // 8, "index": batch.index, "dtype": torch.float64}
        made_views = make_views(batch.images, plan.views, **arguments)
        return Views(made_views[:2], made_views[2:], torch.from_numpy(batch.index))

    def embed(network):
        """Passes the first epoch through a copy of the network, whose running statistics are then thrown away."""
        before = copy.deepcopy(method.state_dict())
        for views in map(views_of, range(8)):
            yield views.positions, network(views)
        method.load_state_dict(
            {name: x for name, x in before.items() if "running" in name or "tracked" in name}, strict=False
        )

    with torch.no_grad():
        method.before_epoch(Progress(step=0, total_steps=total, epoch=0), embed)
    for step in range(6):
        now, views = Progress(step=step, total_steps=total, epoch=0), views_of(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan.optimizer, now, epochs=2) * group.get("rate_factor", 1)
        optimizer.zero_grad()
        online = method.online(views)
        if (teacher := getattr(method, "teacher", None)) is not None:
            momentum = 1 - (1 - teacher.momentum) * (1 + np.cos(np.pi * step / total)) / 2
            student = [*method.encoder.parameters(), *method.projector.parameters()]
            with torch.no_grad():
                for mine, theirs in zip(teacher.module.parameters(), student, strict=True):
                    mine.mul_(momentum).add_(theirs, alpha=1 - momentum)
        target = method.target(views)
        method.loss(online, target, now).total.backward()
        if plan.method.name == "mira" and now.epoch == 0:
            method.prototypes.weight.grad = None
        optimizer.step()
        method.remember([x.detach() for x in online], target)
    _, _, state = run(plan, stop=6)
    averaged = ("teacher.module",)  # has moved once more by now, towards the next step
    for name, tensor in method.state_dict().items():
        if not name.startswith(averaged) or "running" in name:
            torch.testing.assert_close(state["method"][name], tensor, rtol=1e-8, atol=1e-9, msg=name)


TWICE = ("no-teacher", "multi-crop", "shared", "joint", "lars-clipped")  # on 2 ranks alone: 4 of them are slow here


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    file = tmp_path_factory.mktemp("ranks") / "result"
    results = {}
    for world in (2, 4):
        plans = {name: plan for name, plan in PLANS.items() if world == 2 or not name.endswith(TWICE)}
        on_ranks(world, run_variants, plans, file)
        results[world] = [torch.load(f"{file}-{r}", weights_only=True) for r in range(world)]
    return results


@pytest.mark.process
@pytest.mark.parametrize("name", PLANS)
def test_many_ranks_equal_one(alone, together, name):
    """Loss, the gradient of every parameter and the state after four steps are equal on every rank of 2 and of 4."""
    for ranks in together.values():
        for of_rank in ranks:
            if name in of_rank:
                assert_close(of_rank[name], alone[name])


def groups_in_one_graph(plan, state):
    """Computes the expected gradient of a step in microbatches: all in one graph, one loss, one backward pass."""
    engine = build_engine(replace(plan, micro_batch_size=None))
    engine.load(state)
    (full_batch,) = microbatches_of(engine, engine.steps_done)
    online, target = [], []
    for rows in np.array_split(np.arange(plan.batch_size), plan.batch_size // plan.micro_batch_size):
        views = engine.views(full_batch._replace(images=full_batch.images[rows], index=full_batch.index[rows]))
        online.append(engine.method.online(views))
        target.append(engine.method.target(views))
    joined = [[torch.cat(view) for view in zip(*branch, strict=True)] for branch in (online, target)]
    loss = engine.method.loss(*joined, engine.progress(engine.steps_done))
    loss.total.backward()
    return loss, {n: p.grad for n, p in engine.method.named_parameters() if p.grad is not None}


@cache
def state_after_three_steps(variant):
    """Returns the state of an engine, which users copy."""
    return run(recipe(variant), stop=3)[2]


def micro_batch_sizes(variant):
    return (2, 4, 6) if VARIANTS[variant][0] in methods_with_papers() else (4,)


@pytest.mark.parametrize(
    ("variant", "micro_batch_size"), [(variant, size) for variant in VARIANTS for size in micro_batch_sizes(variant)]
)
def test_a_batch_in_microbatches_has_the_gradient_of_the_whole(variant, micro_batch_size):
    plan = recipe(variant, micro_batch_size=micro_batch_size)
    state = copy.deepcopy(state_after_three_steps(variant))
    loss, gradients = groups_in_one_graph(plan, state)
    engine = build_engine(plan)
    engine.load(state)
    microbatches = microbatches_of(engine, 3)
    assert len(microbatches) == 12 // micro_batch_size
    got = engine.backward(microbatches)
    torch.testing.assert_close(got.total.detach(), loss.total.detach(), rtol=1e-12, atol=1e-12)
    for name, parameter in engine.method.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-13, msg=name)


@pytest.mark.parametrize("variant", ["mira", "corinfomax", "carl", "mveb"])
def test_state_advances_once_a_step_whatever_the_microbatches(variant):
    """In four equal microbatches, running statistics, covariances and teacher end where those of one end."""
    plan = recipe(variant, micro_batch_size=3)
    single_plan = recipe(variant, batch_size=3)
    split, single = build_engine(plan), build_engine(single_plan)
    (batch,) = microbatches_of(single, 0)
    train_step(split, [batch] * 4)
    train_step(single, [batch])
    buffers = dict(single.method.named_buffers())
    for name, buffer in split.method.named_buffers():
        if "running" in name or "tracked" in name:
            torch.testing.assert_close(buffer, buffers[name], rtol=1e-10, atol=1e-12, msg=name)
    assert split.steps_done == 1


def fail_on_one_rank():
    """Makes the views of the last rank NaN, which must stop every rank, and returns the error's message."""
    engine = build_engine(recipe("mveb-chunk", micro_batch_size=6))
    views = engine.views
    if rank() == world_size() - 1:
        engine.views = lambda batch: views(batch)._replace(
            global_crops=[x * torch.nan for x in views(batch).global_crops]
        )
    try:
        train_step(engine, microbatches_of(engine, 0))
    except FloatingPointError as error:
        return str(error)


def test_a_rank_whose_samples_are_nan_stops_all():
    messages = on_ranks(2, fail_on_one_rank)
    assert messages == ["the loss became nan at step 1"] * 2


def test_a_failed_step_under_float16_can_be_left_out():
    engine = build_engine(recipe("carl", precision="16"))
    (batch,) = microbatches_of(engine, 0)
    views, scale = engine.views, engine.scaler.get_scale()
    engine.views = lambda batch: views(batch)._replace(global_crops=[x * torch.nan for x in views(batch).global_crops])
    with pytest.raises(FloatingPointError, match="loss became nan"):
        train_step(engine, [batch])
    engine.skip()
    assert engine.scaler.get_scale() == scale
    engine.views = views
    train_step(engine, microbatches_of(engine, 1))
    assert engine.steps_done == 2


def test_a_gradient_that_no_scale_makes_finite_stops_the_run():
    engine = build_engine(recipe("carl", precision="16"))
    next(engine.method.assigner.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    for step in range(16):  # from 2^16 halved to 1
        train_step(engine, microbatches_of(engine, step % 8))
    with pytest.raises(FloatingPointError, match="gradient's norm became nan"):
        train_step(engine, microbatches_of(engine, 0))


def test_any_seed_will_do():
    engine = build_engine(recipe("carl", seed=2**40 + 20261121))
    train_step(engine, microbatches_of(engine, 0))


def test_a_failed_step_changes_nothing():
    plan = recipe("corinfomax-norm")
    _, _, state = run(plan, stop=2)
    engine = build_engine(plan)
    engine.load(state)
    before = copy.deepcopy(engine.state())
    (batch,) = microbatches_of(engine, 2)
    weight = engine.method.projector[0].weight
    with torch.no_grad():
        old = weight[0, 0].item()
        weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="step 3"):
        train_step(engine, [batch])
    with torch.no_grad():
        weight[0, 0] = old
    after = engine.state()
    assert after["step"] == before["step"] == 2
    assert not [n for n, x in before["method"].items() if not torch.equal(after["method"][n], x)]


def test_the_gradient_is_clipped_to_its_limit():
    free, clipped = (
        recipe("carl", overrides=[*VARIANTS["carl"][1:], *more]) for more in ((), ["optimizer.clip_norm=0.01"])
    )
    (_, norm, *_), *_ = run(free, stop=1)[0]
    assert norm > 0.01
    gradient = torch.cat([g.flatten() for g in run(clipped, stop=1)[1].values()])
    assert float(gradient.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("variant", ["mira", "corinfomax", "carl", "mveb"])
def test_lower_precisions_stay_near_float64(variant, precision):
    """At the first step, before small differences have grown; and nothing overflows in those after it."""
    (want, *_), *_ = run(recipe(variant), stop=1)[0]
    history, _, state = run(recipe(variant, precision=precision), stop=3)
    tolerance = 1e-5 if precision == "32" else 0.02
    assert history[0][0] == pytest.approx(want, rel=tolerance, abs=tolerance)
    assert all(np.isfinite(loss) for loss, *_ in history)
    assert ("scale" in state["scaler"]) == (precision == "16")


def test_views_together_share_their_statistics():
    """joint_forward changes what BatchNorm sees, and nothing else: with fixed statistics both are equal."""
    plan = recipe("corinfomax")
    engines = build_engine(plan), build_engine(replace(plan, joint_forward=True))
    (batch,) = microbatches_of(engines[0], 0)
    apart, joint = (float(engine.backward([batch]).total.detach()) for engine in engines)
    assert abs(apart - joint) > 1e-6
    engines = build_engine(plan), build_engine(replace(plan, joint_forward=True))
    for engine in engines:
        engine.method.eval()
    apart, joint = (float(engine.backward([batch]).total.detach()) for engine in engines)
    assert apart == pytest.approx(joint, rel=1e-10)


compiling = pytest.mark.filterwarnings(  # of torch's own doing
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore:.* should not be instantiated:DeprecationWarning",
)


@pytest.fixture
def graphs(monkeypatch):
    """Collects, for each graph that torch.compile is given, how many of its inputs are no tensors. Graphs run as they
    are."""
    compiled, non_tensor_counts = torch.compile, []

    def counting(graph, inputs):
        non_tensor_counts.append(sum(not isinstance(x, Tensor) for x in inputs))
        return graph

    monkeypatch.setattr(torch, "compile", lambda model, **options: compiled(model, backend=counting, **options))
    torch.compiler.reset()
    return non_tensor_counts


# Views of each size; of the student an encoder for each size and a head, with MIRA's prototypes; the loss; of a teacher
# an encoder, a head, and the prototypes without a gradient.
GRAPHS = {"mira-multi-crop": 10, "frozen": 8, "corinfomax-norm": 4, "carl": 4, "mveb-multi-crop": 8, "joint": 4}
GRAPHS["densecl"] = 8  # a head for images and one for cells
SLOW_GRAPHS = ("frozen", "joint")  # others show the same networks
GRAPH_CASES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW_GRAPHS else ()) for name in GRAPHS]


@pytest.mark.process
@compiling
@pytest.mark.parametrize("variant", GRAPH_CASES)
def test_one_graph_of_each_size_serves_all_steps_and_computes_the_same(variant, graphs):
    """Views, networks and loss: no break, though numbers in the loss change; and no symbolic size, which is slower."""
    assert_close(run(recipe(variant), compiled=True), run(recipe(variant)))
    assert graphs == [0] * GRAPHS[variant]
    graphs.clear()
    torch.compiler.reset()
    engine = build_engine(recipe(variant), compiled=True)
    for step in (0, LENGTH // 12 + 1):  # another epoch, and with it another weight in CARL's loss
        engine.steps_done = step
        train_step(engine, microbatches_of(engine, step))
        assert graphs == [0] * GRAPHS[variant]


@pytest.mark.process
@compiling
def test_microbatches_have_two_graphs_of_each_network(graphs):
    """With a gradient and without; views are made in the same precision in both passes."""
    plan = recipe("mira-multi-crop", micro_batch_size=4)
    assert_close(run(plan, stop=2, compiled=True), run(plan, stop=2))
    assert graphs == [0] * (GRAPHS["mira-multi-crop"] + 3)  # student: two sizes of encoder, one of head


@pytest.mark.process
@compiling
@pytest.mark.parametrize("variant", [pytest.param("mira-multi-crop", marks=pytest.mark.slow), "corinfomax-norm"])
def test_what_observes_a_compiled_step_sees_it_and_adds_no_graph(variant, graphs):
    """The second step is the first one that is observed: what is compiled by then knows no hooks."""
    rows = []
    for compiled in (True, False):
        engine = build_engine(recipe(variant), compiled=compiled)
        health = Health(engine.method, batch_size=12, steps_per_epoch=8, total_steps=16, done=0)
        for step in range(3):
            observer = health.observer(step) if step else None
            train_step(engine, microbatches_of(engine, step), observer=observer)
        rows.append(health.measure(observer, 2))
        if compiled:
            assert graphs == [0] * GRAPHS[variant]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


@pytest.mark.process
@compiling
@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "vit_small", *(f"timm:test_{name}" for name in ("resnet", "convnext", "vit", "efficientnet"))],
)
def test_each_encoder_is_one_graph(backbone, graphs):
    plan = recipe("carl", backbone=backbone, image_size=32, batch_size=2, precision="32")
    engine = Engine(plan, steps_per_epoch=4, device=torch.device("cpu"), compiled=True)
    train_step(engine, microbatches_of(engine, 0))
    assert graphs == [0] * 3  # float32 views are a CPU's own


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_views_are_made_without_autocast(precision, monkeypatch):
    """This holds in both passes of microbatches: in half precision the second pass would see other views."""
    engine, seen = build_engine(recipe("carl", micro_batch_size=4, precision=precision)), []
    views = engine.make_views
    monkeypatch.setattr(
        engine, "make_views", lambda batch: (seen.append(torch.is_autocast_enabled("cpu")), views(batch))[1]
    )
    train_step(engine, microbatches_of(engine, 0))
    assert seen == [False] * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of a compiler that warns of itself
@pytest.mark.parametrize("variant", ["mira-multi-crop", "corinfomax", "carl", "deepcluster-multi-crop", "mveb"])
def test_compiled_steps_are_the_same_but_for_rounding(variant):
    """The real compiler takes a minute each; the batch is taken whole, and in microbatches."""
    for plan in (recipe(variant), recipe(variant, micro_batch_size=4)):
        (want, *_), *_ = run(plan, stop=1)[0]
        engine = build_engine(plan, compiled=True)
        with torch.compiler.set_stance("force_eager"):
            begin_epoch_if_due(engine)
        expected = run(plan, stop=1)[1]
        loss = train_step(engine, microbatches_of(engine, 0)).loss
        assert float(loss.total.detach()) == pytest.approx(want, rel=1e-9)
        for name, p in engine.method.named_parameters():
            if p.grad is not None:
                torch.testing.assert_close(p.grad, expected[name], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_one_kernel_updates_as_many_do(name):
    """A GPU fuses Adam; a checkpoint of either resumes with the other. MIRA trains its prototypes an epoch later."""
    plan = recipe("mira", overrides=[*VARIANTS["mira"][1:], f"optimizer.name={name}"])
    states = []
    for fused in (False, True, "resumed"):
        engine = build_engine(plan)
        if fused:
            engine.optimizer = build_optimizer(engine.method, plan.optimizer, fused=True)
        for step in range(10):
            if step == 2 and fused == "resumed":
                engine.load(run(plan, stop=2)[2])
            train_step(engine, microbatches_of(engine, step))
        assert engine.optimizer.param_groups[0]["fused"] == bool(fused)
        states.append(engine.state()["method"])
    for state in states[1:]:
        for key, want in states[0].items():
            torch.testing.assert_close(state[key], want, rtol=1e-7, atol=1e-9, msg=key)


def test_one_kernel_leaves_out_a_step_whose_gradient_float16_cannot_hold():
    plan = recipe("carl", precision="16", overrides=[*VARIANTS["carl"][1:], "optimizer.name=adam"])
    engine = build_engine(plan)
    engine.optimizer = build_optimizer(engine.method, plan.optimizer, fused=True)
    weight = next(engine.method.assigner.parameters())
    hook = weight.register_hook(lambda gradient: gradient * torch.inf)
    before, scale = copy.deepcopy(engine.state()["method"]), engine.scaler.get_scale()
    train_step(engine, microbatches_of(engine, 0))
    assert torch.equal(engine.method.assigner.weight, before["assigner.weight"])
    assert engine.scaler.get_scale() == scale / 2
    hook.remove()
    train_step(engine, microbatches_of(engine, 1))
    assert not torch.equal(engine.method.assigner.weight, before["assigner.weight"])


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["64", "32", "bf16", "16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_computes_what_the_cpu_does(variant, precision):
    """The batch is taken whole and in microbatches; below float64 the results are only near to it."""
    tolerance = {"64": 1e-8, "32": 1e-3, "bf16": 0.05, "16": 0.05}[precision]
    for plan in (recipe(variant), recipe(variant, micro_batch_size=4)):
        (want, *_), *_ = run(plan, stop=1)[0]
        engine = build_engine(replace(plan, precision=precision), device="cuda")
        begin_epoch_if_due(engine)
        step = train_step(engine, microbatches_of(engine, 0))
        assert float(step.loss.total.detach()) == pytest.approx(want, rel=tolerance, abs=tolerance)
        assert np.isfinite(step.gradient_norm) or precision == "16"  # the scaler may have to find its scale first


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["64", "32", "bf16", "16"])
@pytest.mark.parametrize("variant", ["mira-multi-crop", "corinfomax", "carl", "deepcluster-multi-crop", "mveb"])
def test_a_gpu_computes_what_the_cpu_does_when_compiled_too(variant, precision):
    tolerance = {"64": 1e-8, "32": 1e-3, "bf16": 0.05, "16": 0.05}[precision]
    for plan in (recipe(variant), recipe(variant, micro_batch_size=4)):
        (want, *_), *_ = run(plan, stop=1)[0]
        plan = replace(plan, precision=precision)
        engine = build_engine(plan, compiled=True, device="cuda")
        with torch.compiler.set_stance("force_eager"):
            begin_epoch_if_due(engine)
        loss = train_step(engine, microbatches_of(engine, 0)).loss
        assert float(loss.total.detach()) == pytest.approx(want, rel=tolerance, abs=tolerance)
        train_step(engine, microbatches_of(engine, 1))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("variant", ["mira", "corinfomax", "carl", "deepcluster", "mveb"])
def test_deterministic_mode_gives_the_same_bits_twice_on_a_gpu(variant, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        states = []
        for _ in range(2):
            engine = build_engine(recipe(variant, precision="bf16"), device="cuda")
            begin_epoch_if_due(engine)
            for step in range(3):
                train_step(engine, microbatches_of(engine, step))
            states.append(engine.state()["method"])
        assert not [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    finally:
        torch.use_deterministic_algorithms(False)


class Waits(TorchDispatchMode):
    """Notes the operations that would wait for a GPU, because Python or a shape depends on their result."""

    KINDS = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "is_nonzero",
        "equal",
        "_unique2",
        "_linalg_check_errors",
    )

    def __init__(self):
        super().__init__()
        self.met = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if name in self.KINDS or by_mask:
            self.met.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_waits_for_the_device_once(variant):
    """The one wait, to see whether loss and gradient are finite, does not pass through the mode that is watched."""
    engine = build_engine(recipe(variant))
    begin_epoch_if_due(engine)
    train_step(engine, microbatches_of(engine, 0))  # the optimiser makes its state in the first one
    microbatches = microbatches_of(engine, 1)
    with Waits() as waits:
        train_step(engine, microbatches)
    assert waits.met == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_that_is_observed_waits_no_more_often(variant):
    """Prototypes are counted in each step, and outputs are kept in some; only the measurement itself then waits."""
    engine = build_engine(recipe(variant))
    health = Health(engine.method, batch_size=12, steps_per_epoch=10**3, total_steps=10**4, done=0)
    begin_epoch_if_due(engine)
    train_step(engine, microbatches_of(engine, 0), observer=health.observer(0))
    for step, kept in ((1, True), (3, False)):
        observer, microbatches = health.observer(step if kept else -1), microbatches_of(engine, step)
        assert observer is None or (observer.kept is not None) == kept
        with Waits() as waits:
            train_step(engine, microbatches, observer=observer)
        assert waits.met == []


def test_weights_change_when_the_block_of_a_step_is_left():
    """Within it the gradient is there; the block may read the loss, or leave that to the engine."""
    engine = build_engine(recipe("carl"))
    before = {name: p.detach().clone() for name, p in engine.method.named_parameters()}
    for number in range(2):
        with engine.step(microbatches_of(engine, number)) as step:
            assert all(p.grad is not None for p in engine.trained)
            assert all(torch.equal(p, before[name]) for name, p in engine.method.named_parameters())
            assert engine.steps_done == step.progress.step == number
            if number == 0:
                step.check_finite()
        assert any(not torch.equal(p, before[name]) for name, p in engine.method.named_parameters())
        assert np.isfinite(step.gradient_norm)
        before = {name: p.detach().clone() for name, p in engine.method.named_parameters()}


def test_the_loss_is_checked_before_the_weights_change_whatever_the_block_does():
    engine = build_engine(recipe("carl"))
    views = engine.views
    engine.views = lambda batch: views(batch)._replace(global_crops=[x * torch.nan for x in views(batch).global_crops])
    before, ends = copy.deepcopy(engine.state()), []

    def take_step(check):
        with engine.step(microbatches_of(engine, 0)) as step:
            if check:
                step.check_finite()
            ends.append(check)

    for check in (True, False):
        with pytest.raises(FloatingPointError, match="loss became nan at step 1"):
            take_step(check)
    assert ends == [False]
    assert engine.steps_done == 0
    assert all(torch.equal(x, engine.state()["method"][name]) for name, x in before["method"].items())


class FailingPrefetcher:
    def prefetch(self):
        raise OSError("no images")


def test_a_prefetcher_that_fails_leaves_everything_as_it_was():
    engine = build_engine(recipe("corinfomax-norm"))
    train_step(engine, microbatches_of(engine, 0))
    before = copy.deepcopy(engine.state())
    with pytest.raises(OSError, match="no images"):
        train_step(engine, microbatches_of(engine, 1), prefetcher=FailingPrefetcher())
    assert engine.weights_consistent
    after = engine.state()
    assert after["step"] == 1
    assert all(torch.equal(x, after["method"][name]) for name, x in before["method"].items())


def test_weights_are_not_consistent_if_the_optimiser_fails_between_them(monkeypatch):
    engine = build_engine(recipe("carl"))

    def fail(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(engine.optimizer, "step", fail)
    with pytest.raises(RuntimeError, match="gone"):
        train_step(engine, microbatches_of(engine, 0))
    assert not engine.weights_consistent
    assert engine.steps_done == 0
