"""Says after which epochs of a run the encoder is kept. No torch is imported.

In: what the user asked for, and the run to go on with. Out: the epochs, checked. The loop keeps the encoders.
"""

from collections.abc import Sequence

from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run

OPTION = "--keep-epochs"


def parse_keep_epochs(words: Sequence[int | str]) -> tuple[int, ...]:
    """Returns the epochs that a user asked for, in rising order.

    Args:
        words: The values of ``--keep-epochs``, each with one epoch or several with commas between.

    Raises:
        ValueError: if one is no whole number of at least 1, or is given twice.
    """
    epochs: list[int] = []
    for text in (part.strip() for word in words for part in str(word).split(",")):
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            raise ValueError(f"{OPTION} wants epochs, whole numbers from 1 up, as 50,100,150, but has {text!r}")
        if int(text) in epochs:
            raise ValueError(f"{OPTION} has epoch {int(text)} twice")
        epochs.append(int(text))
    return tuple(sorted(epochs))


def epochs_to_keep(words: Sequence[int | str], recipe: Recipe, resumed: Run | None) -> tuple[int, ...]:
    """Returns the epochs after which the encoder is kept: those given, and those that a resumed run was to keep.

    Args:
        words: The values of ``--keep-epochs``.
        recipe: The recipe with all changes, whose epochs are those of the whole run.
        resumed: The run to go on with; None for a new one.

    Raises:
        ValueError: if an epoch is beyond the run's last one, or over in a run that has not kept its encoder.
    """
    epochs = parse_keep_epochs(words)
    if beyond := [epoch for epoch in epochs if epoch > recipe.epochs]:
        raise ValueError(f"{OPTION} {beyond[0]}: the run has {recipe.epochs} epochs; give at most {recipe.epochs}")
    if resumed is None:
        return epochs
    if missed := [epoch for epoch in epochs if resumed.has_missed(epoch)]:
        raise ValueError(
            f"{OPTION} {missed[0]}: {resumed.path} is past the end of that epoch, whose encoder was not kept; only a "
            "new run can keep it"
        )
    return tuple(sorted({*epochs, *resumed.epochs_to_keep}))
