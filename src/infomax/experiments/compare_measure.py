"""Measures the runs of a comparison without labels, by the measure that the study trusts most over all methods."""

from infomax.data.splits import preview_images
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import represent
from infomax.experiments.choose import Trust, read_study, study_of
from infomax.experiments.compare import Contest
from infomax.experiments.label_free import MEASURES, sample_images
from infomax.experiments.sweep import SweepRun
from infomax.runtime.options import option_names, pick
from infomax.training.options import MachineOptions

IMAGES = 1000  # that are measured, as infomax choose does
ALL = "all"  # what the study calls its runs of all methods together


def trusted_measure() -> Trust:
    """Returns the measure of features that is trusted most over all methods, by the data set of least agreement."""
    of_features = [trust for name, trust in study_of(ALL).items() if MEASURES[name].compute is not None]
    return max(of_features, key=lambda trust: trust.low)


def trust_words() -> str:
    """Returns a line on the measure, and on how far an order of methods by it is to be trusted: it is not."""
    trust = trusted_measure()
    groups = read_study()["groups"]
    methods = dict.fromkeys(g["method"] for g in groups if not g["with_collapsed"] and g["method"] != ALL)
    reversed_in = [name for name in methods if (of := study_of(name).get(trust.measure)) and of.is_reversed]
    words = (
        f"{MEASURES[trust.measure].label}: in the study its order ({MEASURES[trust.measure].direction}) agreed with "
        f"that of k-NN by {trust.correlations()}, of {len(methods)} methods together"
    )
    if reversed_in:
        words += f", and was the reverse among the runs of {', '.join(reversed_in)}"
    return f"{words}; so few methods say nothing of how it ranks methods"


def measure_run(run: SweepRun, contest: Contest) -> float:
    """Returns the measure of a run that is trained, on images that it was trained on.

    Raises:
        ValueError: if an image cannot be read, or features are NaN or infinite.
    """
    measure = MEASURES[trusted_measure().measure]
    assert measure.compute is not None
    machine = {name: getattr(contest.options, name) for name in option_names(MachineOptions)}
    representation = represent(run.folder, pick(EvaluationOptions, {**machine, "devices": 1, "quiet": True}))
    images = sample_images(preview_images(contest.source), IMAGES)
    return measure.compute(representation.features(images, str(run.folder)))
