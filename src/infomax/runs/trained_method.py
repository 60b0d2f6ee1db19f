"""The method of a run as it was trained: its networks, prototypes and buffers, not the encoder alone."""

from infomax.methods.base import Method
from infomax.recipes.building import build_method
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints


def load_trained_method(run: Run) -> Method | None:
    """Loads the method of a run from its newest checkpoint, in evaluation mode, on the CPU.

    Returns:
        The method, or None if the folder keeps no checkpoint.
    """
    file = checkpoints.newest_readable(run.path / "checkpoints")
    if file is None:
        return None
    method = build_method(run.recipe, images=run.config["images"])
    method.load_state_dict(checkpoints.load(file)["method"])
    return method.eval()
