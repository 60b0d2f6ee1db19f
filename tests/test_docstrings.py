"""The examples in docstrings are executed, and every public equation has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import infomax

SOURCE = Path(infomax.__file__).parent
PACKAGES = ("analysis", "methods", "nn")
FILES = [SOURCE / "functional.py", *(file for package in PACKAGES for file in sorted((SOURCE / package).rglob("*.py")))]
MODULES = [
    ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts) for file in FILES if file.name != "__init__.py"
]
PUBLIC_EQUATIONS = [
    "infomax.analysis.convergence.mira_convergence",
    "infomax.analysis.convergence.sinkhorn",
    "infomax.analysis.convergence.sinkhorn_convergence",
    "infomax.analysis.measures.assignments.assignment_entropy",
    "infomax.analysis.measures.assignments.effective_prototypes",
    "infomax.analysis.measures.assignments.marginal_entropy",
    "infomax.analysis.measures.assignments.mutual_information",
    "infomax.analysis.measures.assignments.prototypes_in_use",
    "infomax.analysis.measures.assignments.share_in_use",
    "infomax.analysis.measures.directions.alignment",
    "infomax.analysis.measures.directions.collapse_level",
    "infomax.analysis.measures.directions.feature_std",
    "infomax.analysis.measures.directions.mean_cosine",
    "infomax.analysis.measures.directions.near_duplicate_share",
    "infomax.analysis.measures.directions.self_clustering",
    "infomax.analysis.measures.directions.uniformity",
    "infomax.analysis.measures.effective_ranks.effective_dimension",
    "infomax.analysis.measures.effective_ranks.effective_rank",
    "infomax.analysis.measures.effective_ranks.participation_ratio",
    "infomax.analysis.measures.effective_ranks.rankme",
    "infomax.analysis.measures.effective_ranks.stable_rank",
    "infomax.analysis.measures.information_between_views.recursive_ldmi",
    "infomax.analysis.measures.linear_discriminants.lidar",
    "infomax.analysis.measures.spectrum.alpha_req",
    "infomax.analysis.measures.spectrum.covariance_spectrum",
    "infomax.analysis.measures.spectrum.spectrum_auc",
    "infomax.analysis.measures.spectrum.von_neumann_entropy",
    "infomax.analysis.rows.Rows",
    "infomax.functional.ld_entropy",
    "infomax.functional.ld_mutual_information",
    "infomax.functional.log_det",
    "infomax.functional.soft_cross_entropy",
    "infomax.methods.carl.consistency_loss",
    "infomax.methods.carl.kl_weight",
    "infomax.methods.carl.uniformity_loss",
    "infomax.methods.corinfomax.CorInfoMaxLoss",
    "infomax.methods.corinfomax.recursive_statistics",
    "infomax.methods.mira.assign",
    "infomax.methods.mira.swapped_prediction_loss",
    "infomax.methods.mveb.alignment",
    "infomax.methods.mveb.entropy_surrogate",
    "infomax.methods.mveb.stein_score",
    "infomax.nn.schedules.cosine",
    "infomax.nn.schedules.linear",
    "infomax.nn.schedules.warmup_cosine_by_epoch",
    "infomax.nn.schedules.warmup_cosine_by_step",
]


def examples_of(module_name: str) -> dict[str, doctest.DocTest]:
    """Returns the examples of what a module defines, by name.

    DocTestFinder leaves out decorated functions, whose globals are those of the decorator's module: so each object is
    given to it alone. Examples see no name of the module; they import what they use, as a reader must.
    """
    module = importlib.import_module(module_name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    defined = [
        (name, inspect.unwrap(value) if inspect.isroutine(value) else value)
        for name, value in vars(module).items()
        if inspect.isroutine(value) or inspect.isclass(value)
    ]
    tests = [
        test
        for name, value in defined
        if value.__module__ == module_name
        for test in finder.find(value, f"{module_name}.{name}", module=module, globs={})
    ]
    return {test.name: test for test in tests if test.examples}


EXAMPLES = {name: test for module in MODULES for name, test in examples_of(module).items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_prints_what_it_says(name):
    output: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    outcome = runner.run(EXAMPLES[name], out=output.append, clear_globs=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(output)


@pytest.mark.parametrize("name", PUBLIC_EQUATIONS)
def test_the_public_equation_has_an_example_that_prints(name):
    assert name in EXAMPLES, "its docstring needs an example"
    assert any(example.want for example in EXAMPLES[name].examples), "its example must print a value or a shape"


def test_a_broken_example_fails():
    """The first test relies on this: the runner counts an output that differs, and reports it."""
    broken = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "broken", None, None)
    output: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(broken, out=output.append).failed == 1
    assert "Expected:" in "".join(output)
