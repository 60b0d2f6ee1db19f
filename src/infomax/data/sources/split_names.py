"""Chooses splits and columns of a data set by their usual names: one rule for folders, arrays and tables.

Names count in any case, and with a word such as ``set`` or ``images`` after them: ``Training``, ``test_set``.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from infomax.data.splits import listed

ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised"),
}
"""The usual names of splits, in small letters, by what a split is for."""
IMAGE_COLUMNS = ("image", "images", "img", "imgs", "picture", "pixels", "jpg", "png", "x", "data")
"""The usual names of a column or array of images; of two that are there, the first is taken."""
LABEL_COLUMNS = ("label", "labels", "target", "targets", "class", "classes", "category", "cls", "y")
"""The usual names of a column or array of labels; of two that are there, the first is taken."""
_ENDING = re.compile(r"[-_ .]?(?:set|images|imgs|data|split)$")


@dataclass(frozen=True)
class SplitChoice:
    """A frozen dataclass that says which splits of a data set are for what, by their names in the data set.

    A role that no split has is None. A data set without splits has one split, whose name is empty.
    """

    train: str
    """The split to train on, and to classify by."""
    test: str | None = None
    """The split to test on."""
    val: str | None = None
    """The split to choose settings by."""
    unlabelled: str | None = None
    """The split to pretrain on instead of ``train``."""
    left_out: tuple[str, ...] = ()
    """The splits that are used for nothing."""


def role_of(name: str) -> str | None:
    """Returns what a split of this name is for, a key of :data:`ROLES`; None if it is no usual name of a split."""
    plain = _ENDING.sub("", name.lower())
    return next((role for role, names in ROLES.items() if plain in names or name.lower() in names), None)


def splits_by_role(names: Iterable[str]) -> dict[str, str]:
    """Returns the split of each role, for the roles that a split has.

    Raises:
        ValueError: naming both, if two splits have the same role.
    """
    splits: dict[str, str] = {}
    for name in names:
        if (role := role_of(name)) is None:
            continue
        if role in splits:
            raise ValueError(
                f"has {splits[role]!r} and {name!r}, which both name a {role} split; "
                "rename one of them, or take it away"
            )
        splits[role] = name
    return splits


def choose_splits(names: Sequence[str], labelled: Collection[str] = ()) -> SplitChoice:
    """Chooses the splits to train on and to test on.

    Test images come from the first of the test and the validation split that has usable labels; the other one is to
    choose settings by. Without a split of the name, the images to train on are the unlabelled ones, else those of the
    validation split, else the first split.

    Args:
        names: Names of the splits, at least one.
        labelled: The splits that have usable labels.

    Raises:
        ValueError: naming both, if two splits have the same role.
    """
    roles = splits_by_role(names)
    train = roles.get("train")
    if train is None:
        substitutes = (roles.get(role) for role in ("unlabelled", "val", "test"))
        has_roles = bool(roles) and all(role_of(name) for name in names)
        train = next((name for name in substitutes if name is not None), names[0]) if has_roles else names[0]
    test, val, unlabelled = (
        name if (name := roles.get(role)) != train else None for role in ("test", "val", "unlabelled")
    )
    if val is not None and (test is None or (test not in labelled and val in labelled)):
        test, val = val, test
    chosen = {train, test, val, unlabelled}
    return SplitChoice(train, test, val, unlabelled, tuple(name for name in names if name not in chosen))


def choose_column(candidates: Sequence[str], usual: Sequence[str]) -> str | None:
    """Chooses a column by its name: the first usual one that is there, else the only candidate.

    Args:
        candidates: Names of the columns that hold what is wanted.
        usual: Usual names, as :data:`IMAGE_COLUMNS`; they count in any case.

    Returns:
        The column's name; None if there is no candidate.

    Raises:
        ValueError: naming them, if there are several candidates, and none or two have a usual name.
    """
    for name in usual:
        matches = [column for column in candidates if column.lower() == name]
        if len(matches) > 1:
            raise ValueError(f"{listed(matches)} have the same name but for capitals")
        if matches:
            return matches[0]
    if len(candidates) > 1:
        raise ValueError(f"{listed(candidates, limit=10)} are several, and none is called {', '.join(usual[:4])}")
    return candidates[0] if candidates else None
