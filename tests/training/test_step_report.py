"""A program's function is called after each step, with plain numbers, and cannot change a bit of the training."""

import dataclasses
import random
import time
import traceback

import numpy as np
import pytest
import torch

import infomax
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.failures import MachineError
from infomax.training import loop, step_report
from interrupted_runs import differing
from started import fail_at_two, note_step
from toy_data import TOY, write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"), train=24, test=10, side=12)


def go(out, data, method="mira", **options) -> Run:
    settings = {"image_size": 8, "epochs": 2, "batch_size": 8, "quiet": True, "log": "none", **options}
    return infomax.pretrain(data=data, method=method, out=out, overrides=TOY[method], **settings)


def state(run: Run) -> dict:
    return checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints"))


def reachable_tensors(value, seen):
    """Yields the tensors that a program reaches from an object by its attributes and items."""
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    parts = list(getattr(value, "__dict__", {}).values())
    parts += list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
    for part in parts:
        yield from reachable_tensors(part, seen)


def meddle(report: infomax.StepReport) -> None:
    """Tries to change the training by all that a program has at hand."""
    torch.manual_seed(report.step)
    random.seed(report.step)
    np.random.seed(report.step)
    torch.rand(3), random.random(), np.random.rand(3)
    for tensor in reachable_tensors(report, set()):
        tensor.zero_()
    for name in ("loss", "step", "terms"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(report, name, 0)
    with pytest.raises(TypeError):
        report.terms["loss"] = 0.0
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    time.sleep(0.01)


@pytest.mark.parametrize("method", ["mira", "corinfomax"])
def test_a_function_that_meddles_changes_no_bit(toy, tmp_path, method):
    """Half precision draws on the type of numbers, dropout on random numbers, all on the number of threads."""
    plain, meddled = go(tmp_path / "plain", toy, method), go(tmp_path / "meddled", toy, method, on_step=meddle)
    assert not differing(state(plain), state(meddled))
    measured = [[{**row, "seconds": 0, "images_per_second": 0, "waiting": 0} for row in run.read_rows("metrics.jsonl")]
                for run in (plain, meddled)]  # fmt: skip
    assert measured[0] == measured[1]
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_numbers_are_those_of_the_metrics(toy, tmp_path):
    reports = []
    run = go(tmp_path / "run", toy, on_step=reports.append)
    assert [(report.step, report.epoch) for report in reports] == [(step, (step - 1) // 3) for step in range(1, 7)]
    assert {report.steps for report in reports} == {6}
    assert {report.run.path for report in reports} == {run.path}
    for row in run.read_rows("metrics.jsonl"):
        if "loss" not in row:
            continue
        report = reports[row["step"] - 1]
        assert (report.loss, report.learning_rate, report.gradient_norm) == (
            *(row["loss"], row["learning_rate"], row["gradient_norm"]),
        )
        assert dict(report.terms) == {name: row[name] for name in report.terms}
        assert report.terms
    assert all(type(value) is float for report in reports for value in (report.loss, *report.terms.values()))
    assert all(report.images_per_second > 0 for report in reports)
    assert [report.seconds for report in reports] == sorted(report.seconds for report in reports)


def test_the_time_of_the_function_is_not_in_the_speed(toy, tmp_path, monkeypatch):
    speeds, clock, train_step = [], [0.0], loop.train_step

    def two_seconds(*batch, **owned):
        clock[0] += 2
        return train_step(*batch, **owned)

    def slow(report):
        speeds.append(report.images_per_second)
        clock[0] += 100

    monkeypatch.setattr(step_report, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop, "train_step", two_seconds)
    go(tmp_path / "run", toy, on_step=slow)
    assert speeds == [8 / 2] * 6


def test_random_numbers_of_the_function_go_on_from_step_to_step(toy, tmp_path):
    drawn = []
    go(tmp_path / "run", toy, on_step=lambda _: drawn.append((random.random(), float(torch.rand(())))))
    assert [len({*numbers}) for numbers in zip(*drawn, strict=True)] == [6, 6]


def test_an_error_saves_the_run_and_shows_the_program_where_it_was_raised(toy, tmp_path):
    def fail(report):
        if report.step == 4:
            raise ConnectionError("my own out of memory")  # which no message of infomax replaces

    with pytest.raises(ConnectionError, match="my own out of memory") as raised:
        go(tmp_path / "run", toy, on_step=fail)
    assert "in fail" in "".join(traceback.format_exception(raised.value))
    assert "after step 4 of 6, which is saved; resume=True goes on" in "".join(raised.value.__notes__)
    run = Run(tmp_path / "run")
    assert run.trained_steps == 4
    infomax.pretrain(out=run.path, resume=True, quiet=True)
    assert not differing(state(run), state(go(tmp_path / "straight", toy)))


def test_a_function_may_stop_the_run(toy, tmp_path):
    def stop(report):
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", toy, on_step=stop)
    assert Run(tmp_path / "run").trained_steps == 2


def test_steps_of_a_resumed_run_are_counted_on(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    reports = []
    infomax.pretrain(out=run.path, resume=True, epochs=2, quiet=True, on_step=reports.append)
    assert [report.step for report in reports] == [4, 5, 6]


@pytest.mark.parametrize(
    ("function", "devices", "message"),
    [
        (3, 1, "^on_step= must be a function of one argument, but is of type int"),
        (lambda _: None, 2, "^on_step= is called in another process, as devices=2, and must be a function of a module"),
    ],
)
def test_what_is_no_function_is_refused_before_anything_is_written(toy, tmp_path, function, devices, message):
    with pytest.raises(ValueError, match=message):
        go(tmp_path / "run", toy, on_step=function, devices=devices)
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_an_error_on_another_process_shows_its_traceback(toy, tmp_path, capfd):
    with pytest.raises(MachineError, match=r"rank 0 of 2 failed: ZeroDivisionError"):
        go(tmp_path / "run", toy, on_step=fail_at_two, devices=2)
    assert Run(tmp_path / "run").trained_steps == 2
    err = capfd.readouterr().err
    assert "in fail_at_two" in err
    assert "on_step raised this after step 2 of 6, which is saved" in err


@pytest.mark.process
def test_of_several_ranks_the_first_one_calls(toy, tmp_path):
    run = go(tmp_path / "run", toy, on_step=note_step, devices=2, log="tensorboard")
    assert (run.path / "steps.txt").read_text().split() == ["0:1", "0:2", "0:3", "0:4", "0:5", "0:6"]
    assert len(list((run.path / "tensorboard").iterdir())) == 1  # nor do others log
