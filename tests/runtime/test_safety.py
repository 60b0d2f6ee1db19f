"""Checks that opening a file of somebody else never runs code from it and never writes outside its folder."""

import hashlib
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

import infomax
from infomax.data.sources.location import open_source
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.training.pretrain import pretrain
from infomax.training.replay import replay


class Exploit:
    """An object that makes a folder when it is unpickled, in place of anything that hostile code could do."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """Yields the folder that an exploit would make, after showing that an exploit works; checks that none was run."""
    shown_to_work = tmp_path / "shown"
    pickle.loads(pickle.dumps(Exploit(shown_to_work)))
    assert shown_to_work.exists()
    yield tmp_path / "hacked"
    assert not (tmp_path / "hacked").exists()


@pytest.fixture
def run(tmp_path) -> Run:
    options = {"epochs": 2, "image_size": 8, "batch_size": 700, "overrides": ["seed=3"]}
    return pretrain(data="digits", out=tmp_path / "run", method="carl", quiet=True, **options)


def put_checkpoint(folder, content: bytes):
    """Writes a checkpoint with a later step than any other, and with the right hash in its name."""
    (folder / f"step-99999999-{hashlib.sha256(content).hexdigest()[:8]}.ckpt").write_bytes(content)


@pytest.mark.parametrize("archive", [True, False])
def test_a_checkpoint_with_code_is_refused_and_the_one_before_it_used(run, mark, capsys, archive):
    buffer = io.BytesIO()
    torch.save({"step": Exploit(mark)}, buffer, _use_new_zipfile_serialization=archive)
    put_checkpoint(run.path / "checkpoints", buffer.getvalue())
    put_checkpoint(run.path / "checkpoints", pickle.dumps(Exploit(mark)))
    pretrain(out=run.path, resume=True, quiet=True)
    assert capsys.readouterr().err.count("nothing of it was run") == 2


def test_a_captured_step_with_code_is_refused(tmp_path, mark, run):
    folder = run.path / "nonfinite" / "step-00000001"
    folder.mkdir(parents=True)
    report = {
        "reason": "x",
        "ranks": 1,
        "steps_per_epoch": 2,
        "recipe": json.loads((run.path / "config.json").read_text())["recipe"],
    }
    (folder / "report.json").write_text(json.dumps(report))
    torch.save({"microbatches": Exploit(mark)}, folder / "images-0-of-1.pt")
    (folder / "state.ckpt").write_bytes(checkpoints.newest_readable(run.path / "checkpoints").read_bytes())
    with pytest.raises(ValueError, match="not a checkpoint of tensors and plain values"):
        replay(folder, device="cpu")


@pytest.mark.parametrize("key", ["images", "labels", "more"])
def test_code_in_an_array_does_not_run(tmp_path, mark, key):
    """Images of objects are refused; labels of objects are none, for training needs none; other arrays stay unread."""
    arrays = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.zeros(4, int)}
    np.savez(tmp_path / "x.npz", **{**arrays, key: np.array([Exploit(mark)] * 4, dtype=object)})
    if key == "images":
        with pytest.raises(ValueError, match="array images must be numbers .* but is pickled objects"):
            open_source(str(tmp_path / "x.npz"))
    else:
        source = open_source(str(tmp_path / "x.npz"))
        assert len(source.train) == 4
        assert ("pickled" in source.no_labels_reason) == (key == "labels")


def test_an_archive_writes_nothing(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "inside").mkdir()
    with zipfile.ZipFile(tmp_path / "inside" / "x.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
        archive.writestr("../../escaped.npy", buffer.getvalue())
        archive.writestr("/tmp/escaped.npy", buffer.getvalue())
    assert len(open_source(str(tmp_path / "inside" / "x.npz")).train) == 4
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "x.npz"]


def test_settings_with_code_are_plain_text(run, mark):
    config = run.config
    config["recipe"]["method"]["name"] = f"__import__('os').mkdir({str(mark)!r})"
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="method.name must be one of"):
        pretrain(out=run.path, resume=True)
    (run.path / "encoder.json").write_text('{"encoder": {"backbone": "os.mkdir", "stem": "cifar", "seed": 0}}')
    with pytest.raises(ValueError, match="backbone must be one of small, resnet18"):
        infomax.load(run.path)


def test_an_encoder_with_code_is_refused(run, mark):
    (run.path / "encoder.safetensors").write_bytes(pickle.dumps(Exploit(mark)))
    with pytest.raises(ValueError, match="nothing of it was run"):
        infomax.load(run.path)
