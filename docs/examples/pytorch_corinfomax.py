"""CorInfoMax in a plain PyTorch loop.

python pytorch_corinfomax.py
torchrun --nproc-per-node 2 pytorch_corinfomax.py    # two ranks, which compute what one does

Prints the loss of each epoch, from 13.7 to 10.7, and at last:
    pixels 0.822, features 0.89
"""

import os

import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import l2_normalize

if "RANK" in os.environ:  # torchrun sets it
    distributed.init_process_group()
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)  # all ranks start with the same weights
network = synchronise_batch_norm(Network(nn.Identity()).to(device), device)
criterion = CorInfoMaxLoss(64).to(device)  # its covariances are buffers: save criterion.state_dict() with the network
student = DistributedDataParallel(network) if distributed.is_initialized() else network
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
loader = TwoViews()
for epoch in range(EPOCHS):
    for views in loader:
        z1, z2 = (l2_normalize(z) for z in student(*(x.to(device) for x in views)))
        loss = criterion(z1, z2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if os.environ.get("RANK", "0") == "0":
        print(f"epoch {epoch}: {loss:.3f}")
if os.environ.get("RANK", "0") == "0":
    show_accuracy(network)
if distributed.is_initialized():
    distributed.destroy_process_group()
