"""Measures of embeddings, features and assignments without labels: rank, spread, collapse, uniformity, entropy.

Every function computes in float64 without gradient, whatever autocast says, and changes no argument. If a
torch.distributed process group is up, each rank passes its own rows, and all ranks return the value of the global
batch, or raise together. ``z`` may be a matrix, or the :class:`~infomax.analysis.rows.Rows` of one, which share the
work of several measures of it.

Terms: ``unit rows`` are rows over their norm, or over 1e-12 if that is larger. ``Singular values`` are those of the
rows, and ``eigenvalues`` those of their covariance, which is normalised by the number of rows. A singular value of the
centred rows of at most 1e-10 of the norm of all rows is 0. Entropies are in nats, and 0 log 0 is 0.
"""

from infomax.analysis.measures.assignments import (
    assignment_entropy,
    effective_prototypes,
    marginal_entropy,
    mutual_information,
    prototypes_in_use,
    share_in_use,
)
from infomax.analysis.measures.directions import (
    alignment,
    collapse_level,
    feature_std,
    mean_cosine,
    near_duplicate_share,
    self_clustering,
    uniformity,
)
from infomax.analysis.measures.effective_ranks import (
    effective_dimension,
    effective_rank,
    participation_ratio,
    rankme,
    stable_rank,
)
from infomax.analysis.measures.information_between_views import recursive_ldmi
from infomax.analysis.measures.linear_discriminants import lidar
from infomax.analysis.measures.spectrum import alpha_req, covariance_spectrum, spectrum_auc, von_neumann_entropy

__all__ = [
    "alignment",
    "alpha_req",
    "assignment_entropy",
    "collapse_level",
    "covariance_spectrum",
    "effective_dimension",
    "effective_prototypes",
    "effective_rank",
    "feature_std",
    "lidar",
    "marginal_entropy",
    "mean_cosine",
    "mutual_information",
    "near_duplicate_share",
    "participation_ratio",
    "prototypes_in_use",
    "rankme",
    "recursive_ldmi",
    "self_clustering",
    "share_in_use",
    "spectrum_auc",
    "stable_rank",
    "uniformity",
    "von_neumann_entropy",
]
