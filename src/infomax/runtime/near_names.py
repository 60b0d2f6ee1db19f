"""Finds the name that a user is likely to have meant: by other names that are usual in the field, or by spelling."""

import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path

LONGEST_NAME = 60  # characters that are compared
MOST_ENTRIES = 10_000  # of a folder that are compared
SHORTEST_BEGINNING = 3  # characters by which a longer name is known

SYNONYMS = {
    "learning-rate": "lr base-lr init-lr blr rate lr-rate",
    "batch-size": "batch bs batchsize train-batch-size total-batch-size global-batch-size b",
    "micro-batch-size": "device-batch-size per-device-batch-size per-device-train-batch-size microbatch",
    "freeze": "freeze-stages frozen-stages freeze-backbone freeze-layers frozen-layers",
    "backbone-rate": "backbone-lr lr-backbone encoder-lr lr-mult backbone-lr-mult backbone-multiplier",
    "backbone": "arch architecture model encoder network net model-name timm-model a m",
    "init": "weights pretrained pretrained-weights init-weights checkpoint ckpt from-pretrained load finetune-from",
    "encoder": "model checkpoint ckpt weights pretrained run run-dir backbone arch m",
    "data": "dataset data-path dataset-path train-dir train-data input input-dir images image-dir folder path imgs d i",
    "data-dir": "data-root dataset-dir dataset-root root",
    "out": "output output-dir out-dir save-dir log-dir logdir save save-path save-to run-dir work-dir o",
    "epochs": "epoch num-epochs n-epochs max-epochs steps max-steps num-steps iterations iters e",
    "image-size": "img-size imgsz imgsize size resolution crop-size input-size res",
    "workers": "num-workers n-workers nworkers jobs num-jobs threads num-threads j",
    "devices": "gpus num-gpus n-gpus ngpus num-devices nproc nproc-per-node world-size",
    "device": "gpu accelerator",
    "seed": "random-seed random-state manual-seed",
    "precision": "amp fp16 half bf16 mixed-precision dtype fp32 float16",
    "method": "algorithm algo ssl-method loss objective",
    "recipe": "config cfg preset configuration experiment c",
    "views": "augmentation augmentations aug augment transforms transform crops",
    "set": "override overrides option opt-set param",
    "options": "config-file config-path args-file options-file params-file cfg-file",
    "log": "logger loggers log-to log-with report-to reporter trackers tracker tracking logging",
    "overwrite": "force exist-ok overwrite-output-dir f",
    "resume": "continue resume-from resume-from-checkpoint resume-training auto-resume",
    "quiet": "silent no-progress no-progress-bar q",
    "format": "type to target export-format fmt",
    "k": "neighbours neighbors n-neighbors num-neighbors knn-k nb-knn",
    "temperature": "temp tau t",
    "classes": "class-names class-list",
    "seeds": "num-seeds n-seeds runs repeats",
    "clusters": "num-clusters n-clusters k",
    "labels": "shots num-shots n-shots",
    "set optimizer.weight_decay=X": "weight-decay wd",
    "set optimizer.layer_decay=X": "layer-decay layerwise-decay layerwise-lr-decay llrd",
    "set optimizer.momentum=X": "momentum",
    "set optimizer.name=NAME": "optimizer opt optim",
    "set optimizer.warmup_epochs=N": "warmup warmup-epochs",
}
"""Other names of options that are usual in the field, by the option without its dashes."""

OTHER_METHODS = re.compile(
    "cpc|dino-?v[23]|i-?jepa|i?bot|mae|mim|msn|pirl|relic|simclr-?v2|simmim|smog|supcon|tico|vicregl"
)
"""Methods of others, which infomax does not have."""

NAMES_OF_PARTS = {
    "infomin": "--recipe moco/imagenet_infomin_200, which has its views",
    "infonce": "--method simclr, which has this loss",
    "nt-xent": "--method simclr, which has this loss",
    "sigreg": "--method lejepa, which has this loss",
}
"""What a user means who names a method by its loss or its views."""

NETWORKS = ("resnet",)
"""Families of networks whose members differ by a number."""


def nearest(name: object, choices: Iterable[str]) -> str | None:
    """Returns the choice that is spelled most like a name, whatever the case; None if none is.

    A number at the end of a network's name counts as a number: of ``resnet18`` and ``resnet50``, the first one is
    nearer to ``resnet20``.
    """
    choices, text = list(choices), str(name)[:LONGEST_NAME]
    if same := [choice for choice in choices if choice.lower() == text.lower()]:
        return same[0]
    numbered = {choice: _family_and_number(choice) for choice in choices}
    family, number = _family_and_number(text)
    if family in NETWORKS:
        members = [choice for choice, (other, _) in numbered.items() if other == family]
        return min(members, key=lambda choice: abs(numbered[choice][1] - number), default=None)
    longer = [choice for choice in choices if choice.lower().startswith(text.lower())]
    if len(longer) == 1 and len(text) >= SHORTEST_BEGINNING:
        return longer[0]
    by_lower = {choice.lower(): choice for choice in reversed(choices)}
    near = get_close_matches(text.lower(), by_lower, n=len(by_lower) or 1)
    return max((choice for choice in choices if choice.lower() in near), key=partial(_likeness, text), default=None)


def _likeness(text: str, choice: str) -> tuple[bool, float]:
    """Returns how like two names are: first whether they have the same letters, as ``mvbe`` and ``mveb``."""
    text, choice = text.lower(), choice.lower()
    return sorted(text) == sorted(choice), SequenceMatcher(None, choice, text).ratio()


def _family_and_number(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"([a-z_]+?)-?_?(\d{1,6})", name.lower())
    return (match[1], int(match[2])) if match else (name, 0)


def nearest_option(word: str, options: Iterable[str]) -> str | None:
    """Returns what a user who wrote an unknown option is likely to have meant; None if nothing is near.

    Args:
        word: The option as the user wrote it, without dashes, as ``lr``.
        options: All options of the command without dashes.

    Returns:
        An option without dashes; or an assignment, as ``set optimizer.weight_decay=X``.
    """
    options = list(options)
    word = word.lower().replace("_", "-")
    for option, synonyms in SYNONYMS.items():
        if option.partition(" ")[0] in options and word in synonyms.split():
            return option
    return nearest(word, options) if len(word) > 1 else None


def nearest_path(path: str | PathLike[str]) -> str | None:
    """Returns the existing path that is spelled most like one that does not exist; None if none is.

    Each part of the path is replaced by the nearest name there, from the first one that does not exist.

    Args:
        path: The path as the user wrote it, relative or absolute.
    """
    existing, repaired = Path(), False
    for part in Path(os.path.expanduser(path)).parts:
        if not os.path.lexists(existing / part):
            try:
                with os.scandir(existing) as entries:
                    names = [entry.name for entry in islice(entries, MOST_ENTRIES)]
            except OSError:
                return None
            near = _nearest_file_name(part, [name for name in names if not name.startswith(".")])
            if near is None:
                return None
            part, repaired = near, True
        existing /= part
    return str(existing) if repaired else None


def _nearest_file_name(name: str, names: list[str]) -> str | None:
    """Returns the file name that is spelled most like another; a suffix that both have makes them no more alike."""
    suffix = Path(name).suffix
    alike = {other.removesuffix(suffix): other for other in names if suffix and other.endswith(suffix)}
    if stem := nearest(name.removesuffix(suffix), alike):
        return alike[stem]
    return nearest(name, [other for other in names if other not in alike.values()])


def missing_path(path: str | PathLike[str], kinds: str = "folder or file") -> str:
    """Returns the words about a path that does not exist, with the nearest one that does.

    Args:
        path: The path as the user wrote it.
        kinds: What it could be.
    """
    near = nearest_path(path)
    return f"no such {kinds}{f'; did you mean {near}?' if near else ''}"
