"""CorInfoMax in Lightning Fabric.

python fabric_corinfomax.py
python fabric_corinfomax.py 2    # two ranks, which compute what one does

Prints the loss of each epoch, from 13.7 to 10.7, and at last:
    pixels 0.822, features 0.89
"""

import logging
import sys

import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from lightning import Fabric
from torch import nn

from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import l2_normalize

logging.disable(logging.INFO)  # else Lightning says how it starts the ranks
fabric = Fabric(devices=int(sys.argv[1]) if sys.argv[1:] else 1)
fabric.launch()
torch.manual_seed(0)  # all ranks start with the same weights
network = synchronise_batch_norm(Network(nn.Identity()), fabric.device)
criterion = CorInfoMaxLoss(64).to(fabric.device)  # its covariances are buffers: fabric.save them with the network
student, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=3e-3))
loader = TwoViews()  # a DataLoader would go through fabric.setup_dataloaders
for epoch in range(EPOCHS):
    for views in loader:
        z1, z2 = (l2_normalize(z) for z in student(*fabric.to_device(views)))
        loss = criterion(z1, z2)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
    fabric.print(f"epoch {epoch}: {loss:.3f}")
if fabric.is_global_zero:
    show_accuracy(network)
