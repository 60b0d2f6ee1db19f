"""All figures, one file each; :mod:`infomax.figures.figure` says what a figure is. No torch is imported.

To add one, write its file here and its line below; or, in another package, name it by an entry point of the group
``infomax.figures``. Nothing else lists figures.
"""

from infomax.figures.catalogue import (
    carl_prototypes,
    carl_schedule,
    forces,
    ldmi,
    logdet_cost,
    mira_convergence,
    mira_sweeps,
    mveb_batch,
    mveb_beta,
    plane,
    spectrum,
    step_cost,
    tsne,
)
from infomax.figures.figure import Figure
from infomax.runtime.plugins import registry

ENTRY_POINTS = "infomax.figures"
"""Group of entry points by which another package adds a figure; each names a :class:`Figure`."""

FIGURES = registry(
    Figure,
    "figure",
    [
        mira_convergence.FIGURE,
        mira_sweeps.FIGURE,
        spectrum.FIGURE,
        ldmi.FIGURE,
        tsne.FIGURE,
        forces.FIGURE,
        logdet_cost.FIGURE,
        carl_schedule.FIGURE,
        carl_prototypes.FIGURE,
        mveb_beta.FIGURE,
        mveb_batch.FIGURE,
        plane.FIGURE,
        step_cost.FIGURE,
    ],
    ENTRY_POINTS,
)
"""All figures by name."""
