"""Train image encoders without labels by information maximisation: MIRA, CorInfoMax, CARL and MVEB.

The names below load what they need when they are first used, because torch takes seconds to import. The
losses are in :mod:`infomax.methods` and need torch alone.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infomax.classifying.classifier import load_classifier as load_classifier
    from infomax.classifying.fit import classify_fit as classify_fit
    from infomax.classifying.measure import classify_test as classify_test
    from infomax.classifying.run import classify_run as classify_run
    from infomax.embeddings.clusters import clusters as clusters
    from infomax.embeddings.duplicates import duplicates as duplicates
    from infomax.embeddings.embed import embed as embed
    from infomax.embeddings.search import search as search
    from infomax.evaluation.run import evaluate as evaluate
    from infomax.experiments.choose import choose as choose
    from infomax.experiments.compare_runner import compare as compare
    from infomax.experiments.sweep_runner import sweep as sweep
    from infomax.exporting.export import export as export
    from infomax.figures.make import figure as figure
    from infomax.models.encoders import Encoder as Encoder
    from infomax.models.encoders import load_encoder as load
    from infomax.planning.plan import plan as plan
    from infomax.reporting.report import report as report
    from infomax.runs.run_folder import Run as Run
    from infomax.training.pretrain import pretrain as pretrain
    from infomax.training.preview import views as views
    from infomax.training.step_report import StepReport as StepReport

    __version__: str

__all__ = [
    "Encoder",
    "Run",
    "StepReport",
    "choose",
    "classify_fit",
    "classify_run",
    "classify_test",
    "clusters",
    "compare",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "figure",
    "load",
    "load_classifier",
    "plan",
    "pretrain",
    "report",
    "search",
    "sweep",
    "views",
]

_HOME = {
    "Encoder": ("models.encoders", "Encoder"),
    "Run": ("runs.run_folder", "Run"),
    "StepReport": ("training.step_report", "StepReport"),
    "choose": ("experiments.choose", "choose"),
    "classify_fit": ("classifying.fit", "classify_fit"),
    "classify_run": ("classifying.run", "classify_run"),
    "classify_test": ("classifying.measure", "classify_test"),
    "clusters": ("embeddings.clusters", "clusters"),
    "compare": ("experiments.compare_runner", "compare"),
    "duplicates": ("embeddings.duplicates", "duplicates"),
    "embed": ("embeddings.embed", "embed"),
    "evaluate": ("evaluation.run", "evaluate"),
    "export": ("exporting.export", "export"),
    "figure": ("figures.make", "figure"),
    "load": ("models.encoders", "load_encoder"),
    "load_classifier": ("classifying.classifier", "load_classifier"),
    "plan": ("planning.plan", "plan"),
    "pretrain": ("training.pretrain", "pretrain"),
    "report": ("reporting.report", "report"),
    "search": ("embeddings.search", "search"),
    "sweep": ("experiments.sweep_runner", "sweep"),
    "views": ("training.preview", "views"),
}
"""The module and the attribute that each public name stands for."""
_MODULES = ("functional", "methods")
"""The public modules."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("infomax")
    if name in _MODULES:
        return import_module(f"infomax.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'infomax' has no attribute {name!r}")
    if sys.platform == "win32":
        from infomax.runtime.systems import ON_WINDOWS_TOO, WINDOWS

        if name not in ON_WINDOWS_TOO:
            raise ImportError(f"infomax.{name}: {WINDOWS}")
    from infomax.runtime.threads import set_wait_variables

    set_wait_variables()
    module, attribute = _HOME[name]
    public = getattr(_import(module, name), attribute)
    if not isinstance(public, type):
        from infomax.runtime.doors import python_door

        public = python_door(public, name)
    globals()[name] = public
    return public


def _import(module: str, name: str) -> Any:
    """Returns a module, and says to somebody who waits at a terminal or notebook that it is imported, with torch."""
    if sys.stderr is None or not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")):
        return import_module(f"infomax.{module}")
    from infomax.runtime.stages import Stage, stages_shown

    with stages_shown(True), Stage(f"importing infomax.{name}", slow_only=True):
        return import_module(f"infomax.{module}")


def __dir__() -> list[str]:
    """Returns the public names alone, as a shell of Python completes them."""
    return sorted([*__all__, *_MODULES, "__version__"])
