"""Words about an encoder's data and weights that are made public: they give away no folder of the machine."""

import os
import re
from pathlib import Path
from typing import Any

from infomax.data.sources.named import NAMED_DATASETS
from infomax.runs.run_folder import Run
from infomax.runtime.text import escape


def public_data_name(data: str) -> str:
    """Returns words for a data set that give away no folder of the machine.

    Args:
        data: The data set as ``--data`` names it.
    """
    if data in NAMED_DATASETS or data == "digits" or (data.startswith(("hf:", "hf-stream:")) and data.count("/") < 2):
        return data
    names = [Path(part.rstrip("/")).name or "images" for part in data.split(":", 1)[-1].split(",")]
    return ", ".join(dict.fromkeys(names))


def without_folders(value: Any) -> Any:
    """Returns plain values in which the absolute paths are cut down to their last name."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    home = re.escape(os.path.expanduser("~"))
    return re.sub(rf"(?:{home}|(?<![\w.:/])(?:~|[A-Za-z]:)?)/(?:[^\s,:#@]*/)+", "", value)


def initial_weights(run: Run) -> str | None:
    """Returns the name of the weights that a run began with; None if it began with random ones."""
    name = run.recipe.encoder.init
    return None if name is None else without_folders(str(name))


def licence_words(run: Run | None, encoder_name: str) -> str:
    """Returns words for the licence of the weights; of those that a run trained from random ones, none is claimed."""
    if run is None:
        return f"The licence of {escape(without_folders(encoder_name))}, whose weights these are, applies."
    if (name := initial_weights(run)) is not None:
        return (
            f"The training began with the weights of {escape(name)}, whose licence applies; infomax adds no condition "
            "to it."
        )
    return (
        "Not stated here: whoever trained these weights decides on it. infomax sets no condition on them; whoever "
        "holds rights in the images may have set some."
    )
