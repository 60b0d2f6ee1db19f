"""One step of training, exact on any number of ranks and for batches that do not fit the device.

Until the optimiser's step nothing has changed but buffers, which are put back if the step fails; so a failed step can
be skipped, saved or replayed. Everything else that a step depends on is a function of the recipe and the step's number.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.operations import make_views_fused, to_device
from infomax.data.loading.workers import Batch
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.batch_norm import RunningStatistics, batch_norms, synchronise_batch_norm
from infomax.nn.blocks import Chain, Prototypes, copy_tensors
from infomax.recipes.building import AUTOCAST, build_method, build_optimizer, learning_rate
from infomax.recipes.schema import Recipe
from infomax.runtime.collectives import average_in_place, rank, world_size

GRAPHS = 64  # that torch.compile may make of modules; three for each size of views are usual
Listener = Callable[[Sequence[Batch], Sequence[Tensor], Progress], None]
"""Given the parts of a step, and of each the features of its full views, one view's rows after another's."""


class _Online(nn.Module):
    """What DistributedDataParallel wraps: the trained branch without the loss."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, views: Views) -> list[Tensor]:
        return self.method.online(views)


class Engine:
    """A recipe's method, its optimiser, and how far they are.

    Args:
        steps_per_epoch: Of the data set at the recipe's batch size.
        device: Where this rank computes.
        compiled: Whether torch.compile fuses the operations of networks, loss and views; what they give then differs by
            rounding.
    """

    def __init__(self, recipe: Recipe, *, steps_per_epoch: int, device: torch.device, compiled: bool = False):
        self.recipe, self.device = recipe, device
        self.steps_per_epoch, self.total_steps = steps_per_epoch, recipe.epochs * steps_per_epoch
        self.steps_done = 0
        self.whole = True
        """Whether nothing but buffers has changed since the last step's end."""
        self.listener: Listener | None = None
        """Called in each step that does not fail, before the weights change, with features that it computes anyway."""
        self.meanwhile: Callable[[], None] | None = None
        """Called in each step before the device is waited for: for what the host has to do for the next one."""
        self.features: list[Tensor] = []
        """Of the last step, for the listener."""
        method: Any = build_method(recipe).to(device).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        if world_size() > 1 and recipe.micro_batch_size is None:
            method = synchronise_batch_norm(method, device)
        self.method: Method = method
        self.compiled = compiled
        self.compute_loss, self.fused_views = self.method.compute_loss, None
        if compiled:
            how: dict[str, Any] = {"fullgraph": True, "dynamic": False}  # for each size of views as it is
            self.compute_loss, self.fused_views = (
                torch.compile(self.compute_loss, **how),
                torch.compile(make_views_fused, **how),
            )
            for part in self.method.modules():
                if isinstance(part, Encoder):
                    part.backbone.compile(**how)  # inside of what hooks see
                elif isinstance(part, (Chain, Prototypes)):
                    part.compile(**how)
            # Of all modules together; one that comes too late would not be compiled.
            torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
        self.online = online = _Online(self.method)
        if world_size() > 1:
            # Buffers are equal on all ranks; torch has renamed the switch. Looking for unused parameters, of which
            # there are none, keeps gradients from being put together otherwise after a process's first step: a run that
            # is resumed then adds them up in the same order. GPUs, whose bits differ anyway, are spared it.
            words = signature(DistributedDataParallel).parameters
            switch = "forward_sync_buffers" if "forward_sync_buffers" in words else "broadcast_buffers"
            settings: dict[str, Any] = {switch: False, "find_unused_parameters": device.type == "cpu"}
            self.online = DistributedDataParallel(online, **settings)
        self.optimizer = build_optimizer(self.method, recipe.optimizer, fused=device.type == "cuda")
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "16")
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.norms = batch_norms(self.method)

    def progress(self, step: int) -> Progress:
        """At the start of a step, counted from 0."""
        return Progress(step=step, total_steps=self.total_steps, epoch=step // self.steps_per_epoch)

    def step(self, parts: Sequence[Batch]) -> tuple[Loss, float]:
        """Train on one global batch, of which ``parts`` is this rank's share; the loss and the gradient's L2 norm.

        Raises:
            FloatingPointError: if the loss or the gradient is infinite or NaN; everything is then as before the step,
                but for the gradients.
        """
        progress = self.progress(self.steps_done)
        rate = learning_rate(self.recipe.optimizer, progress, epochs=self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._buffers_kept_on_failure():
            loss = self.backward(parts)
            self.method.after_backward(progress)
            self.scaler.unscale_(self.optimizer)
            norm = self._clip()
            told = torch.stack([loss.total.detach().double(), norm.double()])
            if self.meanwhile is not None:
                self.meanwhile()
            # One wait for the device, before anything is changed. Under float16 the scaler deals with infinite
            # gradients: it skips the step and scales less from then on.
            value, length = told.tolist()
            if not isfinite(value) or not (isfinite(length) or self._can_scale_less()):
                what = f"loss became {value}" if not isfinite(value) else f"gradient's norm became {length}"
                raise FloatingPointError(f"the {what} at step {self.steps_done + 1}")
            if self.recipe.micro_batch_size is not None:
                average_in_place([x for n in self.norms for x in (n.running_mean, n.running_var) if x is not None])
            if self.listener is not None:  # before the weights change: where it fails, both are one step behind
                self.listener(parts, self.features, progress)
            self.whole = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(self.progress(self.steps_done + 1))
        self.steps_done += 1
        self.whole = True
        return loss, length

    def skip(self) -> None:
        """Leave the step out that has just failed: schedules and data go on, weights stay."""
        if self.scaler.is_enabled():
            self.scaler.update(self.scaler.get_scale())  # forgets what it saw in the failed step
        self.steps_done += 1

    def backward(self, parts: Sequence[Batch]) -> Loss:
        """The loss of this step's batch, and its gradient in place, averaged over ranks.

        Raises:
            FloatingPointError: if the loss cannot be computed because the outputs are no numbers.
        """
        self.optimizer.zero_grad()
        self.features = []
        return self._whole(parts[0]) if len(parts) == 1 else self._in_parts(parts)

    def _whole(self, part: Batch) -> Loss:
        views = self.views(part)
        with self._forward(), self._listened(views):
            online, target = self.online(views), self.method.target(views)
        return self._loss(online, target)

    def _in_parts(self, parts: Sequence[Batch]) -> Loss:
        """First the outputs of all parts, without a graph but for the last; then the loss of all and its gradient at
        the outputs; then the other parts again, to take that gradient further. Views are made twice, for they may not
        fit either."""
        statistics = RunningStatistics(self.norms)
        outputs: list[list[Tensor]] = []
        targets: list[list[Tensor]] = []
        for number, part in enumerate(parts):
            views = self.views(part)
            statistics.before_microbatch()
            with torch.set_grad_enabled(number == len(parts) - 1), self._forward(number), self._listened(views):
                outputs.append(self.method.online(views))
                targets.append(self.method.target(views))
            statistics.after_microbatch()
        with_graph, sizes = outputs[-1], [len(part[0]) for part in outputs]
        leaves = [torch.cat([x.detach() for x in view]).requires_grad_() for view in zip(*outputs, strict=True)]
        target = [torch.cat(view) for view in zip(*targets, strict=True)]
        del views, outputs, targets  # pyrefly: ignore[unbound-name]
        loss = self._loss(leaves, target)
        gradients = list(zip(*(leaf.grad.split(sizes) for leaf in leaves), strict=True))  # pyrefly: ignore
        torch.autograd.backward(with_graph, gradients[-1])
        del with_graph
        for number, part in enumerate(parts[:-1]):
            last = number == len(parts) - 2  # then DistributedDataParallel averages what all parts have added up to
            with nullcontext() if last or world_size() == 1 else self.online.no_sync():  # pyrefly: ignore
                views = self.views(part)
                with self._forward(number):
                    again = self.online(views)
                torch.autograd.backward(again, gradients[number])
        statistics.set_to_mean()
        return loss

    def _loss(self, online: list[Tensor], target: list[Tensor]) -> Loss:
        """The loss, and its backward pass to where ``online`` comes from."""
        numbers: Any = self.method.schedule_values(self.progress(self.steps_done))
        if self.compiled:  # which would begin anew for other numbers
            numbers = to_device(torch.tensor(numbers, dtype=torch.float64), self.device)
        try:
            loss = self.compute_loss(online, target, numbers)
        except (torch.linalg.LinAlgError, ValueError) as error:  # a matrix of NaN cannot be factorised
            what = f"the loss could not be computed at step {self.steps_done + 1}"
            raise FloatingPointError(f"{what} ({error})") from error
        self.scaler.scale(loss.total).backward()
        return loss

    @torch.no_grad()
    def views(self, part: Batch) -> Views:
        """The views of some images, on the device; the same ones each time."""
        made = self.make_views(part) if part.views is None else part.views
        full = len(self.recipe.views.global_crops)
        return Views(global_crops=made[:full], local_crops=made[full:])

    @torch.no_grad()
    def make_views(self, part: Batch) -> list[Tensor]:
        """The views in the precision that the networks compute in."""
        images = part.images
        images = images.to(self.device) if isinstance(images, Tensor) else [crops.to(self.device) for crops in images]
        dtype = torch.float64 if self.recipe.precision == "64" else AUTOCAST.get(self.recipe.precision, torch.float32)
        how: dict[str, Any] = {"seed": self.recipe.seed, "epoch": part.epoch, "index": part.index, "dtype": dtype}
        how["fused_views"] = self.fused_views
        return make_views(images, self.recipe.views, **how)

    @contextmanager
    def _forward(self, part: int = 0) -> Iterator[None]:
        """Half precision where asked for, and random layers that draw the same numbers when a part is run again."""
        half = AUTOCAST.get(self.recipe.precision)
        cast: AbstractContextManager = torch.autocast(self.device.type, half) if half else nullcontext()
        torch.manual_seed((self.recipe.seed * 2**44 + self.steps_done * 2**20 + rank() * 2**10 + part) % 2**63)
        with cast:
            yield

    @contextmanager
    def _listened(self, views: Views) -> Iterator[None]:
        """Keep what the representation makes of the full views; if it sees the local ones too, they come after."""
        if self.listener is None:
            yield
            return
        made: list[Tensor] = []
        hook = self.method.eval_encoder.register_forward_hook(lambda _, images, output: made.append(output.detach()))
        with hook:
            yield
        self.features.append(torch.cat(made)[: sum(map(len, views.global_crops))].float())

    @contextmanager
    def _buffers_kept_on_failure(self) -> Iterator[None]:
        buffers = list(self.method.buffers())
        kept = [torch.empty_like(x) for x in buffers]
        copy_tensors(source=buffers, destination=kept)
        try:
            yield
        except BaseException:
            copy_tensors(source=kept, destination=buffers)
            raise

    def _can_scale_less(self) -> bool:
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def _clip(self) -> Tensor:
        gradients = [p.grad for p in self.trained if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if (limit := self.recipe.optimizer.clip_norm) is not None:
            nn.utils.clip_grads_with_norm_([p for p in self.trained if p.grad is not None], limit, norm)
        return norm

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on, whatever its number of ranks."""
        return {
            "step": self.steps_done,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: if it is that of another method, encoder or optimiser.
        """
        try:
            self.method.load_state_dict(state["method"])
            optimizer = state["optimizer"]
            if "fused" in self.optimizer.defaults:  # by one kernel or by many, as this device has it
                groups = [{**group, "fused": self.optimizer.defaults["fused"]} for group in optimizer["param_groups"]]
                optimizer = {**optimizer, "param_groups": groups}
            self.optimizer.load_state_dict(optimizer)
            self.scaler.load_state_dict(state["scaler"])
            self.steps_done = int(state["step"])
        except Exception as error:  # of whatever a file from elsewhere may hold
            raise ValueError(f"the checkpoint does not fit the recipe: {error}") from error
