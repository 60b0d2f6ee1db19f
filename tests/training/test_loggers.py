"""Tools that show metrics: each by its own reader, over resumption and failure, without changing the run."""

import json
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import infomax
from command import PATIENCE, start_command, wait_for
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.training import loop
from infomax.training.loggers import TOOLS, forwarding, parse_tools
from infomax.training.loggers.forwarding import Forwarder, read_kept
from infomax.training.loggers.tool import Tool, flat
from interrupted_runs import differing
from toy_data import TOY, write_toy

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the tools' own libraries


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"), train=24, test=10, side=12)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables, which take seconds to make; None without MLflow."""
    if TOOLS["mlflow"].missing:
        return None
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(empty_database, tmp_path):
    """A database of MLflow in the working folder, where a run makes it if there is none."""
    return shutil.copy(empty_database, tmp_path / "mlflow.db") if empty_database else None


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Tools that are imported for the first time take seconds on a busy machine."""
    monkeypatch.setattr(forwarding, "PATIENCE", {"finished": 120.0, "failed": 120.0, "stopped": 120.0})


@pytest.fixture(autouse=True)
def nowhere_near_the_users_accounts(tmp_path, monkeypatch):
    """No variable of the tools is set, the home folder is empty, and the working folder is the test's."""
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)


def go(out, data, **options) -> Run:
    settings = {"image_size": 8, "epochs": 4, "batch_size": 8, "quiet": True, "method": "mira", **options}
    return infomax.pretrain(data=data, out=out, overrides=TOY["mira"], **settings)


def stop_after(monkeypatch, step, error):
    """Lets the training raise an error in the step after one, whose checkpoint is not written."""
    train_step = loop.train_step

    def train_step_or_fail(engine, microbatches, **owned):
        if engine.steps_done == step:
            raise error
        return train_step(engine, microbatches, **owned)

    monkeypatch.setattr(loop, "train_step", train_step_or_fail)


def interrupt_and_resume(out, data, tool, monkeypatch) -> Run:
    """Trains until a step that is logged after the last checkpoint, as if killed there, and resumes from before it."""
    with monkeypatch.context() as patch:
        stop_after(patch, 9, KeyboardInterrupt())
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        patch.setattr(loop, "SAVE_SHARE", 1e9)
        with pytest.raises(KeyboardInterrupt):
            go(out, data, log=tool)
    run = Run(Path(out))
    newest = checkpoints.list_checkpoints(run.path / "checkpoints")
    assert checkpoints.step_of(newest[0]) == 9
    newest[0].unlink()
    infomax.pretrain(out=out, resume=True, quiet=True)  # from step 8, although the row of step 9 was logged
    assert run.finished
    return run


def expected(run: Run, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in run.read_rows("metrics.jsonl") if name in row}


def missing(name: str):
    return pytest.mark.skipif(bool(TOOLS[name].missing), reason=f"{', '.join(TOOLS[name].missing)} is not installed")


def read_tensorboard(run: Run, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def read_mlflow(run: Run, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').resolve()}")
    history = client.get_metric_history(read_kept(run)["mlflow"]["run_id"], name)
    return [(metric.step, metric.value) for metric in history]


def wandb_records(run: Run) -> list:
    """Returns the records of all offline files of a run, in their order, by the messages of wandb itself."""
    from wandb.proto import wandb_internal_pb2

    records = []
    for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        for content in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            records.append(record)
    return records


def log_records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a file in LevelDB's format of logs, of which wandb's Python has no reader any more."""
    position, record = 7, b""  # after the file's own header
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:  # a header never crosses the end of a block
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def read_wandb(run: Run, name: str) -> list[tuple[int, float]]:
    points = []
    for record in wandb_records(run):
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if name in items:
            points.append((int(items["_step"]), json.loads(items[name])))
    return points


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}


@pytest.mark.parametrize("tool", [pytest.param(name, marks=missing(name)) for name in READERS])
def test_a_run_that_is_resumed_stands_in_the_tool_once_and_whole(toy, tmp_path, monkeypatch, database, tool):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = interrupt_and_resume(tmp_path / "runs" / "a", toy, tool, monkeypatch)
    for name in ("loss", "learning_rate", "knn_top1", "linear_top1"):
        points = READERS[tool](run, name)
        assert [step for step, _ in points] == sorted(expected(run, name))  # each once, in their order
        assert dict(points) == pytest.approx(expected(run, name), rel=1e-6)
    assert run.config["launch"]["log"] == run.config["resumed"][-1]["launch"]["log"] == [tool]
    assert (run.path / "tensorboard").exists() == (tool == "tensorboard")


@missing("mlflow")
def test_mlflow_has_the_settings_the_names_and_the_states(toy, tmp_path, monkeypatch, database):
    from mlflow import MlflowClient

    with monkeypatch.context() as patch:
        stop_after(patch, 4, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            go("runs/a", toy, log="mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    kept = read_kept(Run(Path("runs/a")))["mlflow"]
    assert kept["database"] == str(tmp_path / "mlflow.db")
    mlflow_run = client.get_run(kept["run_id"])
    assert (mlflow_run.info.run_name, mlflow_run.info.status) == ("a", "FAILED")
    assert client.get_experiment(mlflow_run.info.experiment_id).name == "infomax"
    assert mlflow_run.data.params["recipe.optimizer.learning_rate"] == str(
        Run(Path("runs/a")).recipe.optimizer.learning_rate
    )
    assert mlflow_run.data.params["launch.device"] == "cpu"
    monkeypatch.chdir(tmp_path / "home")  # the database is found again from another folder
    with monkeypatch.context() as patch:
        stop_after(patch, 8, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            infomax.pretrain(out=tmp_path / "runs/a", resume=True, quiet=True)
    assert client.get_run(kept["run_id"]).info.status == "KILLED"
    infomax.pretrain(out=tmp_path / "runs/a", resume=True, quiet=True)
    assert client.get_run(kept["run_id"]).info.status == "FINISHED"
    infomax.pretrain(out=tmp_path / "runs/a", resume=True, epochs=6, quiet=True)
    tags = client.get_run(kept["run_id"]).data.tags
    assert tags["recipe.epochs"] == "6"
    assert len(client.search_runs([mlflow_run.info.experiment_id])) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == []


@missing("mlflow")
def test_variables_of_mlflow_are_respected_and_no_password_is_kept(toy, tmp_path, monkeypatch, empty_database):
    from mlflow import MlflowClient

    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'theirs.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "flowers")
    run = go("runs/a", toy, log=["mlflow", "tensorboard"], epochs=1)
    kept = read_kept(run)["mlflow"]
    assert kept.keys() == {"run_id"}
    client = MlflowClient(tracking_uri=uri)
    assert client.get_experiment(client.get_run(kept["run_id"]).info.experiment_id).name == "flowers"
    assert not (tmp_path / "mlflow.db").exists()
    assert (run.path / "tensorboard").is_dir()
    client.delete_run(kept["run_id"])
    infomax.pretrain(out=run.path, resume=True, epochs=2, quiet=True)
    new = read_kept(run)["mlflow"]
    assert new != kept
    points = [metric.step for metric in client.get_metric_history(new["run_id"], "loss")]
    assert points == [3, 6]  # rows of before that the new run did not have


@missing("wandb")
def test_wandb_has_the_settings_and_the_states(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "flowers")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go("runs/a", toy, log="wandb")
    run = infomax.pretrain(out="runs/a", resume=True, quiet=True)
    records = wandb_records(run)
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {(item.run_id, item.project, item.display_name) for item in runs} == {
        (read_kept(run)["wandb"]["id"], "flowers", "a")
    }
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["recipe"]["optimizer"]["learning_rate"] == run.recipe.optimizer.learning_rate
    codes = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert codes == [1, 0]


@missing("wandb")
def test_a_run_has_ended_when_the_file_of_wandb_is_whole(toy, tmp_path, monkeypatch):
    """Its process writes the file, and under load it is late: a run resumed at once would send the rows again."""
    import wandb

    from infomax.training.loggers.wandb import _is_whole

    monkeypatch.setenv("WANDB_MODE", "offline")
    whole = []

    def finish(run, exit_code):
        ended(run, exit_code=exit_code)
        file = Path(run.dir).parent / f"run-{run.id}.wandb"
        while not _is_whole(file):
            time.sleep(0.01)
        content = file.read_bytes()
        file.write_bytes(content[:7])
        threading.Timer(0.3, lambda: (whole.append(file), file.write_bytes(content))).start()

    ended = wandb.Run.finish
    monkeypatch.setattr(wandb.Run, "finish", finish)
    run = go("a", toy, log="wandb", epochs=1)
    assert whole == [file.absolute() for file in run.path.glob("wandb/offline-run-*/*.wandb")]


def test_tensorboard_is_the_default_and_none_leaves_it_out(toy, tmp_path):
    run, quiet = go("a", toy, epochs=1), go("b", toy, epochs=1, log="none")
    assert read_tensorboard(run, "loss")
    assert run.config["launch"]["log"] == ["tensorboard"]
    assert not (quiet.path / "tensorboard").exists()
    infomax.pretrain(out=quiet.path, resume=True, epochs=2, quiet=True)
    assert not (quiet.path / "tensorboard").exists()  # as the run was begun
    infomax.pretrain(out=quiet.path, resume=True, epochs=3, quiet=True, log="tensorboard")
    assert [step for step, _ in read_tensorboard(quiet, "loss")] == [3, 6, 9]  # rows of before too


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["wanbd"],
            "--log must be one of tensorboard, wandb, mlflow, trackio, none, but is 'wanbd'; did you mean wandb?",
        ),
        (["tb"], "but is 'tb'; did you mean tensorboard?"),
        (["wandb,none"], "--log wandb,none: none is for no tool at all; leave it out"),
        (["tensorboard", "None"], "but is 'None'; did you mean none?"),
        ([""], "--log must be one of"),
    ],
)
def test_what_is_no_tool_is_refused(words, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - compared below
        parse_tools(words)
    assert message in str(raised.value)


def test_tools_may_be_repeated_or_have_commas_between(monkeypatch):
    monkeypatch.setitem(TOOLS, "wandb", Tool(name="wandb", start=TOOLS["wandb"].start))
    assert parse_tools(["wandb,tensorboard"]) == parse_tools(["wandb", "tensorboard", "wandb"])
    assert parse_tools([]) == ("tensorboard",)
    assert parse_tools(["none"]) == ()


def test_a_package_that_is_not_installed_is_one_line(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(
        TOOLS, "wandb", Tool(name="wandb", start=TOOLS["wandb"].start, packages=("wandbb",), install="I")
    )
    with pytest.raises(ValueError, match="log=wandb needs the package wandbb: I; log=none does without"):
        go("a", toy, log="wandb")
    assert not (tmp_path / "a").exists()


class Failing:
    """A tool that fails at some row, or at its end."""

    place, last_step = "somewhere", 0

    def __init__(self, at: int):
        self.at, self.rows = at, []

    def log(self, row):
        if row["step"] >= self.at:
            raise SystemExit("https://me:secret@host/ is gone\nand more")
        self.rows.append(row["step"])

    def finish(self, state):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("at", [0, 6, 100])
def test_a_tool_that_fails_costs_a_line_and_not_the_run(toy, monkeypatch, capsys, at):
    monkeypatch.setitem(TOOLS, "wandb", Tool(name="wandb", start=lambda _: Failing(at)))
    run = go("a", toy, log=["wandb", "tensorboard"], quiet=False)
    assert run.finished
    lines = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert lines[0] == "infomax: wandb: somewhere"
    assert len(lines) == 2
    assert lines[1].startswith("infomax: wandb is left out from now on; metrics.jsonl has all rows: ")
    assert "secret" not in lines[1]
    assert [step for step, _ in read_tensorboard(run, "loss")] == sorted(expected(run, "loss")) == [3, 6, 9, 12]


def warnings_of(capsys):
    """Returns the lines of warnings; a run also says what images it has, quiet or not."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("infomax: ")]


def test_a_tool_that_hangs_neither_slows_the_run_nor_keeps_it(toy, monkeypatch, capsys):
    release = threading.Event()

    def hang(_):
        release.wait()
        raise OSError("too late for a line")

    monkeypatch.setitem(TOOLS, "wandb", Tool(name="wandb", start=hang))
    monkeypatch.setattr(forwarding, "PATIENCE", {"finished": 0.2})
    start = time.monotonic()
    run = go("a", toy, log="wandb")
    assert run.finished
    assert time.monotonic() - start < 60
    release.set()
    for thread in threading.enumerate():
        if thread.name == "infomax-wandb":
            thread.join()
    assert warnings_of(capsys) == [
        "infomax: wandb had not taken all rows 0.2 seconds after the run's end; metrics.jsonl has them"
    ]


def test_rows_that_a_tool_does_not_take_in_time_are_left_out_in_one_line(toy, monkeypatch):
    release, lines, logger = threading.Event(), [], Failing(1000)
    run = go("a", toy, epochs=1, log="none")
    monkeypatch.setattr(forwarding, "MOST_ROWS", 3)

    def start(_):
        release.wait()
        return logger

    forwarder = Forwarder(run, [Tool(name="slow", start=start)], step=0, logged_step=0, say=lines.append)
    for step in range(1, 10):
        forwarder.send({"step": step, "loss": 1.0})
    release.set()
    while len(logger.rows) < 3:
        time.sleep(0.01)
    forwarder.close("finished")
    assert logger.rows == [1, 2, 3]
    assert lines[0] == "slow does not keep up, and misses rows; metrics.jsonl has them"


@pytest.mark.parametrize("tool", [pytest.param(name, marks=missing(name)) for name in ("mlflow", "wandb")])
def test_tools_change_no_bit(toy, monkeypatch, database, tool):
    monkeypatch.setenv("WANDB_MODE", "offline")
    runs = [go(name, toy, log=log) for name, log in (("a", "none"), ("b", tool))]
    states = [checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints")) for run in runs]
    assert not differing(*states)


@missing("mlflow")
def test_a_server_that_is_gone_is_one_line(toy, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = go("a", toy, log="mlflow", epochs=1)
    assert run.finished
    (line,) = warnings_of(capsys)
    assert line.startswith("infomax: mlflow is left out from now on; metrics.jsonl has all rows: ")
    assert len(line) < 400


def test_settings_have_keys_with_dots():
    assert flat({"a": {"b": [{"c": 1}, {"c": (2, 3)}]}, "d": [4, 5]}) == {
        "a.b.0.c": 1, "a.b.1.c": (2, 3), "d": [4, 5],
    }  # fmt: skip


@pytest.mark.process
@missing("wandb")
def test_a_run_that_was_killed_is_whole_in_the_tools(tmp_path):
    """What a process had sent, and was not on the disk yet when it was killed, is sent again; nothing stands twice."""
    words = ("pretrain", "--data", "digits", "--out", "run", "--image-size", "8", "--batch-size", "256")
    words = (*words, "--epochs", "100", "--method", "carl", "--log", "wandb,tensorboard", "--resume")
    run = Run(tmp_path / "run")
    process = start_command(tmp_path, *words, WANDB_MODE="offline")
    wait_for(lambda: (run.path / "loggers.json").exists() and len(run.read_rows("metrics.jsonl")) > 12, process)
    process.kill()
    process.communicate()
    process = start_command(tmp_path, *words, WANDB_MODE="offline")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    for tool in ("wandb", "tensorboard"):
        for name in ("loss", "knn_top1"):
            assert [step for step, _ in READERS[tool](run, name)] == sorted(expected(run, name))
