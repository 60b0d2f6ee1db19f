"""The training engine: a recipe's method, its optimiser, and one optimiser step at a time.

A step is the same on any number of ranks, up to rounding. Batches that do not fit the device go through the networks in
microbatches, with the gradient of the whole batch. Before the optimiser's update, nothing but buffers has changed
(BatchNorm's running statistics, running covariances). They are put back if the step fails, so that a failed step can be
skipped, saved or replayed. Everything else that a step depends on follows from the recipe and the step's number.

The engine knows neither the data loader nor the online evaluation. Whoever owns it acts between the two halves of a
step; see :meth:`Engine.step` and :func:`infomax.training.loop.train_step`.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from inspect import signature
from math import isfinite, nan
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.operations import make_views_fused, to_device
from infomax.data.loading.workers import Batch
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.backbone_names import library_of
from infomax.models.encoders import Encoder
from infomax.nn.batch_norm import RunningStatistics, synchronise_batch_norm, trained_batch_norms
from infomax.nn.blocks import Chain, Prototypes, copy_tensors
from infomax.nn.memory import buffers_within_steps
from infomax.nn.optimizers import lay_out_state, set_learning_rate
from infomax.recipes.building import AUTOCAST, build_method, build_optimizer, learning_rate, shorten_warmup
from infomax.recipes.schema import Recipe
from infomax.runtime.collectives import average_in_place, gather, rank, world_size
from infomax.runtime.devices import float64_device, network_layout, to_network
from infomax.training.output_observer import OutputObserver

MAX_GRAPHS = 64  # that torch.compile may make of modules; three for each size of views are usual


class NonFiniteError(FloatingPointError):
    """An error that says that a step's loss or gradient is infinite or NaN, and holds both.

    Args:
        message: One line that says which of them, and at which step.
        loss: The loss; NaN if it could not be computed.
        gradient_norm: The gradient's L2 norm; NaN if there is none.
    """

    def __init__(self, message: str, loss: float = nan, gradient_norm: float = nan):
        super().__init__(message)
        self.loss, self.gradient_norm = loss, gradient_norm


class Step:
    """One optimiser step that is under way: the gradient is computed, and the weights have not changed yet."""

    progress: Progress
    """The position of this step in its schedule."""
    number: int
    """The number of this step in the run, from 1."""
    epoch: int
    """The epoch that this step belongs to in the run, from 0."""
    loss: Loss
    """The loss of the global batch, on the device that it was computed on."""
    features: list[Tensor]
    """One tensor [views * B, width] for each microbatch: the evaluated encoder's features of the global crops.

    The rows of one view come after those of another. They are float32, on the device of the loss, and have no graph.
    The list is empty unless :meth:`Engine.step` was asked to keep features.
    """
    gradient_norm: float
    """The gradient's L2 norm before clipping; NaN until :meth:`check_finite` has read it from the device."""

    def __init__(
        self,
        progress: Progress,
        loss: Loss,
        features: list[Tensor],
        gradient_norm: Tensor,
        scaler: GradScaler,
        number: int,
        epoch: int,
    ):
        self.number, self.epoch = number, epoch
        self.progress, self.loss, self.features, self.gradient_norm = progress, loss, features, nan
        norm = gradient_norm.to(loss.total.device)  # which differs beside Apple's GPU alone
        self._loss_and_norm = torch.stack([loss.total.detach().double(), norm.double()])
        self._scaler, self._checked = scaler, False

    def check_finite(self) -> None:
        """Waits for the device, and checks the loss and the gradient. This is the only wait of a step.

        A second call does nothing. Under float16 an infinite gradient is no error while the loss can be scaled less:
        the scaler then leaves the weights as they are, and scales the loss less from the next step on.

        Raises:
            FloatingPointError: if the loss or the gradient is infinite or NaN.
        """
        if self._checked:
            return
        loss, norm = self._loss_and_norm.tolist()
        if not isfinite(loss):
            raise NonFiniteError(f"the loss became {loss} at step {self.number}", loss, norm)
        if not isfinite(norm) and not self._can_scale_less():
            raise NonFiniteError(f"the gradient's norm became {norm} at step {self.number}", loss, norm)
        self.gradient_norm, self._checked = norm, True

    def _can_scale_less(self) -> bool:
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1


class _TrainedBranch(nn.Module):
    """The trained branch without the loss: what DistributedDataParallel wraps."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, views: Views) -> list[Tensor]:
        return self.method.online(views)


class Engine:
    """Trains a recipe's method, one optimiser step at a time, on one rank of a run.

    Args:
        recipe: Decides the method, the optimiser, the views, the precision and the microbatches.
        steps_per_epoch: Number of steps that the data set gives at the recipe's batch size.
        device: The device that this rank computes on.
        compiled: Whether torch.compile fuses the operations of networks, loss and views. Results then differ by
            rounding.
        stages: Epochs of each schedule of a run that was extended, one schedule after another; together they are the
            recipe's epochs. None for a run with one schedule.
        initial: Weights of the encoder to start from; None leaves them random, or to be loaded.
        images: Number of training images, for a method that remembers them; None takes those of whole batches.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        steps_per_epoch: int,
        device: torch.device,
        compiled: bool = False,
        stages: Sequence[int] | None = None,
        initial: Mapping[str, Tensor] | None = None,
        images: int | None = None,
    ):
        self.images = images or steps_per_epoch * recipe.batch_size
        self.recipe, self.device = recipe, device
        self.stages = tuple(stages or (recipe.epochs,))
        self.steps_per_epoch, self.total_steps = steps_per_epoch, recipe.epochs * steps_per_epoch
        self.steps_done = 0
        self.learning_rate = 0.0
        """The learning rate of the last step, without the factors of groups of parameters."""
        self.weights_consistent = True
        """Whether all weights belong to one step; False while the optimiser is changing them, and if that fails."""
        self.loss_device = float64_device(device)
        method: Any = build_method(recipe, initial, images=self.images).place(device)
        method = method.to(memory_format=network_layout(device))
        if world_size() > 1 and recipe.micro_batch_size is None:
            method = synchronise_batch_norm(method, device)
        self.method: Method = method
        self.compiled = compiled
        self._outputs: tuple[list[Tensor], list[Tensor]] = [], []
        self.compute_loss: Callable[..., Loss] = self.method.compute_loss
        self.fused_views: Callable[..., Tensor] | None = None
        if compiled:
            self._compile()
        self.online = self._trained_branch()
        self.optimizer = build_optimizer(self.method, recipe.optimizer, fused=device.type == "cuda")
        self.scaler = GradScaler(device.type, enabled=recipe.precision == "16")
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.norms = trained_batch_norms(self.method)

    def _compile(self) -> None:
        compile_kwargs: dict[str, Any] = {"fullgraph": True, "dynamic": False}  # one graph for each size of views
        self.compute_loss = torch.compile(self.compute_loss, **compile_kwargs)
        self.fused_views = torch.compile(make_views_fused, **compile_kwargs)
        backbones = [module.backbone for module in self.method.modules() if isinstance(module, Encoder)]
        for module in self.method.modules():
            if isinstance(module, Prototypes) or any(module is backbone for backbone in backbones):
                module.compile(**compile_kwargs)  # below the encoder, so that its forward hooks still run
            elif isinstance(module, Chain):  # below its hooks too, which come and go
                module.forward = torch.compile(module.forward, **compile_kwargs)
        # The limit is for all modules together. A graph beyond it would not be compiled.
        torch._dynamo.config.recompile_limit = max(MAX_GRAPHS, torch._dynamo.config.recompile_limit)

    def _trained_branch(self) -> nn.Module:
        branch = _TrainedBranch(self.method)
        if world_size() == 1:
            return branch
        # Buffers are equal on all ranks, so they need not be sent; torch has renamed that switch. Looking for unused
        # parameters, of which there are none, keeps torch from changing how gradients are grouped after a process's
        # first step: a run that is resumed then adds them up in the same order. GPUs, whose bits differ anyway, are
        # spared the search, unless the network is another library's, which may have parameters that it does not use.
        parameters = signature(DistributedDataParallel).parameters
        switch = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
        search = self.device.type == "cpu" or library_of(self.recipe.encoder.backbone) is not None
        ddp_kwargs: dict[str, Any] = {switch: False, "find_unused_parameters": search}
        return DistributedDataParallel(branch, **ddp_kwargs)

    def progress(self, step: int) -> Progress:
        """Returns the position in the schedule at the start of a step, counted from 0 over the whole run.

        Each stage of an extended run has a schedule of its own, in which steps and epochs are counted from 0.
        """
        return self._progress_in_stage(step, self._stage_of(step))

    def _stage_of(self, step: int) -> int:
        """Returns the number of the stage that a step belongs to; what follows the last step belongs to the last."""
        ends = np.cumsum(self.stages) * self.steps_per_epoch
        return min(int(np.searchsorted(ends, step, side="right")), len(ends) - 1)

    def _progress_in_stage(self, step: int, stage: int) -> Progress:
        done = step - sum(self.stages[:stage]) * self.steps_per_epoch
        total = self.stages[stage] * self.steps_per_epoch
        return Progress(step=done, total_steps=total, epoch=done // self.steps_per_epoch)

    def _learning_rate(self, progress: Progress) -> float:
        """Returns the learning rate of the next step; a warm-up that the stage has no room for is shortened."""
        epochs, settings = self.stages[self._stage_of(self.steps_done)], self.recipe.optimizer
        if epochs < self.recipe.epochs:
            settings = shorten_warmup(settings, epochs)
        return learning_rate(settings, progress, epochs=epochs)

    @contextmanager
    def step(
        self, microbatches: Sequence[Batch], *, keep_features: bool = False, observer: OutputObserver | None = None
    ) -> Generator[Step]:
        """Trains on one global batch: computes its gradient, yields, and then updates the weights.

        Within the ``with`` block the weights have not changed yet, and on a GPU the device is still computing. If the
        block raises, the step is undone: buffers are put back, and everything but the gradients is as before. If it
        ends without :meth:`Step.check_finite`, that is called.

        Args:
            microbatches: This rank's share of the global batch.
            keep_features: Whether :attr:`Step.features` are kept.
            observer: Sees what the networks compute for this step; None if nothing is measured.

        Raises:
            FloatingPointError: if the loss or the gradient is infinite or NaN. The step is then undone.
        """
        progress = self.progress(self.steps_done)
        self.learning_rate = self._learning_rate(progress)
        set_learning_rate(self.optimizer, self.learning_rate)
        with self._buffers_restored_on_failure():
            features: list[Tensor] = []
            loss = self.backward(microbatches, features if keep_features else None, observer)
            self.method.after_backward(progress)
            self.scaler.unscale_(self.optimizer)
            norm = self._clip_gradient()
            if self.recipe.micro_batch_size is not None:  # each rank has counted its own images alone
                average_in_place([x for n in self.norms for x in (n.running_mean, n.running_var) if x is not None])
            number = self.steps_done + 1
            step = Step(progress, loss, features, norm, self.scaler, number, self.steps_done // self.steps_per_epoch)
            yield step
            step.check_finite()
            self.weights_consistent = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.method.remembers_images:
            self.method.remember(*self._outputs)
            self._outputs = [], []
        self.method.after_step(self._progress_in_stage(self.steps_done + 1, self._stage_of(self.steps_done)))
        self.steps_done += 1
        self.weights_consistent = True

    @torch.no_grad()
    def begin_epoch(self, read_epoch: Callable[[], AbstractContextManager[Iterator[Batch]]]) -> None:
        """Lets a method that remembers images compute what stays the same during the coming epoch.

        Args:
            read_epoch: Opens this rank's microbatches of the epoch; the steps read them again.
        """
        if self.method.remembers_images:
            self.method.before_epoch(self.progress(self.steps_done), partial(self._embed, read_epoch))

    def _embed(
        self,
        read_epoch: Callable[[], AbstractContextManager[Iterator[Batch]]],
        network: Callable[[Views], list[Tensor]],
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Passes the images of an epoch through networks; see :data:`infomax.methods.base.Embed`."""
        with self._buffers_put_back(), read_epoch() as batches:
            for number, batch in enumerate(batches):
                views = self.views(batch)
                assert views.positions is not None
                with self._forward_mode(number % 2**10):
                    outputs = self._for_loss(network(views))
                yield gather(views.positions)[0], [gather(x)[0] for x in outputs]

    def skip(self) -> None:
        """Leaves out the step that has just failed: schedules and data go on, weights stay."""
        if self.scaler.is_enabled():
            self.scaler.update(self.scaler.get_scale())  # forgets what it saw in the failed step
        self.steps_done += 1

    def backward(
        self,
        microbatches: Sequence[Batch],
        features: list[Tensor] | None = None,
        observer: OutputObserver | None = None,
    ) -> Loss:
        """Computes this step's loss and its gradient, averaged over ranks; the gradient is left in the parameters.

        Args:
            microbatches: This rank's share of the global batch.
            features: A list to append each microbatch's :attr:`Step.features` to; None keeps none.
            observer: As in :meth:`step`.

        Raises:
            FloatingPointError: if the loss cannot be computed because the networks' outputs are NaN or infinite.
        """
        self.optimizer.zero_grad()
        if len(microbatches) == 1:
            return self._backward_at_once(microbatches[0], features, observer)
        return self._backward_in_microbatches(microbatches, features, observer)

    def _backward_at_once(self, batch: Batch, features: list[Tensor] | None, observer: OutputObserver | None) -> Loss:
        views = self.views(batch)
        with self._forward_mode(), self._features_kept(views, features), self._observed(views, observer):
            online, target = self._for_loss(self.online(views)), self._for_loss(self.method.target(views))
        if observer is not None:
            observer.take_outputs(online)
        return self._loss(online, target)

    def _backward_in_microbatches(
        self, microbatches: Sequence[Batch], features: list[Tensor] | None, observer: OutputObserver | None
    ) -> Loss:
        """Computes the exact gradient of the whole batch while only one microbatch is in memory with its graph.

        1. All microbatches pass the networks, without a graph except for the last one. Their outputs are kept.
        2. The loss of all outputs gives its gradient with respect to each output.
        3. The last microbatch, and then each other one, which passes the trained branch again with a graph, takes that
           gradient further to the parameters.

        Views are made twice, for the views of all microbatches may not fit either.
        """
        statistics = RunningStatistics(self.norms)
        outputs: list[list[Tensor]] = []
        targets: list[list[Tensor]] = []
        for number, batch in enumerate(microbatches):
            views = self.views(batch)
            statistics.before_microbatch()
            is_last = number == len(microbatches) - 1
            with (
                torch.set_grad_enabled(is_last),
                self._forward_mode(number),
                self._features_kept(views, features),
                self._observed(views, observer),
            ):
                outputs.append(self._for_loss(self.method.online(views)))
                targets.append(self._for_loss(self.method.target(views)))
            if observer is not None:
                observer.take_outputs(outputs[-1])
            statistics.after_microbatch()
        with_graph, sizes = outputs[-1], [len(views[0]) for views in outputs]
        leaves = [torch.cat([x.detach() for x in view]).requires_grad_() for view in zip(*outputs, strict=True)]
        target = [torch.cat(view) for view in zip(*targets, strict=True)]
        del views, outputs, targets  # pyrefly: ignore[unbound-name]
        loss = self._loss(leaves, target)
        # An output that the loss holds constant, as a target of the trained networks' own, has no gradient.
        full = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        gradients = list(zip(*(gradient.split(sizes) for gradient in full), strict=True))
        _backward_from(with_graph, gradients[-1])
        del with_graph
        for number, batch in enumerate(microbatches[:-1]):
            is_last = number == len(microbatches) - 2  # then DistributedDataParallel averages the sum of all gradients
            with nullcontext() if is_last or world_size() == 1 else self.online.no_sync():  # pyrefly: ignore
                views = self.views(batch)
                with self._forward_mode(number):
                    again = self._for_loss(self.online(views))
                _backward_from(again, gradients[number])
        statistics.set_to_mean()
        return loss

    def _for_loss(self, outputs: list[Tensor]) -> list[Tensor]:
        """Returns outputs of networks on the device of the loss; their gradients flow back to that of the networks."""
        return [x.to(self.loss_device) for x in outputs]

    def _loss(self, online: list[Tensor], target: list[Tensor]) -> Loss:
        """Computes the loss, and its gradient as far back as ``online`` has a graph."""
        schedule_values: Any = self.method.schedule_values(self.progress(self.steps_done))
        if self.compiled:  # Python numbers would be constants of the graph, and other values would compile a new one
            schedule_values = to_device(torch.tensor(schedule_values, dtype=torch.float64), self.device)
        try:
            loss = self.compute_loss(online, target, schedule_values)
        except (torch.linalg.LinAlgError, ValueError) as error:  # a matrix of NaN cannot be factorised
            message = f"the loss could not be computed at step {self.steps_done + 1}"
            raise NonFiniteError(f"{message} ({error})") from error
        self.scaler.scale(loss.total).backward()
        if self.method.remembers_images:
            self._outputs = [x.detach() for x in online], target
        return loss

    @torch.no_grad()
    def views(self, batch: Batch) -> Views:
        """Returns the views of a batch on the device; they are the same each time."""
        views = self.make_views(batch) if batch.views is None else batch.views
        count = len(self.recipe.views.global_crops)
        positions = None
        if self.method.remembers_images:
            positions = to_device(torch.from_numpy(np.array(batch.index)), self.loss_device)
        return Views(views[:count], views[count:], positions)

    @torch.no_grad()
    def make_views(self, batch: Batch) -> list[Tensor]:
        """Makes the views of a batch, each [B, 3, side, side], in the precision that the networks compute in."""
        images, device = batch.images, float64_device(self.device)
        images = images.to(device) if isinstance(images, Tensor) else [crops.to(device) for crops in images]
        views = make_views(
            images,
            self.recipe.views,
            seed=self.recipe.seed,
            epoch=batch.epoch,
            index=batch.index,
            dtype=torch.float64 if self.recipe.precision == "64" else self._autocast_dtype or torch.float32,
            fused_views=self.fused_views,
        )
        return [to_network(view, self.device) for view in views]

    @property
    def _autocast_dtype(self) -> torch.dtype | None:
        return AUTOCAST.get(self.recipe.precision)

    @contextmanager
    def _forward_mode(self, number: int = 0) -> Generator[None]:
        """Sets half precision if the recipe has it, and seeds random layers by the step and the microbatch's number.

        A microbatch that passes the networks again so draws the same random numbers.
        """
        autocast: AbstractContextManager = nullcontext()
        if self._autocast_dtype is not None:
            autocast = torch.autocast(self.device.type, self._autocast_dtype)
        torch.manual_seed((self.recipe.seed * 2**44 + self.steps_done * 2**20 + rank() * 2**10 + number) % 2**63)
        with autocast:
            yield

    @contextmanager
    def _features_kept(self, views: Views, features: list[Tensor] | None) -> Generator[None]:
        """Appends to ``features`` what the evaluated encoder computes for the global crops; local ones come after."""
        if features is None:
            yield
            return
        outputs: list[Tensor] = []
        hook = self.method.eval_encoder.register_forward_hook(lambda _, images, output: outputs.append(output.detach()))
        with hook:
            yield
        features.append(torch.cat(outputs)[: sum(map(len, views.global_crops))].float().to(self.loss_device))

    def _observed(self, views: Views, observer: OutputObserver | None) -> AbstractContextManager:
        """Lets an observer see what the networks compute for the views of one microbatch within the block."""
        return nullcontext() if observer is None else observer.watch(self.method, views)

    @contextmanager
    def _buffers_restored_on_failure(self) -> Generator[None]:
        restore = self._copy_buffers()
        try:
            yield
        except BaseException:
            restore()
            raise

    @contextmanager
    def _buffers_put_back(self) -> Generator[None]:
        restore = self._copy_buffers()
        try:
            yield
        finally:
            restore()

    def _copy_buffers(self) -> Callable[[], None]:
        """Copies the buffers that a step may change, and returns the function that puts the copies back."""
        buffers = buffers_within_steps(self.method)
        copies = [torch.empty_like(x) for x in buffers]
        copy_tensors(source=buffers, destination=copies)
        return partial(copy_tensors, source=copies, destination=buffers)

    def _clip_gradient(self) -> Tensor:
        """Limits the gradient to the recipe's norm, if it has one; returns the norm before that."""
        with_gradient = [p for p in self.trained if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
        if (limit := self.recipe.optimizer.clip_norm) is not None:
            nn.utils.clip_grads_with_norm_(with_gradient, limit, norm)
        return norm

    def state(self) -> dict[str, Any]:
        """Returns all that a later process needs to go on, on any number of ranks."""
        return {
            "step": self.steps_done,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> list[str]:
        """Goes on from a state that :meth:`state` returned.

        Returns:
            The names of buffers that the state does not have, because it was saved before there were any: they keep
            the values that they start with.

        Raises:
            ValueError: if it belongs to another method, encoder or optimiser.
        """
        try:
            absent = sorted(self.method.state_dict().keys() - state["method"].keys())
            self.method.load_state_dict(state["method"])
            optimizer = state["optimizer"]
            if "fused" in self.optimizer.defaults:  # one kernel or many: this device decides, not the one that saved
                groups = [{**group, "fused": self.optimizer.defaults["fused"]} for group in optimizer["param_groups"]]
                optimizer = {**optimizer, "param_groups": groups}
            self.optimizer.load_state_dict(optimizer)
            lay_out_state(self.optimizer, network_layout(self.device))
            self.scaler.load_state_dict(state["scaler"])
            self.steps_done = int(state["step"])
        except Exception as error:  # of any kind: the file may come from elsewhere
            raise ValueError(f"the checkpoint does not fit the recipe: {error}") from error
        return absent


def _backward_from(outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Propagates gradients of outputs to the parameters.

    ``torch.autograd.backward`` does the same, but at its first call with gradients it imports sympy, which takes
    seconds and 35 MB. The gradient of a product's sum is the factor itself, to the bit.
    """
    products = [(x * gradient).sum() for x, gradient in zip(outputs, gradients, strict=True)]
    sum(products[1:], products[0]).backward()
