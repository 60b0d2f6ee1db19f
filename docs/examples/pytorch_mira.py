"""MIRA in a plain PyTorch loop.

python pytorch_mira.py
torchrun --nproc-per-node 2 pytorch_mira.py    # two ranks, which compute what one does

Prints the loss of each epoch, from 4.45 to 1.85, and at last:
    pixels 0.822, features 0.89
"""

import os

import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from infomax.methods.mira import assign, swapped_prediction_loss
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import Prototypes, Teacher

if "RANK" in os.environ:  # torchrun sets it
    distributed.init_process_group()
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)  # all ranks start with the same weights
network = synchronise_batch_norm(Network(Prototypes(64, 100)).to(device), device)
teacher = Teacher(network.trunk, momentum=0.9)
student = DistributedDataParallel(network) if distributed.is_initialized() else network
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
loader = TwoViews()
for epoch in range(EPOCHS):
    for step, views in enumerate(loader):
        views = [x.to(device) for x in views]
        logits = student(*views)
        targets = [assign(network.head(teacher(x)), temperature=0.15) for x in views]
        loss = swapped_prediction_loss(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps_done = epoch * len(loader) + step + 1
        teacher.ema_update(network.trunk, progress=steps_done / (EPOCHS * len(loader)))
    if os.environ.get("RANK", "0") == "0":
        print(f"epoch {epoch}: {loss:.3f}")
if os.environ.get("RANK", "0") == "0":
    show_accuracy(network)
if distributed.is_initialized():
    distributed.destroy_process_group()
