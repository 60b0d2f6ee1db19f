"""All figures, one file each; :mod:`infomax.figures.figure` says what a figure is. No torch is imported.

To add one, write its file here and its line below; or, in another package, name it by an entry point of the group
``infomax.figures``. Nothing else lists figures.
"""

from infomax.figures.catalogue import mira_convergence, mveb_beta, spectrum
from infomax.figures.figure import Figure
from infomax.runtime.plugins import registry

ENTRY_POINTS = "infomax.figures"
"""Group of entry points by which another package adds a figure; each names a :class:`Figure`."""

FIGURES = registry(
    Figure,
    "figure",
    [
        mira_convergence.FIGURE,
        spectrum.FIGURE,
        mveb_beta.FIGURE,
    ],
    ENTRY_POINTS,
)
"""All figures by name."""
