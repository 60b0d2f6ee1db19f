"""Health of a run without labels: when it is measured, on which images, and what a row of the metrics says of it.

In: the rows that an :class:`OutputObserver` has kept of a step. Out: a row of numbers on the first rank, whose keys
docs/reference/run-folder.md explains. A measured step has one collective more than others, in which the first rank also
tells the other ranks which step is to be measured next; no other step has anything to wait for.
"""

from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from infomax.analysis import measures
from infomax.analysis.rows import Rows
from infomax.methods.base import Method
from infomax.runtime.collectives import gather, rank, world_size
from infomax.training.output_observer import ROWS_A_PROTOTYPE, OutputObserver, PrototypeCounter, positions

FIRST_STEPS = (0, 1, 2, 5, 10, 20, 40)
"""The steps at the start of a run that are measured whatever it costs: most of what goes wrong begins there."""
MEASUREMENTS = 100
"""Later measurements of a run, at most."""
LEAST_INTERVAL = 200
"""The time from one of the later measurements to the next, at least, as a multiple of what the last one took."""
MOST_ROWS, WIDE, MOST_ROWS_IF_WIDE = 512, 512, 256
"""The number of images of a measurement; that of wider embeddings or features is smaller, as it takes longer."""


def next_measurement(step: int, total_steps: int, interval: int) -> int:
    """Returns the next step to measure after ``step``; ``total_steps`` if there is none.

    The last step of a run is measured in any case. The later ones are at whole per cents of the run, so that
    measurements of equally long runs are of the same steps.

    Args:
        step: The number of updates at the last measurement.
        total_steps: The number of steps of the run.
        interval: The number of steps to the next one, at least.
    """
    last = total_steps - 1
    if step >= last:
        return total_steps
    for early in FIRST_STEPS:
        if early > step:
            return min(early, last)
    least = step + max(1, interval)
    number = (least - 1) * MEASUREMENTS // total_steps + 1
    return min(last, -(-number * total_steps // MEASUREMENTS))


class Health:
    """Measures the health of a run, on one of its ranks. All ranks measure the same steps.

    Args:
        method: The method that is trained.
        batch_size: Images of a step, over all ranks.
        steps_per_epoch: Number of steps of an epoch.
        total_steps: Number of steps of the run.
        done: Number of steps that the run goes on from.
    """

    def __init__(self, method: Method, *, batch_size: int, steps_per_epoch: int, total_steps: int, done: int):
        self.method, self.batch_size, self.total_steps = method, batch_size, total_steps
        self.next_step = 0 if done == 0 else next_measurement(done - 1, total_steps, interval=1)
        """The next step to measure: the number of updates that the weights will have had."""
        first, last = self._share(rank())
        self._kept = self._kept_on(rank(), MOST_ROWS)
        self.counter = PrototypeCounter(batch_size=batch_size, steps_per_epoch=steps_per_epoch, share=(first, last))
        self._cost = self._seconds = 0.0
        self._steps = 0

    def _share(self, number: int) -> tuple[int, int]:
        """Returns where the images of a rank begin and end in the global batch."""
        first, last = (r * self.batch_size // world_size() for r in (number, number + 1))
        return first, last

    def _kept_on(self, number: int, count: int) -> np.ndarray:
        """Returns the numbers of the images that a rank keeps among its own, of ``count`` over all ranks."""
        (first, last), kept = self._share(number), positions(self.batch_size, count)
        return kept[(kept >= first) & (kept < last)] - first

    def observer(self, step: int) -> OutputObserver | None:
        """Returns what observes the next step; None if nothing is to be seen of it.

        Args:
            step: The number of updates that the weights have had.
        """
        kept = self._kept if step >= self.next_step else None
        return None if kept is None and not self.counter.is_needed else OutputObserver(kept, self.counter)

    def end_step(self, seconds: float) -> None:
        """Counts a step, which took so long, for the interval between measurements."""
        self._seconds, self._steps = self._seconds + seconds, self._steps + 1
        self.counter.end_step()

    def measure(self, observer: OutputObserver, step: int) -> dict[str, Any] | None:
        """Measures a step that was observed; call it on all ranks.

        Args:
            observer: What has been kept of the step.
            step: The number of updates that the weights had in it.

        Returns:
            The row on the first rank, without ``step`` and ``epoch``; None on others, and if an output is infinite or
            NaN.
        """
        start, row = perf_counter(), None
        step_seconds = self._seconds / max(1, self._steps)
        interval = ceil(LEAST_INTERVAL * self._cost / step_seconds) if step_seconds else 1
        outputs, counts, self.next_step = self._gather(observer, next_measurement(step, self.total_steps, interval))
        if rank() == 0 and all(x.isfinite().all() for x in outputs.values()):
            row = describe(outputs, counts, self.method)
        self.counter.begin_anew_if_full()
        self._cost, self._seconds, self._steps = perf_counter() - start, 0.0, 0
        return row

    def _gather(
        self, observer: OutputObserver, next_step: int
    ) -> tuple[dict[str, Float64[Tensor, "n d"]], Tensor | None, int]:
        """Gathers the rows that ranks have kept, by one collective.

        Returns:
            The outputs of all images by their names, on the CPU and on the first rank alone; the counts of prototypes;
            and the next step to measure in the opinion of the first rank.
        """
        parts = {f"embeddings {crop}": torch.cat(kept) for crop, kept in enumerate(observer.embeddings)}
        parts["features"] = torch.cat(observer.features)
        if observer.probabilities:
            parts["probabilities"] = torch.cat(observer.probabilities)
        widths = [x.shape[1] for x in parts.values()]
        is_wide = max(x.shape[1] for name, x in parts.items() if name != "probabilities") > WIDE
        count = MOST_ROWS_IF_WIDE if is_wide else MOST_ROWS
        chosen = np.flatnonzero(np.isin(self._kept, self._kept_on(rank(), count)))
        block = torch.cat([x.double() for x in parts.values()], 1)
        if len(chosen) < len(block):
            block = block[torch.from_numpy(chosen).to(block.device)]
        counts = block.new_zeros(0) if self.counter.counts is None else self.counter.counts.double()
        flat = torch.cat([block.new_tensor([next_step]), counts, block.flatten()])
        lengths = [1 + len(counts) + len(self._kept_on(r, count)) * sum(widths) for r in range(world_size())]
        gathered = gather(flat, lengths)[0]
        if rank() > 0:
            return {}, None, int(gathered[0])
        shares = gathered.cpu().split(lengths)
        header = 1 + len(counts)
        rows = torch.cat([share[header:].view(-1, sum(widths)) for share in shares])
        outputs = dict(zip(parts, rows.split(widths, 1), strict=True))
        total = torch.stack([share[1:header] for share in shares]).sum(0) if len(counts) else None
        return outputs, total, int(shares[0][0])


def describe(
    outputs: dict[str, Float64[Tensor, "n d"]], counts: Float64[Tensor, " k"] | None, method: Method
) -> dict[str, Any]:
    """Returns the numbers of a row of health.

    Args:
        outputs: Outputs of the networks for the same images by their names, on the CPU.
        counts: The number of images of each prototype over the last steps; None if it is not known.
        method: The method, which may measure more.
    """
    first, *others = (Rows.gathered(x) for name, x in outputs.items() if name.startswith("embeddings"))
    features = Rows.gathered(outputs["features"])
    row: dict[str, Any] = {"health_rows": len(first)}
    for name, rows in (("embedding", first), ("feature", features)):
        row |= {f"{name}_{key}": measure(rows) for key, measure in MEASURES.items()}
    row["embedding_norm"] = float(first.values.norm(dim=1).mean())
    row["embedding_uniformity"] = measures.uniformity(first)
    if others:
        row["embedding_alignment"] = measures.alignment(first, others[0])
    if "probabilities" in outputs:
        row |= _describe_assignments(Rows.gathered(outputs["probabilities"]), counts)
    return row | method.own_measures(first.values)


MEASURES = {
    "mean_cosine": measures.mean_cosine,
    "collapse_level": measures.collapse_level,
    "effective_rank": measures.effective_rank,
    "rankme": measures.rankme,
    "participation_ratio": measures.participation_ratio,
}
"""What is measured of embeddings and of features, by the ends of the keys."""


def _describe_assignments(probabilities: Rows, counts: Tensor | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "assignment_mutual_information": measures.mutual_information(probabilities),
        "assignment_marginal_entropy": measures.marginal_entropy(probabilities),
        "prototypes": probabilities.width,
    }
    if counts is not None and counts.sum() >= ROWS_A_PROTOTYPE * len(counts):
        row["prototypes_in_use"] = measures.share_in_use(counts)
    return row
