"""CorInfoMax appendix K, Figure A.3: the eigenvalues of the covariance of the embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from infomax.figures.drawing import COLOURS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import features_of, labels_of, open_images, open_method
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count
from infomax.runtime.text import note

if TYPE_CHECKING:
    from torch import Tensor

OWN = "R1 of the training"
ZERO = 1e-7
"""Share of the largest eigenvalue below which one counts as 0, as of float32."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    images: int = 10_000
    """Test images of the covariance, at most, at equal distances."""

    def __post_init__(self) -> None:
        check_count("--set images", self.images, low=2)


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each run."""
    labels = labels_of(request.runs)
    return [Part(labels[run.path], partial(_spectra, run, labels[run.path], request)) for run in request.runs]


def _spectra(run: Run, name: str, request: FigureRequest) -> list[Row]:
    """Returns the eigenvalues of the embeddings of test images, and of R1 if the method has one."""
    import torch

    from infomax.analysis.measures import covariance_spectrum
    from infomax.methods.corinfomax import CorInfoMax
    from infomax.nn.blocks import l2_normalize

    method = open_method(run)
    rows = []
    if isinstance(method, CorInfoMax):
        rows += _rows(name, OWN, 0, torch.linalg.eigvalsh(method.criterion.R1).flip(0).clamp_min(0))
    features, _, words = features_of(run, open_images(run, request), request, request.settings.images)
    embeddings = l2_normalize(embeddings_of(method, features).double())
    return [*rows, *_rows(name, words, len(features), covariance_spectrum(embeddings))]


def embeddings_of(method: Any, features: "Tensor") -> "Tensor":
    """Returns the projector's outputs for features of the encoder that is kept."""
    from infomax.reporting.run_page.spectrum import embed

    return embed(method, features)


def _rows(run: str, of: str, images: int, eigenvalues: "Tensor") -> list[Row]:
    total, shares = float(eigenvalues.sum()), eigenvalues.cumsum(0) / eigenvalues.sum()
    if total == 0:
        note(f"{run}: all {of} have the same embedding: the spectrum is 0")
        shares = eigenvalues
    return [
        {"run": run, "of": of, "images": images or None, "rank": rank, "eigenvalue": value, "cumulative": share}
        for rank, (value, share) in enumerate(zip(eigenvalues.tolist(), shares.tolist(), strict=True), start=1)
    ]


def count(rows: Sequence[Row]) -> str:
    """Returns the numbers of images in words."""
    counts = sorted({row["images"] for row in rows if row["images"]})
    return f"{' and '.join(f'{n:,}' for n in counts)} images a run"


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the eigenvalues and their cumulative shares, a line for each covariance."""
    left, right = figure.subplots(1, 2)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for (run, of), spectrum in group_rows(rows, "run", "of").items():
        ranks, values = [row["rank"] for row in spectrum], [row["eigenvalue"] for row in spectrum]
        zeros = sum(value <= ZERO * values[0] for value in values)
        style = {"color": COLOURS[runs.index(run) % len(COLOURS)], "linestyle": "--" if of == OWN else "-"}
        left.plot(
            ranks, [value or None for value in values], label=f"{run}, {of.split(' of ')[0]}: {zeros} zeros", **style
        )
        right.plot(ranks, [row["cumulative"] for row in spectrum], **style)
    left.set(yscale="log", xlabel="rank of the eigenvalue", ylabel="eigenvalue")
    right.set(xlabel="rank of the eigenvalue", ylabel="cumulative share", ylim=(0, 1.02))
    left.legend(frameon=False, fontsize=7)


FIGURE = Figure(
    name="spectrum",
    title="Eigenvalues of the covariance of the embeddings, as CorInfoMax's beside SimCLR's",
    text=(
        "The covariance is that of the projector's outputs of length 1 for the test images, by the networks in "
        "evaluation mode; and of CorInfoMax also the running R1 that its loss holds, of augmented training images. "
        "Eigenvalues below 1e-7 of the largest are counted as zeros: in the paper SimCLR has 8 of 128, and most of its "
        "variance in 50."
    ),
    sources=("CorInfoMax Figure A.3",),
    needs=Needs(
        runs="a run of CorInfoMax, and one of SimCLR beside it, of one width",
        commands=(
            "infomax pretrain --recipe corinfomax/cifar10_spectrum --out runs/corinfomax",
            "infomax pretrain --recipe corinfomax/digits --data digits --out runs/corinfomax",
            "infomax pretrain --recipe simclr/digits --data digits --out runs/simclr",
        ),
    ),
    settings=Settings,
    columns={
        "run": "run whose embeddings they are",
        "of": "which covariance: of R1, or of which images",
        "images": "images of the covariance; empty for R1",
        "rank": "rank of the eigenvalue, from 1 for the largest",
        "eigenvalue": "eigenvalue of the covariance",
        "cumulative": "share of the sum that this and all larger eigenvalues have",
    },
    parts=parts,
    count=count,
    draw=draw,
    size=(8.0, 4.0),
    minutes=0.1,
)
