"""Rules of verdicts on a training: which rows of the metrics show what, in which words, and what to change.

``analysis/verdicts.py`` applies them. All thresholds were calibrated by ``benchmarks/verdicts.py``; docs/decisions.md
says why they are what they are.
"""

from infomax.analysis.verdict_rules.collapse import (
    CLUSTER_COLLAPSE,
    DEAD_PROTOTYPES,
    DIMENSIONAL_COLLAPSE,
    TOTAL_COLLAPSE,
    UNIFORM_ASSIGNMENT,
)
from infomax.analysis.verdict_rules.divergence import (
    FIRST_STEPS_TOO_LONG,
    GRADIENT_JUMPED,
    HIGH_LOSS,
    LONG_EMBEDDINGS,
    NOT_FINITE,
)
from infomax.analysis.verdict_rules.images import EQUAL_IMAGES, EQUAL_VIEWS, NEAR_DUPLICATES, STARVED

RULES = (
    EQUAL_IMAGES,
    EQUAL_VIEWS,
    NEAR_DUPLICATES,
    NOT_FINITE,
    LONG_EMBEDDINGS,
    HIGH_LOSS,
    FIRST_STEPS_TOO_LONG,
    GRADIENT_JUMPED,
    CLUSTER_COLLAPSE,
    UNIFORM_ASSIGNMENT,
    TOTAL_COLLAPSE,
    DIMENSIONAL_COLLAPSE,
    DEAD_PROTOTYPES,
    STARVED,
)
"""All rules. One explains another only if it stands before it."""
