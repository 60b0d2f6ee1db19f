"""What holds when a run saves itself after a failure of the machine."""

import multiprocessing

import numpy as np
import pytest
from PIL import Image

from infomax.runtime.failures import MachineError
from infomax.training.engine import Engine
from infomax.training.loop import TrainingLoop
from infomax.training.pretrain import pretrain


def test_workers_have_ended_before_the_rescue(tmp_path, monkeypatch):
    """Out of memory, the checkpoint is written with the memory that the workers held."""
    (tmp_path / "images").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    backward, rescue, workers = Engine.backward, TrainingLoop.rescue, []

    def failing_backward(engine, *arguments, **options):
        workers.append(len(multiprocessing.active_children()))
        if len(workers) == 3:
            raise MemoryError("none left")
        return backward(engine, *arguments, **options)

    def counting_rescue(loop):
        workers.append(len(multiprocessing.active_children()))
        rescue(loop)

    monkeypatch.setattr(Engine, "backward", failing_backward)
    monkeypatch.setattr(TrainingLoop, "rescue", counting_rescue)
    options = {"method": "carl", "recipe": "small", "image_size": 8, "batch_size": 8, "epochs": 2, "workers": 1}
    with pytest.raises(MachineError, match="Step 2 is saved"):
        pretrain(data=tmp_path / "images", out=tmp_path / "run", device="cpu", quiet=True, **options)
    assert workers == [1, 1, 1, 0]
