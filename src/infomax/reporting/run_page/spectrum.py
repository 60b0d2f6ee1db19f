"""Section with the spectrum: how the variance of features and embeddings is shared among directions."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.analysis.measures import covariance_spectrum
from infomax.methods.base import Method
from infomax.methods.corinfomax import CorInfoMax
from infomax.reporting.pages.blocks import Paragraph, SideBySide
from infomax.reporting.pages.charts import Curve, LineChart
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, ShownEncoder

MOST_ROWS = 2_000
"""Images of which a spectrum is computed."""
LEAST_SHARE = 1e-12
"""Shares of the variance that are not shown: rounding makes them."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there are no images."""
    if not content.encoders:
        return None
    by_run = [(encoder, dict(spectra_of(encoder, content.options.seed))) for encoder in content.encoders]
    blocks: list[Block] = []
    if len(by_run) == 1:
        spectra = by_run[0][1]
        styles = {name: style for style, name in enumerate(spectra)}
        blocks += _chart("Share of the variance", spectra, styles)
    else:
        styles = {encoder.name: encoder.shown.style for encoder, _ in by_run}
        for kind in dict.fromkeys(kind for _, spectra in by_run for kind in spectra):
            of_kind = {encoder.name: spectra[kind] for encoder, spectra in by_run if kind in spectra}
            blocks += _chart(f"Share of the variance: {kind}", of_kind, styles)
    rows = min(MOST_ROWS, len(content.encoders[0].images))
    text = (
        f"Eigenvalues of the covariance of {rows:,} images' features (what you keep) and embeddings (what the loss "
        "sees), as shares of their sum, the largest first. A curve that drops early: few directions are used."
    )
    return Section("Spectrum", text, (SideBySide(tuple(blocks)),))


def spectra_of(encoder: ShownEncoder, seed: int) -> Iterator[tuple[str, Float[Tensor, " d"]]]:
    """Yields the names and the eigenvalues, descending, of the covariances that are known of a run."""
    index = np.arange(len(encoder.images))
    if len(index) > MOST_ROWS:
        index = np.sort(np.random.default_rng(seed).choice(len(index), MOST_ROWS, replace=False))
    features = encoder.features[index]
    yield "features", covariance_spectrum(features)
    yield f"features of the {encoder.reference}", covariance_spectrum(encoder.reference_features[index])
    if (method := encoder.method) is None:
        return
    yield "embeddings", covariance_spectrum(embed(method, features))
    if isinstance(method, CorInfoMax):
        yield "R1, CorInfoMax's own covariance", torch.linalg.eigvalsh(method.criterion.R1).flip(0).clamp_min(0)


def effective_rank(eigenvalues: Float[Tensor, " d"]) -> float:
    """Returns the exponential of the entropy of the roots of the eigenvalues; 0 if all are 0."""
    roots = eigenvalues.sqrt()
    if not roots.sum():
        return 0.0
    return float(torch.special.entr(roots / roots.sum()).sum().exp())


def _chart(title: str, spectra: Mapping[str, Float[Tensor, " d"]], styles: Mapping[str, int]) -> list[Block]:
    """Returns the chart of some spectra; or words if all of them are 0."""
    curves, notes = [], []
    for name, eigenvalues in spectra.items():
        total, width = float(eigenvalues.sum()), len(eigenvalues)
        notes.append(f"{name} {effective_rank(eigenvalues):.1f} of {width}")
        if total > 0:
            shares = [x / total if x / total > LEAST_SHARE else None for x in eigenvalues.tolist()]
            curves.append(Curve(name, tuple(map(float, range(1, width + 1))), tuple(shares), styles[name]))
    if not curves:
        return [Paragraph(f"{title}: there is no variance, as all images have the same vector.")]
    caption = f"Effective rank: {'; '.join(notes)}."
    return [LineChart(title, "direction", "share of the variance", tuple(curves), log_y=True, caption=caption)]


@torch.no_grad()
def embed(method: Method, features: Float[Tensor, "n d"]) -> Float[Tensor, "n D"]:
    """Returns the projector's outputs for features of the encoder that is kept; that of the EMA teacher if it is its.

    Args:
        method: The method as it was trained.
        features: Features of ``method.eval_encoder``.
    """
    teacher: Any = getattr(method, "teacher", None)
    is_teachers = teacher is not None and method.eval_encoder is not method.encoder
    projector = teacher.module[1] if is_teachers else getattr(method, "projector", torch.nn.Identity())
    return projector(features.to(next(method.parameters()).dtype))
