"""What a program is told of each step of a training, and how its function is kept from changing the training.

In: a step that is done. Out: a :class:`StepReport` of plain numbers, handed to the function that the program gave.
"""

import pickle
import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from infomax.runs.run_folder import Run
from infomax.training.engine import Step


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A frozen dataclass that says what one step of a training did. It holds plain numbers, and no tensor."""

    run: Run
    """The run; ``run.path`` is its folder."""
    step: int
    """Number of the step in the run, from 1."""
    steps: int
    """Number of steps of the whole run."""
    epoch: int
    """Epoch that the step belongs to, from 0."""
    loss: float
    """Loss of the global batch."""
    terms: Mapping[str, float]
    """Parts of the loss by name, which each method has of its own; it cannot be written to."""
    gradient_norm: float
    """L2 norm of the gradient before clipping; under float16 it may be infinite."""
    learning_rate: float
    """Learning rate of the step."""
    images_per_second: float
    """Images of the batch over the seconds since the step before, without those of the function itself."""
    seconds: float
    """Seconds that the run has taken so far, those before it was resumed among them."""


OnStep = Callable[[StepReport], object]
"""The type of ``on_step``: a function that is called after each step, and whose result is not used."""


class StepReporter:
    """Calls a program's function after each step, on the first rank.

    Args:
        run: The run.
        function: The function.
        batch_size: Images of a step, over all devices.
        steps: Number of steps of the whole run.
    """

    def __init__(self, run: Run, function: OnStep, *, batch_size: int, steps: int):
        self._run, self._function, self._batch_size, self._steps = run, function, batch_size, steps
        self._since, self._elapsed, self._randomness = perf_counter(), 0.0, ProgramRandomness()
        self.error: BaseException | None = None
        """What the function raised; None if it has raised nothing."""

    def begin_interval(self) -> None:
        """Starts to measure the speed; what was done before, as scoring and saving, does not count."""
        self._since = perf_counter()

    def end_interval(self) -> None:
        """Ends the measurement of a step's speed; call it before the encoder is scored."""
        self._elapsed = perf_counter() - self._since

    def call(self, step: Step, learning_rate: float, *, began: float) -> None:
        """Calls the function with the numbers of a step.

        Args:
            step: The step, which is done.
            learning_rate: The learning rate of this step.
            began: When the run would have begun had it not been interrupted, on the clock of ``time.perf_counter``.

        Raises:
            BaseException: whatever the function raises; :attr:`error` is then the same exception.
        """
        names = list(step.loss.terms)
        # One tensor of all numbers is one copy from the device, which has nothing left to compute for this step.
        values = [torch.as_tensor(value).detach().double() for value in (step.loss.total, *step.loss.terms.values())]
        loss, *terms = torch.stack([value.to(values[0].device) for value in values]).tolist()
        report = StepReport(
            run=self._run,
            step=step.number,
            steps=self._steps,
            epoch=step.epoch,
            loss=loss,
            terms=MappingProxyType(dict(zip(names, terms, strict=True))),
            gradient_norm=step.gradient_norm,
            learning_rate=learning_rate,
            images_per_second=self._batch_size / self._elapsed,
            seconds=perf_counter() - began,
        )
        try:
            with settings_kept(), self._randomness():
                self._function(report)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.begin_interval()


@contextmanager
def settings_kept() -> Generator[None]:
    """Puts back, when the block ends, what a program's code may have set of torch for the whole process."""
    gradients, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    deterministic, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


class ProgramRandomness:
    """Holds the random numbers of a program's code apart from those of the training, of torch, numpy and Python.

    The program's own go on from one call to the next; they begin where those of the training are at the first one.
    """

    def __init__(self) -> None:
        self._states: tuple[Any, ...] | None = None

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Sets the program's random numbers, and those of the training when the block ends."""
        before = _random_states()
        if self._states is not None:
            _set_random_states(self._states)
        try:
            yield
        finally:
            self._states = _random_states()
            _set_random_states(before)


def _random_states() -> tuple[Any, ...]:
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), gpu


def _set_random_states(states: tuple[Any, ...]) -> None:
    python, arrays, cpu, gpu = states
    random.setstate(python)
    np.random.set_state(arrays)
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu)


def check_on_step(function: object, *, devices: int) -> None:
    """Checks that a function can be called after each step.

    Args:
        function: What the program gave; None is no function.
        devices: Number of processes that this one starts to train.

    Raises:
        ValueError: if it cannot be called, or cannot be sent to the process of the first rank.
    """
    if function is None:
        return
    if not callable(function):
        raise ValueError(f"on_step= must be a function of one argument, but is of type {type(function).__name__}")
    if devices > 1:
        try:
            pickle.dumps(function)
        except Exception as error:  # pickle raises errors of many kinds
            raise ValueError(
                f"on_step= is called in another process, as devices={devices}, and must be a function of a module: "
                f"{error}"
            ) from error
