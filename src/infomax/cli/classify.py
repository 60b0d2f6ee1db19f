"""Defines the commands ``infomax classify fit``, ``infomax classify run`` and ``infomax classify test``."""

from functools import reduce
from operator import or_
from typing import Annotated, Any

from tyro.conf import subcommand

from infomax.classifying.options import (
    PREDICTION_SUFFIXES,
    ClassifyFitOptions,
    ClassifyRunOptions,
    ClassifyTestOptions,
)
from infomax.cli.command import Command
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import show


def classify_fit(options: ClassifyFitOptions) -> None:
    """Carries out ``infomax classify fit``."""
    from infomax.classifying.opening import open_to_fit
    from infomax.classifying.outputs import CLASSIFIER, check_new_folder

    check_new_folder(options.out, CLASSIFIER, overwrite=options.overwrite)  # before torch is imported
    opened = open_to_fit(options)
    with importing_torch():
        from infomax.classifying.fit import fit, summary

    show(summary(fit(options, opened, quiet=False), str(options.out)))


def classify_run(options: ClassifyRunOptions) -> None:
    """Carries out ``infomax classify run``."""
    from infomax.classifying.opening import open_to_classify
    from infomax.runtime.output_files import check_output_file

    check_output_file(options.out, PREDICTION_SUFFIXES, overwrite=options.overwrite)
    source = open_to_classify(options)
    with importing_torch():
        from infomax.classifying.predicted import predictions_table
        from infomax.classifying.run import check_parquet, run, share_of

    check_parquet(options.out)
    predictions, classifier = run(options, source, quiet=False)
    show(predictions_table(predictions, classifier, share_of(classifier, options.none_share)).text())
    show(f"written to {options.out}")


def classify_test(options: ClassifyTestOptions) -> None:
    """Carries out ``infomax classify test``."""
    from infomax.classifying.opening import open_to_classify
    from infomax.classifying.outputs import PAGE_SUFFIX, TEST, check_new_folder
    from infomax.runtime.output_files import check_output_file

    is_page = options.out.suffix == PAGE_SUFFIX
    if is_page:
        check_output_file(options.out, (PAGE_SUFFIX,), overwrite=options.overwrite)
    else:
        check_new_folder(options.out, TEST, overwrite=options.overwrite)
    source = open_to_classify(options)
    with importing_torch():
        from infomax.classifying.measure import test
        from infomax.classifying.tested import SHOWN_CLASSES

    measured = test(options, source, quiet=False)
    where = " classes; --out DIR has all in classes.csv" if is_page else " classes, in classes.csv"
    show(measured.table().shortened(SHOWN_CLASSES, where).text())
    files = "" if is_page else ": " + ", ".join(sorted(path.name for path in options.out.iterdir()))
    show("\n".join(["", *measured.lines(), f"written to {options.out}{files}"]))


COMMANDS = (
    Command(
        "classify fit",
        ClassifyFitOptions,
        "Fit a classifier of your classes on the features of an encoder, and keep it in a folder.",
        classify_fit,
    ),
    Command(
        "classify run",
        ClassifyRunOptions,
        "Name the class of each image, with a calibrated probability, or none of these.",
        classify_run,
    ),
    Command("classify test", ClassifyTestOptions, "Measure a classifier on labelled images.", classify_test),
)
_ANY: Any = reduce(or_, [command.subcommand for command in COMMANDS])
Classify: Any = Annotated[_ANY, subcommand("classify", description="Classify images by your own classes.")]
"""The parser's type of ``infomax classify``."""
