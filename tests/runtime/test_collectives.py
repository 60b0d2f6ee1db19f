"""Compares two and three ranks with one process, in float64, on uneven batches of rows whose order matters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from infomax.functional import ld_entropy, ld_mutual_information
from infomax.methods.carl import consistency_loss, uniformity_loss
from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.methods.mira import assign, swapped_prediction_loss
from infomax.methods.mveb import alignment, entropy_surrogate
from infomax.methods.swav import swapped_loss
from infomax.runtime.collectives import gather, global_logmeanexp, global_mean, rank, world_size
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
ROWS_OF_RANKS = {2: [9, 4], 3: [5, 2, 6]}  # by world size


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


def corinfomax(x: Tensor, y: Tensor) -> Tensor:
    loss = CorInfoMaxLoss(6, attraction=3.0, forgetting=0.3).double()
    loss(x, y)  # so that the step below starts from the statistics of a first one
    return loss(x, y)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mira": lambda x, y: swapped_prediction_loss([x, y], [assign(0.1 * v.detach()) for v in (x, y)]),
    "mira-log-domain": lambda x, y: swapped_prediction_loss(
        [x, y], [assign(90 * v.detach(), iterations=60) for v in (x, y)]
    ),
    "swav": lambda x, y: swapped_loss([x, y], epsilon=0.1),
    # Logits of some ranks alone are within the range of the linear form.
    "swav-log-domain": lambda x, y: swapped_loss([x, y], epsilon=2 * 4 / 689),
    "corinfomax": corinfomax,
    "carl": lambda x, y: consistency_loss(x, y) + 2 * uniformity_loss(x),
    "mveb": lambda x, y: -alignment(unit(x), unit(y)) - 0.3 * entropy_surrogate(unit(x)),
    "mveb-chunk": lambda x, y: entropy_surrogate(unit(x), scope="chunk:3"),
    "ld-entropy": lambda x, y: ld_entropy(x),
    "ld-information": ld_mutual_information,
    "mean": lambda x, y: global_mean(x * y).square().sum(),
    "logmeanexp": lambda x, y: global_logmeanexp(x * y).square().sum(),
}


def rows() -> tuple[Tensor, Tensor]:
    """Returns two views of 13 samples whose scale grows along the batch, so that a wrong order or weight shows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(13, 6, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 2, 13).view(-1, 1)
    return x, (x + 0.3 * torch.randn(13, 6, generator=generator, dtype=torch.float64)).flip(1)


def value_and_gradients(name: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = LOSSES[name](x, y)
    value.backward()
    zero = torch.zeros_like(x)
    return value.detach(), torch.cat([g if g is not None else zero for g in (x.grad, y.grad)], dim=1)


def values_on_this_rank() -> dict:
    """Computes each loss and its gradients from this rank's rows."""
    sizes = ROWS_OF_RANKS[world_size()]
    mine = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
    x, y = rows()
    out = {}
    for name in LOSSES:
        value, gradients = value_and_gradients(name, x[mine], y[mine])
        # DistributedDataParallel averages gradients over ranks, so one rank contributes its gradient over world_size.
        out[name] = (float(value), (gradients / world_size()).tolist())
    all_rows, own_rows = gather(x[mine])
    out["gather"] = bool(torch.equal(all_rows, x) and torch.equal(all_rows[own_rows], x[mine]))
    return out


@pytest.fixture(scope="module", params=ROWS_OF_RANKS)
def results_of_ranks(request) -> list[dict]:
    """Returns what each rank computed."""
    return on_ranks(request.param, values_on_this_rank)


@pytest.mark.parametrize("name", LOSSES)
def test_many_ranks_equal_one(results_of_ranks, name):
    value, gradients = value_and_gradients(name, *rows())
    for result in results_of_ranks:
        assert result[name][0] == pytest.approx(float(value), rel=1e-11, abs=1e-11)
    together = torch.tensor([row for result in results_of_ranks for row in result[name][1]], dtype=torch.float64)
    torch.testing.assert_close(together, gradients, rtol=1e-9, atol=1e-11)


def test_gather_keeps_the_order_of_ranks_of_unequal_length(results_of_ranks):
    assert all(result["gather"] for result in results_of_ranks)
