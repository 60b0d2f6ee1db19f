"""The scripts in docs/examples: each of the four losses in plain PyTorch, Lightning and Fabric."""

import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import torch

import infomax
from ranks import on_ranks

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
METHODS = ("mira", "corinfomax", "carl", "mveb")
SCRIPTS = [f"{library}_{method}" for library in ("pytorch", "lightning", "fabric") for method in METHODS]
EPOCHS = 30


@pytest.fixture(autouse=True)
def folder_of_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def run(script: str, *words: str) -> str:
    """Runs a script, and returns what it prints."""
    out, argv = StringIO(), sys.argv
    sys.argv = [script, *words]
    try:
        with redirect_stdout(out):
            runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    finally:
        sys.argv = argv
    return out.getvalue()


@cache
def run_alone(script: str) -> str:
    """Runs a script on one rank, once for all tests, and returns what it prints."""
    return run(script)


def numbers(printed: str) -> tuple[list[float], float, float]:
    """Returns the number of each epoch, and the accuracies of pixels and of features."""
    *epochs, last = printed.splitlines()
    pixels, features = re.fullmatch(r"pixels (\S+), features (\S+)", last).groups()
    by_epoch = [re.fullmatch(rf"epoch {i}: (?:alignment )?(\S+)", line)[1] for i, line in enumerate(epochs)]
    return [float(x) for x in by_epoch], float(pixels), float(features)


def expected(script: str) -> tuple[float, float, float]:
    """Returns the first and the last number of an epoch and the accuracy of features, which the script says on top."""
    text = (EXAMPLES / f"{script}.py").read_text().split('"""')[1]
    return tuple(float(x) for x in re.search(r"from (\S+) to (\S+?),?\s.*features (\S+)$", text, re.S | re.M).groups())


IN_SECONDS, IN_CI = ("pytorch_mira",), ("pytorch_corinfomax", "lightning_mveb", "fabric_carl")
MARKS = {**dict.fromkeys(IN_SECONDS, ()), **dict.fromkeys(IN_CI, pytest.mark.process)}
ON_ONE_RANK = [pytest.param(x, marks=MARKS.get(x, pytest.mark.slow)) for x in SCRIPTS]


@pytest.mark.parametrize("script", ON_ONE_RANK)
def test_a_script_learns_as_it_says_on_top(script):
    epochs, pixels, features = numbers(run_alone(script))
    first, last, accuracy = expected(script)
    assert len(epochs) == EPOCHS
    assert epochs[0] == pytest.approx(first, rel=0.05)
    assert epochs[-1] == pytest.approx(last, rel=0.1)
    assert features == pytest.approx(accuracy, abs=0.025)
    assert features > pixels + 0.03


@pytest.mark.process
@pytest.mark.parametrize("script", [pytest.param(x, marks=() if x in IN_CI else pytest.mark.slow) for x in SCRIPTS])
def test_two_ranks_compute_what_one_does(script):
    """Rounding differs, and training makes differences grow."""
    alone = run_alone(script)
    first, second = on_ranks(2, run, script, "2", as_torchrun=True)
    assert second == ""
    epochs, _, features = numbers(first)
    epochs_alone, _, features_alone = numbers(alone)
    assert epochs[0] == pytest.approx(epochs_alone[0], abs=2e-3)
    assert epochs[1] == pytest.approx(epochs_alone[1], rel=5e-3)
    assert features == pytest.approx(features_alone, abs=0.03)


COMMANDS = {
    "pytorch_mira": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "pytorch_mira.py"],
    "lightning_mveb": ["lightning_mveb.py", "2"],
    "fabric_corinfomax": ["fabric_corinfomax.py", "2"],
}


@pytest.mark.process
@pytest.mark.parametrize(
    "script", [pytest.param(x, marks=[] if i == 0 else pytest.mark.slow) for i, x in enumerate(COMMANDS)]
)
def test_the_command_on_top_of_a_script_prints_nothing_else(script):
    environment = {**os.environ, "PYTHONPATH": str(Path(infomax.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONSAFEPATH", None)  # a command may have set it in this process; the scripts import a neighbour
    done = subprocess.run(
        [sys.executable, *COMMANDS[script]], cwd=EXAMPLES, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    epochs, _, features = numbers(done.stdout)
    assert len(epochs) == EPOCHS
    assert features == pytest.approx(expected(script)[2], abs=0.03)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")  # Lightning 2.6 on torch 2.15
def test_a_checkpoint_of_lightning_holds_the_running_covariances(tmp_path):
    """Training goes on from a checkpoint with the covariances that it stopped with."""
    import lightning

    names = runpy.run_path(str(EXAMPLES / "lightning_corinfomax.py"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    training = names["CorInfoMaxTraining"]()
    trainer = lightning.Trainer(max_epochs=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(training, names["TwoViews"]())
    file = tmp_path / "stopped.ckpt"
    trainer.save_checkpoint(file)
    again = names["CorInfoMaxTraining"]()
    again.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    assert torch.equal(again.criterion.R1, training.criterion.R1)
    assert not torch.equal(again.criterion.R1, torch.eye(64).double())


def test_the_loss_of_two_ranks_is_that_of_the_global_batch_also_in_corinfomaxs_covariances():
    """Every rank holds the same covariances, those of one process."""
    names = runpy.run_path(str(EXAMPLES / "digits.py"))
    torch.manual_seed(0)
    embed = torch.nn.Linear(64, 16)
    alone, ranks = _covariances(names, embed), on_ranks(2, _covariances, names, embed)
    assert ranks[0] == ranks[1]
    torch.testing.assert_close(torch.tensor(ranks[0]), torch.tensor(alone))


def _covariances(names: dict, embed: torch.nn.Module) -> list:
    from infomax.methods.corinfomax import CorInfoMaxLoss

    loss = CorInfoMaxLoss(16)
    for views in names["TwoViews"]():
        loss(*(torch.nn.functional.normalize(embed(x.flatten(1)), dim=1) for x in views))
    return loss.R1.tolist()
