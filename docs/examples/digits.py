"""What the scripts beside this file share: views of scikit-learn's digits, a small network, and how good it is.

Put your own data loader, views and network in the place of these.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.nn.blocks import mlp
from infomax.runtime.collectives import rank, world_size

EPOCHS = 30
IMAGES = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16  # [1797, 1, 8, 8], from 0 to 1
LABELS = torch.from_numpy(load_digits().target)


class TwoViews:
    """Batches of 256 images, of which each rank yields its share: two views [n, 1, 8, 8], moved and turned at random.

    Every rank draws the numbers of the whole batch, so that several ranks train on the views that one would.
    """

    epoch = 0

    def __len__(self) -> int:
        return len(IMAGES) // 256

    def __iter__(self) -> Iterator[list[Tensor]]:
        generator = torch.Generator().manual_seed(self.epoch)
        self.epoch += 1
        for index in torch.randperm(len(IMAGES), generator=generator).split(256)[: len(self)]:
            affine = torch.eye(2, 3) + 0.15 * torch.randn(2, len(index), 2, 3, generator=generator)
            x = IMAGES[index[rank() :: world_size()]]
            grids = [F.affine_grid(a[rank() :: world_size()], x.shape, align_corners=False) for a in affine]
            yield [F.grid_sample(x, grid, align_corners=False) for grid in grids]


class Network(nn.Module):
    """An encoder, a projector and a head; one call takes all views of a step, as DistributedDataParallel wants it."""

    def __init__(self, head: nn.Module):
        super().__init__()
        widths = [1, 16, 32, 64]
        blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
        encoder = nn.Sequential(nn.Upsample(scale_factor=2), *blocks, nn.Flatten())  # features [n, 256]
        self.trunk, self.head = nn.Sequential(encoder, mlp(256, 256, 64, norm=True)), head

    def forward(self, *views: Tensor) -> list[Tensor]:
        return [self.head(self.trunk(x)) for x in views]


def accuracy(features: Tensor) -> float:
    """Returns how often the nearest of five labelled images of each digit, by cosine, is of the same digit."""
    features = F.normalize(features, dim=1)
    labelled = torch.cat([(digit == LABELS).nonzero()[:5, 0] for digit in range(10)])
    return (LABELS[labelled][(features @ features[labelled].T).argmax(1)] == LABELS).float().mean().item()


@torch.no_grad()
def show_accuracy(network: Network) -> None:
    """Prints how well five labelled images of each digit name the others, by pixels and by the encoder's features."""
    encoder = network.trunk[0].eval().cpu()
    print(f"pixels {accuracy(IMAGES.flatten(1)):.3f}, features {accuracy(encoder(IMAGES)):.3f}")
