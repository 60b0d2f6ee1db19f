"""SimCLR's loss against Eq. 1 of its paper, pair by pair, and InfoNCE against Eq. 1 of CARL's."""

import math

import pytest

from infomax.methods.simclr import nt_xent_loss
from losses_of_methods import LOSSES


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_nt_xent_is_the_mean_over_all_views_of_equation_1(temperature):
    arguments = LOSSES["simclr"].make(rows=5)
    views = [*arguments["z1"], *arguments["z2"]]
    losses = []
    for i, view in enumerate(views):
        twin = views[(i + 5) % 10]
        others = sum(math.exp(cosine(view, x) / temperature) for j, x in enumerate(views) if j != i)
        losses.append(-math.log(math.exp(cosine(view, twin) / temperature) / others))
    assert float(nt_xent_loss(**arguments, temperature=temperature)) == pytest.approx(sum(losses) / 10, rel=1e-12)
